"""The `doctor` verb: what this machine lacks for the chosen settings, a line each with what mends it."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from harness.advice import harness, install
from harness.errors import UserError
from harness.places import INSTALLED, ROOT
from harness.settings.cell import Cell
from harness.settings.compose import Recomposed
from harness.settings.groups import DEFAULT_READER, PUBLISHED_READER, Config, EngineConfig, ModelConfig, TaskConfig
from harness.settings.matrix import build_cells
from harness.settings.rules import MatrixConfig
from harness.settings.weights import has_accelerator

OK, NOTE, PROBLEM = "ok", "note", "problem"
MODELS_GROUP, MODEL_ID = "lmms_eval.models", "adaretake"
DECODERS = {"decord": "decord", "pyav": "av", "torchcodec": "torchcodec"}
TESTED_TRANSFORMERS = ("5.4", "6")
"""At least, and below: the releases whose own position code was compared with ours (docs/method.md)."""
PYTHONS = ((3, 11), (3, 14))
"""The first and the last that is supported, as in pyproject.toml and scripts/setup.sh."""
SPARE_GB = 5.0


@dataclass(frozen=True)
class Finding:
    """One line. A note is worth knowing and hinders nothing; `fix` is a command or a setting."""

    what: str
    state: str
    detail: str
    fix: str = ""


def main(config: Config) -> int:
    """Print every finding.

    Returns:
        0 when nothing is a problem, else 1.
    """
    console = Console(soft_wrap=True, highlight=False)
    problems = 0
    for name, check in checks_of(config).items():
        for finding in run_check(name, check):
            problems += finding.state == PROBLEM
            console.print(f"{finding.state:8}{finding.what:14}{finding.detail}", markup=False)
            for line in finding.fix.splitlines():
                console.print(f"{'':22}{'' if line.startswith('then: ') else 'fix: '}{line}", markup=False)
    console.print(f"{problems} problem{'s' * (problems != 1)}" if problems else "nothing stands in the way")
    return 1 if problems else 0


def checks_of(config: Config) -> dict[str, Callable[[], Iterator[Finding]]]:
    """Name -> check, in the order of the lines."""
    return {
        "python": python,
        "packages": packages,
        "entry_point": entry_point,
        "accelerator": lambda: accelerator(config.model.device, config.profile),
        "attention": lambda: attention(config.model),
        "decoder": lambda: decoder(config.video.backend),
        "engine": lambda: engine(config.engine, config.model.device),
        "matrix": lambda: matrix(build_cells(config, [])),
        "results": lambda: results(Path(config.results)),
        "weights": lambda: weights(_each(config.matrix, config.words, "model") or [config.model]),
        "data": lambda: data(
            _each(config.matrix, config.words, "task") or [config.task],
            config.profile,
            Path(config.data.root),
            config.words,
        ),
    }


def run_check(name: str, check: Callable[[], Iterator[Finding]]) -> list[Finding]:
    """A check's findings; an error inside it is a problem of its own and hides no other check."""
    found: list[Finding] = []
    try:
        found.extend(check())
    except UserError as error:
        found.append(Finding(name, PROBLEM, *_split(str(error))))
    except Exception as error:
        found.append(Finding(name, PROBLEM, f"the check itself failed: {type(error).__name__}: {error}"))
    return found


def matrix(cells: Sequence[Cell]) -> Iterator[Finding]:
    """That the settings name cells; missing weights are the subject of another line."""
    yield Finding("matrix", OK, f"{len(cells)} cell{'s' * (len(cells) != 1)}")


def python() -> Iterator[Finding]:
    """The interpreter."""
    good = PYTHONS[0] <= sys.version_info[:2] <= PYTHONS[1]
    first, last = (".".join(map(str, version)) for version in PYTHONS)
    yield Finding(
        "python", OK if good else PROBLEM, platform.python_version(), "" if good else f"use Python {first} to {last}"
    )


def packages() -> Iterator[Finding]:
    """Installed libraries, and those whose version changes what a model sees."""
    for name in ("torch", "transformers", "lmms-eval", "hydra-core", "datasets"):
        try:
            yield Finding(name, OK, importlib.metadata.version(name))
        except importlib.metadata.PackageNotFoundError:
            yield Finding(name, PROBLEM, "not installed", install(name) if INSTALLED else "bash scripts/setup.sh")
    version = _numbers(importlib.metadata.version("transformers"))
    if not _numbers(TESTED_TRANSFORMERS[0]) <= version < _numbers(TESTED_TRANSFORMERS[1]):
        yield Finding(
            "transformers",
            PROBLEM,
            f"M-RoPE ids changed between releases; tested are {TESTED_TRANSFORMERS[0]} up to {TESTED_TRANSFORMERS[1]}",
            install(f"transformers>={TESTED_TRANSFORMERS[0]},<{TESTED_TRANSFORMERS[1]}"),
        )


def entry_point() -> Iterator[Finding]:
    """Whether lmms-eval finds the model class."""
    names = {point.name for point in importlib.metadata.entry_points(group=MODELS_GROUP)}
    if MODEL_ID in names:
        yield Finding("lmms-eval", OK, "finds the models adaretake_*")
    else:
        fix = "install the wheel with pip" if INSTALLED else install("--no-deps", "-e", str(ROOT))
        yield Finding("lmms-eval", PROBLEM, "does not find the models adaretake_*", fix)


def accelerator(wanted: str, profile: str) -> Iterator[Finding]:
    """Devices, and whether the settings want one."""
    on_cpu = wanted == "cpu" or wanted == "auto" and not has_accelerator()
    if on_cpu and (profile == "toy" or wanted == "cpu"):
        yield Finding("accelerator", OK, f"none; {os.cpu_count()} CPU cores, enough for the toy")
        return
    import torch

    from harness.models.loading import choose_device

    device = choose_device(wanted)
    if device.type == "cuda":
        for i in range(torch.cuda.device_count()):
            free, total = (amount / 2**30 for amount in torch.cuda.mem_get_info(i))
            detail = f"cuda:{i} {torch.cuda.get_device_name(i)}, {free:.0f} of {total:.0f} GiB free"
            yield Finding("accelerator", OK if free > total / 2 else NOTE, detail)
    elif device.type != "cpu":
        page = ", see docs/npu.md" if device.type == "npu" else ""
        detail = f"{device.type}, {torch.accelerator.device_count()} visible; nothing was ever run on one{page}"
        yield Finding("accelerator", NOTE, detail)
    elif profile == "toy":
        yield Finding("accelerator", OK, f"none; {os.cpu_count()} CPU cores, enough for the toy")
    else:
        detail = f"none visible (CUDA_VISIBLE_DEVICES={os.environ.get('CUDA_VISIBLE_DEVICES', 'not set')})"
        yield Finding("accelerator", PROBLEM, detail, "run on a machine with one, or profile=toy")


def attention(model: ModelConfig) -> Iterator[Finding]:
    """The attention backend that the settings lead to here."""
    on_cpu = model.device == "cpu" or model.device == "auto" and not has_accelerator()
    if on_cpu and model.attention != "flash_attention_2":
        yield Finding("attention", OK, f"{'sdpa' if model.attention == 'auto' else model.attention} on cpu")
        return
    from harness.compress.attention import choose_backend
    from harness.models.loading import choose_device, choose_dtype

    device = choose_device(model.device)
    chosen = choose_backend(model.attention, device, choose_dtype(model.dtype, device))
    if device.type == "cuda" and model.attention == "auto" and chosen != "flash_attention_2":
        detail = f"{chosen}; the published numbers are flash-attn 2 numbers"
        yield Finding("attention", NOTE, detail, install("flash-attn"))
    else:
        yield Finding("attention", OK, f"{chosen} on {device.type}")


def decoder(backend: str) -> Iterator[Finding]:
    """The video decoder."""
    module = DECODERS[backend]
    if importlib.util.find_spec(module) is None:
        others = [name for name, m in DECODERS.items() if importlib.util.find_spec(m)]
        fix = install(module) + (f"\nor set: video.backend={others[0]} (another identity)" if others else "")
        yield Finding("decoder", PROBLEM, f"video.backend={backend} is not installed", fix)
        return
    detail = f"{backend} {importlib.metadata.version(module)}"
    if backend == DEFAULT_READER and DEFAULT_READER != PUBLISHED_READER:
        detail += f"; {PUBLISHED_READER}, which the published runs used, is not installed here"
        yield Finding("decoder", NOTE, f"{detail}; cells of the two are not the same cells")
    else:
        yield Finding("decoder", OK, detail)


def results(folder: Path) -> Iterator[Finding]:
    """Room and permission in the results folder."""
    folder = folder.absolute()
    place = next(p for p in (folder, *folder.parents) if p.exists())
    try:
        with tempfile.TemporaryFile(dir=place):
            pass
    except OSError as error:
        yield Finding("results", PROBLEM, f"{folder}: {error.strerror}", "results=<folder you may write to>")
        return
    free = shutil.disk_usage(place).free / 2**30
    state = OK if free > SPARE_GB else PROBLEM
    fix = "" if state == OK else "free space, or results=<another folder>"
    yield Finding("results", state, f"{folder}, {free:.0f} GiB free", fix)


def weights(models: Sequence[ModelConfig]) -> Iterator[Finding]:
    """The model's files: are they whole, and those of the model that its name promises?"""
    from harness.settings.weights import architecture, check_weights, mismatch, weights_identity

    for model in models:
        try:
            folder = check_weights(model)
        except UserError as error:
            yield Finding("weights", PROBLEM, *_split(str(error)))
            continue
        wrong = mismatch({"model": {"name": model.name}, "architecture": architecture(model)})
        if wrong:
            yield Finding("weights", PROBLEM, f"{folder}: {wrong}", "model=<another>, or model.path=<its weights>")
        else:
            yield Finding("weights", OK, f"{folder} (identity {weights_identity(folder.resolve())})")


def data(tasks: Sequence[TaskConfig], profile: str, root: Path, words: Sequence[str]) -> Iterator[Finding]:
    """Annotations and videos of each task. Where nobody asked about data, that there are none yet is no problem."""
    from harness.benchmarks.questions import load_questions

    if profile == "toy" and not root.exists():
        yield Finding("data", OK, "the toy is made on the first run")
        return
    asked = any(word.startswith(("data.", "task", "matrix.task")) for word in words)
    kept = [word for word in words if word.startswith(("profile=", "data."))]
    for task in tasks:
        fix = harness("prepare", kept, f"task={task.name}")
        if not asked and not root.exists():
            yield Finding("data", NOTE, f"{root} does not exist; a run needs the benchmarks there", fix)
            return
        try:
            questions = load_questions(task, root)
        except UserError as error:
            yield Finding("data", PROBLEM, _split(str(error))[0], fix)
            continue
        videos = {question.video for question in questions}
        absent = [video for video in videos if not video.exists()]
        detail = f"{task.name}: {len(questions)} questions, {len(videos) - len(absent)} of {len(videos)} videos"
        yield Finding("data", PROBLEM if absent else OK, detail, fix if absent else "")


def engine(settings: EngineConfig, device: str) -> Iterator[Finding]:
    """What starts the workers."""
    from harness.run.engines import build_engine

    if settings.name == "ray":  # building it would join or start a cluster
        found = importlib.util.find_spec("ray") is not None
        yield Finding("engine", OK if found else PROBLEM, "ray", "" if found else install("ray"))
        return
    if settings.name == "slurm" and settings.cluster is None and shutil.which("sbatch") is None:
        yield Finding("engine", PROBLEM, "slurm: no sbatch on this machine", "engine=local, or engine.cluster=local")
        return
    built = build_engine(settings, device)
    yield Finding("engine", OK, f"{settings.name}, {built.workers} worker{'s' * (built.workers > 1)}")


def _each(matrix: MatrixConfig, words: Sequence[str], axis: str) -> list[Any]:
    """The section of each option on an axis of the matrix; none where the axis is not set."""
    names = list(dict.fromkeys(name for part in matrix.parts for name in getattr(part, axis) or ()))
    again = Recomposed(words)
    return [getattr(again.under(**{axis: name}), axis) for name in names]


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:2] if part.isdigit())


def _split(message: str) -> tuple[str, str]:
    """First line, and the rest as the fix: a command on a line of its own."""
    first, _, rest = message.partition("\n")
    if not rest:
        first, _, rest = message.partition(". Get it with: ")
    lines = (line.strip().removeprefix("get them: ") for line in rest.splitlines())
    return first.removeprefix("weights: "), "\n".join(line for line in lines if line)
