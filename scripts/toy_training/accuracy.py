"""Answer the toy benchmarks with a checkpoint: through the harness's own prompts, adapter and methods."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import pandas as pd

from harness.benchmarks.questions import load_asked
from harness.compress.method import Method, build_method
from harness.models.qwen2_5_vl import Qwen25VL
from harness.settings.compose import compose_config
from harness.toy.layouts import LAYOUTS
from harness.toy.questions import kind_of
from harness.toy.world import FPS
from harness.video.decode import open_video
from harness.video.sampling import SamplingPolicy

MOST = 256  # frames, of the longest video
UNCOMPRESSED = {"uncompressed": (build_method("none"), None)}


def answers(
    checkpoint: Path,
    root: Path,
    settings: Mapping[str, tuple[Method, int | None]] = UNCOMPRESSED,
    *,
    benchmarks: Sequence[str] = tuple(layout.name for layout in LAYOUTS),
    every: int = 1,
) -> Iterable[dict]:
    """One row per answer: benchmark, kind, setting, tokens of the prompt and of its text, right.

    `settings` maps a name to a method and a context length in tokens; of the videos below `root`
    (see `benchmarks.build`), each `every`-th is used.
    """
    adapter = Qwen25VL.load(str(checkpoint))
    for benchmark in benchmarks:
        by_video = defaultdict(list)
        for row, question in load_asked(compose_config([f"task={benchmark}"]).task, root):
            by_video[question.video].append((row, question))
        for path in list(by_video)[::every]:
            video = open_video(path, SamplingPolicy(fps=FPS, max_frames=MOST), backend="pyav")
            features = adapter.encode(video.windows(MOST), len(video.plan.indices), video.plan.second_per_grid)
            for row, question in by_video[path]:
                for name, (method, context) in settings.items():
                    said = adapter.answer(features, question.prompt, method, context, max_new_tokens=2)
                    yield {
                        "benchmark": benchmark,
                        "kind": kind_of(row["question"]),
                        "setting": name,
                        "prompt": said.trace.n_prompt,
                        "text": said.trace.n_prompt - said.trace.n_video,
                        "right": said.text.strip() == question.answer,
                    }


def table(rows: Iterable[dict]) -> str:
    """Percent right by setting and benchmark, then by setting and kind of question, with counts."""
    frame = pd.DataFrame(rows)
    parts = []
    for column in ("benchmark", "kind"):
        counts = frame[frame.setting == frame.setting.iloc[0]].groupby(column).size()
        percent = frame.pivot_table(index="setting", columns=column, values="right", sort=False) * 100
        percent["all"] = frame.groupby("setting").right.mean() * 100
        percent.columns = [f"{name} (n={counts.get(name, counts.sum())})" for name in percent.columns]
        parts.append(percent.round(1).to_string())
    text = frame.groupby("benchmark")[["prompt", "text"]].agg(["min", "mean", "max"]).round(1)
    return "\n\n".join([*parts, f"tokens of the prompt, and of its text\n{text.to_string()}"])
