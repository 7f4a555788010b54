"""How often the intervals of the report cover the truth: simulated answers and flips, nominal 95 %.

Answers of a video are beta-binomial, signed flips Dirichlet-multinomial; "ICC" is the correlation within a video. Many
replicates are drawn at once, as counts per video; some of every case are checked against ``score`` and ``difference``,
question by question. The last line of the output is one JSON object. Exit status 1: a coverage is below its floor of
93 % by more than two standard errors of the simulation (floor 90 % for signed flips of ICC 0.3, see docs/verdicts.md).

    python scripts/bench_statistics.py              # minutes
    python scripts/bench_statistics.py --grid       # minutes: few flips all one way, few wrong answers, closely spaced
    python scripts/bench_statistics.py --quick      # seconds
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from harness.evidence.statistics import KAPPA, RHO0, difference, score

Floats = NDArray[np.float64]
ICC = (0.0, 0.1, 0.3)
MID, HIGH = (0.5, 0.65, 0.8), (0.92, 0.98)
RATES = (0.005, 0.02, 0.05, 0.15)
ONE_WAY = (0.5, 0.75, 1.0)
"""Shares of the flips that go one way."""
FLOOR, FLOOR_CLUSTERED = 93.0, 90.0
TYPES = 7


@dataclass(frozen=True)
class Design:
    """Questions per video, and the type of each video's questions (all 0: a plain mean)."""

    name: str
    sizes: NDArray[np.int_]
    types: NDArray[np.int_]

    @cached_property
    def per_type(self) -> Floats:
        """Questions of every type."""
        return np.bincount(self.types, self.sizes)

    @cached_property
    def of_type(self) -> Floats:
        """Questions of each video's type."""
        return self.per_type[self.types]

    @cached_property
    def weight(self) -> Floats:
        """Of one question of each video; all questions together weigh 1."""
        return 1 / (len(self.per_type) * self.of_type)

    @cached_property
    def questions(self) -> tuple[NDArray[np.int_], NDArray[np.int_]]:
        """Video and type of each question."""
        return np.repeat(np.arange(len(self.sizes)), self.sizes), np.repeat(self.types, self.sizes)

    @cached_property
    def df(self) -> float:
        """Degrees of freedom; they do not depend on the answers."""
        return score(np.zeros(int(self.sizes.sum())), *self.questions).df

    def mean(self, counts: Floats) -> Floats:
        """Mean of the types' means of counts per video, [replicates, videos] -> [replicates]."""
        return (counts * self.weight).sum(axis=1)

    def effective(self, counts: Floats, moment: Floats, events: Floats) -> Floats:
        """Effective questions per replicate from counts per video."""
        means = np.stack([counts[:, self.types == t].sum(axis=1) for t in range(len(self.per_type))], 1) / self.per_type
        share = self.sizes / self.of_type
        away = (counts - self.sizes * means[:, self.types]) * self.weight / np.sqrt(1 - share)
        weighed = 1 / (self.sizes * self.weight**2).sum()
        assumed = 1 + (((self.sizes * self.weight) ** 2).sum() * weighed - 1) * RHO0
        known = (events > 0) & (moment >= 1e-15)
        seen = np.where(known, (away**2).sum(axis=1) * weighed / np.where(known, moment, 1), assumed)
        return np.asarray(weighed / np.maximum(1, (events * seen + KAPPA * assumed) / (events + KAPPA)))


def design(name: str, videos: int, questions: int, macro: bool = False) -> Design:
    """A design: one question per video, the others over the videos at random, or evenly where they are three each."""
    rng = np.random.default_rng(questions)
    rest = questions - videos
    even = rest // videos >= 1 or questions < 100
    sizes = 1 + (np.full(videos, rest // videos) if even else rng.multinomial(rest, np.full(videos, 1 / videos)))
    sizes[: questions - sizes.sum()] += 1
    types = np.arange(videos) % TYPES if macro else np.zeros(videos, int)
    return Design(name, sizes, types)


def designs(quick: bool) -> tuple[list[Design], list[Design]]:
    """Plain means, and macro averages of seven types."""
    small = [("40 / 14", 14, 40), ("108 / 36", 36, 108), ("300 / 100", 100, 300)]
    whole = [
        ("Video-MME 2700 / 900", 900, 2700),
        ("MLVU 2174 / 1122", 1122, 2174),
        ("LongVideoBench 1337 / 753", 753, 1337),
        ("LVBench 1549 / 103", 103, 1549),
    ]
    plain = small[1:2] if quick else small + whole
    macro = small[1:2] if quick else [*small, whole[1]]
    return [design(*each) for each in plain], [design(*each, macro=True) for each in macro]


def answers(of: Design, p: float, icc: float, n: int, rng: np.random.Generator) -> Floats:
    """Right answers per video, [n, videos]."""
    chance = p if icc == 0 else rng.beta(p * (1 - icc) / icc, (1 - p) * (1 - icc) / icc, (n, len(of.sizes)))
    return rng.binomial(of.sizes, chance, (n, len(of.sizes))).astype(float)


def flips(of: Design, up: float, down: float, icc: float, n: int, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Gained and lost answers per video, [n, videos] each."""
    shape = n, len(of.sizes)
    gain, loss = np.full(shape, up), np.full(shape, down)
    if icc:
        drawn = [rng.standard_gamma(share * (1 - icc) / icc, shape) for share in (up, down, 1 - up - down)]
        gain, loss = drawn[0] / sum(drawn), drawn[1] / sum(drawn)
    gained = rng.binomial(of.sizes, gain)
    lost = rng.binomial(of.sizes - gained, np.clip(loss / np.maximum(1 - gain, 1e-300), 0, 1))
    return gained.astype(float), lost.astype(float)


def score_intervals(of: Design, right: Floats) -> tuple[Floats, Floats]:
    """95 % intervals in percent, per replicate."""
    p, total = of.mean(right), right.sum(axis=1)
    n = of.effective(right, p * (1 - p), np.minimum(total, of.sizes.sum() - total))
    t, z = stats.t.ppf(0.975, of.df), stats.norm.ppf(0.975)
    t2 = np.minimum(t**2, n * z**2)
    middle = (p * n + t2 / 2) / (n + t2)
    half = np.sqrt(t2 * middle * (1 - middle) / (n + t2))
    return 100 * np.clip(middle - half, 0, 1), 100 * np.clip(middle + half, 0, 1)


def difference_intervals(of: Design, gained: Floats, lost: Floats) -> tuple[Floats, Floats]:
    """95 % intervals in points, per replicate."""
    up, down = of.mean(gained), of.mean(lost)
    events = (gained + lost).sum(axis=1)
    n = of.effective(gained - lost, up + down - (up - down) ** 2, events)
    more, less = (up * n + 1) / (n + 2), (down * n + 1) / (n + 2)
    middle = more - less
    half = stats.t.ppf(0.975, of.df) * np.sqrt((more + less - middle**2) / (n + 2))
    return 100 * np.clip(middle - half, -1, 1), 100 * np.clip(middle + half, -1, 1)


def per_question(of: Design, counts: Floats) -> Floats:
    """0/1 per question of one replicate, from counts per video."""
    starts = np.cumsum(of.sizes) - of.sizes
    place = np.arange(int(of.sizes.sum())) - np.repeat(starts, of.sizes)
    return (place < np.repeat(counts, of.sizes)).astype(float)


@dataclass(frozen=True)
class Cell:
    """One simulated case: coverage in percent, mean half-width in points, and the coverage that is asked for."""

    kind: str
    design: str
    icc: float
    case: str
    coverage: float
    half: float
    floor: float


def simulate_score(of: Design, p: float, icc: float, n: int, rng: np.random.Generator) -> Cell:
    """Coverage of a score's interval."""
    right = answers(of, p, icc, n, rng)
    low, high = score_intervals(of, right)
    for i in range(2):
        found = score(per_question(of, right[i]), *of.questions).interval(0.95)
        assert np.allclose(found, (low[i], high[i]), atol=1e-8), (found, low[i], high[i])
    kind = "score" if len(of.per_type) == 1 else "macro score"
    covered = (low <= 100 * p + 1e-9) & (100 * p - 1e-9 <= high)
    return Cell(kind, of.name, icc, f"{100 * p:g} %", 100 * covered.mean(), float((high - low).mean() / 2), FLOOR)


def simulate_difference(of: Design, d: float, one_way: float, icc: float, n: int, rng: np.random.Generator) -> Cell:
    """Coverage of a paired difference's interval; ``d`` is the share of answers that flip."""
    up, down = d * one_way, d * (1 - one_way)
    gained, lost = flips(of, up, down, icc, n, rng)
    low, high = difference_intervals(of, gained, lost)
    for i in range(2):
        a = per_question(of, gained[i])
        b = per_question(of, gained[i] + lost[i]) - a
        found = difference(a, b, *of.questions).interval(0.95)
        assert np.allclose(found, (low[i], high[i]), atol=1e-8), (found, low[i], high[i])
    kind, truth = "difference" if len(of.per_type) == 1 else "macro difference", 100 * (up - down)
    covered = (low <= truth + 1e-9) & (truth - 1e-9 <= high)
    case = f"d {100 * d:.3g} %, {100 * one_way:g} % one way"
    floor = FLOOR if icc < 0.3 else FLOOR_CLUSTERED
    return Cell(kind, of.name, icc, case, 100 * covered.mean(), float((high - low).mean() / 2), floor)


def cells(quick: bool, n: int, only: str = "") -> Iterator[Cell]:
    """All cases, each with random numbers of its own, so that a part gives the same as the whole."""
    for each in (of for group in designs(quick) for of in group):
        if only not in each.name:
            continue
        for icc in ICC:
            rng = np.random.default_rng([len(each.per_type), int(each.sizes.sum()), int(100 * icc)])
            for p in (0.65, 0.98) if quick else (*MID, *HIGH):
                yield simulate_score(each, p, icc, n, rng)
            for d in (5 / each.sizes.sum(),) if quick else RATES:
                for one_way in ONE_WAY:
                    yield simulate_difference(each, float(d), one_way, icc, n, rng)


def grid(n: int, only: str = "") -> Iterator[Cell]:
    """The cases in which intervals are hardest: 0.5 to 14 expected flips, all one way, or wrong answers."""
    for each in designs(False)[0]:
        if only not in each.name:
            continue
        total = int(each.sizes.sum())
        for icc in ICC:
            rng = np.random.default_rng([total, int(100 * icc)])
            for events in np.arange(0.5, 14.1, 0.5):
                found = simulate_difference(each, events / total, 1.0, icc, n, rng)
                yield replace(found, case=f"few flips one way, {events:g}")
                if total <= 300:
                    found = simulate_score(each, 1 - events / total, icc, n, rng)
                    yield replace(found, case=f"few wrong answers, {events:g}")


def table(found: list[Cell]) -> str:
    """The cases as Markdown, per design and correlation: the lowest and highest coverage, and half-widths."""
    lines = ["| what | questions / videos | ICC | case | coverage | half-width |", "|---|---|---|---|---|---|"]
    groups: dict[tuple[str, str, float, str], list[Cell]] = {}
    for cell in found:
        groups.setdefault((cell.kind, cell.design, cell.icc, cell.case.partition(",")[0]), []).append(cell)
    for (kind, name, icc, case), group in groups.items():
        span = sorted({round(cell.coverage, 1) for cell in group})
        text = f"{span[0]}" if len(span) == 1 else f"{span[0]} - {span[-1]}"
        half = sum(cell.half for cell in group) / len(group)
        lines.append(f"| {kind} | {name} | {icc:g} | {case} | {text} | ± {half:.2f} |")
    return "\n".join(lines)


def below(found: list[Cell], n: int) -> list[Cell]:
    """Cases whose coverage is under the floor by more than two standard errors."""
    return [c for c in found if c.coverage + 200 * np.sqrt(c.floor * (100 - c.floor) / 1e4 / n) < c.floor]


def main(words: list[str]) -> int:
    """Simulate, print, and say whether the floors hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one small design")
    parser.add_argument("--grid", action="store_true", help="few flips and few wrong answers, closely spaced")
    parser.add_argument("--replicates", type=int, default=None, help="draws per case (1500; quick: 400)")
    parser.add_argument("--only", default="", help="designs whose name holds this word")
    asked = parser.parse_args(words)
    n, started = asked.replicates or (400 if asked.quick else 1500), time.monotonic()
    found = list(grid(n, asked.only) if asked.grid else cells(asked.quick, n, asked.only))
    print(table(found))
    bad = below(found, n)
    worst = sorted(found, key=lambda cell: cell.coverage)[:8]
    record = {
        "cases": len(found),
        "replicates": n,
        "seconds": round(time.monotonic() - started, 1),
        "below": [vars(cell) for cell in bad],
        "worst": [[c.kind, c.design, c.icc, c.case, round(c.coverage, 2)] for c in worst],
    }
    print(json.dumps(record))
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
