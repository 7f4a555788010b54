"""Records of frames: python -m pytest tests/store/test_frame_records.py"""

import os
import subprocess

import pytest

from harness.errors import UserError
from harness.store import Answer, AnswerLog, FrameRecords, SeenFrames, read_answers

SEEN = SeenFrames((0, 14, 29), (0.0, 0.56, 1.16))


def place(results, seen=SEEN):
    return results / "frames" / f"{seen.digest}.json"


def test_what_was_kept_is_found_again(tmp_path):
    FrameRecords(tmp_path).keep(SEEN)
    assert FrameRecords(tmp_path).find(SEEN.digest) == SEEN
    assert FrameRecords.beside(tmp_path / "runs" / "cell").find(SEEN.digest) == SEEN
    empty = SeenFrames((), ())
    FrameRecords(tmp_path).keep(empty)
    assert FrameRecords(tmp_path).find(empty.digest) == empty != SEEN


def test_the_name_depends_on_every_frame_and_time():
    others = [SeenFrames((0, 14, 30), SEEN.timestamps), SeenFrames(SEEN.indices, (0.0, 0.56, 1.2))]
    assert len({seen.digest for seen in [SEEN, *others, SeenFrames(SEEN.indices[::-1], SEEN.timestamps)]}) == 4


def test_an_equal_record_is_left_alone_and_a_damaged_one_written_anew(tmp_path):
    FrameRecords(tmp_path).keep(SEEN)
    os.utime(place(tmp_path), (1, 1))
    FrameRecords(tmp_path).keep(SEEN)
    assert place(tmp_path).stat().st_mtime == 1
    place(tmp_path).write_text("{}")
    FrameRecords(tmp_path).keep(SEEN)
    assert FrameRecords(tmp_path).find(SEEN.digest) == SEEN
    assert [path.name for path in (tmp_path / "frames").iterdir()] == [f"{SEEN.digest}.json"]


def other_content(path):
    path.write_bytes(SeenFrames((0, 14, 30), SEEN.timestamps).content)  # whole, but of other frames


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda path: path.unlink(), "is absent"),
        (lambda path: path.write_bytes(path.read_bytes()[:40]), "is damaged"),
        (lambda path: path.write_bytes(path.read_bytes().replace(b"29", b"28")), "is damaged"),
        (other_content, "is damaged"),
    ],
    ids=["absent", "torn", "edited", "another"],
)
def test_lost_records_are_reported_with_a_command_that_drops_their_answers(tmp_path, spoil, message):
    cell, other = tmp_path / "runs" / "cell", SeenFrames((0, 9), (0.0, 0.36))
    records = FrameRecords(tmp_path)
    records.keep(SEEN), records.keep(other)
    cell.mkdir(parents=True)
    with AnswerLog(cell) as log:
        log.append(Answer("q1", "v", "ok", frames=SEEN.digest))
        log.append(Answer("q2", "w", "ok", frames=other.digest))
        log.append(Answer("q3", "v", "ok", frames=SEEN.digest))
        log.append(Answer("q4", "x", "failed", error={"type": "VideoError", "message": "no frames"}))
    FrameRecords(tmp_path).check(read_answers(cell).values())
    spoil(place(tmp_path))
    with pytest.raises(UserError, match=f"2 answers of a cell .* {message}") as found:
        FrameRecords(tmp_path).check(read_answers(cell).values())
    subprocess.run(str(found.value).splitlines()[-1], shell=True, check=True)
    assert set(read_answers(cell)) == {"q2", "q4"}
    FrameRecords(tmp_path).check(read_answers(cell).values())
