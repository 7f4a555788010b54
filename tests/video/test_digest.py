"""Which file a video is: nice python -m pytest tests/video/test_digest.py"""

import hashlib
import json
import os
from types import SimpleNamespace

import pytest

from harness.video.digest import BLOCK_BYTES, BLOCKS, Digests, video_digest


def test_the_digest_holds_the_size_and_reads_a_bounded_part_of_a_large_file(tmp_path, monkeypatch):
    path = tmp_path / "large.mp4"
    with open(path, "wb") as stream:
        stream.truncate(3 * 2**30)  # sparse
        stream.seek(2**30 * 3 - 5)
        stream.write(b"index")
    real, read = hashlib.sha256(), []
    digest = SimpleNamespace(update=lambda data: read.append(len(data)), hexdigest=real.hexdigest)
    monkeypatch.setattr(hashlib, "sha256", lambda: digest)
    assert video_digest(path).startswith(f"{3 * 2**30}-")
    assert read == [BLOCK_BYTES] * BLOCKS


@pytest.mark.parametrize("where", [0, 100_000, -1])
def test_one_changed_byte_in_head_tail_or_a_small_file_shows(tmp_path, where):
    data = bytearray(os.urandom(500_000))
    (tmp_path / "a").write_bytes(data)
    data[where] ^= 1
    (tmp_path / "b").write_bytes(data)
    assert video_digest(tmp_path / "a") != video_digest(tmp_path / "b")


def test_an_empty_file_has_a_digest(tmp_path):
    (tmp_path / "empty").touch()
    assert video_digest(tmp_path / "empty").startswith("0-")


def test_digests_are_taken_once_and_again_when_the_file_changes(tmp_path, monkeypatch):
    taken = []
    monkeypatch.setattr("harness.video.digest.video_digest", lambda path: taken.append(path) or video_digest(path))
    memory, video = tmp_path / "results" / "video_digests.json", tmp_path / "v.mp4"
    video.write_bytes(b"a" * 1000)
    digests = Digests(memory)
    first = digests.of(video)
    assert digests.of(video) == first and digests.of(tmp_path / "absent") is None
    digests.save()
    again = Digests(memory)
    assert again.of(video) == first == video_digest(video) and len(taken) == 1
    before = os.stat(video)
    video.write_bytes(b"b" * 1000)
    os.utime(video, ns=(before.st_atime_ns, before.st_mtime_ns))  # as `cp -p` of a file of the same size
    assert again.of(video) == video_digest(video) != first and len(taken) == 2


@pytest.mark.parametrize("content", ["", "[1]", '{"x": 3}'])
def test_a_damaged_memory_costs_only_time(tmp_path, content):
    memory, video = tmp_path / "video_digests.json", tmp_path / "v.mp4"
    video.write_bytes(b"a")
    memory.write_text(content.replace("x", str(video)))
    digests = Digests(memory)
    assert digests.of(video) == video_digest(video)
    digests.save()
    assert json.loads(memory.read_text())[str(video)][0] == video_digest(video)


def test_a_folder_that_takes_nothing_does_not_stop_a_run(tmp_path):
    (tmp_path / "file").touch()
    digests = Digests(tmp_path / "file" / "video_digests.json")
    assert digests.of(tmp_path / "file").startswith("0-")
    digests.save()
