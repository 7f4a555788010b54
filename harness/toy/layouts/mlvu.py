"""MLVU dev: one JSON file and one folder of videos for each kind of task."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from harness.toy.questions import Layout, Made, Wanted, times, write_json

TASKS = {
    "1_plotQA": ("plotQA", "colour"),
    "2_needle": ("findNeedle", "colour"),
    "3_ego": ("ego", "both"),
    "4_count": ("count", "count"),
    "5_order": ("order", "order"),
    "6_anomaly_reco": ("anomaly_reco", "shape"),
    "7_topic_reasoning": ("topic_reasoning", "scene"),
}


def plan(scale: float) -> list[Wanted]:
    return [
        Wanted(f"videos/{stem}/{task}_{i}.mp4", 112 if i % 3 == 0 else 128, (kind,) * 3, stem)
        for stem, (task, kind) in TASKS.items()
        for i in range(1, times(5, scale) + 1)
    ]


def annotate(root: Path, videos: Sequence[Made]) -> None:
    for stem, (task, _) in TASKS.items():
        rows = [
            {
                "video": f"{made.wanted.stem}.mp4",
                "duration": float(made.wanted.seconds),
                "question": asked.question.text,
                "candidates": asked.options,
                "answer": asked.options[asked.correct],
                "question_type": task,
            }
            for made in videos
            if made.wanted.group == stem
            for asked in made.asked
        ]
        write_json(root / "json" / f"{stem}.json", rows)


LAYOUT = Layout("mlvu", plan, annotate)
