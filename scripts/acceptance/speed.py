"""Checks of memory, speed, and of how often the host waits."""

from __future__ import annotations

import gc
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import torch

from acceptance.agreement import broken, judged
from acceptance.subject import MODEL, Row, Subject
from acceptance.waits import Waits
from harness.compress.generate import greedy
from harness.compress.method import Method
from harness.compress.positions import next_position
from harness.errors import QuestionError, UserError
from harness.models.features import host_buffer
from harness.run.environment import device_peak
from harness.tools.analysis.spilled import Allocations
from harness.video.features import feature_bytes

PER_CHUNK, BESIDES = 2, 8
"""Times that the host may wait for the device, per chunk and besides (tests/compress/test_synchronisations.py)."""


def seconds(subject: Subject, run: Callable[[], Any], repeats: int = 3) -> tuple[float, Any]:
    """The least time of a few runs behind one that does not count, until the device is done; and what one returned."""
    result, least = run(), float("inf")
    for _ in range(repeats):
        finish(subject.device)
        started = time.perf_counter()
        result = run()
        finish(subject.device)
        least = min(least, time.perf_counter() - started)
    return least, result


def finish(device: torch.device) -> None:
    """Until the device is done."""
    if device.type != "cpu":
        getattr(torch, device.type).synchronize(device)


def matmul_peak(subject: Subject) -> float:
    """Operations a second of one large matrix product in the model's number format."""
    side = subject.size.matmul
    first, second = (torch.randn(side, side, device=subject.device, dtype=subject.dtype) for _ in range(2))
    taken, _ = seconds(subject, lambda: [first @ second for _ in range(4)])
    return 4 * 2 * side**3 / taken


def pinned(subject: Subject) -> Iterator[Row]:
    """Features wait in pinned memory, and come to the device faster than from other memory."""
    if subject.device.type != "cuda":
        yield Row("pinned", "features on the host", "skipped", reason=f"no CUDA device, but {subject.device.type}")
        return
    like = torch.empty(1, subject.size.shape["hidden_size"], dtype=subject.dtype, device=subject.device)
    rows = 2**28 // (like.shape[1] * like.element_size())
    held = host_buffer(rows, like)
    other = torch.zeros(held.shape, dtype=held.dtype)
    held.copy_(other)
    size, rates = held.numel() * held.element_size(), []
    for source in (held, other):
        taken, _ = seconds(subject, partial(source.to, subject.device, non_blocking=True))
        rates.append(size / taken / 1e9)
    good = held.is_pinned() and rates[0] >= rates[1]
    reason = "" if good else f"pinned: {held.is_pinned()}; {rates[1]:.1f} GB/s from memory that is not"
    yield Row("pinned", "copies from pinned memory", "ok" if good else "failed", rates[0], "GB/s", "", reason)
    yield Row("pinned", "copies from other memory", "measured", rates[1], "GB/s")


def memory(subject: Subject) -> Iterator[Row]:
    """The long video: features on the host as the plan says, and a peak near what weights and cache take."""
    size, bench = subject.size, subject.bench(subject.size.context)
    prompt = subject.prompt(size.frames, size.context)
    features = prompt[1]
    planned = len(features) * feature_bytes([(features.shape[1],)], str(subject.dtype).removeprefix("torch."))
    held = features.numel() * features.element_size()
    good = planned == held
    reason = "" if good else f"the plan says {planned:,} bytes"
    what = f"features of {size.frames} frames on the host"
    yield Row("memory", what, "ok" if good else "failed", held / 2**30, "GiB", "what plan says", reason)
    gc.collect()
    counted: AbstractContextManager[Any] = Allocations() if subject.device.type == "cpu" else nullcontext()
    with counted as allocations, device_peak([subject.device]) as peak:
        subject.run(bench, prompt, "adaretake")
        found = peak()
    weights, working = subject.weight_bytes(), subject.working_bytes(size.context)
    if found is None:  # the weights were allocated before the count began
        found = allocations.peak + weights
    most = (weights + 2 * working + size.spare) / 2**30
    yield Row("memory", "weights, cache and one chunk, as planned", "measured", (weights + working) / 2**30, "GiB")
    yield judged("memory", f"peak at {size.frames} frames", found / 2**30, most, "GiB")


def prefill_rate(subject: Subject) -> Iterator[Row]:
    """Prefill as a share of what one large matrix product reaches, and how long the host is busy with it."""
    size, bench = subject.size, subject.bench(subject.size.context)
    peak = matmul_peak(subject)
    yield Row("speed", "one large matrix product", "measured", peak / 1e12, "TFLOP/s")
    prompt = subject.prompt(size.frames, size.context)
    taken, (run, _) = seconds(subject, partial(subject.run, bench, prompt, "adaretake"), 2)
    rate = subject.work(run.trace) / taken
    yield Row("speed", f"prefill of {size.frames} frames, adaretake", "measured", taken, "s")
    yield Row("speed", f"prefill of {size.frames} frames, adaretake", "measured", rate / 1e12, "TFLOP/s")
    yield Row("speed", "of the matrix product's rate", "measured", 100 * rate / peak, "%")
    trace = run.trace
    baseline, _ = seconds(subject, lambda: bench.sliced(prompt, trace.chunk_lengths, trace.cache_after_chunk), 2)
    yield Row("speed", "overhead of compressing, same cache lengths", "measured", 100 * (taken / baseline - 1), "%")
    finish(subject.device)
    started = time.perf_counter()
    subject.run(bench, prompt, "adaretake")
    returned = time.perf_counter() - started
    finish(subject.device)
    share = returned / (time.perf_counter() - started)
    yield Row("speed", "of a prefill until the host has asked for all of it", "measured", 100 * share, "%")


def decoding(subject: Subject) -> Iterator[Row]:
    """New tokens a second behind a full cache."""
    size, bench = subject.size, subject.bench(subject.size.context)
    run, hidden = subject.run(bench, subject.prompt(size.frames, size.context), "adaretake", new=2 * size.decoded)
    following = next_position(run.prompt.positions)

    def decode() -> None:
        greedy(run, hidden, following, max_new_tokens=size.decoded, eos=(), repetition_penalty=1.0)
        run.cache.drop_last(size.decoded - 1)

    taken, _ = seconds(subject, decode)
    yield Row("speed", f"decoding behind {size.context} tokens", "measured", size.decoded / taken, "tokens/s")


def methods(subject: Subject) -> Iterator[Row]:
    """What every method of `conf/method` takes on the short video, relative to no compression."""
    bench = subject.bench(subject.size.few_context)
    prompt = subject.prompt(subject.size.few, subject.size.few_context)
    plain, (run, _) = seconds(subject, partial(subject.run, bench, prompt, "none"))
    rate = subject.work(run.trace) / plain
    yield Row("methods", "none", "measured", plain, "s")
    for name, options in subject.options.items():
        if name == "none":
            continue
        if named := [f"{key}={value}" for key, value in options.items() if "${" in str(value)]:
            file = named[0].replace("${model.name}", MODEL)
            yield Row("methods", name, "skipped", reason=f"needs a file of the model: {file}")
            continue
        try:
            if type(subject.method(name)).select_frames is not Method.select_frames:
                yield Row("methods", name, "skipped", reason="chooses frames, and leaves the prefill as it is")
                continue
            taken, (run, _) = seconds(subject, partial(subject.run, bench, prompt, name), 1)
        except (UserError, QuestionError) as error:
            yield Row("methods", name, "skipped", reason=str(error).splitlines()[0])
        except Exception as error:
            yield broken("methods", name, error)
        else:
            own = subject.work(run.trace) / rate
            note = f"{taken:.3g} s; {100 * (taken / own - 1):+.0f} % to its own work at the rate of none"
            yield Row("methods", name, "measured", 100 * (taken / plain - 1), "% to none", reason=note)


def waits(subject: Subject) -> Iterator[Row]:
    """Waits for the device while the long video is prefilled: as CUDA itself counts them, and as they are followed."""
    bench = subject.bench(subject.size.context)
    prompt = subject.prompt(subject.size.frames, subject.size.context)
    if subject.device.type == "cuda":
        subject.run(bench, prompt, "adaretake")  # what is built at first use does not count
        before = torch.cuda.get_sync_debug_mode()
        torch.cuda.set_sync_debug_mode("warn")
        try:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                run, _ = subject.run(bench, prompt, "adaretake")
        finally:
            torch.cuda.set_sync_debug_mode(before)
        found = len([1 for warning in caught if "synchroniz" in str(warning.message)])
        how = "as CUDA warns of them"
    else:
        model = torch.nn.ModuleList([subject.language.text_model, subject.language.head])
        with Waits(model) as followed:
            run, _ = subject.run(bench, prompt, "adaretake")
        found, how = len(followed.found), "as they are followed through the code"
    count = len(run.trace.chunk_lengths)
    row = judged("waits", f"waits for the device in {count} chunks", found, PER_CHUNK * count + BESIDES, "")
    row.limit += f", {how}"
    yield row
    yield Row("waits", "per chunk", "measured", found / count, "")
