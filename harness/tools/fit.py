"""``fit``: what a method takes from calibration videos, stored as a file (the recipe of FitPrune)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from harness.advice import aside, open_console
from harness.compress.methods.fitprune import FitPrune, fit_recipe
from harness.errors import UserError
from harness.models.adapter import Adapter
from harness.models.features import VideoFeatures
from harness.places import find
from harness.records import made_folder
from harness.run.answer import Session, load_model, open_sampled
from harness.settings.cell import Cell
from harness.settings.groups import Config
from harness.settings.matrix import build_cells
from harness.tools import FitConfig

EXAMPLE = '{"video": "FILE", "question": "What happens?"}'


def main(config: Config, fit: FitConfig) -> int:
    """Carry out the verb.

    Raises:
        UserError: a method that has nothing to fit, a recipe that is there already, no samples, or samples that cannot
            be read or are the test's.
    """
    method = config.method
    if not isinstance(method, FitPrune):
        raise UserError(f"method={method.name} has nothing to fit: set method=fitprune")
    if method.recipe is None:
        raise UserError("method.recipe=null says not where the recipe goes: give a file")
    cell = build_cells(config, [])[0]
    listed = None if config.profile == "toy" and fit.samples is None else read_samples(fit.samples, config.data.root)
    if (held := find(method.recipe)).exists():
        raise UserError(
            f"method.recipe={method.recipe} is there already, and cells may be answered under it; name another file "
            f"with method.recipe=FILE, here and where it is used, or move it away: {aside(held)}"
        )
    path = Path(method.recipe)
    made_folder(path.parent, "method.recipe=FILE")
    adapter = load_model(cell)
    calibrator, chunks, count = method.calibrator(), [], 0
    encoded = toy_videos(fit.toy_videos, adapter, cell) if listed is None else videos(listed, adapter, cell)
    for features, question in encoded:
        answer = adapter.answer(features, question, calibrator, max_new_tokens=1, record=True)
        assert answer.trace.recording is not None
        chunks += [scores for scores in answer.trace.recording.scores if scores is not None]
        count += 1
    recipe = fit_recipe(chunks, cell.weights, count)
    recipe.write(path)
    console = open_console()
    console.print(f"fitted on {count} questions, {len(chunks)} chunks; shares kept, from the first layer to the last:")
    for row in recipe.rows[::2]:
        shares = " ".join(f"{share:.3f}" for share in row.kept)
        console.print(f"  {row.target:6.3f}  {shares}", soft_wrap=True)
    console.print(f"recipe: {path}", markup=False, soft_wrap=True)
    return 0


def toy_videos(count: int, adapter: Adapter, cell: Cell) -> Iterator[tuple[VideoFeatures, str]]:
    """Toy videos that no benchmark holds, encoded, and a prompt about each."""
    from harness.toy.benchmarks import samples
    from harness.toy.world import FPS

    for frames, prompt in samples(count, cell.video.max_frames):
        yield adapter.encode(frames, second_per_grid=adapter.frames_per_grid / FPS), prompt


def videos(listed: list[tuple[Path, str]], adapter: Adapter, cell: Cell) -> Iterator[tuple[VideoFeatures, str]]:
    """The listed videos, sampled and encoded as the cell says, and the question about each."""
    session = Session(adapter, [cell])
    for path, question in listed:
        video = open_sampled(path, cell.video)
        yield session.encode(video.plan, video.windows(cell.video.window)), question


def read_samples(name: str | None, data_root: str) -> list[tuple[Path, str]]:
    """Videos and questions of `fit.samples`, one JSON object a line; videos relative to the file.

    Raises:
        UserError: no file, a line that says something else, a video that does not exist or lies among the test's.
    """
    if name is None:
        raise UserError(f"fit.samples is missing: give a file of lines such as {EXAMPLE}, on videos that are no test's")
    try:
        lines = Path(name).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"fit.samples={name} cannot be read: {error}; give a file of lines such as {EXAMPLE}"
        ) from error
    found, tests = [], Path(data_root).resolve()
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            video, question = Path(name).parent / str(row["video"]), str(row["question"])
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"fit.samples={name}: line {number} is not of the form {EXAMPLE}") from error
        if not video.is_file():
            raise UserError(f"fit.samples={name}: line {number}: {video} is not a file")
        if tests in video.resolve().parents:
            raise UserError(
                f"fit.samples={name}: line {number}: {video} lies below data.root={data_root}, among the videos "
                "of the tests; fit on others"
            )
        found.append((video, question))
    if not found:
        raise UserError(f"fit.samples={name} is empty: give lines such as {EXAMPLE}")
    return found
