"""VLMEvalKit's tables of predictions: one row per question, as xlsx or tsv (open-compass/VLMEvalKit).

``<model>_<dataset>.xlsx`` is the data set's own table with a column ``prediction`` (``vlmeval/inference_video.py``,
``infer_data_job_video``), where the data set's name holds frames or rate and subtitles: ``Video-MME_64frame_subs``,
``MLVU_MCQ_1fps``. Columns by data set (``vlmeval/dataset/{videomme,mlvu,longvideobench}.py``): ``index``, ``video``,
``question``, ``candidates`` (a Python list as text) or ``A``, ``B`` ..., ``answer`` (Video-MME: a letter; MLVU: the
text) or ``correct_choice`` (LongVideoBench: a number), groups such as ``duration`` and ``task_type``. After its
evaluation (``_score.xlsx``) there is ``score`` (1, 0; -1: not judged).
"""

from __future__ import annotations

import ast
import csv
import io
import json
import re
import string
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

from harness.benchmarks.benchmark import benchmark
from harness.errors import UserError
from harness.evidence.cells import CellResult
from harness.tools.exchange.matching import options_of
from harness.tools.exchange.rows import Exported, ImportedFile, ImportedRow, damaged, read_row, text_of

NO_ANSWER = "Failed to obtain answer via API."
"""VLMEvalKit's text in place of an answer."""
_DATASETS = {"videomme": "Video-MME", "mlvu": "MLVU_MCQ", "longvideobench": "LongVideoBench", "lvbench": "LVBench"}
"""Its names of data sets, by ours."""
_IDS = ("question_id", "id", "uid")
_VIDEOS = ("video", "videoID", "video_id", "video_path", "key")
LONGEST = 32_767
"""Most characters of a cell in an Excel table."""
_NAMED = re.compile(
    r"(?P<model>.+?)_(?P<data>(?i:video-?mme|mlvu|longvideobench|lvbench|vnbench)[\w-]*?)"
    r"(?:_(?P<count>\d+(?:\.\d+)?)(?P<unit>frame|fps))?(?P<subs>(?:_[a-z]+)*)"
)
_ESCAPED = re.compile("_x([0-9A-Fa-f]{4})_")
_ILLEGAL = re.compile("[\x00-\x08\x0b-\x1f\ud800-\udfff\ufffe\uffff]|_(?=x[0-9A-Fa-f]{4}_)")


def recognises(path: Path) -> bool:
    """Whether a file is a table with predictions."""
    if path.suffix == ".tsv":
        return "prediction" in text_of(path).partition("\n")[0].rstrip("\r").split("\t")
    if path.suffix == ".json":
        return _NAMED.fullmatch(path.stem) is not None and '"prediction"' in text_of(path)
    return path.suffix == ".xlsx" and not path.name.startswith("~$")


def read(path: Path) -> ImportedFile:
    """A table of predictions.

    Raises:
        UserError: not such a table; the message names the row.
    """
    rows: list[tuple[int, list[Any]]]
    rows = list(_tsv(path) if path.suffix == ".tsv" else _json(path) if path.suffix == ".json" else _xlsx(path))
    header = next(iter(rows), (0, []))[1]
    names = [str(name) for name in header]
    if "prediction" not in names:
        raise damaged(path, "", f"has no column `prediction`; its columns are {', '.join(names) or 'none'}")
    if twice := {name for name in names if name and names.count(name) > 1}:
        raise damaged(path, "", f"has several columns {', '.join(sorted(twice))}")
    parsed = []
    for number, values in rows[1:]:
        if len(values) > len(names) and any(value is not None for value in values[len(names) :]):
            raise damaged(path, f"row {number}", f"has {len(values)} fields, the header has {len(names)}")
        record = dict(zip(names, [*values, *[None] * len(names)], strict=False))
        if any(value is not None for value in record.values()):
            place = f"row {number}"
            parsed.append(read_row(path, place, partial(_row, place, record)))
    if not parsed:
        raise damaged(path, "", "has no row")
    named = _NAMED.fullmatch(path.stem)
    return ImportedFile("openvlm", (path,), named["data"] if named else "", parsed, _declared(named), "release")


def _declared(named: re.Match[str] | None) -> dict[str, Any]:
    """The settings in the file's name; a table holds no others."""
    if named is None:
        return {}
    declared: dict[str, Any] = {"model": named["model"], "dataset": named["data"]}
    if named["count"]:
        count = float(named["count"])
        declared["frames" if named["unit"] == "frame" else "fps"] = int(count) if count.is_integer() else count
    words = named["subs"].split("_")
    if "subs" in words or "nosubs" in words:
        declared["subtitles"] = "subs" in words
        if named["data"].casefold().startswith("longvideobench"):  # its switch was inverted until 2026-06
            declared["subtitles_named"] = "the opposite was asked by VLMEvalKit before 2026-06"
            del declared["subtitles"]
    return declared


def _row(place: str, record: Mapping[str, Any]) -> ImportedRow:
    prediction = record["prediction"]
    text = "" if prediction is None else _said(prediction)
    score = record.get("score", record.get("hit"))
    return ImportedRow(
        place=place,
        text=text,
        ids=tuple(_said(record[name]) for name in _IDS if record.get(name) is not None),
        video=next((_said(record[name]) for name in _VIDEOS if record.get(name) is not None), ""),
        question=_said(record.get("question") or ""),
        options=_options(record),
        gold=_gold(record),
        correct=bool(int(score)) if str(score) in ("0", "1", "0.0", "1.0") else None,
        error=NO_ANSWER if NO_ANSWER in text else None,
    )


def _said(value: Any) -> str:
    """A cell as text; tables hold whole numbers as 3 or 3.0."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _options(record: Mapping[str, Any]) -> dict[str, str]:
    listed = {letter: _said(record[letter]) for letter in string.ascii_uppercase if record.get(letter) is not None}
    candidates = record.get("candidates")
    if not listed and isinstance(candidates, str):
        try:
            options = ast.literal_eval(candidates)
        except (ValueError, SyntaxError):
            return {}
        return options_of(options) if isinstance(options, list | tuple) else {}
    return listed


def _gold(record: Mapping[str, Any]) -> str | None:
    choice = record.get("correct_choice")
    if choice is not None and re.fullmatch(r"\d+(\.0)?", str(choice)):
        return chr(ord("A") + int(float(choice)))
    return _said(record["answer"]) if record.get("answer") is not None else None


def _tsv(path: Path) -> Iterator[tuple[int, list[str | None]]]:
    """Rows with the line that each starts on."""
    text = text_of(path)
    csv.field_size_limit(2**31 - 1)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter="\t", strict=True)
    start = 1
    try:
        for values in reader:
            yield start, [value if value != "" else None for value in values]
            start = reader.line_num + 1
    except csv.Error as error:
        raise damaged(path, f"line {start}", f"is not a row of a tsv ({error})") from error


def _json(path: Path) -> Iterator[tuple[int, list[Any]]]:
    """Rows of a list of objects, or of an object of columns."""
    try:
        content = json.loads(text_of(path))
    except (ValueError, RecursionError) as error:
        raise damaged(path, "", f"is not JSON ({error})") from error
    if isinstance(content, dict):
        columns = {name: list(of.values()) if isinstance(of, dict) else of for name, of in content.items()}
        if not all(isinstance(of, list) for of in columns.values()):
            raise damaged(path, "", "is neither a list of rows nor an object of columns")
        content = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    if not isinstance(content, list) or not all(isinstance(row, dict) for row in content):
        raise damaged(path, "", "is neither a list of rows nor an object of columns")
    names = list(dict.fromkeys(name for row in content for name in row))
    yield 0, names
    for number, row in enumerate(content, start=1):
        yield number, [row.get(name) for name in names]


def _xlsx(path: Path) -> Iterator[tuple[int, list[Any]]]:
    """Rows of the first sheet. A formula is read as it was typed: a prediction that starts with "=" becomes one."""
    from openpyxl import load_workbook
    from openpyxl.utils.exceptions import InvalidFileException

    try:
        sheet = load_workbook(path, read_only=True, data_only=False).worksheets[0]
        for number, values in enumerate(sheet.iter_rows(values_only=True), start=1):
            yield number, [_unescaped(value) if isinstance(value, str) else value for value in values]
    except (BadZipFile, InvalidFileException, KeyError, IndexError, ValueError, OSError) as error:
        raise damaged(path, "", f"is not an Excel table ({error})") from error


def _unescaped(text: str) -> str:
    return _ESCAPED.sub(lambda match: chr(int(match[1], 16)), text)


def _escaped(text: str) -> str:
    """ECMA-376 22.9.2.19: characters that XML cannot hold as ``_xHHHH_``, and what looks like one with its "_" so."""
    return _ILLEGAL.sub(lambda match: f"_x{ord(match[0]):04X}_", text)


def write(cell: CellResult, answers: Sequence[Exported]) -> dict[str, bytes]:
    """The table as xlsx. A failed question has VLMEvalKit's own text in place of an answer.

    Raises:
        UserError: a text is longer than a cell of an Excel table may be.
    """
    rows = [_record(i, exported, cell.benchmark) for i, exported in enumerate(answers)]
    names = list(dict.fromkeys(name for row in rows for name in row if name != "prediction"))
    table = [[*names, "prediction"], *([*(row.get(name) for name in names), row["prediction"]] for row in rows)]
    setting = cell.setting
    title, split = _DATASETS.get(cell.benchmark, cell.benchmark), setting["split"]
    if split != next(iter(benchmark(cell.benchmark).counts)):
        title = f"{title}_{split}"
    return {f"{setting['model']}_{title}_{setting['frames']}frame.xlsx": _as_xlsx(table)}


def _record(i: int, exported: Exported, name: str) -> dict[str, Any]:
    record = exported.record
    answer = record.options.get(record.answer or "") if name == "mlvu" else record.answer
    row: dict[str, Any] = {key: value if isinstance(value, str) else str(value) for key, value in record.tags.items()}
    row |= {"index": i, "question_id": record.question_id, "video": record.video_id, "question": exported.question}
    row |= {"candidates": str(list(record.options.values())), **record.options, "answer": answer}
    if name == "longvideobench" and record.answer is not None:
        row["correct_choice"] = list(record.options).index(record.answer)
    return {**row, "prediction": exported.answer.text if exported.answer.ok else NO_ANSWER}


def _as_xlsx(table: Sequence[Sequence[Any]]) -> bytes:
    from openpyxl import Workbook
    from openpyxl.cell import WriteOnlyCell

    book = Workbook(write_only=True)
    sheet = book.create_sheet("Sheet1")
    for number, values in enumerate(table, start=1):
        cells = []
        for name, value in zip(table[0], values, strict=True):
            if not isinstance(value, str):
                cells.append(value)
                continue
            text = _escaped(value)
            if len(text) > LONGEST:
                raise UserError(
                    f"export openvlm: {name} of row {number} has {len(text):,} characters; an Excel table holds "
                    f"{LONGEST:,} in a cell. Leave the cell out, or export it as lmms_eval or inspect."
                )
            cell = WriteOnlyCell(sheet, value="")
            cell._value, cell.data_type = text, "s"  # its setter makes a formula of "=1+1"
            cells.append(cell)
        sheet.append(cells)
    stream = io.BytesIO()
    book.save(stream)
    return stream.getvalue()
