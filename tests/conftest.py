"""A small data root with the real row schemas, layouts and oddities of every benchmark; its videos are empty files."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from compositions import remembered
from videomme_v2_rows import videomme_v2_row

from harness.benchmarks.files import Folder
from harness.settings import compose as composing
from harness.settings.groups import TaskConfig


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests of the whole product, which take longest, come first: a process that got one last would end alone."""
    top = Path(__file__).parent
    items.sort(key=lambda item: (item.path.parent != top, item.path.parent.name != "run"))


@pytest.fixture(scope="session", autouse=True)
def compositions() -> Iterator[None]:
    """Tests share compositions, see `compositions`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(composing, "compose", remembered(composing.compose))
        yield


SRT = """1
00:00:00,000 --> 00:00:02,000
<font color="white" size=".72c">Hello there.</font>

2
00:00:02,000 --> 00:00:04,000
Two
lines

3
00:00:04,000 --> 00:00:05,000

"""


def videomme_row(i: int, duration: str, video: str, answer: str = "C", task_type: str = "Counting Problem") -> dict:
    return {
        "video_id": f"{i // 3 + 1:03}",
        "duration": duration,
        "domain": "Knowledge",
        "sub_category": "Geography",
        "url": f"https://example.org/{video}",
        "videoID": video,
        "question_id": f"{i // 3 + 1:03}-{i % 3 + 1}",
        "task_type": task_type,
        "question": "How many birds are there?",
        "options": ["A. 1.", "B. 2.", "C. 3.", "D. 4."],
        "answer": answer,
    }


def write_videomme(root: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as parquet

    folder = root / "videomme"
    (folder / "videos").mkdir(parents=True)
    (folder / "subtitles").mkdir()
    names = {"short": "AbC_d1E2f3G", "medium": "-medium0001", "long": "long0000001"}
    rows = [
        videomme_row(3 * k + j, duration, names[duration], "ABCD"[(k + j) % 4])
        for k, duration in enumerate(("short", "medium", "long"))
        for j in range(3)
    ]
    parquet.write_table(pa.Table.from_pylist(rows), folder / "test.parquet")
    for name, suffix in zip(names.values(), (".mp4", ".MP4", ".mkv"), strict=False):
        (folder / "videos" / f"{name}{suffix}").touch()
    (folder / "subtitles" / "long0000001.srt").write_text(SRT, encoding="utf-8")


def mlvu_row(video: str, kind: str, candidates: list[str], answer: str, question: str = "What is it?") -> dict:
    return {
        "video": video,
        "duration": 467.98,
        "question": question,
        "candidates": candidates,
        "answer": answer,
        "question_type": kind,
    }


def write_mlvu(root: Path) -> None:
    folder = root / "mlvu"
    (folder / "json").mkdir(parents=True)
    files = {
        "1_plotQA": [mlvu_row(f"movie_{i}.mp4", "plotQA", ["a", "b", "c", "d"], "abcd"[i]) for i in range(4)],
        "2_needle": [
            mlvu_row("needle_32.mp4", "findNeedle", ["a dog", "a cat", "a hen", "a cow"], "a hen"),
            mlvu_row("needle_4.mp4", "findNeedle", ["w", "x", "y", "z"], "none of them"),  # no right candidate
            mlvu_row("needle_7.mp4", "findNeedle", ["w", "same", "y", "same"], "same"),  # two right candidates
        ],
        "4_count": [mlvu_row("movie_1.mp4", "count", ["1", "2", "3", "4"], "3", "How often?")] * 2,  # a row twice
        "8_sub_scene": [
            {
                "video": "movie_2.mp4",
                "duration": 9.0,
                "question": "Describe the scene.",
                "answer": "A scene.",
                "question_type": "subPlot",
                "scoring_points": ["a point"],
            }
        ],
    }
    for stem, rows in files.items():
        (folder / "json" / f"{stem}.json").write_text(json.dumps(rows), encoding="utf-8")
        (folder / "videos" / stem).mkdir(parents=True)
        for row in rows:
            (folder / "videos" / stem / row["video"]).touch()
    test = folder / "test"
    (test / "json").mkdir(parents=True)
    (test / "videos").mkdir()
    six = ["red", "blue", "green", "grey", "pink", "black"]
    rows = [
        {"video": f"test_{k}.mp4", "duration": 60.0, "question": "Which colour?", "candidates": six}
        | {"question_type": kind, "question_id": f"{code}_{k}"}
        for k, (code, kind) in enumerate([("AR", "anomaly_reco"), ("TQA", "tutorialQA"), ("SQA", "sportsQA")])
    ]
    (test / "json" / "test_multi_choice_tasks.json").write_text(json.dumps(rows), encoding="utf-8")
    truth = [
        {"question_id": row["question_id"], "answer": letter}
        for row, letter in zip(rows, ("pink", "F", "A"), strict=False)
    ]
    (test / "json" / "test_mcq_gt.json").write_text(json.dumps(truth), encoding="utf-8")


def write_longvideobench(root: Path) -> None:
    folder = root / "longvideobench"
    (folder / "videos").mkdir(parents=True)
    (folder / "subtitles").mkdir()
    rows = []
    for k, (group, category, n) in enumerate([(15, "TOS", 4), (60, "S2E", 5), (600, "T3O", 5), (3600, "SSS", 5)]):
        name = f"86CxyhFV9M{k}"
        rows.append(
            {
                "video_id": name,
                "id": f"{name}_0",
                "video_path": f"{name}.mp4",
                "subtitle_path": f"{name}_en.json",
                "question": "Which subtitle comes first?",
                "candidates": ["the red one", "the blue one", "the green one", "the grey one", "the pink one"][:n],
                "correct_choice": k,
                "duration": float(group) - 1,
                "duration_group": group,
                "question_category": category,
                "topic_category": "KH-Knowledge-History",
                "starting_timestamp_for_subtitles": 0.0,
                "position": [10, 20],
                "level": "L1-Perception",
                "view_count": 7,
            }
        )
        (folder / "videos" / f"{name}.mp4").touch()
        lines = [
            {"start": "00:00:01.000", "end": "00:00:02.000", "line": "First  line"},
            {"start": "00:00:02.000", "end": "00:00:03.000", "line": "second."},
        ]
        if k % 2:
            lines = [{"timestamp": [1.0, 2.0], "text": "First  line"}, {"timestamp": [2.0, None], "text": "second."}]
        (folder / "subtitles" / f"{name}_en.json").write_text(json.dumps(lines), encoding="utf-8")
    (folder / "lvb_val.json").write_text(json.dumps(rows), encoding="utf-8")
    test = [{key: value for key, value in row.items() if key != "correct_choice"} for row in rows]
    (folder / "lvb_test_wo_gt.json").write_text(json.dumps(test), encoding="utf-8")


def write_lvbench(root: Path) -> None:
    folder = root / "lvbench"
    (folder / "videos").mkdir(parents=True)
    kinds = [["entity recognition", "reasoning"], ["temporal grounding"], ["entity recognition"]]
    lines = []
    for v, (key, kind) in enumerate([("Cm73ma6Ibcs", "sport"), ("-tv0key1234", "tv")]):
        questions = [
            {
                "uid": str(3 * v + j + 1),
                "question": "What is on the table?\n(A) a cup\n(B) a hat\n(C) a key\n(D) a map",
                "answer": "ABCD"[(v + j) % 4],
                "question_type": kinds[j],
                "time_reference": "00:15-00:19",
            }
            for j in range(3)
        ]
        info = {"duration_minutes": 61, "fps": 30.0, "resolution": {"width": 1280, "height": 720}}
        lines.append(json.dumps({"key": key, "type": kind, "video_info": info, "qa": questions}))
        (folder / "videos" / f"{key}.mp4").touch()
    (folder / "video_info.meta.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_vnbench(root: Path) -> None:
    folder = root / "vnbench"
    (folder / "videos").mkdir(parents=True)
    rows = []
    for kind in ("ret_edit1", "ord_insert2", "cnt_edit2"):
        for sample in range(2):
            listed = ["one", "two", "three", "four"]
            name = f"v_{sample}_{kind}"
            (folder / "videos" / f"{name}.mp4").touch()
            for k in range(4):
                rows.append(
                    {"video": f"./VNBench/{name}.mp4", "question": "Which word?", "gt": "two", "type": kind, "try": k}
                    | {"options": listed[k:] + listed[:k]}
                )
    (folder / "VNBench-main-4try.json").write_text(json.dumps(rows), encoding="utf-8")


def write_videomme_v2(root: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as parquet

    folder = root / "videomme_v2"
    (folder / "videos").mkdir(parents=True)
    (folder / "subtitles").mkdir()
    groups = [("relevance", None), ("logic", "[1,2,3,4]"), ("logic", "[1, [2, 3], 4]"), ("logic", "[[1, 2], 3, 4]")]
    rows = [
        videomme_v2_row(f"{v + 1:03}", place, *group, level="3" if place == 4 and v else "1")
        for v, group in enumerate(groups)
        for place in (2, 1, 4, 3)
    ]
    parquet.write_table(pa.Table.from_pylist(rows), folder / "test.parquet")
    for v in range(len(groups)):
        (folder / "videos" / f"{v + 1:03}.mp4").touch()
    words = [{"text": word, "start_time": 0.0, "end_time": 1.0} for word in ("Hello", "there.")]
    (folder / "subtitles" / "001.jsonl").write_text("\n".join(map(json.dumps, words)) + "\n\n", encoding="utf-8")


@pytest.fixture(scope="session")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    for write in (write_videomme, write_mlvu, write_longvideobench, write_lvbench, write_vnbench, write_videomme_v2):
        write(folder)
    return folder


def make_task(data: str, protocol: str = "release", split: str = "test", **settings) -> TaskConfig:
    return TaskConfig(name=data, data=data, split=split, protocol=protocol, **settings)


@pytest.fixture(scope="session")
def task():
    return make_task


@pytest.fixture(scope="session")
def folder(root):
    """The benchmark's folder in the small data root."""
    return lambda data: Folder(root, data, data)
