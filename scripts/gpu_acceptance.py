"""What a machine with a GPU has to show before anything long runs on it. See scripts/gpu_acceptance.sh.

Every weight is random and made on the spot, in the full shape of Qwen2.5-VL-7B's language model; nothing is downloaded.
A check that cannot be carried out is a failed row with its reason, and the others still run. At the end stand
`acceptance.json` and `acceptance.md` in the output folder. The status is 0 where no row failed, else 1.
"""

from __future__ import annotations

import argparse
import dataclasses
import gc
import json
import platform
import sys
import time
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from acceptance import agreement, speed
from acceptance.subject import SIZES, Row, Subject

from harness.errors import UserError
from harness.models.loading import choose_device

CHECKS: dict[str, Callable[[Subject], Iterator[Row]]] = {
    "backends": agreement.backends,
    "whole_model": agreement.whole_model,
    "chunks": agreement.chunks,
    "pinned": speed.pinned,
    "memory": speed.memory,
    "speed": speed.prefill_rate,
    "decoding": speed.decoding,
    "waits": speed.waits,
    "methods": speed.methods,
    "devices": agreement.devices,  # last: it spreads the model
}


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="full", help="tiny: a few thousand weights, also on a CPU")
    parser.add_argument("--device", default="auto", help="auto, cuda, cuda:1, npu:0, cpu (default: auto)")
    parser.add_argument("--only", nargs="+", choices=CHECKS, metavar="CHECK", help=f"of {', '.join(CHECKS)}")
    parser.add_argument("--output", type=Path, default=Path("results/acceptance"), help="folder of the result")
    return parser.parse_args(argv)


def carry_out(subject: Subject, names: list[str], report: Callable[[Row], None]) -> list[Row]:
    """The rows of all checks; whatever goes wrong in one is a row of its own."""
    rows: list[Row] = []
    for name in names:
        try:
            with torch.inference_mode():
                for row in CHECKS[name](subject):
                    rows.append(row)
                    report(row)
        except Exception as error:
            rows.append(agreement.broken(name, "the check itself", error))
            report(rows[-1])
        gc.collect()
        if subject.device.type == "cuda":
            torch.cuda.empty_cache()
    return rows


def line(row: Row) -> str:
    value = "" if row.value is None else f"{row.value:.4g} {row.unit}".strip()
    return "  ".join(part for part in (f"{row.status:8}", f"{row.check}: {row.what}", value, row.reason) if part)


def machine(subject: Subject) -> dict[str, Any]:
    """Where this ran."""
    index = subject.device
    name = torch.cuda.get_device_name(index) if index.type == "cuda" else platform.processor() or platform.machine()
    versions = {}
    for package in ("torch", "transformers", "flash-attn", "accelerate"):
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = "not installed"
    count = torch.cuda.device_count() if index.type == "cuda" else 1
    return {"device": str(index), "name": name, "devices": count, "python": platform.python_version(), **versions}


def markdown(rows: list[Row], where: dict[str, Any], size: str, taken: float) -> str:
    """The result as a page."""
    failed = [row for row in rows if row.status == "failed"]
    said = f"{len(failed)} of {len(rows)} rows failed" if failed else f"all of {len(rows)} rows passed"
    facts = ", ".join(f"{key} {value}" for key, value in where.items())
    table = ["| check | what | status | value | limit | reason |", "|---|---|---|---|---|---|"]
    for row in rows:
        value = "" if row.value is None else f"{row.value:.4g} {row.unit}".strip()
        cells = (row.check, row.what, row.status, value, row.limit, row.reason)
        table.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    head = f"# Acceptance, size {size}\n\n{said}, in {taken:.0f} s. {facts}.\n"
    return head + "\n" + "\n".join(table) + "\n"


def main(argv: list[str] | None = None) -> int:
    args = parse(argv)
    started = time.perf_counter()
    try:
        device = choose_device(args.device)
        if args.size == "full" and device.type == "cpu":
            raise UserError("--size full needs an accelerator, and none is visible; try --size tiny")
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    dtype = torch.float32 if device.type == "cpu" else torch.bfloat16
    try:
        subject = Subject.make(SIZES[args.size], device, dtype)
    except Exception as error:
        row = agreement.broken("model", f"weights of size {args.size}", error)
        rows, where = [row], {"device": str(device)}
        print(line(row))
    else:
        where = machine(subject)
        print(", ".join(f"{key} {value}" for key, value in where.items()))
        rows = carry_out(subject, args.only or list(CHECKS), lambda row: print(line(row), flush=True))
    taken = time.perf_counter() - started
    args.output.mkdir(parents=True, exist_ok=True)
    failed = [row for row in rows if row.status == "failed"]
    result = {
        "passed": not failed, "size": args.size, "seconds": round(taken, 1), "machine": where,
        "rows": [dataclasses.asdict(row) for row in rows],
    }  # fmt: skip
    (args.output / "acceptance.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    (args.output / "acceptance.md").write_text(markdown(rows, where, args.size, taken), encoding="utf-8")
    for row in failed:
        print(f"failed: {row.check}: {row.what}: {row.reason}", file=sys.stderr)
    print(f"{args.output / 'acceptance.md'}: {len(rows)} rows, {len(failed)} failed, {taken:.0f} s")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
