"""Writing the explorer's folder: the page, its script, the table widget out of its package, and the data."""

from __future__ import annotations

import importlib.metadata
import re
import secrets
import shutil
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote, unquote

from harness.errors import UserError
from harness.evidence.cells import CellResult
from harness.records import StoreError, write_atomic
from harness.report.explorer.data import Answers, chunks, index, script
from harness.report.style import picture

HERE = Path(__file__).parent
FOLDER, PAGE, LIST = "explorer", "index.html", "data/pictures.js"


def write_explorer(cells: Sequence[CellResult], report: Path, data_root: Path) -> None:
    """Write the folder ``explorer`` anew, which then replaces the old one.

    Args:
        report: the report's folder, which it stands in.
        data_root: the benchmarks' annotations, for the questions in words.

    Raises:
        UserError: the package of the table widget is not what was expected.
        StoreError: the folder cannot be written.
    """
    found, folder = Answers.of(cells), report / FOLDER
    draft = folder.with_name(f".{folder.name}.{secrets.token_hex(6)}.tmp")
    try:
        (draft / "data").mkdir(parents=True)
        files = {
            PAGE: explorer_html(found),
            "explorer.js": (HERE / "explorer.js").read_text(encoding="utf-8"),
            **datatables(),
            "data/index.js": script("EXPLORER.index", index(found, data_root)),
            LIST: pictures(report),
        }
        for name, text in files.items():
            (draft / name).write_text(text, encoding="utf-8")
        for number, piece in enumerate(chunks(found)):
            (draft / "data" / f"{number}.js").write_text(script(f"EXPLORER.chunks[{number}]", piece), encoding="ascii")
        shutil.rmtree(folder, ignore_errors=True)
        draft.rename(folder)
    except OSError as error:
        raise StoreError(
            f"cannot write {folder}: {error.strerror or error}. Free space there (df -h {folder.parent}), or leave the "
            "pages of answers out with report.explorer=false."
        ) from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def explorer_html(found: Answers) -> str:
    """The page without its data."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string((HERE / "page.html.j2").read_text(encoding="utf-8"))
    answers = sum(len(cell.answers) for cell in found.cells)
    return template.render(questions=len(found.rows), answers=answers, cells=len(found.cells))


def datatables() -> dict[str, str]:
    """The files of DataTables (MIT licence) as the package ``itables`` delivers them: name -> content.

    A page opened from a folder may not import modules, so the module becomes a plain script that defines `DataTable`.

    Raises:
        UserError: the package is absent, or its bundle exports no table.
    """
    try:
        package = importlib.metadata.distribution("itables")
        bundle, style = (
            Path(str(package.locate_file(f"itables/html/dt_bundle.{kind}"))).read_text(encoding="utf-8")
            for kind in ("js", "css")
        )
    except (importlib.metadata.PackageNotFoundError, OSError) as error:
        raise UserError(
            f"the pages of answers need the package itables ({error}): pip install -c constraints.txt itables; or "
            "leave them out with report.explorer=false"
        ) from error
    exported = re.search(r"export\s*\{[^}]*?([\w$]+) as default[^}]*\};?", bundle)
    if exported is None:
        raise UserError(
            f"the package itables {package.version} has no table as it was expected: "
            "pip install -c constraints.txt itables; or leave the pages of answers out with report.explorer=false"
        )
    body = f"{bundle[: exported.start()]}window.DataTable={exported[1]};{bundle[exported.end() :]}"
    return {"datatables.js": f"(()=>{{{body}\n}})();\n", "datatables.css": style}


def hang_pictures(report: Path) -> None:
    """Hang the pictures that there are now at their questions, where the report has an explorer.

    Raises:
        StoreError: the list cannot be written.
    """
    if (report / FOLDER / PAGE).is_file():
        write_atomic(report / FOLDER / LIST, pictures(report))


def pictures(report: Path) -> str:
    """A script that lists, per question id, addresses and names of the pictures that `show` has drawn."""
    listed = [
        [
            unquote(folder.name),
            [[quote(f"../{folder.parent.name}/{folder.name}/{path.name}"), path.stem] for path in of],
        ]
        for folder in sorted(picture(report, "q", "p").parent.parent.glob("*"))
        if (of := sorted(folder.glob("*.png")))
    ]
    return script("EXPLORER.pictures", listed)
