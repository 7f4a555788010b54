"""Why a number may differ: the known reasons that apply to a cell, each with what the stored answers say about it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from harness.benchmarks.benchmark import benchmark
from harness.evidence.cells import CellResult
from harness.evidence.samples import main_metric
from harness.verdicts.expected import Published
from harness.verdicts.verdicts import CANNOT_TELL, DIFFERS, NumberVerdict


@dataclass(frozen=True)
class Reason:
    """One possible reason. ``text`` is a sentence or two with the cell's own numbers."""

    topic: str
    text: str


def why_not(verdicts: list[NumberVerdict]) -> list[tuple[CellResult, list[NumberVerdict], list[Reason]]]:
    """Cells with a number that differs or is left open: (cell, those verdicts, the reasons that apply)."""
    open_ones: dict[CellResult, list[NumberVerdict]] = {}
    for verdict in verdicts:
        if verdict.cell is not None and verdict.verdict in (DIFFERS, CANNOT_TELL):
            open_ones.setdefault(verdict.cell, []).append(verdict)
    return [(cell, group, reasons(cell, group[0].published)) for cell, group in open_ones.items()]


def reasons(cell: CellResult, published: Published | None = None) -> list[Reason]:
    """All known reasons that apply to a cell, and what the source of ``published`` leaves open."""
    found: list[Reason] = []
    for source in (_positions, _semantics, _budget, _parsers, _failures, _composition, _yarn, _environment):
        found += source(cell)
    if published is not None:
        unstated = [
            k for k in ("semantics", "frames", "fps", "long_side", "yarn_factor", "dtype") if _silent(published, k)
        ]
        if unstated:
            found.append(Reason("not stated", f"The source does not state: {', '.join(unstated)}."))
    return found


def _silent(published: Published, key: str) -> bool:
    return key not in published.setting and not (key == "semantics" and published.setting.get("method") == "none")


TEXTS = {
    "truncated": "The rule `truncated` (transformers 4.52 to 5.2) drops the fraction of the seconds per grid: in "
    "{still} of {n} videos, sampled above 2 fps, all frames have one temporal id, in {coarse} more the steps are too "
    "small.",
    "v5": "The rule `v5` (transformers 5.4 and later) puts the text inside the video's range of ids; the published "
    "numbers come from code that puts it behind the video.",
    "paper": "Follows the paper's equations. The paper's own tables come from the first public code (release_2025), "
    "the README's from release_2026; both deviate from the equations.",
    "release": "The budget is a share of the whole prompt, and the first chunk is evicted by stale scores of the text "
    "before it, so that nearly all of it stays (quirk stale_first_chunk).",
    "heavy_hitters": "Temporal adaptation scales a layer's share by its heavy hitters and does not keep the total "
    "(quirk heavy_hitter_adaptation).",
    "guide": "The guide is placed by the plain text index, usually far before its chunk (quirk guide_by_text_index).",
    "half_video": "Temporal ratios describe each chunk by the content at half its time (quirk half_video_ratios).",
    "over": "In {over} of {n} answers the cache after the prefill is larger than the context of {context}, by "
    "{mean:.0f} slots on average (largest {most:.0f}): first chunk, floors and rounding are not paid for.",
    "whole": "{whole} of {n} prompts fit into the context: nothing was compressed there.",
    "failed": "{n} failed answers count as wrong ({kinds}); the release drops such samples from its mean.",
    "unparsed": "{n} of {of} answers hold no letter ({share:.1f} %) and count as wrong.",
    "yarn": "This base row ran {state}. The release's configs use factor 4 for its methods and none for its plain "
    "baseline; YaRN multiplies attention logits by 1.296 at all lengths. A twin {twin} tells the effect.",
    "attention": "Attention ran on {backend}; the published numbers are flash-attn 2 numbers in bfloat16.",
    "frames": "Frames come straight from {decoder}; the release reads JPEG files of ffmpeg's default quality.",
}


def _positions(cell: CellResult) -> Iterator[Reason]:
    rule, rates = cell.setting.get("positions"), _sampling_rates(cell)
    if rule == "truncated" and rates and cell.setting["model"].startswith(("qwen2_5", "toy")):
        still = {video for video, rate in rates.items() if rate > 2}
        coarse = sum(rate <= 2 and (2 / rate) % 1 > 1e-6 for rate in rates.values())
        text = TEXTS["truncated"].format(still=len(still), n=len(rates), coarse=coarse)
        yield Reason("positions", text + _score_split(cell, "the former", still))
    elif rule == "v5":
        yield Reason("positions", TEXTS["v5"])


def _semantics(cell: CellResult) -> Iterator[Reason]:
    setting = cell.setting
    if setting["method"] != "adaretake":
        return
    semantics, temporal = setting["semantics"], cell.variant in ("full", "no_layer")
    applies = {
        "paper": semantics == "paper",
        "release": semantics != "paper",
        "heavy_hitters": semantics == "release_2025" and temporal,
        "guide": semantics == "release_2026",
        "half_video": semantics == "release_2026" and temporal,
    }
    for name in (name for name, does in applies.items() if does):
        yield Reason("semantics", TEXTS[name])
    if setting["quirks"] != "default":
        yield Reason("semantics", f"Quirks were switched: {setting['quirks']}.")


def _budget(cell: CellResult) -> Iterator[Reason]:
    context = cell.setting["context"]
    kept = [a.n_cache_mean for a in cell.answers.values() if a.ok and a.n_cache_mean is not None]
    if context == "full" or not kept:
        return
    if over := [slots - context for slots in kept if slots > context + 0.5]:
        mean = sum(over) / len(over)
        facts = {"over": len(over), "n": len(kept), "context": context, "mean": mean, "most": max(over)}
        yield Reason("budget", TEXTS["over"].format(**facts))
    if whole := sum(a.ok and a.n_prompt is not None and a.n_prompt <= context for a in cell.answers.values()):
        yield Reason("budget", TEXTS["whole"].format(whole=whole, n=len(kept)))


def _parsers(cell: CellResult) -> Iterator[Reason]:
    metric, before = main_metric(cell.benchmark), cell.answered()["correct"].to_numpy()
    own = cell.scores().get(metric)
    if own is None:
        return
    lines = []
    for name in cell.other_parsers:
        changed = int((cell.answered(name)["correct"].to_numpy() != before).sum())
        score = cell.scores(name)[metric]
        lines.append(f"`{name}` changes {changed} of {len(before)} verdicts (score {score:.1f} instead of {own:.1f})")
    yield Reason("parser", f"The table's score is parsed with `{cell.parser}`; {'; '.join(lines)}.")


def _failures(cell: CellResult) -> Iterator[Reason]:
    if cell.failed:
        kinds = Counter((a.error or {}).get("type", "?") for a in cell.answers.values() if not a.ok)
        listed = ", ".join(f"{n} {kind}" for kind, n in kinds.most_common(3))
        yield Reason("failed", TEXTS["failed"].format(n=cell.failed, kinds=listed))
    if cell.unparsed:
        share = 100 * cell.unparsed / cell.n
        yield Reason("unparsed", TEXTS["unparsed"].format(n=cell.unparsed, of=cell.n, share=share))


def _composition(cell: CellResult) -> Iterator[Reason]:
    counts = benchmark(cell.benchmark).counts.get(cell.setting["split"], {})
    whole = counts.get("questions")
    if not whole or cell.n == whole:
        return
    parts = []
    for tag, expected in counts.items():
        if not isinstance(expected, dict):
            continue
        ours = Counter(str(question.tags.get(tag)) for question in cell.questions)
        for value, n in expected.items():
            here, there = 100 * ours[str(value)] / cell.n, 100 * n / whole
            if abs(here - there) > 2:
                parts.append(f"{tag} {value} {here:.0f} % instead of {there:.0f} %")
    mix = f"; its mix differs: {', '.join(parts)}" if parts else ""
    yield Reason("questions", f"{cell.n} questions, the whole benchmark has {whole}{mix}.")


def _yarn(cell: CellResult) -> Iterator[Reason]:
    if cell.setting["method"] == "none":
        factor = cell.setting["yarn_factor"]
        state, twin = ("without YaRN", "with factor 4") if factor == 1 else (f"with YaRN factor {factor:g}", "without")
        yield Reason("YaRN", TEXTS["yarn"].format(state=state, twin=twin))


def _environment(cell: CellResult) -> Iterator[Reason]:
    backend, decoder = cell.manifest.attention_backend, cell.cell["video"].get("backend")
    if backend and "flash" not in backend:
        yield Reason("attention", TEXTS["attention"].format(backend=backend))
    if decoder:
        yield Reason("frames", TEXTS["frames"].format(decoder=decoder))


def _sampling_rates(cell: CellResult) -> dict[str, float]:
    """Video id -> true sampling fps."""
    return {a.video_id: a.sampling_fps for a in cell.answers.values() if a.sampling_fps}


def _score_split(cell: CellResult, name: str, videos: set[str]) -> str:
    rows = cell.answered()
    inside = rows["video_id"].isin(videos)
    if not inside.any() or inside.all():
        return ""
    a, b = 100 * rows[inside]["correct"].mean(), 100 * rows[~inside]["correct"].mean()
    return f" Accuracy is {a:.1f} on {name} and {b:.1f} on the others."
