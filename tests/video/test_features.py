"""Features come back exactly, within their bounds, whatever happens to the folder."""

import logging
import multiprocessing
import os
from dataclasses import replace

import pytest
import torch

from harness.errors import UserError
from harness.video.features import FeatureKey, Features, FeatureStore, feature_bytes, video_digest
from harness.video.sampling import SamplingPolicy

KEY = FeatureKey(
    video="ab" * 32,
    policy=SamplingPolicy(fps=2, max_frames=64),
    backend="decord",
    weights="w1",
    dtype="bfloat16",
)
ENTRY_BYTES = 1000 * 2


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


def never():
    raise AssertionError("computed again")


def entries(folder):
    return sorted(path.name for path in folder.iterdir())


def test_features_are_computed_once():
    store = FeatureStore(10**6)
    same(store.get_or_compute(KEY, features), features())
    same(store.get_or_compute(KEY, never), features())
    assert (store.computed, store.hits_memory, store.hits_folder) == (1, 1, 0)


def test_memory_is_bounded_and_the_least_recently_used_go_first():
    store = FeatureStore(2 * ENTRY_BYTES)
    for i in (0, 1, 0, 2):  # 0 was used again, so 1 goes
        store.get_or_compute(other(i), lambda i=i: features(i))
        assert store.bytes_in_memory <= 2 * ENTRY_BYTES
    assert store.find(other(1)) is None
    same(store.find(other(0)), features(0))
    same(store.find(other(2)), features(2))


def test_one_video_that_cannot_fit_is_refused_before_it_is_decoded():
    store = FeatureStore(10**9)
    needed = feature_bytes([(147_456, 3584)], "bfloat16")
    assert needed == 147_456 * 3584 * 2
    with pytest.raises(
        UserError, match=r"take 1.06 GB .* run.feature_memory_gb=1 allows; set run.feature_memory_gb=1.1"
    ):
        store.require(needed)
    store.require(10**9)


def test_features_larger_than_announced_are_refused():
    with pytest.raises(UserError, match="run.feature_memory_gb"):
        FeatureStore(100).get_or_compute(KEY, features)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.uint8])
def test_feature_bytes_is_what_tensors_take(dtype):
    tensors = {"a": torch.zeros(3, 5, dtype=dtype), "b": torch.zeros(7, dtype=dtype)}
    assert feature_bytes([(3, 5), (7,)], str(dtype)) == Features(tensors).nbytes


def test_an_unknown_dtype_is_named():
    with pytest.raises(UserError, match="dtype 'int3' is unknown; allowed: .*bfloat16"):
        feature_bytes([(1,)], "int3")


def test_a_folder_outlives_the_process(tmp_path):
    FeatureStore(10**6, folder=tmp_path / "new" / "folder").get_or_compute(KEY, features)
    store = FeatureStore(10**6, folder=tmp_path / "new" / "folder")
    same(store.get_or_compute(KEY, never), features())
    assert (store.computed, store.hits_folder) == (0, 1)


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
    store = FeatureStore(10**6, folder=tmp_path)
    store.get_or_compute(KEY, features)
    assert store.find(replace(KEY, **change)) is None


def test_the_key_of_a_video_follows_its_bytes(tmp_path):
    a, b = tmp_path / "a.mp4", tmp_path / "b.mp4"
    a.write_bytes(b"x" * 1000)
    b.write_bytes(b"x" * 1000)
    assert video_digest(a) == video_digest(b)
    b.write_bytes(b"x" * 999 + b"y")
    os.utime(b, ns=(0, 12345))
    assert video_digest(a) != video_digest(b)


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
def test_a_damaged_entry_is_computed_again_with_a_warning(tmp_path, caplog, damage):
    FeatureStore(10**6, folder=tmp_path).get_or_compute(KEY, features)
    damage(tmp_path / f"{KEY.digest}.safetensors")
    store = FeatureStore(10**6, folder=tmp_path)
    with caplog.at_level(logging.WARNING):
        same(store.get_or_compute(KEY, features), features())
    assert store.computed == 1 and "is damaged" in caplog.text
    same(FeatureStore(10**6, folder=tmp_path).get_or_compute(KEY, never), features())


def test_the_folder_is_bounded_and_the_least_recently_used_go_first(tmp_path):
    limit = 9300  # room for three entries of 2000 bytes and their headers
    for i in range(4):
        FeatureStore(10**6, folder=tmp_path, folder_bytes=limit).add(other(i), features(i))
        os.utime(tmp_path / f"{other(i).digest}.safetensors", ns=(0, i * 10**9))
        assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= limit
    assert f"{other(0).digest}.safetensors" not in entries(tmp_path)
    # Use 1, the oldest, which makes 2 the next to go.
    store = FeatureStore(10**6, folder=tmp_path, folder_bytes=limit)
    assert store.find(other(1)) is not None
    store.add(other(4), features(4))
    assert entries(tmp_path) == sorted(f"{other(i).digest}.safetensors" for i in (1, 3, 4))


def test_an_entry_larger_than_the_folder_may_be_is_not_stored(tmp_path, caplog):
    store = FeatureStore(10**6, folder=tmp_path, folder_bytes=100)
    same(store.get_or_compute(KEY, features), features())
    assert entries(tmp_path) == [] and "not stored: run.feature_dir_gb" in caplog.text


def test_a_full_disk_does_not_stop_the_run(tmp_path, caplog, monkeypatch):
    import safetensors.torch

    def full(tensors, path, metadata):
        path.write_bytes(b"half an entry")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(safetensors.torch, "save_file", full)
    store = FeatureStore(10**6, folder=tmp_path)
    same(store.get_or_compute(KEY, features), features())
    assert entries(tmp_path) == [] and "No space left on device" in caplog.text


def test_what_killed_processes_left_is_removed(tmp_path):
    old, recent = tmp_path / ".old.tmp", tmp_path / ".recent.tmp"
    old.touch()
    recent.touch()
    os.utime(old, (0, 0))
    FeatureStore(10**6, folder=tmp_path).add(KEY, features())
    assert not old.exists() and recent.exists()


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="run.feature_dir=.*file/sub cannot be made"):
        FeatureStore(10**6, folder=tmp_path / "file" / "sub")


def hammer(folder, seed):
    """One of several processes that read, write and evict in one small folder."""
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(60):
        i = int(torch.randint(0, 6, (1,), generator=generator))
        store = FeatureStore(10**6, folder=folder, folder_bytes=9000)
        same(store.get_or_compute(other(i), lambda i=i: features(i)), features(i))


def test_several_processes_share_a_folder(tmp_path):
    """Every process always gets the right features, and no warning-worthy state is left."""
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=hammer, args=(tmp_path, seed)) for seed in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert all(name.endswith(".safetensors") for name in entries(tmp_path))
