"""Video-MME-v2 (https://github.com/MME-Benchmarks/Video-MME-v2): 800 videos, four questions each, eight options.

Rows are those of the hub's parquet file, for example ``{video_id: "001", question_id: "001-1", question: "...",
options: "A. x\\nB. y\\n... H. z", answer: "C", group_type: "logic", group_structure: "[1, [2, 3], 4]", level: 2,
second_head: "...", third_head: "..."}``. The four questions of a video are a group; its score is not linear in them.
Protocols: ``lmms_eval`` and ``qwen3_vl`` (lmms-eval 0.7.3, its prompts for all models and for Qwen3-VL), each also
with ``_subtitles``.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Mapping, Sequence

from harness.benchmarks.benchmark import Item, Row
from harness.benchmarks.files import Folder
from harness.benchmarks.metrics import Item as Scored
from harness.benchmarks.subtitles import LETTERS
from harness.errors import QuestionError

LMMS_EVAL_TAIL = (
    "Select the best answer to the following multiple-choice question based on the video. Respond with only the letter "
    "(A, B, C, D, E, F, G, or H) of the correct option."
)
QWEN3_VL_TAIL = "Answer with the option letter only."
OF_GROUP = ("level", "second_head", "third_head")
"""What a group takes from its last question."""

QUADRATIC = (0.0, 1 / 16, 4 / 16, 9 / 16, 1.0)
CHAINS: dict[str, tuple[tuple[float, ...], int | None]] = {
    "[1, 2, 3, 4]": (QUADRATIC, None),
    "[1, [2, 3], 4]": ((0.0, 1 / 12, 4 / 12, 7 / 12, 1.0), 2),
    "[[1, 2], 3, 4]": ((0.0, 1 / 10, 2 / 10, 5 / 10, 1.0), 1),
}
"""By structure: what so many links of the chain are worth, and which question is a second way to a link of it.

Two questions that stand together are in either order: where the second is right and the first is not, that is one link.
"""


def load(folder: Folder, split: str) -> list[Row]:
    """Every row also says what its group is, by the video's last question."""
    import pyarrow.parquet as parquet

    rows: list[Row] = parquet.read_table(folder.file(f"{split}.parquet", "the annotation")).to_pylist()
    last: dict[str, Row] = {}
    for row in rows:
        if row["video_id"] not in last or _place(row) > _place(last[row["video_id"]]):
            last[row["video_id"]] = row
    return [row | {f"group_{key}": last[row["video_id"]].get(key) for key in OF_GROUP} for row in rows]


def _place(row: Row) -> int:
    """Which of its group's four questions it is, from 1."""
    return int(row["question_id"].rpartition("-")[2])


def item(row: Row) -> Item:
    kind, place = row["group_type"], _place(row)
    structure = str(ast.literal_eval(row["group_structure"])) if kind == "logic" else "none"
    if kind not in ("relevance", "logic") or structure not in (*CHAINS, "none") or not 1 <= place <= 4:
        raise ValueError(f"a group of type {kind!r} and structure {structure} cannot be scored at place {place}")
    tags = {"group": row["video_id"], "group_type": kind, "group_structure": structure, "place": str(place)}
    tags |= {key: str(row[key]) for key in (*OF_GROUP, *(f"group_{key}" for key in OF_GROUP)) if row.get(key)}
    return Item(
        question_id=row["question_id"],
        video_id=row["video_id"],
        video=(f"videos/{row['video_id']}",),
        options=options_of(row["options"]),
        answer=row["answer"],
        tags=dict(tags),
    )


def options_of(listed: str) -> dict[str, str]:
    """Letter to text: an option begins with a line of the next letter and a full stop, and may go on for lines."""
    found: dict[str, str] = {}
    for line in listed.strip().split("\n"):
        letter = LETTERS[len(found) : len(found) + 1]
        if letter and line.strip().startswith(f"{letter}."):
            found[letter] = line.strip()[2:].strip()
        elif found:
            found[LETTERS[len(found) - 1]] += f"\n{line}"
        else:
            raise ValueError(f"options begin with {line!r}, not with A.")
    return found


def prompt(row: Row, protocol: str, folder: Folder) -> str:
    tail = QWEN3_VL_TAIL if protocol.startswith("qwen3_vl") else LMMS_EVAL_TAIL
    asked = f"Question: {row['question']}\n{row['options']}\n{tail}"
    said = _subtitles(row, folder) if protocol.endswith("_subtitles") else ""
    return f"This video's subtitles are listed below:\n{said}\n\n{asked}" if said else asked


def _subtitles(row: Row, folder: Folder) -> str:
    """Every word of the file, joined by spaces; empty where the video has none."""
    folder.file("subtitles", "the folder of subtitles")
    path = folder.place(f"subtitles/{row['video_id']}.jsonl")
    if not path.exists():
        return ""
    try:
        lines = filter(None, map(str.strip, path.read_text(encoding="utf-8").split("\n")))
        return " ".join(json.loads(line)["text"] for line in lines)
    except (ValueError, KeyError, TypeError) as error:
        raise QuestionError(f"the subtitles {path} cannot be read: {error}; get the file again") from error


_LETTER = r"[ \t]*(?:\*\*[ \t]*)?([A-H])(?:[ \t]*\*\*)?[ \t]*"
_ALONE = re.compile(_LETTER + r"[.)]?[ \t]*", re.IGNORECASE)
_FIRST = re.compile(_LETTER + r"(?:[.)]|\r?\n|$)", re.IGNORECASE)
_SAID = re.compile(
    r"(?:the answer|(?:answer|option):|\b(?:answer|option)(?:\s+(?:is|would\s+be)|\s*:))[\s:*]*([A-H])\b", re.IGNORECASE
)
_BOLD = re.compile(r"\*\*\s*([A-H])(?=\s*\*\*|[.)])", re.IGNORECASE)


def parse_official(text: str, options: Mapping[str, str]) -> str | None:
    """lmms-eval's rule for A to H in either case, the first of these that there is.

    The last line, if it is a letter alone; a letter that the text begins with; the letter behind the last "the answer
    is" or the like; the only letter in bold; the only option whose text occurs.
    """
    text = text.strip()
    alone = _ALONE.fullmatch(text.rpartition("\n")[2]) or _FIRST.match(text)
    if alone:
        return alone[1].upper()
    if said := _SAID.findall(text):
        return str(said[-1]).upper()
    bold = {letter.upper() for letter in _BOLD.findall(text)}
    if len(bold) == 1:
        return str(bold.pop())
    inside = [letter for letter, option in options.items() if option.strip(". \n").lower() in text.lower()]
    return inside[0] if len(inside) == 1 else None


PARSERS = {"videomme_v2": parse_official}


def group_credit(items: Sequence[Scored]) -> float:
    """What a group is worth, 0 to 1: by how many are right, or by how long the chain of right answers is."""
    tags = items[0]["tags"]
    right = {int(each["tags"]["place"]) for each in items if each["score"]}
    if tags["group_type"] == "relevance":
        return QUADRATIC[len(right)]
    worth, second = CHAINS[tags["group_structure"]]
    links = next((place - 1 for place in range(1, 5) if place not in right), 4)
    if second is not None and links == second - 1 and second + 1 in right:
        links += 1
    return worth[links]


CREDITS = {"group": group_credit}
