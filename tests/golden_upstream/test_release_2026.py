"""The 2026 release itself on the toy: tokens, prompt lengths and cache lengths of 136 answers (README.md here)."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest

from harness.compress.method import build_method
from harness.models.families import open_model
from harness.settings.compose import compose_config
from harness.toy import CHECKPOINT
from harness.toy.benchmarks import build
from harness.toy.layouts import LAYOUTS
from harness.video.decode import open_video
from harness.video.sampling import sampling_policy

GOLDEN = json.loads(Path(__file__).with_name("release_2026_toy.json").read_text())
TIED = {(31, True, True)}
"""Video, temporal, layers of the answer in which equal scores stand on both sides of the cut over all layers."""


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    """Frames of each video by their digest, from a toy of the release's seed and size."""
    root = tmp_path_factory.mktemp("toy")
    build(root, seed=GOLDEN["toy"]["seed"], scale=GOLDEN["toy"]["scale"])
    policy = sampling_policy(compose_config([]).video)
    found = {}
    wanted = {video["frames_sha256"] for video in GOLDEN["videos"]}
    for layout in LAYOUTS:
        for path in sorted((root / layout.name).rglob("*.mp4")):
            video = open_video(path, policy)
            frames = np.concatenate(list(video.windows(256)))
            digest = hashlib.sha256(frames.tobytes()).hexdigest()
            if digest in wanted:
                found[digest] = frames, video.plan.second_per_grid
    return found


def test_every_answer_is_the_release_s(shown):
    assert len(shown) == len({video["frames_sha256"] for video in GOLDEN["videos"]})
    adapter = open_model(str(CHECKPOINT), device="cpu", dtype="float32")
    asked = defaultdict(list)
    for answer in GOLDEN["answers"]:
        asked[answer["video"]].append(answer)
    differ, count = [], 0
    for number, answers in asked.items():
        frames, second_per_grid = shown[GOLDEN["videos"][number]["frames_sha256"]]
        assert second_per_grid == GOLDEN["videos"][number]["second_per_grid"]
        features = adapter.encode(frames, second_per_grid=second_per_grid)
        for theirs in answers:
            switches = {name: theirs[name] for name in ("temporal", "layers", "reforge")}
            method = build_method(
                "adaretake", semantics="release_2026", chunk_frames=GOLDEN["chunk_frames"], **switches
            )
            ours = adapter.answer(features, theirs["question"], method, theirs["context"], max_new_tokens=16)
            count += 1
            assert (ours.tokens, ours.trace.n_prompt) == (theirs["tokens"], theirs["n_prompt"]), theirs
            if ours.trace.cache_length != theirs["cache_lengths"]:
                differ.append((number, theirs["temporal"], theirs["layers"]))
                assert sum(ours.trace.cache_length) == sum(theirs["cache_lengths"]) and ours.trace.kept_margin == 0
    assert count == 136 and differ == sorted(TIED)
