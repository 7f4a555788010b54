"""The verb ``export``: stored cells in the formats of other code bases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from harness.advice import harness
from harness.errors import UserError
from harness.evidence.cells import CellResult
from harness.evidence.loading import load_cells, references_of
from harness.settings.matrix import ids_under
from harness.store.records import made_folder
from harness.tools.exchange import inspect, lmms_eval, openvlm
from harness.tools.exchange.exported import Exported, exported, write_files
from harness.tools.verbs import WRITTEN

if TYPE_CHECKING:
    from harness.settings.groups import Config
    from harness.tools.verbs import ExportConfig


class Writer(Protocol):
    """A format's side of writing."""

    def __call__(self, cell: CellResult, asked: Sequence[Exported]) -> Mapping[str, bytes]:
        """Name below the cell's folder -> content."""


WRITERS: dict[str, Writer] = {"lmms_eval": lmms_eval.write, "openvlm": openvlm.write, "inspect": inspect.write}


def main(config: Config, given: ExportConfig) -> int:
    """Write the chosen cells in every format of ``export.formats``.

    Returns:
        0, or 1 where a cell lacks answers: its file lacks them, too.

    Raises:
        UserError: no such format or cell, or a file is in the way.
    """
    results = Path(config.results)
    unknown = [name for name in given.formats if name not in WRITERS]
    if unknown or not given.formats:
        said = f"{' '.join(unknown)} is not known" if unknown else "no format is named"
        raise UserError(f"export: {said}; allowed: {', '.join(WRITTEN)}")
    cells = load_cells(results, references_of(given.cell), ids_under(config.words))
    if not cells:
        raise UserError(f"{results / 'runs'} has no cell yet; answer some: {harness('run', config.words)}")
    roots = {
        format: made_folder(Path(given.output) if given.output else results / "export" / format, "output=<folder>")
        for format in given.formats
    }
    whole = True
    for cell in cells:
        whole &= cell.missing == 0
        asked = exported(cell, Path(config.data.root))
        if not asked:
            print(f"{cell.id}: no answer yet, nothing is written")
            continue
        for format in given.formats:
            written = write_files(roots[format] / cell.id, WRITERS[format](cell, asked))
            print(f"{written[0]}: {len(asked)} answers{_lacks(cell, asked)}")
    return 0 if whole else 1


def _lacks(cell: CellResult, asked: Sequence[Exported]) -> str:
    words = []
    if cell.missing:
        words.append(f"{cell.missing} questions have none yet")
    if bare := sum(each.row is None for each in asked):
        words.append(f"{bare} without the question's text, its annotation is not below data.root")
    return "".join(f"; {word}" for word in words)
