"""Time and memory of prefilling a long video, with and without compression.

    python scripts/bench_prefill.py --quick                 the embedded toy on a CPU, under 3 minutes
    python scripts/bench_prefill.py --device cuda           a random model of the exact Qwen2.5-VL-7B shape, 16K context

Features are random: speed and memory do not depend on what a video shows. The table has, for each number of frames:

    uncompressed   chunked prefill that keeps everything
    sliced         the baseline of `overhead`: the same chunks, and after each the cache of every layer is cut to the
                   length that `full` has there, by slicing. No guide, no scores, no allocation, no choice: what is left
                   is the cost of the chunks themselves, with attention over exactly the same cache lengths
    full           the method with temporal and layer allocation; no_temporal, no_layer, no_both switch them off

The last line is one JSON object. `overhead` is the time of `full` over that of `sliced`, minus 1, at the largest number
of frames that has both: the two take turns `--repeats` times, and the median of the pairs' ratios counts.
`memory_growth` is the peak memory of `full` at 4096 frames over that at 512: of the allocator on an accelerator
(weights included), on a CPU the resident memory of the process (weights and Python included) without the features,
which wait on the host in either case. A CPU runs one thread, and its seconds are processor time, which other processes
disturb little. The context is 16000 tokens on an accelerator, as published for 2048 frames, and 4000 on a CPU, the
same share of 512 frames.
"""

from __future__ import annotations

import argparse
import gc
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

FRAMES = (256, 512, 1024, 2048, 4096)
QUICK_FRAMES = (256, 512, 4096)
GROWTH_FRAMES = (512, 4096)
VARIANTS = {
    "full": {},
    "no_temporal": {"temporal": False},
    "no_layer": {"layers": False},
    "no_both": {"temporal": False, "layers": False},
}
TEXT = {"toy": (9, 14), "7B": (15, 80)}
"""Tokens of a multiple-choice prompt before and after its video."""


@dataclass(frozen=True)
class Setting:
    """What is run: patches per frame before merging, tokens of context, and which rows."""

    frames: tuple[int, ...]
    rows_up_to: dict[str, int]  # most frames of the rows that are left out of longer videos
    text: tuple[int, int]
    height: int
    width: int
    context: int
    repeats: int
    chunk_frames: int = 32
    semantics: str = "paper"

    @property
    def tokens_per_grid(self) -> int:
        return self.height * self.width // 4


@dataclass
class Row:
    """One line of the table; memory in bytes."""

    frames: int
    variant: str
    tokens: int
    seconds: float  # the fastest run's; on a CPU of the processor
    memory: int  # of the device; see the module's text
    host_memory: int  # resident, features included
    cache_length: list[int]  # [L]
    overhead: float | None = None  # of the seconds over those of `sliced`


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, npu:0 (default: cpu)")
    parser.add_argument("--quick", action="store_true", help="smaller frames, shorter context, fewer rows")
    parser.add_argument("--frames", type=int, nargs="+", metavar="N", help=f"default: {' '.join(map(str, FRAMES))}")
    parser.add_argument("--context", type=int, metavar="TOKENS", help="default: 16000, on a CPU 4000")
    parser.add_argument("--repeats", type=int, metavar="N", help="pairs of sliced and full; default: 5 (quick: 9)")
    parser.add_argument("--attention", default="auto", help="auto, flash_attention_2, sdpa, eager")
    parser.add_argument("--semantics", default="paper", help="paper, release_2025, release_2026; releases with reforge")
    args = parser.parse_args(argv)
    for name in ("frames", "context", "repeats"):
        values = getattr(args, name)
        for value in values if isinstance(values, list) else [values]:
            if value is not None and value < (2 if name == "frames" else 1):
                parser.error(f"--{name} {value} is too small")
    return args


def setting(args: argparse.Namespace) -> Setting:
    """The defaults of the device, and what the command line changes of them."""
    on_cpu, quick = args.device == "cpu", args.quick
    rows_up_to = {}
    if on_cpu:
        rows_up_to = {"uncompressed": 256 if quick else 512}
    if quick:
        rows_up_to |= {"sliced": 256, "no_temporal": 256, "no_layer": 256, "no_both": 256}
    return Setting(
        frames=tuple(sorted(set(args.frames or (QUICK_FRAMES if quick else FRAMES)))),
        rows_up_to=rows_up_to,
        text=TEXT["toy" if on_cpu else "7B"],
        height=18,
        width=32,
        context=args.context or (4000 if on_cpu else 16000),
        repeats=args.repeats or (9 if quick else 5),
        semantics=args.semantics,
    )


def toy_language(attention: str) -> tuple[Any, str]:
    """The embedded toy's language model in float32, with its name."""
    from transformers.utils import logging

    from harness.models.qwen2_5_vl import Qwen25VL
    from harness.toy import CHECKPOINT

    logging.disable_progress_bar()
    return Qwen25VL.load(str(CHECKPOINT), device="cpu", attention=attention).language, "toy"


SEVEN_BILLION: dict[str, Any] = {
    "vocab_size": 152064,
    "hidden_size": 3584,
    "intermediate_size": 18944,
    "num_hidden_layers": 28,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
    "max_position_embeddings": 128000,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]},
}
"""The text config of Qwen2.5-VL-7B."""


def seven_billion_language(device: str, attention: str) -> tuple[Any, str]:
    """The language model of Qwen2.5-VL-7B with random weights in bfloat16."""
    import torch

    language = random_language(SEVEN_BILLION, device, attention, torch.bfloat16)
    return language, f"Qwen2.5-VL-7B shape, random weights, {language.backend}"


def random_language(shape: dict[str, Any], device: str, attention: str, dtype: Any) -> Any:
    """A Qwen2.5-VL language model of a text config, with random weights made on the device."""
    import torch
    from transformers.models.qwen2_5_vl.configuration_qwen2_5_vl import Qwen2_5_VLTextConfig
    from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VLTextModel

    from harness.compress.attention import choose_backend
    from harness.models.language import Decoder

    config = Qwen2_5_VLTextConfig(**shape)
    backend = choose_backend(attention, torch.device(device), dtype)
    with torch.device(device):
        model = Qwen2_5_VLTextModel._from_config(config, dtype=dtype).eval()
        head = torch.nn.Linear(config.hidden_size, config.vocab_size, bias=False, dtype=dtype)
    return Decoder(model, head, backend=backend, rows=3)


class Bench:
    """Prompts of one model, and the ways to prefill them."""

    def __init__(self, language: Any, how: Setting, device: str) -> None:
        import torch

        self.language, self.how = language, how
        self.device = torch.device(device)
        self.dtype = next(language.text_model.parameters()).dtype
        self.width = language.text_model.config.hidden_size

    def prompt(self, frames: int) -> tuple[Any, Any]:
        """(prompt, features [V, d] on the host) of a video of so many frames."""
        import torch

        from harness.compress.positions import mrope_position_ids
        from harness.compress.prompt import Prompt

        grids, n = frames // 2, self.how.tokens_per_grid
        before, after = self.how.text
        ids = torch.ones(before + grids * n + after, dtype=torch.long)
        video = slice(before, before + grids * n)
        ids[video] = 2
        grid = (grids, self.how.height, self.how.width)
        positions = mrope_position_ids(ids, 2, grid, second_per_grid=1.0)
        generator = torch.Generator().manual_seed(0)
        pinned = self.device.type == "cuda"
        features = torch.empty(grids * n, self.width, dtype=self.dtype, pin_memory=pinned)
        for window in features.split(64 * n):
            window.copy_(torch.randn(window.shape, generator=generator))
        where = torch.arange(video.start, video.stop)
        return Prompt(ids, positions, where, (n,) * grids, context=self.how.context), features

    def compressed(self, prompt: tuple, name: str = "adaretake", **options: Any) -> Any:
        """One prefill through the compress room; returns the run."""
        from harness.compress.generate import prefill
        from harness.compress.method import build_method

        asked, features = prompt
        if name == "adaretake":
            options |= {"semantics": self.how.semantics, "reforge": self.how.semantics != "paper"}
        method = build_method(name, chunk_frames=self.how.chunk_frames, **options).for_family("qwen2_5_vl")
        return prefill(self.language, method, asked, (features,), max_new_tokens=0)[0]

    def sliced(self, prompt: tuple, lengths: list[int], after: list[list[int]]) -> list[int]:
        """The baseline of `overhead`: chunks of `lengths` [K], layers cut to `after` [K][L] behind each."""
        from harness.compress.cache import CompressedCache

        class SlicedCache(CompressedCache):
            def cut(self, lengths: list[int]) -> None:
                for layer, length in zip(self._layers, lengths, strict=True):
                    layer.lengths = [length]

        asked, features = prompt
        ids, positions, n_pre = asked.input_ids, asked.positions, asked.video_start
        n_post = asked.n_prompt - asked.video_stop
        reserve = max(length + n for length, n in zip(lengths, [0, *map(max, after)], strict=False)) + n_pre
        cache = SlicedCache(self.language.num_layers, reserve=max(reserve, max(after[-1]) + n_post))
        forward = self.language.forward
        forward(self.language.embed(ids[:n_pre]), positions[:, :n_pre], cache, output=False)
        start = n_pre
        for length, kept in zip(lengths, after, strict=True):
            part = features[start - n_pre : start - n_pre + length]
            embeds = part.to(self.language.device, self.dtype, non_blocking=True)
            forward(embeds, positions[:, start : start + length], cache, output=False)
            cache.cut(kept)
            start += length
        forward(self.language.embed(ids[start:]), positions[:, start:], cache)
        return cache.lengths

    def timed(self, run: Callable[[], Any]) -> tuple[float, Any]:
        """Seconds of one run (on a CPU of the processor), and what it returns."""
        clock = time.process_time if self.device.type == "cpu" else time.perf_counter
        self._finish()
        started = clock()
        result = run()
        self._finish()
        return clock() - started, result

    def measure(self, frames: int, variant: str, prompt: tuple, run: Callable[[], tuple[list[int], Any]]) -> tuple:
        """The row of one run, which returns the cache length per layer and anything else; and that."""
        from harness.run.environment import device_peak, resident_peak

        gc.collect()
        with resident_peak() as resident, device_peak([self.device]) as allocated:
            seconds, (cache_length, result) = self.timed(run)
            host, memory = resident(), allocated()
        if memory is None:
            memory = host - prompt[1].numel() * prompt[1].element_size()
        return Row(frames, variant, prompt[0].n_prompt, seconds, memory, host, cache_length), result

    def _finish(self) -> None:
        import torch

        if self.device.type != "cpu":
            getattr(torch, self.device.type).synchronize(self.device)


def rows_for(bench: Bench, frames: int, report: Callable[[Row], None]) -> list[Row]:
    """All rows of one number of frames."""
    how = bench.how
    prompt = bench.prompt(frames)

    def compressed(**options: Any) -> tuple[list[int], Any]:
        state = bench.compressed(prompt, **options)
        return state.cache.lengths, state.trace

    # The first run gives the baseline its lengths, and stands for itself where it is the only one.
    first, trace = bench.measure(frames, "full", prompt, compressed)
    runs: dict[str, Callable[[], tuple[list[int], Any]]] = {"uncompressed": lambda: compressed(name="none")}
    if trace.compressed:
        runs["sliced"] = lambda: (bench.sliced(prompt, trace.chunk_lengths, trace.cache_after_chunk), None)
    runs |= {name: lambda options=options: compressed(**options) for name, options in VARIANTS.items()}
    runs = {name: run for name, run in runs.items() if frames <= how.rows_up_to.get(name, frames)}
    rows = {name: bench.measure(frames, name, prompt, run)[0] for name, run in runs.items() if name != "full"}
    rows["full"] = first
    if "sliced" in runs:
        pairs = [{name: bench.timed(runs[name])[0] for name in ("sliced", "full")} for _ in range(how.repeats)]
        for name in pairs[0]:
            rows[name].seconds = min(pair[name] for pair in pairs)
        rows["full"].overhead = round(statistics.median(pair["full"] / pair["sliced"] for pair in pairs) - 1, 4)
    for row in rows.values():
        report(row)
    return list(rows.values())


def summary(rows: list[Row]) -> dict[str, Any]:
    """`overhead` at the largest number of frames that was compressed, all overheads, and `memory_growth`."""
    found = {(row.frames, row.variant): row for row in rows}
    overheads = {row.frames: row.overhead for row in rows if row.overhead is not None}
    small, large = (found.get((frames, "full")) for frames in GROWTH_FRAMES)
    return {
        "overhead": overheads[max(overheads)] if overheads else None,
        "memory_growth": round(large.memory / small.memory, 4) if small and large else None,
        "overhead_by_frames": overheads,
    }


def line(row: Row) -> str:
    lengths = row.cache_length
    shown = " ".join(map(str, lengths)) if len(lengths) <= 8 else f"{min(lengths)} to {max(lengths)}"
    speed, memory, host = row.tokens / row.seconds, row.memory / 2**20, row.host_memory / 2**20
    numbers = f"{row.tokens:8} {row.seconds:9.3f} {speed:10.0f} {memory:11.1f} {host:10.1f}"
    return f"{row.frames:6} {row.variant:13} {numbers}  {shown}"


HEADER = "frames variant         tokens   seconds   tokens/s  device MiB   host MiB  cache length per layer"


def main(argv: list[str] | None = None) -> int:
    args = parse(argv)
    from harness.errors import UserError

    try:
        import torch

        how = setting(args)
        try:
            torch.empty(1, device=args.device)
        except (RuntimeError, AssertionError) as error:
            raise UserError(f"--device {args.device} cannot be used here: {str(error).splitlines()[0]}") from error
        if args.device == "cpu":
            language, name = toy_language(args.attention)
        else:
            language, name = seven_billion_language(args.device, args.attention)
        bench = Bench(language, how, args.device)
        if args.device == "cpu":
            torch.set_num_threads(1)
        print(f"{name}; {args.device}; {how.tokens_per_grid} tokens per grid of 2 frames; context {how.context}")
        print(HEADER)
        rows: list[Row] = []
        with torch.inference_mode():
            for frames in how.frames:
                rows += rows_for(bench, frames, report=lambda row: print(line(row), flush=True))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    where = {"device": args.device, "machine": platform.machine(), "model": name, "torch": torch.__version__}
    print(json.dumps({**summary(rows), **where, "context": how.context, "rows": [asdict(row) for row in rows]}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
