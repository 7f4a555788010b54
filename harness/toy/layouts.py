"""Rows and files of the four benchmarks, as their publishers lay them out, from toy videos.

Each layout says which videos it wants (`plan`) and turns the finished ones into annotation files
(`annotate`). Question kinds carry the nearest real task names.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from harness.toy.prompts import LETTERS
from harness.toy.questions import SUBTITLES, Question
from harness.toy.world import FPS, Storyboard


@dataclass(frozen=True)
class Wanted:
    """A video to make: its file below the benchmark's folder, its length, the kinds to ask."""

    path: str
    seconds: int
    kinds: tuple[str, ...]
    group: str = ""

    @property
    def stem(self) -> str:
        return Path(self.path).stem


@dataclass(frozen=True)
class Asked:
    """A question with its options in order and the index of the right one."""

    question: Question
    options: list[str]
    correct: int


@dataclass(frozen=True)
class Made:
    """A finished video with its questions; `named` is the shape that its subtitles name."""

    wanted: Wanted
    story: Storyboard
    asked: list[Asked]
    named: str


@dataclass(frozen=True)
class Layout:
    """One benchmark. `options(i)` is how many options question number i has where the kind allows it."""

    name: str
    plan: Callable[[float], list[Wanted]]
    annotate: Callable[[Path, Sequence[Made]], None]
    options: Callable[[int], int] = lambda i: 4


def _mixed(i: int, one: Sequence[str] = ("colour", "shape", "scene")) -> tuple[str, ...]:
    """Three kinds for video i: in turn two or one of those that need several events."""
    several = ("both", "count", "order", "both", "count")
    pair = [several[i % len(several)], several[(i + 1) % len(several)]]
    alone = [one[i % len(one)], one[(i + 1) % len(one)]]
    return (alone[0], *pair) if i % 2 else (*alone, pair[0])


def _times(n: int, scale: float) -> int:
    return max(1, round(n * scale))


def _clock(seconds: float, *, decimal: str = ".") -> str:
    whole = int(seconds)
    milli = round((seconds - whole) * 1000)
    return f"{whole // 3600:02d}:{whole // 60 % 60:02d}:{whole % 60:02d}{decimal}{milli:03d}"


def _lines(made: Made) -> list[tuple[float, float, str]]:
    return [(1.0 + 2 * i, 2.5 + 2 * i, line.format(made.named)) for i, line in enumerate(SUBTITLES)]


def _json(path: Path, data: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")


VIDEOMME_TASKS = {
    "colour": "Attribute Perception",
    "shape": "Object Recognition",
    "scene": "Spatial Perception",
    "order": "Temporal Perception",
    "both": "Object Reasoning",
    "count": "Counting Problem",
}
VIDEOMME_DOMAINS = {
    "Knowledge": "Geography",
    "Film & Television": "Animation",
    "Sports Competition": "Athletics",
    "Artistic Performance": "Stage Play",
    "Life Record": "Daily Life",
    "Multilingual": "Multilingual",
}


def _videomme_plan(scale: float) -> list[Wanted]:
    wanted = []
    for group, seconds in {"short": 96, "medium": 112, "long": 128}.items():
        for _ in range(_times(12, scale)):
            i = len(wanted)
            wanted.append(Wanted(f"videos/toy{i:08d}.mp4", seconds, _mixed(i), group))
    return wanted


def _videomme_annotate(root: Path, videos: Sequence[Made]) -> None:
    rows = []
    for i, made in enumerate(videos):
        domain = list(VIDEOMME_DOMAINS)[i % len(VIDEOMME_DOMAINS)]
        for j, asked in enumerate(made.asked, start=1):
            rows.append(
                {
                    "video_id": f"{i + 1:03d}",
                    "duration": made.wanted.group,
                    "domain": domain,
                    "sub_category": VIDEOMME_DOMAINS[domain],
                    "url": f"https://toy.invalid/{made.wanted.stem}",
                    "videoID": made.wanted.stem,
                    "question_id": f"{i + 1:03d}-{j}",
                    "task_type": VIDEOMME_TASKS[asked.question.kind],
                    "question": asked.question.text,
                    "options": [f"{letter}. {option}." for letter, option in zip(LETTERS, asked.options, strict=False)],
                    "answer": LETTERS[asked.correct],
                }
            )
        if made.wanted.group == "long" or i % 3:
            blocks = (
                f"{k}\n{_clock(start, decimal=',')} --> {_clock(end, decimal=',')}\n{line}\n"
                for k, (start, end, line) in enumerate(_lines(made), start=1)
            )
            target = root / "subtitles" / f"{made.wanted.stem}.srt"
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text("\n".join(blocks), encoding="utf-8")
    pd.DataFrame(rows).to_parquet(root / "test.parquet", index=False)


MLVU_TASKS = {
    "1_plotQA": ("plotQA", "colour"),
    "2_needle": ("findNeedle", "colour"),
    "3_ego": ("ego", "both"),
    "4_count": ("count", "count"),
    "5_order": ("order", "order"),
    "6_anomaly_reco": ("anomaly_reco", "shape"),
    "7_topic_reasoning": ("topic_reasoning", "scene"),
}


def _mlvu_plan(scale: float) -> list[Wanted]:
    return [
        Wanted(f"videos/{stem}/{task}_{i}.mp4", 112 if i % 3 == 0 else 128, (kind,) * 3, stem)
        for stem, (task, kind) in MLVU_TASKS.items()
        for i in range(1, _times(5, scale) + 1)
    ]


def _mlvu_annotate(root: Path, videos: Sequence[Made]) -> None:
    for stem, (task, _) in MLVU_TASKS.items():
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
        _json(root / "json" / f"{stem}.json", rows)


LONGVIDEOBENCH_CATEGORIES = {
    "colour": ("S2A", "L1-Perception"),
    "shape": ("E2O", "L1-Perception"),
    "scene": ("O2E", "L1-Perception"),
    "named": ("T2A", "L1-Perception"),
    "order": ("E3E", "L2-Relation"),
    "both": ("O3O", "L2-Relation"),
    "count": ("SOS", "L2-Relation"),
}
LONGVIDEOBENCH_SECONDS = {15: 12, 60: 48, 600: 112, 3600: 128}
LONGVIDEOBENCH_VIDEOS = {15: 3, 60: 3, 600: 12, 3600: 18}


def _longvideobench_plan(scale: float) -> list[Wanted]:
    wanted = []
    for group, n in LONGVIDEOBENCH_VIDEOS.items():
        for _ in range(_times(n, scale)):
            i = len(wanted)
            kinds = _mixed(i, one=("named", "scene", "named", "shape", "named", "colour"))
            if group == 15:
                kinds = ("named", "scene", "both")
            wanted.append(Wanted(f"videos/clip{i:03d}.mp4", LONGVIDEOBENCH_SECONDS[group], kinds, str(group)))
    return wanted


def _longvideobench_annotate(root: Path, videos: Sequence[Made]) -> None:
    rows = []
    for i, made in enumerate(videos):
        stem = made.wanted.stem
        for j, asked in enumerate(made.asked):
            category, level = LONGVIDEOBENCH_CATEGORIES[asked.question.kind]
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
        lines = _lines(made)
        if i % 2:
            subtitles = [{"start": _clock(a), "end": _clock(b), "line": line} for a, b, line in lines]
        else:
            subtitles = [{"timestamp": [a, None if line == lines[-1][2] else b], "text": line} for a, b, line in lines]
        _json(root / "subtitles" / f"{stem}_en.json", subtitles)
    _json(root / "lvb_val.json", rows)


LVBENCH_TYPES = {
    "colour": ["key information retrieval"],
    "shape": ["entity recognition"],
    "scene": ["entity recognition", "key information retrieval"],
    "order": ["temporal grounding"],
    "both": ["event understanding", "reasoning"],
    "count": ["event understanding", "summarization"],
}
LVBENCH_VIDEO_TYPES = ("cartoon", "documentary", "live", "selfmedia", "sport", "tv")


def _lvbench_plan(scale: float) -> list[Wanted]:
    return [Wanted(f"videos/toyLV{i:06d}.mp4", 128, _mixed(i + 3)) for i in range(_times(36, scale))]


def _lvbench_annotate(root: Path, videos: Sequence[Made]) -> None:
    lines, uid = [], 0
    for i, made in enumerate(videos):
        qa = []
        for asked in made.asked:
            uid += 1
            listed = "".join(f"\n({letter}) {option}" for letter, option in zip(LETTERS, asked.options, strict=False))
            moments = [event.start / FPS for event in asked.question.evidence] or [0.0, made.wanted.seconds - 2.0]
            span = (_clock(t)[3:8] for t in (min(moments), max(moments) + 2))
            qa.append(
                {
                    "uid": str(uid),
                    "question": asked.question.text + listed,
                    "answer": LETTERS[asked.correct],
                    "question_type": LVBENCH_TYPES[asked.question.kind],
                    "time_reference": "-".join(span),
                }
            )
        height, width = 112, 112
        lines.append(
            {
                "key": made.wanted.stem,
                "type": LVBENCH_VIDEO_TYPES[i % len(LVBENCH_VIDEO_TYPES)],
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


LAYOUTS = (
    Layout("videomme", _videomme_plan, _videomme_annotate),
    Layout("mlvu", _mlvu_plan, _mlvu_annotate),
    Layout("longvideobench", _longvideobench_plan, _longvideobench_annotate, lambda i: 4 + i % 2),
    Layout("lvbench", _lvbench_plan, _lvbench_annotate),
)
