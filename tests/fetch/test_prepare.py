"""`prepare` from a hub that runs here and from archives on disk, in the odd forms in which benchmarks are uploaded."""

from __future__ import annotations

import io
import shlex
import shutil
import tarfile
import zipfile
from pathlib import Path

import pytest
from fake_hub import COMMIT, FakeHub, serve

from harness.benchmarks.benchmark import benchmark, benchmark_names
from harness.benchmarks.questions import load_questions
from harness.errors import UserError
from harness.fetch import archives as unpack
from harness.fetch import prepare
from harness.fetch.archives import archive_name, group_archives, opened
from harness.fetch.prepare import destination
from harness.settings.compose import compose_config


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


def locked(data: bytes) -> bytes:
    """A zip of one member that says it is encrypted."""
    flagged = bytearray(data)
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        flagged[flagged.index(signature) + offset] |= 1
    return bytes(flagged)


def bomb(size: int) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("videos/bomb.mp4", bytes(size))
    return buffer.getvalue()


def content(root: Path, benchmark: str) -> dict[str, bytes]:
    """Files below a benchmark's folder, with one byte of content each where they are empty."""
    folder = root / benchmark
    return {p.relative_to(folder).as_posix(): p.read_bytes() or b"v" for p in folder.rglob("*") if p.is_file()}


@pytest.fixture(scope="module")
def uploads(root) -> dict[str, dict[str, bytes]]:
    """The benchmarks as they lie on the hub."""
    mme, lvb, bench = content(root, "videomme"), content(root, "longvideobench"), content(root, "lvbench")
    mlvu, second = content(root, "mlvu"), content(root, "videomme_v2")
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
        "MME-Benchmarks/Video-MME-v2": {
            "README.md": b"about",
            "test.parquet": second["test.parquet"],
            "subtitle.zip": zipped({f"subtitle/{Path(k).name}": v for k, v in second.items() if "subtitles/" in k}),
            "videos/001.zip": zipped({Path(k).name: v for k, v in second.items() if "videos/" in k}),
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


@pytest.mark.parametrize("task", ["videomme_subtitles", "videomme_v2_subtitles", "mlvu", "longvideobench", "lvbench"])
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


@pytest.mark.parametrize("task", ["videomme_subtitles", "videomme_v2_subtitles", "mlvu", "longvideobench", "lvbench"])
def test_archives_and_loose_files_on_disk(task, root, uploads, tmp_path):
    source, target = tmp_path / "source", tmp_path / "target"
    settings = config(task, target, f"data.source={source}")
    for origin in benchmark(settings.task.data).split_sources(settings.task.split):
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
    with pytest.raises(UserError, match="one of them is missing or there twice: found 001, 002, 004"):
        prepare.main(config("lvbench", tmp_path / "data", f"data.source={source}"))
    (source / list(parts)[3]).unlink()  # without its end
    with pytest.raises(UserError, match="all_videos_split.zip is damaged or incomplete"):
        prepare.main(config("lvbench", tmp_path / "data", f"data.source={source}"))
    with pytest.raises(UserError, match="data.source=.*nowhere is not a folder"):
        prepare.main(config("lvbench", tmp_path / "data", f"data.source={tmp_path / 'nowhere'}"))


def prepared(tmp_path: Path, name: str, data: bytes, *overrides: str) -> Path:
    """The folder in which `prepare` has put what an archive holds."""
    source = tmp_path / "source"
    source.mkdir(exist_ok=True)
    (source / name).write_bytes(data)
    prepare.main(config("lvbench", tmp_path / "data", f"data.source={source}", *overrides))
    return tmp_path / "data" / "lvbench"


VIDEO = {"videos/x.mp4": bytes(range(256)) * 4000}


@pytest.mark.parametrize(
    ("name", "data", "says"),
    [
        ("x.tar.gz", tarred(VIDEO, "w:gz")[:3000], "is damaged or incomplete"),
        (
            "x.tar.gz",
            tarred(VIDEO, "w:gz")[:200] + b"garbage" + tarred(VIDEO, "w:gz")[207:],
            "is damaged or incomplete",
        ),
        ("x.tar", tarred(VIDEO)[:5000], "is damaged or incomplete"),
        ("x.zip", zipped(VIDEO).replace(bytes(range(100)), bytes(100), 1), "is damaged .*Bad CRC-32"),
        ("x.zip", b"no archive at all", "is damaged or incomplete"),
        ("x.zip", locked(zipped(VIDEO)), "is encrypted"),
        ("x.zip", zipped({f"videos/{'x' * 300}.mp4": b"v"}), "no file of LVBench is named like 'xxx"),
        ("x.tar", tarred({f"videos/{'x' * 300}.mp4": b"v"}), "no file of LVBench is named like 'xxx"),
        ("x.zip", zipped({"videos/x\n.mp4": b"v"}), "no file of LVBench is named like"),
        ("x.tar.xz", b"\xfd7zXZ\x00garbage", "is damaged or incomplete"),
    ],
    ids=[
        "cut tar.gz",
        "bad tar.gz",
        "cut tar",
        "bad crc",
        "no zip",
        "encrypted",
        "long zip",
        "long tar",
        "control",
        "xz",
    ],
)
def test_an_archive_that_cannot_be_used_is_named(tmp_path, name, data, says):
    with pytest.raises(UserError, match=says):
        prepared(tmp_path, name, data)
    assert not list(tmp_path.rglob("*.partial")) and not list((tmp_path / "data").rglob("*.mp4"))


def test_a_bomb_is_not_unpacked(tmp_path):
    with pytest.raises(UserError, match=r"x.zip .* says that it unpacks to more than the 100.00 MB|0.1 GB that it may"):
        prepared(tmp_path, "x.zip", bomb(150_000_000))
    assert not list((tmp_path / "data").rglob("*.mp4"))


def test_a_bomb_of_many_members_is_stopped_at_the_limit(tmp_path, monkeypatch):
    written, write = [], unpack.write_member
    monkeypatch.setattr(unpack, "write_member", lambda member, path: (written.append(path.name), write(member, path)))
    monkeypatch.setattr(unpack, "SMALL", 100_000)
    monkeypatch.setattr(unpack, "EXPANDS", 1)
    with pytest.raises(UserError, match="nothing more of it is unpacked"):
        prepared(tmp_path, "x.tar.gz", tarred({f"videos/x{i}.mp4": bytes(30_000) for i in range(9)}, "w:gz"))
    assert written == ["x0.mp4", "x1.mp4", "x2.mp4"]


def test_an_archive_is_held_against_what_the_benchmark_is_known_to_have(tmp_path, monkeypatch):
    monkeypatch.setattr(unpack, "SMALL", 100_000)
    monkeypatch.setattr(prepare, "BEYOND", 1e-5)  # of LVBench's 62 GB
    with pytest.raises(UserError, match="says that it unpacks to more than the 0.62 MB that it may"):
        prepared(tmp_path, "x.zip", zipped(VIDEO))


def test_a_member_longer_than_it_says_is_stopped_there(tmp_path):
    data = bytearray(bomb(5_000_000))
    place = data.index(b"PK\x01\x02") + 24
    data[place : place + 4] = (1000).to_bytes(4, "little")
    with pytest.raises(UserError, match="is damaged or incomplete"):
        prepared(tmp_path, "x.zip", bytes(data))
    assert not list((tmp_path / "data").rglob("*.mp4"))


def test_what_does_not_fit_onto_the_disk_is_not_unpacked(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=unpack.SPARE + 1_000_000))
    with pytest.raises(UserError, match=r"has .* free; .*x.zip needs 1.02 MB more"):
        prepared(tmp_path, "x.zip", zipfile_deflated(VIDEO))


def zipfile_deflated(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return buffer.getvalue()


@pytest.mark.parametrize("numbers", [["a", "b", "c"], ["aa", "ab", "ac"], ["1", "2", "3"], ["000", "001", "002"]])
def test_parts_by_letters_and_numbers(tmp_path, numbers):
    for number, part in zip(numbers, cut(tarred(VIDEO, "w:gz"), 3), strict=True):
        (tmp_path / f"t.tar.gz.part-{number}").write_bytes(part)
    (archive,) = group_archives(sorted(tmp_path.iterdir(), reverse=True))
    with opened(archive) as members:
        assert [m.open().read() for known in members for m in known] == list(VIDEO.values())


@pytest.mark.parametrize("names", [["a", "ab"], ["b", "c"], ["a", "c"], ["aa", "1"]])
def test_a_set_of_parts_that_is_not_whole(tmp_path, names):
    paths = [tmp_path / f"t.tar.gz.part-{name}" for name in names]
    with pytest.raises(UserError, match="one of them is missing or there twice"):
        group_archives(paths)


def test_the_next_command_repeats_the_settings(root, uploads, tmp_path, capsys):
    source = tmp_path / "a source"
    (source / "data").mkdir(parents=True)
    for origin in benchmark("lvbench").split_sources("test"):
        for name, data in uploads[origin.hub].items():
            (source / name).write_bytes(data)
    settings = config("lvbench", tmp_path / "data", f"data.source='{source}'")
    assert prepare.main(settings) == 0
    line = capsys.readouterr().out.splitlines()[-1].removeprefix("next: ")
    assert shlex.split(line)[1:4] == ["-m", "harness", "verify"]
    assert shlex.split(line)[4:] == settings.words


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
        ("test_video.tar.gz.part-a", "test_video.tar.gz"),
        ("x.tar.xz", "x.tar.xz"),
        ("x.tar.md5sum", None),
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
    with opened(archive) as members:
        assert [m.path for known in members for m in known] == ["x.mp4"]


def test_joined_parts_read_as_one_archive(tmp_path):
    data = tarred({"a/x.mp4": b"x" * 3000, "b.json": b"[]"}, "w:gz")
    for i, part in enumerate(cut(data, 3)):
        (tmp_path / f"t.tar.gz.part-a{'abc'[i]}").write_bytes(part)
    (archive,) = group_archives(sorted(tmp_path.iterdir()))
    with opened(archive) as members:
        found = [(m.path, m.size, m.open().read()[:1]) for known in members for m in known]
    assert found == [("a/x.mp4", 3000, b"x"), ("b.json", 2, b"[")]


@pytest.mark.parametrize(
    ("name", "split", "path", "place"),
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
def test_where_files_go(name, split, path, place):
    found = destination(path, benchmark(name).layout, split)
    assert (found and found.as_posix()) == place


def test_facts_of_every_benchmark_are_complete():
    for facts in map(benchmark, benchmark_names()):
        assert facts.licence and facts.url and facts.defects
        for split, sources in facts.sources.items():
            assert split in facts.counts
            for source in sources:
                assert source.hub or source.why
                assert len(source.revision) == 40 or source.why, f"{facts.name}: why is {source.revision} not pinned?"
        for counts in facts.counts.values():
            for value in counts.values():
                if isinstance(value, dict) and len(value) > 1 and set(value) != {"3600"}:
                    assert sum(value.values()) == counts["questions"]
