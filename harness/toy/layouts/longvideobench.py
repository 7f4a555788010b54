"""LongVideoBench: one JSON file of questions, and subtitles of every video in one of two schemas."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from harness.toy.questions import Layout, Made, Wanted, mixed, subtitle_lines, times, toy_clock, write_json

CATEGORIES = {
    "colour": ("S2A", "L1-Perception"),
    "shape": ("E2O", "L1-Perception"),
    "scene": ("O2E", "L1-Perception"),
    "named": ("T2A", "L1-Perception"),
    "order": ("E3E", "L2-Relation"),
    "both": ("O3O", "L2-Relation"),
    "count": ("SOS", "L2-Relation"),
}
SECONDS = {15: 12, 60: 48, 600: 112, 3600: 128}
VIDEOS = {15: 3, 60: 3, 600: 12, 3600: 18}


def plan(scale: float) -> list[Wanted]:
    wanted: list[Wanted] = []
    for group, n in VIDEOS.items():
        for _ in range(times(n, scale)):
            i = len(wanted)
            kinds = mixed(i, one=("named", "scene", "named", "shape", "named", "colour"))
            if group == 15:
                kinds = ("named", "scene", "both")
            wanted.append(Wanted(f"videos/clip{i:03d}.mp4", SECONDS[group], kinds, str(group)))
    return wanted


def annotate(root: Path, videos: Sequence[Made]) -> None:
    rows = []
    for i, made in enumerate(videos):
        stem = made.wanted.stem
        for j, asked in enumerate(made.asked):
            category, level = CATEGORIES[asked.question.kind]
            rows.append(
                {
                    "video_id": stem,
                    "question": asked.question.text,
                    "question_wo_referring_query": asked.question.text,
                    "candidates": asked.options,
                    "correct_choice": asked.correct,
                    "position": [event.start for event in asked.question.evidence],
                    "topic_category": ("KH-Knowledge-History", "LT-Lifestyle-Travel")[i % 2],
                    "question_category": category,
                    "level": level,
                    "id": f"{stem}_{j}",
                    "video_path": f"{stem}.mp4",
                    "subtitle_path": f"{stem}_en.json",
                    "duration_group": int(made.wanted.group),
                    "starting_timestamp_for_subtitles": 0,
                    "duration": float(made.wanted.seconds),
                    "view_count": 1000 + i,
                }
            )
        lines = subtitle_lines(made)
        subtitles: list[dict[str, object]]
        if i % 2:
            subtitles = [{"start": toy_clock(a), "end": toy_clock(b), "line": line} for a, b, line in lines]
        else:
            subtitles = [{"timestamp": [a, None if line == lines[-1][2] else b], "text": line} for a, b, line in lines]
        write_json(root / "subtitles" / f"{stem}_en.json", subtitles)
    write_json(root / "lvb_val.json", rows)


LAYOUT = Layout("longvideobench", plan, annotate, lambda i: 4 + i % 2)
