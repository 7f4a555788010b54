"""Features come back exactly or not at all, and the folder keeps its bound, whatever happens to it."""

import logging
import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch

from harness.digest import file_digest
from harness.errors import UserError
from harness.video.features import FeatureFolder, FeatureKey, Features, feature_bytes
from harness.video.sampling import SamplingPolicy

KEY = FeatureKey(
    video="ab" * 32,
    policy=SamplingPolicy(fps=2, max_frames=64),
    backend="decord",
    weights="w1",
    dtype="bfloat16",
)


def features(seed=0, n=1000):
    generator = torch.Generator().manual_seed(seed)
    tensor = torch.randn(n, generator=generator).to(torch.bfloat16)
    return Features({"features": tensor}, {"grid": [1, 2, 3], "second_per_grid": 0.5 + seed})


def other(i):
    return replace(KEY, video=f"{i:064x}")


def same(a, b):
    assert a.facts == b.facts and a.tensors.keys() == b.tensors.keys()
    for name, tensor in a.tensors.items():
        assert tensor.dtype == b.tensors[name].dtype and torch.equal(tensor, b.tensors[name])


def entries(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.uint8])
def test_feature_bytes_is_what_tensors_take(dtype):
    tensors = {"a": torch.zeros(3, 5, dtype=dtype), "b": torch.zeros(7, dtype=dtype)}
    assert feature_bytes([(3, 5), (7,)], str(dtype)) == Features(tensors).nbytes


def test_an_unknown_dtype_is_named():
    with pytest.raises(UserError, match="dtype 'int3' is unknown; allowed: .*bfloat16"):
        feature_bytes([(1,)], "int3")


def test_features_outlive_what_stored_them(tmp_path):
    path = tmp_path / "new" / "folder"
    assert FeatureFolder(path, None).find(KEY) is None
    FeatureFolder(path, None).add(KEY, features())
    same(FeatureFolder(path, None).find(KEY), features())


@pytest.mark.parametrize(
    "change",
    [
        {"video": "cd" * 32},
        {"policy": SamplingPolicy(fps=2, max_frames=66)},
        {"policy": SamplingPolicy(fps=2, max_frames=64, long_side=449)},
        {"backend": "pyav"},
        {"weights": "w2"},
        {"dtype": "float32"},
        {"encoder": "window=64"},
    ],
)
def test_anything_that_changes_features_changes_the_key(tmp_path, change):
    folder = FeatureFolder(tmp_path, None)
    folder.add(KEY, features())
    assert folder.find(KEY) is not None
    assert folder.find(replace(KEY, **change)) is None


def test_the_key_of_a_video_follows_its_bytes(tmp_path):
    a, b = tmp_path / "a.mp4", tmp_path / "b.mp4"
    a.write_bytes(b"x" * 1000)
    b.write_bytes(b"x" * 1000)
    assert file_digest(a) == file_digest(b)
    b.write_bytes(b"x" * 999 + b"y")
    os.utime(b, ns=(0, 12345))
    assert file_digest(a) != file_digest(b)


def damage_cut(path):
    os.truncate(path, path.stat().st_size // 2)


def damage_byte(path):
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)


def damage_facts(path):
    data = path.read_bytes()
    assert data.count(b"0.5") == 1
    path.write_bytes(data.replace(b"0.5", b"0.6"))


def damage_empty(path):
    path.write_bytes(b"")


def damage_text(path):
    path.write_text("{}" * 100)


@pytest.mark.parametrize("damage", [damage_cut, damage_byte, damage_facts, damage_empty, damage_text])
def test_a_damaged_entry_is_removed_with_a_warning(tmp_path, caplog, damage):
    folder = FeatureFolder(tmp_path, None)
    folder.add(KEY, features())
    damage(tmp_path / f"{KEY.digest}.safetensors")
    with caplog.at_level(logging.WARNING):
        assert folder.find(KEY) is None
    assert entries(tmp_path) == [] and "is damaged" in caplog.text
    folder.add(KEY, features())
    same(folder.find(KEY), features())


def test_a_damaged_entry_that_cannot_be_removed_does_not_stop_the_run(tmp_path, caplog):
    (tmp_path / f"{KEY.digest}.safetensors").mkdir()
    assert FeatureFolder(tmp_path, None).find(KEY) is None
    assert "is damaged" in caplog.text


def test_a_folder_that_may_only_be_read_is_read(tmp_path, caplog, monkeypatch):
    def refused(*_args, **_kwargs):
        raise PermissionError(1, "Operation not permitted")

    folder = FeatureFolder(tmp_path, None)
    folder.add(KEY, features())
    monkeypatch.setattr(os, "utime", refused)
    same(folder.find(KEY), features())
    assert entries(tmp_path) == [f"{KEY.digest}.safetensors"] and caplog.text == ""


def test_the_folder_is_bounded_and_the_least_recently_used_go_first(tmp_path):
    limit = 9300  # room for three entries of 2000 bytes and their headers
    folder = FeatureFolder(tmp_path, limit)
    for i in range(4):
        folder.add(other(i), features(i))
        os.utime(tmp_path / f"{other(i).digest}.safetensors", ns=(0, i * 10**9))
        assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= limit
    assert f"{other(0).digest}.safetensors" not in entries(tmp_path)
    # Use 1, the oldest, which makes 2 the next to go.
    assert folder.find(other(1)) is not None
    folder.add(other(4), features(4))
    assert entries(tmp_path) == sorted(f"{other(i).digest}.safetensors" for i in (1, 3, 4))


def test_an_entry_larger_than_the_folder_may_be_is_not_stored(tmp_path, caplog):
    FeatureFolder(tmp_path, 100).add(KEY, features())
    assert entries(tmp_path) == [] and "not stored: run.feature_dir_gb" in caplog.text


def test_a_full_disk_does_not_stop_the_run(tmp_path, caplog, monkeypatch):
    import safetensors.torch

    def full(tensors, path, metadata):
        path.write_bytes(b"half an entry")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(safetensors.torch, "save_file", full)
    FeatureFolder(tmp_path, None).add(KEY, features())
    assert entries(tmp_path) == [] and "No space left on device" in caplog.text


def test_a_folder_that_is_lost_does_not_stop_the_run(tmp_path, caplog):
    folder = FeatureFolder(tmp_path / "folder", None)
    (tmp_path / "folder").rmdir()
    (tmp_path / "folder").touch()
    folder.add(KEY, features())
    assert "could not be stored" in caplog.text
    assert folder.find(KEY) is None


def test_what_killed_processes_left_is_removed(tmp_path):
    old, recent = tmp_path / ".old.tmp", tmp_path / ".recent.tmp"
    old.touch()
    recent.touch()
    os.utime(old, (0, 0))
    FeatureFolder(tmp_path, None).add(KEY, features())
    assert not old.exists() and recent.exists()


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="run.feature_dir=.*file/sub cannot be made"):
        FeatureFolder(tmp_path / "file" / "sub", None)


def hammer(folder, seed):
    """How many features one of several users found while all of them read, write and evict in one small folder."""
    generator = torch.Generator().manual_seed(seed)
    hits = 0
    for _ in range(60):
        i = int(torch.randint(0, 6, (1,), generator=generator))
        found = folder.find(other(i))
        if found is None:
            folder.add(other(i), features(i))
        else:
            same(found, features(i))
            hits += 1
    return hits


def processes():
    fork = multiprocessing.get_context("fork")
    return ProcessPoolExecutor(3, mp_context=fork, initializer=torch.set_num_threads, initargs=(1,))


def threads():
    return ThreadPoolExecutor(3)


@pytest.mark.parametrize("pool", [processes, threads])
def test_several_processes_and_threads_share_a_folder(tmp_path, caplog, pool):
    """Every user always finds the right features, and nothing half-written is left."""
    folder = FeatureFolder(tmp_path, 9000)
    with pool() as users:
        hits = list(users.map(hammer, [folder] * 3, range(3), timeout=120))
    assert all(hits) and "could not be stored" not in caplog.text
    assert entries(tmp_path) and all(name.endswith(".safetensors") for name in entries(tmp_path))
