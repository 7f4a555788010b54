"""Is an annotation the published one? Its numbers of questions and videos against those in the benchmark's facts."""

from __future__ import annotations

from collections.abc import Sequence

from harness.benchmarks.benchmark import Benchmark, Item
from harness.benchmarks.metrics import grouped


def differences(items: Sequence[Item], asked: Benchmark, split: str) -> dict[str, str]:
    """What differs -> found and expected: questions, videos, and questions per value of a tag.

    Args:
        items: all rows of the split, unfiltered.
    """
    expected = asked.counts[split]
    numbers = {"questions": len(items), "videos": len({item.video_id for item in items})}
    wanted = {what: expected[what] for what in numbers if what in expected}
    for tag, of_values in expected.items():
        if isinstance(of_values, dict):
            groups = grouped(({"tags": item.tags} for item in items), tag)
            numbers |= {f"{tag} {value}": len(groups.get(value, [])) for value in of_values}
            wanted |= {f"{tag} {value}": n for value, n in of_values.items()}
    return {what: f"{numbers[what]} found, {n} expected" for what, n in wanted.items() if numbers[what] != n}
