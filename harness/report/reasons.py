"""Why a number may differ: the known reasons that apply to a cell, each with what the stored answers say about it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from harness.data.facts import load_facts
from harness.data.metrics import metrics
from harness.data.parse import PARSERS, parser_name
from harness.report.cells import OK, CellResult
from harness.report.expected import Published
from harness.report.measures import main_metric
from harness.report.verdicts import CANNOT_TELL, DIFFERS, NumberVerdict


@dataclass(frozen=True)
class Reason:
    """One possible reason. ``text`` is a sentence or two with the cell's own numbers."""

    topic: str
    text: str


def why_not(verdicts: list[NumberVerdict]) -> list[tuple[CellResult, list[NumberVerdict], list[Reason]]]:
    """Cells with a number that differs or is left open: (cell, those verdicts, the reasons that apply)."""
    open_ones: dict[str, list[NumberVerdict]] = {}
    for verdict in verdicts:
        if verdict.cell is not None and verdict.verdict in (DIFFERS, CANNOT_TELL):
            open_ones.setdefault(verdict.cell.id, []).append(verdict)
    return [(group[0].cell, group, reasons(group[0].cell, group[0].published)) for group in open_ones.values()]


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


def _positions(cell: CellResult) -> Iterator[Reason]:
    rule = cell.setting.get("positions")
    rates = _sampling_rates(cell)
    if rule == "truncated" and rates and cell.setting["model"].startswith(("qwen2_5", "toy")):
        still = sum(rate > 2 for rate in rates)
        coarse = sum(1 < rate <= 2 and 2 / rate != int(2 / rate) for rate in rates)
        text = (
            f"The rule `truncated` (transformers 4.52 to 5.2) drops the fraction of the seconds per grid: in {still} of "
            f"{len(rates)} videos (sampled above 2 fps) every frame has the same temporal id, in {coarse} more the "
            "steps are too small. The rule `float` has neither."
        )
        if still and still < len(rates):
            text += _score_split(cell, "videos sampled above 2 fps", {v for v, r in _rates(cell).items() if r > 2})
        yield Reason("positions", text)
    elif rule == "v5":
        text = (
            "The rule `v5` (transformers 5.4 and later) puts the text inside the video's range of ids; every published "
        )
        yield Reason("positions", text + "number here comes from code that puts it behind the video.")


def _semantics(cell: CellResult) -> Iterator[Reason]:
    setting = cell.setting
    semantics, variant = setting.get("semantics"), cell.variant
    if setting["method"] != "adaretake":
        return
    temporal = variant in ("full", "no_layer")
    if semantics == "paper":
        text = (
            "Follows the paper's equations. The paper's own tables come from the first public code (release_2025), the "
        )
        yield Reason("semantics", text + "README's from release_2026; both deviate from the equations.")
    if semantics in ("release_2025", "release_2026"):
        text = "The budget is a share of the whole prompt, and the first chunk is evicted by stale scores of the text "
        yield Reason("semantics", text + "before it: nearly all of that chunk stays (quirk stale_first_chunk).")
    if semantics == "release_2025" and temporal:
        text = "Temporal adaptation scales a layer's share by its heavy hitters and does not keep the total (quirk "
        yield Reason("semantics", text + "heavy_hitter_adaptation).")
    if semantics == "release_2026":
        text = "The guide is placed by the plain text index, usually far before its chunk (quirk guide_by_text_index)."
        if temporal:
            text += " Temporal ratios describe each chunk by the content at half its time (quirk half_video_ratios)."
        yield Reason("semantics", text)
    if setting["quirks"] != "default":
        yield Reason("semantics", f"Quirks were switched: {setting['quirks']}.")


def _budget(cell: CellResult) -> Iterator[Reason]:
    context = cell.setting["context"]
    kept = [a.n_cache_mean for a in cell.answers.values() if a.status == OK and a.n_cache_mean is not None]
    if context == "full" or not kept:
        return
    over = [slots - context for slots in kept if slots > context + 0.5]
    if over:
        mean = sum(over) / len(over)
        yield Reason(
            "budget",
            f"In {len(over)} of {len(kept)} answers the cache after the prefill is larger than the context of {context}, "
            f"by {mean:.0f} slots on average (largest {max(over):.0f}): first chunk, floors and rounding are not paid for.",
        )
    whole = sum(a.n_prompt is not None and a.n_prompt <= context for a in cell.answers.values() if a.status == OK)
    if whole:
        text = f"{whole} of {len(kept)} prompts fit into the context: nothing was compressed there."
        yield Reason("budget", text)


def _parsers(cell: CellResult) -> Iterator[Reason]:
    used = parser_name(cell.benchmark, cell.cell["task"]["protocol"])
    metric = main_metric(cell.benchmark)
    own = metrics(cell.benchmark, cell.items()).get(metric)
    if own is None:
        return
    lines = []
    for name in sorted({"anchored", "release", parser_name(cell.benchmark, "lmms_eval")} - {used}):
        items = []
        for question in cell.questions:
            answer = cell.answers.get(question.question_id)
            if question.answer is None or answer is None:
                continue
            right = answer.ok and PARSERS[name](answer.text, question.options) == question.answer
            items.append({"score": float(right), "tags": question.tags})
        before = cell.answered["correct"].to_numpy()
        changed = sum(bool(a) != bool(item["score"]) for a, item in zip(before, items, strict=True))
        score = metrics(cell.benchmark, items)[metric]
        lines.append(f"`{name}` changes {changed} of {len(items)} verdicts (score {score:.1f} instead of {own:.1f})")
    yield Reason("parser", f"Parsed with `{used}`; {'; '.join(lines)}.")


def _failures(cell: CellResult) -> Iterator[Reason]:
    if cell.failed:
        kinds = Counter((a.error or {}).get("type", "?") for a in cell.answers.values() if not a.ok)
        listed = ", ".join(f"{n} {kind}" for kind, n in kinds.most_common(3))
        text = f"{cell.failed} failed answers count as wrong ({listed}); the release drops such samples from its mean."
        yield Reason("failed", text)
    if cell.unparsed:
        text = f"{cell.unparsed} of {cell.n} answers hold no letter ({100 * cell.unparsed / cell.n:.1f} %) and count as wrong."
        yield Reason("unparsed", text)


def _composition(cell: CellResult) -> Iterator[Reason]:
    counts = load_facts(cell.benchmark).counts.get(cell.setting["split"], {})
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
    factor = cell.setting["yarn_factor"]
    if cell.setting["method"] == "none":
        state = f"with YaRN factor {factor:g}" if factor != 1 else "without YaRN"
        other = "without" if factor != 1 else "with factor 4"
        text = f"This base row ran {state}. The release's configs use factor 4 for its methods and none for its plain "
        text += (
            f"baseline; YaRN multiplies attention logits by 1.296 at all lengths. Its twin {other} tells the effect."
        )
        yield Reason("YaRN", text)


def _environment(cell: CellResult) -> Iterator[Reason]:
    backend, decoder = cell.manifest.attention_backend, cell.cell["video"].get("backend")
    if backend and "flash" not in backend:
        text = f"Attention ran on {backend}; published numbers are flash-attn 2 numbers in bfloat16 (equal up to rounding)."
        yield Reason("attention", text)
    if decoder:
        text = (
            f"Frames come straight from {decoder}; the release reads them from JPEG files at ffmpeg's default quality."
        )
        yield Reason("frames", text)


def _rates(cell: CellResult) -> dict[str, float]:
    """Video id -> true sampling fps."""
    return {a.video_id: a.sampling_fps for a in cell.answers.values() if a.sampling_fps}


def _sampling_rates(cell: CellResult) -> list[float]:
    return list(_rates(cell).values())


def _score_split(cell: CellResult, name: str, videos: set[str]) -> str:
    rows = cell.answered
    inside = rows["video_id"].isin(videos)
    if not inside.any() or inside.all():
        return ""
    a, b = 100 * rows[inside]["correct"].mean(), 100 * rows[~inside]["correct"].mean()
    return f" Accuracy is {a:.1f} on {name} and {b:.1f} on the others."
