"""Video-MME: a parquet file, videos of three lengths, subtitles of some as srt."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from harness.toy.questions import LETTERS, Layout, Made, Wanted, mixed, subtitle_lines, times, toy_clock

TASKS = {
    "colour": "Attribute Perception",
    "shape": "Object Recognition",
    "scene": "Spatial Perception",
    "order": "Temporal Perception",
    "both": "Object Reasoning",
    "count": "Counting Problem",
}
DOMAINS = {
    "Knowledge": "Geography",
    "Film & Television": "Animation",
    "Sports Competition": "Athletics",
    "Artistic Performance": "Stage Play",
    "Life Record": "Daily Life",
    "Multilingual": "Multilingual",
}


def plan(scale: float) -> list[Wanted]:
    wanted: list[Wanted] = []
    for group, seconds in {"short": 96, "medium": 112, "long": 128}.items():
        for _ in range(times(12, scale)):
            i = len(wanted)
            wanted.append(Wanted(f"videos/toy{i:08d}.mp4", seconds, mixed(i), group))
    return wanted


def annotate(root: Path, videos: Sequence[Made]) -> None:
    rows = []
    for i, made in enumerate(videos):
        domain = list(DOMAINS)[i % len(DOMAINS)]
        for j, asked in enumerate(made.asked, start=1):
            rows.append(
                {
                    "video_id": f"{i + 1:03d}",
                    "duration": made.wanted.group,
                    "domain": domain,
                    "sub_category": DOMAINS[domain],
                    "url": f"https://toy.invalid/{made.wanted.stem}",
                    "videoID": made.wanted.stem,
                    "question_id": f"{i + 1:03d}-{j}",
                    "task_type": TASKS[asked.question.kind],
                    "question": asked.question.text,
                    "options": [f"{letter}. {option}." for letter, option in zip(LETTERS, asked.options, strict=False)],
                    "answer": LETTERS[asked.correct],
                }
            )
        if made.wanted.group == "long" or i % 3:
            blocks = (
                f"{k}\n{toy_clock(start, decimal=',')} --> {toy_clock(end, decimal=',')}\n{line}\n"
                for k, (start, end, line) in enumerate(subtitle_lines(made), start=1)
            )
            target = root / "subtitles" / f"{made.wanted.stem}.srt"
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text("\n".join(blocks), encoding="utf-8")
    pd.DataFrame(rows).to_parquet(root / "test.parquet", index=False)


LAYOUT = Layout("videomme", plan, annotate)
