"""Which file this is: nice python -m pytest tests/test_digest.py"""

import os

import blake3
import pytest

from harness import digest
from harness.digest import digest_now, file_digest, is_remembered


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "adaretake" / "digests"


@pytest.fixture
def read(monkeypatch):
    """Counts the files that are read."""
    taken = []
    real = blake3.blake3
    monkeypatch.setattr(blake3, "blake3", type("Counted", (), {"AUTO": real.AUTO, "__new__": count(taken, real)}))
    return taken


def count(taken, real):
    def make(cls, **options):
        taken.append(options)
        return real(**options)

    return make


@pytest.mark.parametrize("where", [0, 2_000_003, -1])
def test_one_changed_byte_anywhere_shows(tmp_path, where):
    data = bytearray(os.urandom(4_000_000))
    (tmp_path / "a").write_bytes(data)
    data[where] ^= 1
    (tmp_path / "b").write_bytes(data)
    assert file_digest(tmp_path / "a") != file_digest(tmp_path / "b")
    assert file_digest(tmp_path / "a") == f"4000000-{blake3.blake3((tmp_path / 'a').read_bytes()).hexdigest()[:32]}"


def test_an_empty_file_has_a_digest_and_a_file_that_is_not_there_has_none(tmp_path):
    (tmp_path / "empty").touch()
    assert file_digest(tmp_path / "empty").startswith("0-")
    assert digest_now(tmp_path / "absent") is None


def test_what_is_no_file_is_refused_without_waiting(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for place in (tmp_path, tmp_path / "pipe"):
        with pytest.raises(OSError, match="is not a regular file"):
            file_digest(place)


def test_digests_are_taken_once_and_again_when_the_file_changes(tmp_path, monkeypatch, read):
    video = tmp_path / "v.mp4"
    video.write_bytes(b"a" * 1000)
    monkeypatch.setattr(digest, "SETTLED_S", -1)
    first = file_digest(video)
    assert file_digest(video) == first and len(read) == 1 and is_remembered(video)
    before = os.stat(video)
    video.write_bytes(b"b" * 1000)
    os.utime(video, ns=(before.st_atime_ns, before.st_mtime_ns))  # as `cp -p` of a file of the same size
    assert file_digest(video) != first and len(read) == 2
    os.replace(video, tmp_path / "w.mp4")
    (tmp_path / "v.mp4").write_bytes(b"c" * 1000)
    assert file_digest(video) != file_digest(tmp_path / "w.mp4") and len(read) == 4


def test_a_file_that_changed_this_moment_is_not_remembered(tmp_path, read):
    (tmp_path / "v.mp4").write_bytes(b"a")
    assert file_digest(tmp_path / "v.mp4") == file_digest(tmp_path / "v.mp4") and len(read) == 2


@pytest.mark.parametrize("content", ["", "[1]", '{"x": 3}', "[1, 2, 3, 4, 5, 6]"])
def test_a_damaged_memory_costs_only_time(tmp_path, monkeypatch, cache, content):
    monkeypatch.setattr(digest, "SETTLED_S", -1)
    (tmp_path / "v.mp4").write_bytes(b"a")
    first = file_digest(tmp_path / "v.mp4")
    (note,) = cache.iterdir()
    note.write_text(content)
    assert file_digest(tmp_path / "v.mp4") == first


def test_a_cache_folder_that_takes_nothing_stops_nobody(tmp_path, monkeypatch):
    monkeypatch.setattr(digest, "SETTLED_S", -1)
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert file_digest(tmp_path / "file").startswith("0-")
