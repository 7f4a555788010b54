"""LVBench: one line per video with its questions, whose options are part of their text."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from harness.toy.questions import LETTERS, Layout, Made, Wanted, mixed, times, toy_clock
from harness.toy.world import FPS

TYPES = {
    "colour": ["key information retrieval"],
    "shape": ["entity recognition"],
    "scene": ["entity recognition", "key information retrieval"],
    "order": ["temporal grounding"],
    "both": ["event understanding", "reasoning"],
    "count": ["event understanding", "summarization"],
}
VIDEO_TYPES = ("cartoon", "documentary", "live", "selfmedia", "sport", "tv")


def plan(scale: float) -> list[Wanted]:
    return [Wanted(f"videos/toyLV{i:06d}.mp4", 128, mixed(i + 3)) for i in range(times(36, scale))]


def annotate(root: Path, videos: Sequence[Made]) -> None:
    lines, uid = [], 0
    for i, made in enumerate(videos):
        qa = []
        for asked in made.asked:
            uid += 1
            listed = "".join(f"\n({letter}) {option}" for letter, option in zip(LETTERS, asked.options, strict=False))
            moments = [event.start / FPS for event in asked.question.evidence] or [0.0, made.wanted.seconds - 2.0]
            span = (toy_clock(t)[3:8] for t in (min(moments), max(moments) + 2))
            qa.append(
                {
                    "uid": str(uid),
                    "question": asked.question.text + listed,
                    "answer": LETTERS[asked.correct],
                    "question_type": TYPES[asked.question.kind],
                    "time_reference": "-".join(span),
                }
            )
        height, width = 112, 112
        lines.append(
            {
                "key": made.wanted.stem,
                "type": VIDEO_TYPES[i % len(VIDEO_TYPES)],
                "video_info": {
                    "duration_minutes": round(made.wanted.seconds / 60, 2),
                    "fps": float(FPS),
                    "resolution": {"width": width, "height": height},
                },
                "qa": qa,
            }
        )
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (root / "video_info.meta.jsonl").write_text(text, encoding="utf-8")


LAYOUT = Layout("lvbench", plan, annotate)
