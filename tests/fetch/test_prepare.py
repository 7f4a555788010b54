"""`prepare` from a hub that runs here and from archives on disk, in the odd forms in which benchmarks are uploaded."""

from __future__ import annotations

import io
import shutil
import tarfile
import zipfile
from pathlib import Path

import pytest
from fake_hub import COMMIT, FakeHub, serve

from harness.benchmarks.facts import load_facts
from harness.benchmarks.layout import destination
from harness.benchmarks.questions import functions, load_questions
from harness.benchmarks.root import TASKS
from harness.config import compose_config
from harness.errors import UserError
from harness.fetch import prepare
from harness.fetch.archives import archive_name, group_archives, members


def zipped(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def tarred(files: dict[str, bytes], mode: str = "w") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def cut(data: bytes, n: int) -> list[bytes]:
    step = -(-len(data) // n)
    return [data[i : i + step] for i in range(0, len(data), step)]


def content(root: Path, benchmark: str) -> dict[str, bytes]:
    """Files below a benchmark's folder, with one byte of content each where they are empty."""
    folder = root / benchmark
    return {p.relative_to(folder).as_posix(): p.read_bytes() or b"v" for p in folder.rglob("*") if p.is_file()}


@pytest.fixture(scope="module")
def uploads(root) -> dict[str, dict[str, bytes]]:
    """The four benchmarks as they lie on the hub."""
    mme, lvb, bench = content(root, "videomme"), content(root, "longvideobench"), content(root, "lvbench")
    mlvu = content(root, "mlvu")
    videos = {f"data/{Path(k).name}": v for k, v in mme.items() if k.startswith("videos/")}
    subtitles = {f"subtitle/{Path(k).name}": v for k, v in mme.items() if k.startswith("subtitles/")}
    lvb_tar = tarred({f"videos/{Path(k).name}": v * 5000 for k, v in lvb.items() if k.startswith("videos/")})
    lvb_subs = tarred({f"subtitles/{Path(k).name}": v for k, v in lvb.items() if k.startswith("subtitles/")})
    bench_zip = zipped({f"all_videos/{Path(k).name}": v * 4000 for k, v in bench.items() if k.startswith("videos/")})
    return {
        "lmms-lab/Video-MME": {
            "README.md": b"about",
            "videomme/test-00000-of-00001.parquet": mme["test.parquet"],
            "videos_chunked_01.zip": zipped(dict(list(videos.items())[:2]) | {"__MACOSX/data/._x.mp4": b"junk"}),
            "videos_chunked_02.zip": zipped(dict(list(videos.items())[2:])),
            "subtitle.zip": zipped(subtitles),
        },
        "MLVU/MVLU": {
            ".gitattributes": b"",
            **{f"MLVU/{k}": v for k, v in mlvu.items() if k.startswith("json/")},
            **{f"MLVU/video/{k[7:]}": v for k, v in mlvu.items() if k.startswith("videos/")},
        },
        "longvideobench/LongVideoBench": {
            "lvb_val.json": lvb["lvb_val.json"],
            "lvb_test_wo_gt.json": lvb["lvb_test_wo_gt.json"],
            "subtitles.tar": lvb_subs,
            **{f"videos.tar.part.a{'abcde'[i]}": part for i, part in enumerate(cut(lvb_tar, 3))},
        },
        "zai-org/LVBench": {"data/video_info.meta.jsonl": bench["video_info.meta.jsonl"], "README.md": b""},
        "AIWinter/LVBench": {f"all_videos_split.zip.{i + 1:03}": part for i, part in enumerate(cut(bench_zip, 4))},
    }


@pytest.fixture
def hub(uploads, monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    monkeypatch.setenv("HF_HUB_DISABLE_XET", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)  # the hub of these tests runs here
    with serve(FakeHub({name: dict(files) for name, files in uploads.items()})) as served:
        yield served


def config(task: str, target: Path, *overrides: str):
    return compose_config([f"task={task}", "profile=published", f"data.root={target}", *overrides])


@pytest.mark.parametrize("task", ["videomme_subtitles", "mlvu", "longvideobench", "lvbench"])
def test_a_download_ends_in_the_layout_that_the_tasks_read(task, root, hub, tmp_path, capsys):
    settings = config(task, tmp_path, f"data.mirror={hub.address}")
    assert prepare.main(settings) == 0
    expected = load_questions(settings.task, root)
    found = load_questions(settings.task, tmp_path)
    assert [(q.question_id, q.prompt, q.answer) for q in found] == [
        (q.question_id, q.prompt, q.answer) for q in expected
    ]
    assert [q.video.relative_to(tmp_path) for q in found] == [q.video.relative_to(root) for q in expected]
    assert all(q.video.exists() for q in found)
    assert not (tmp_path / settings.task.data / prepare.DOWNLOADS).exists()  # no archive is left behind
    assert not list(tmp_path.rglob("*.partial"))
    assert f"at {COMMIT[:12]}" in capsys.readouterr().out
    assert set(hub.commits) == {COMMIT}  # listed at the commit, not at a branch that may move

    hub.served.clear()
    assert prepare.main(settings) == 0
    assert hub.served == []  # a second time fetches nothing
    assert "to fetch: 0 of" in capsys.readouterr().out


def test_a_broken_download_goes_on_where_it_stopped(hub, tmp_path):
    settings = config("lvbench", tmp_path, f"data.mirror={hub.address}")
    hub.broken.add("all_videos_split.zip.003")
    with pytest.raises(UserError, match="AIWinter/LVBench could not be read.*run the same command again"):
        prepare.main(settings)
    assert sorted({path for path, _ in hub.served})[-1] == "data/video_info.meta.jsonl"
    hub.broken.clear()
    hub.served.clear()
    assert prepare.main(settings) == 0
    assert [path for path, _ in hub.served] == ["all_videos_split.zip.003", "all_videos_split.zip.004"]


def test_a_cut_connection_is_tried_again(hub, tmp_path):
    name = "videos.tar.part.ab"
    hub.cut[name] = 5000
    assert prepare.main(config("longvideobench", tmp_path, f"data.mirror={hub.address}")) == 0
    # From the last whole chunk of huggingface_hub, 10 MB: here from the start.
    assert [start for path, start in hub.served if path == name] == [0, 0]


def test_terms_that_are_not_accepted(hub, tmp_path):
    hub.gated.add("MLVU/MVLU")
    with pytest.raises(UserError, match=r"accept its terms on .*/datasets/MLVU/MVLU .*hf auth login"):
        prepare.main(config("mlvu", tmp_path, f"data.mirror={hub.address}"))


def test_unknown_dataset_and_hub_out_of_reach(hub, tmp_path):
    del hub.datasets["lmms-lab/Video-MME"]
    with pytest.raises(UserError, match="lmms-lab/Video-MME does not exist or is not visible"):
        prepare.main(config("videomme", tmp_path, f"data.mirror={hub.address}"))
    with pytest.raises(UserError, match=r"could not be read .*data\.mirror.*data\.source=DIR"):
        prepare.main(config("videomme", tmp_path, "data.mirror=http://127.0.0.1:9"))


def test_too_little_disk_is_seen_before_anything_is_fetched(hub, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=2_000_000))
    with pytest.raises(UserError, match="has 2.00 MB free; Video-MME needs .* choose another data.root"):
        prepare.main(config("videomme", tmp_path, f"data.mirror={hub.address}"))
    assert hub.served == []


@pytest.mark.parametrize("task", ["videomme_subtitles", "mlvu", "longvideobench", "lvbench"])
def test_archives_and_loose_files_on_disk(task, root, uploads, tmp_path):
    source, target = tmp_path / "source", tmp_path / "target"
    settings = config(task, target, f"data.source={source}")
    for origin in load_facts(settings.task.data).split_sources(settings.task.split):
        for name, data in uploads[origin.hub].items():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes(data)
    before = sorted(p for p in source.rglob("*"))
    assert prepare.main(settings) == 0
    assert all(q.video.exists() for q in load_questions(settings.task, target))
    assert sorted(p for p in source.rglob("*")) == before  # nothing of the user's is removed
    stamps = {p: p.stat().st_mtime_ns for p in target.rglob("*.mp4")}
    assert prepare.main(settings) == 0
    assert {p: p.stat().st_mtime_ns for p in target.rglob("*.mp4")} == stamps


def test_the_test_split_of_mlvu_from_disk(root, tmp_path, task):
    source = tmp_path / "MLVU_Test"
    (source / "video").mkdir(parents=True)
    for path in (root / "mlvu" / "test" / "json").iterdir():
        shutil.copy(path, source / path.name)
    for k in range(2):
        (source / "video" / f"test_{k}.mp4").write_bytes(b"v")
    assert prepare.main(config("mlvu_test", tmp_path / "data", f"data.source={source}")) == 1  # one video is missing
    (source / "video" / "test_2.mp4").write_bytes(b"v")
    assert prepare.main(config("mlvu_test", tmp_path / "data", f"data.source={source}")) == 0


def test_a_missing_part_and_a_damaged_archive_are_named(uploads, tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    parts = uploads["AIWinter/LVBench"]
    for name in list(parts)[:2] + list(parts)[3:]:
        (source / name).write_bytes(parts[name])
    with pytest.raises(UserError, match="one of them is missing: found 001, 002, 004"):
        prepare.main(config("lvbench", tmp_path / "data", f"data.source={source}"))
    (source / list(parts)[3]).unlink()  # without its end
    with pytest.raises(UserError, match="all_videos_split.zip is damaged or incomplete"):
        prepare.main(config("lvbench", tmp_path / "data", f"data.source={source}"))
    with pytest.raises(UserError, match="data.source=.*nowhere is not a folder"):
        prepare.main(config("lvbench", tmp_path / "data", f"data.source={tmp_path / 'nowhere'}"))


def test_profile_toy_builds_the_toy(tmp_path, monkeypatch):
    from harness.toy import benchmarks

    built = []
    monkeypatch.setattr(benchmarks, "build", built.append)
    assert prepare.main(compose_config(["profile=toy", f"data.root={tmp_path}"])) == 0
    assert built == [tmp_path]


@pytest.mark.parametrize(
    ("path", "archive"),
    [
        ("x.zip", "x.zip"),
        ("x.tar.gz", "x.tar.gz"),
        ("x.tgz", "x.tgz"),
        ("all_videos_split.zip.001", "all_videos_split.zip"),
        ("videos.tar.part.aa", "videos.tar"),
        ("test_video.tar.gz.part-ab", "test_video.tar.gz"),
        ("test_video.tar.gz.part-", None),
        ("video.mp4", None),
        ("lvb_val.json", None),
    ],
)
def test_archive_names(path, archive):
    assert archive_name(path) == archive


def test_a_whole_archive_has_no_parts(tmp_path):
    (tmp_path / "t.tar.gz").write_bytes(tarred({"x.mp4": b"x"}, "w:gz"))
    (archive,) = group_archives([tmp_path / "t.tar.gz"])
    assert [m.path for m in members(archive)] == ["x.mp4"]


def test_joined_parts_read_as_one_archive(tmp_path):
    data = tarred({"a/x.mp4": b"x" * 3000, "b.json": b"[]"}, "w:gz")
    for i, part in enumerate(cut(data, 3)):
        (tmp_path / f"t.tar.gz.part-a{'abc'[i]}").write_bytes(part)
    (archive,) = group_archives(sorted(tmp_path.iterdir()))
    assert [(m.path, m.size, m.open().read()[:1]) for m in members(archive)] == [
        ("a/x.mp4", 3000, b"x"),
        ("b.json", 2, b"["),
    ]


@pytest.mark.parametrize(
    ("benchmark", "split", "path", "place"),
    [
        ("videomme", "test", "data/AbC.MP4", "videos/AbC.MP4"),
        ("videomme", "test", "../../etc/x.mkv", "videos/x.mkv"),  # no way out of the folder
        ("videomme", "test", "__MACOSX/data/._x.mp4", None),
        ("videomme", "test", "README.md", None),
        ("mlvu", "dev", "MLVU/video/2_needle/needle_1.mp4", "videos/2_needle/needle_1.mp4"),
        ("mlvu", "dev", "needle_1.mp4", "videos/needle_1.mp4"),
        ("mlvu", "dev", "MLVU/json/2_needle.json", "json/2_needle.json"),
        ("mlvu", "test", "MLVU_Test/video/a.mp4", "test/videos/a.mp4"),
        ("longvideobench", "val", "subtitles/x_en.json", "subtitles/x_en.json"),
        ("longvideobench", "val", "lvb_val.json", "lvb_val.json"),
        ("lvbench", "test", "video_info.meta.jsonl", "video_info.meta.jsonl"),
    ],
)
def test_where_files_go(benchmark, split, path, place):
    found = destination(path, load_facts(benchmark).layout, split)
    assert (found and found.as_posix()) == place


def test_facts_of_every_benchmark_are_complete():
    for folder in sorted(p.parent for p in TASKS.glob("*/functions.py")):
        facts = load_facts(folder.name)
        assert facts.licence and facts.url and facts.defects
        for split, sources in facts.sources.items():
            assert split in facts.counts
            for source in sources:
                assert source.hub or source.why
                assert len(source.revision) == 40 or source.why, f"{folder.name}: why is {source.revision} not pinned?"
        for counts in facts.counts.values():
            for value in counts.values():
                if isinstance(value, dict) and len(value) > 1 and set(value) != {"3600"}:
                    assert sum(value.values()) == counts["questions"]
    assert functions("mlvu")
