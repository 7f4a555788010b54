"""``analyze bound``: appendix A in numbers, and the output's error against kept attention mass."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from rich.console import Console

from harness.compress.allocation import pooled
from harness.compress.evict import ChunkEvictor, Counts
from harness.compress.method import Method, build_method
from harness.compress.prefill import Prefill
from harness.compress.prompt import Segment
from harness.compress.trace import Recording
from harness.errors import QuestionError, UserError, VideoError
from harness.models.adapter import Adapter
from harness.models.features import VideoFeatures
from harness.records import made_folder
from harness.run.answer import load_model
from harness.settings.cell import Cell
from harness.tools.analysis import AnalyzeConfig, figures
from harness.tools.analysis.figures import GUARANTEE, write_figure
from harness.tools.analysis.heavy_study import chosen


@dataclass(frozen=True)
class Instance:
    """Scores [L, c] and how many tokens each layer keeps on average."""

    scores: torch.Tensor
    budget: int

    @property
    def total(self) -> int:
        """T."""
        return len(self.scores) * self.budget

    def log_mass(self, counts: Sequence[int]) -> float:
        """Sum over layers of the logarithm of the kept mass; minus infinity where a layer keeps nothing."""
        held = self._held()
        return sum(math.log(held[layer][k]) if held[layer][k] else -math.inf for layer, k in enumerate(counts))

    def gain(self, counts: Sequence[int]) -> float:
        """Log-mass above that of one token per layer."""
        return self.log_mass(counts) - self.log_mass([1] * len(self.scores))

    def score(self, counts: Sequence[int]) -> float:
        """Sum of the kept scores."""
        ordered = self.scores.double().sort(dim=1, descending=True).values
        return sum(float(row[:k].sum()) for row, k in zip(ordered, counts, strict=True))

    def allocations(self, least: int = 1) -> Iterator[tuple[int, ...]]:
        """All counts of at least `least` per layer that add up to T."""
        layers, length = self.scores.shape
        for counts in itertools.product(range(least, length + 1), repeat=layers - 1):
            if least <= (last := self.total - sum(counts)) <= length:
                yield (*counts, last)

    def even(self) -> list[int]:
        """As many in every layer."""
        return [self.budget] * len(self.scores)

    def pooled(self) -> list[int]:
        """What the method keeps (eq. 11 to 16), bounds and rounding included."""
        return pooled(list(self.scores), self.budget)

    def best(self) -> list[int]:
        """The largest gain, by trying all."""
        return list(max((self.log_mass(counts), counts) for counts in self.allocations())[1])

    def greedy(self) -> list[int]:
        """From one token per layer on, always the token that gains most; ties go to the lower layer."""
        held, counts = self._held(), [1] * len(self.scores)
        for _ in range(self.total - len(counts)):
            gains = [
                math.log(held[layer][k + 1] / held[layer][k]) if k + 1 < len(held[layer]) else -math.inf
                for layer, k in enumerate(counts)
            ]
            counts[gains.index(max(gains))] += 1
        return counts

    def _held(self) -> list[list[float]]:
        """Kept mass of each layer by its count, from none to all [L][c + 1]."""
        ordered = self.scores.double().sort(dim=1, descending=True).values
        masses = ordered.cumsum(1) / ordered.sum(1, keepdim=True)
        return [[0.0, *row] for row in masses.tolist()]


def instances(count: int, seed: int) -> Iterator[Instance]:
    """Random instances: attention of each layer drawn from a Dirichlet distribution, from one spike to nearly flat."""
    generator = torch.Generator().manual_seed(seed)

    def draw(low: int, high: int) -> int:
        return int(torch.randint(low, high, (1,), generator=generator))

    for _ in range(count):
        layers, length = draw(2, 5), draw(4, 11)
        sharpness = 10 ** (torch.rand(layers, generator=generator) * 2.5 - 1.5)
        # Dirichlet by exponentials raised to a power would be another law; gamma draws are what it is made of.
        gamma = torch._standard_gamma(sharpness[:, None].expand(layers, length).double(), generator=generator)
        scores = gamma.clamp_min(1e-12)
        yield Instance(scores / scores.sum(1, keepdim=True), draw(1, length))


def judged(instance: Instance) -> dict[str, float]:
    """Gains as shares of the best one (1 where there is nothing to gain), and sums of kept scores."""
    most = instance.gain(instance.best())
    found: dict[str, float] = {"layers": len(instance.scores), "tokens": instance.scores.shape[1]}
    found["budget"] = instance.budget
    for name, counts in (("even", instance.even()), ("pooled", instance.pooled()), ("greedy", instance.greedy())):
        found[name] = instance.gain(counts) / most if most > 0 else 1.0
        found[f"{name}_score"] = instance.score(counts)
    return found


SHARES = (1 / 2, 1 / 4, 1 / 8, 1 / 16)
"""Of the video's tokens that are kept."""


@dataclass(frozen=True)
class AtRandom(ChunkEvictor):
    """Scores as the paper does and evicts without regard to them: the same budget for less mass."""

    def choose(self, run: Prefill, segment: Segment, scores: list[torch.Tensor], counts: Counts) -> list[Any]:
        generator = torch.Generator().manual_seed(segment.chunk or 0)
        drawn = [torch.randperm(len(s), generator=generator) for s in scores]
        return [order[:count].sort().values.to(s.device) for order, count, s in zip(drawn, counts, scores, strict=True)]


def choices(chunk_frames: int) -> dict[str, Method]:
    """What is compared at equal budgets, every chunk in proportion to its length."""
    paper = {"chunk_frames": chunk_frames, "temporal": False}
    return {
        "pooled": build_method("adaretake", layers=True, **paper),
        "even": build_method("adaretake", layers=False, **paper),
        "at random": AtRandom(name="at random", chunk_frames=chunk_frames),
    }


def kept_mass(recording: Recording) -> list[float]:
    """Share of the guide's attention to the video that each layer kept [L], mean over the chunks."""
    shares = []
    for scores, kept in zip(recording.scores, recording.kept_indices, strict=True):
        if scores is not None and kept is not None:
            shares.append([float(s[i].sum() / s.sum()) for s, i in zip(scores, kept, strict=True)])
    return [sum(of_layer) / len(shares) for of_layer in zip(*shares, strict=True)]


def errors(
    adapter: Adapter, video: VideoFeatures, question: str, *, chunk_frames: int, shares: Sequence[float] = SHARES
) -> Iterator[dict[str, Any]]:
    """One row per budget and choice: log of the product of kept mass, and two distances to the uncompressed output.

    `logits` is the distance of the next token's logits relative to the length of the uncompressed ones; `tokens` is the
    total variation between the two distributions of the next token.
    """
    none = build_method("none", chunk_frames=chunk_frames)
    whole = _logits(adapter.answer(video, question, none, max_new_tokens=1, record=True).trace.recording)
    prompt = adapter.prompt(question, video)
    for share in shares:
        context = prompt.n_text + max(1, round(share * prompt.n_video))
        for name, method in choices(chunk_frames).items():
            trace = adapter.answer(video, question, method, context, max_new_tokens=1, record=True).trace
            assert trace.recording is not None
            if not trace.compressed:
                continue
            found = _logits(trace.recording)
            mass = kept_mass(trace.recording)
            yield {
                "choice": name,
                "share": share,
                "log_mass": sum(map(math.log, mass)),
                "logits": float((found - whole).norm() / whole.norm()),
                "tokens": float((found.softmax(0) - whole.softmax(0)).abs().sum() / 2),
            }


def _logits(recording: Recording | None) -> torch.Tensor:
    assert recording is not None
    return recording.logits[0].double()


def study(cell: Cell, data_root: Path, folder: Path, analyze: AnalyzeConfig) -> int:
    """Write instances, errors and their figure to `bound` in a folder.

    Returns:
        0; 1 where a video was left out, or something that is proven does not hold.

    Raises:
        UserError: no videos or weights.
    """
    console = Console(highlight=False)
    folder = made_folder(folder / "bound", "results=<folder>")
    drawn = pd.DataFrame([judged(found) for found in instances(analyze.instances, analyze.seed)])
    drawn.to_csv(folder / "instances.csv", index=False)
    holds = bool((drawn["greedy"] >= 1 - 1e-9).all())
    console.print(
        f"{len(drawn)} instances, gains in log-mass as shares of the best: greedy at least {drawn['greedy'].min():.3f} "
        f"(proven: 1 - 1/e = {GUARANTEE:.3f}); pooled at least {drawn['pooled'].min():.3f}, below it in "
        f"{(drawn['pooled'] < GUARANTEE).mean():.1%}, mean {drawn['pooled'].mean():.3f}; even at least "
        f"{drawn['even'].min():.3f}, mean {drawn['even'].mean():.3f}",
        soft_wrap=True,
    )
    rows, problems, setting = measured(cell, data_root, analyze)
    for problem in problems:
        console.print(f"left out: {problem}", markup=False, soft_wrap=True)
    errors = pd.DataFrame(rows)
    errors.to_csv(folder / "errors.csv", index=False)
    scored = errors[errors["choice"] != "at random"]
    console.print(
        f"{len(errors)} answers: rank correlation of kept log-mass with the error of the logits "
        f"{rank_correlation(errors):+.2f}, without choices at random {rank_correlation(scored):+.2f} (measured)",
        soft_wrap=True,
    )
    write_figure(folder / "bound.svg", figures.bound_figure, drawn, errors, setting)
    console.print(f"figure and CSV files: {folder}", markup=False, soft_wrap=True)
    return 0 if holds and not problems else 1


def rank_correlation(errors: pd.DataFrame) -> float:
    """Spearman's, of kept log-mass with the error of the logits, mean over the videos."""
    ranks = [of_video[["log_mass", "logits"]].rank().corr().iloc[0, 1] for _, of_video in errors.groupby("video")]
    return float(pd.Series(ranks).mean())


def measured(cell: Cell, data_root: Path, analyze: AnalyzeConfig) -> tuple[list[dict[str, Any]], list[str], str]:
    """The errors of some videos of the task, which videos could not be used, and what was run.

    Raises:
        UserError: none could be used.
    """
    from harness.benchmarks.questions import load_questions
    from harness.tools.fit import videos

    questions = chosen(load_questions(cell.task, data_root), analyze.videos)
    adapter = load_model(cell)
    rows: list[dict[str, Any]] = []
    problems: list[str] = []
    for question in questions:
        try:
            for video, asked in videos([(question.video, question.prompt)], adapter, cell):
                found = list(errors(adapter, video, asked, chunk_frames=analyze.chunk_frames))
                rows += [{"video": question.video_id, **row} for row in found]
        except (VideoError, QuestionError) as error:
            problems.append(f"{question.video_id}: {error}")
    if not rows:
        raise UserError(
            f"none of {len(questions)} videos could be used; {problems[0] if problems else 'there is none'}"
        )
    used = len({row["video"] for row in rows})
    return (
        rows,
        problems,
        f"{cell.model.name}, {cell.task.name}, {used} videos of at most {cell.video.max_frames} frames",
    )
