"""Run one case of the statistics' reference values through the functions of the reporter.

The names are the reference's. Scores and differences are in points, flip rates in fractions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

from harness.evidence.statistics import (
    Difference,
    Estimate,
    difference,
    mean_difference,
    questions_for_effect,
    questions_for_width,
    score,
)
from harness.gate import compare as gate
from harness.verdicts import noise
from harness.verdicts.verdicts import gap_verdict


def run_case(function_name: str, arguments: Any, keywords: Mapping[str, Any] | None = None) -> Any:
    """The value of a reference function.

    Args:
        function_name: one of `FUNCTIONS`.
        arguments: a list of positional ones, a dictionary of named ones, or a whole case (``args``, ``kwargs``).
        keywords: named arguments beside positional ones.
    """
    if isinstance(arguments, Mapping) and "args" in arguments:
        arguments, keywords = arguments["args"], {**arguments.get("kwargs", {}), **(keywords or {})}
    if isinstance(arguments, Mapping):
        return FUNCTIONS[function_name](**arguments, **(keywords or {}))
    return FUNCTIONS[function_name](*arguments, **(keywords or {}))


def _estimate(found: Estimate, confidence: float) -> dict[str, float]:
    low, high = found.interval(confidence)
    return {
        "value": found.value,
        "low": low,
        "high": high,
        "n_eff": found.n_eff,
        "deff": found.deff,
        "df": found.df,
    }


def rate(values: Any, clusters: Any, groups: Any = None, confidence: float = 0.95) -> dict[str, float]:
    return _estimate(score(values, clusters, groups), confidence)


def paired(a: Any, b: Any, clusters: Any, groups: Any = None, confidence: float = 0.95) -> dict[str, float]:
    found = difference(a, b, clusters, groups)
    flips = {"gained": found.gained, "lost": found.lost}
    return _estimate(found, confidence) | {"centre": found.middle, "se": found.se, "p": found.p} | flips


def _difference(record: Mapping[str, Any], n: int = 0) -> Difference:
    """A difference as the reference writes it down: without the number of questions."""
    rest = (record["centre"], record["se"], record["p"], record["gained"], record["lost"])
    return Difference(record["value"], n, 0, record["df"], record["n_eff"], record["deff"], *rest)


def mean_of_paired(parts: Sequence[Mapping[str, Any]], confidence: float = 0.95) -> dict[str, float]:
    found = mean_difference([_difference(part) for part in parts])
    return _estimate(found, confidence) | {"centre": found.middle, "se": found.se, "p": found.p}


def effect_questions(
    n: int, found: Mapping[str, Any], effect: float, power: float = 0.8, confidence: float = 0.95
) -> int:
    return questions_for_effect(_difference(found, n), effect, confidence, power)


def width_questions(n: int, found: Mapping[str, Any], half_width: float, confidence: float = 0.95) -> int:
    known = SimpleNamespace(n=n, value=found["value"], df=found["df"], n_eff=found["n_eff"])
    return questions_for_width(known, half_width, confidence)


def flip_rate(a: Any, b: Any, clusters: Any, groups: Any = None) -> dict[str, float]:
    found = noise.flip_rate([noise.Runs(a, b, clusters, groups)])
    return {"d": found.d, "d_high": found.d_high, "n_eff": difference(a, b, clusters, groups).n_eff}


def judge_number(
    ours: float,
    published: float,
    rounding: float,
    d_high: float,
    n_eff: float,
    p_holm: float | None = None,
    margin: float = 1.0,
) -> dict[str, Any]:
    found = noise.gap_between(ours, published, rounding, d_high, n_eff, margin)
    verdict, detectable = gap_verdict(found, margin, found.p if p_holm is None else p_holm, 0.95)
    return {
        "gap": found.gap,
        "sigma": found.sigma,
        "p": found.p,
        "resolution": found.resolution,
        "verdict": verdict,
        "detectable": detectable,
        "flips_to_explain": found.explains,
        "flips_to_reproduce": found.reproduces,
    }


def judge_on_these_questions(
    found: float, d_high: float, n_eff: float, published: float | None = None, rounding: float = 0
) -> dict[str, float | None]:
    return vars(noise.on_these_questions(found, noise.sigma_of([(d_high, n_eff)]), published, rounding))


def gate_p(cells: Sequence[Any], flipped_videos: int, videos: int) -> dict[str, float]:
    flips = {str(i): gate.Flips(*cell) for i, cell in enumerate(cells)}
    return gate.gate_p(flips, gate.Noise(flipped_videos, videos))


def gate_fails(p: Mapping[str, float], alpha: float = 0.01) -> list[str]:
    return gate.gate_fails(p, alpha=alpha)


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "rate": rate,
    "paired": paired,
    "mean_of_paired": mean_of_paired,
    "questions_for_effect": effect_questions,
    "questions_for_width": width_questions,
    "flip_rate": flip_rate,
    "judge_number": judge_number,
    "judge_on_these_questions": judge_on_these_questions,
    "gate_p": gate_p,
    "gate_fails": gate_fails,
}
