"""Make the toy's checkpoint again: python scripts/train_toy.py [--seed 0] [--device cuda]

Prints progress and, at the end, the accuracy on the toy benchmarks, whose videos it never trains on.
The log of the committed checkpoint is scripts/toy_training/training.log.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import torch
from toy_training.accuracy import answers, table
from toy_training.train import train

from harness.toy import CHECKPOINT
from harness.toy.benchmarks import build

LOG = Path(__file__).parent / "toy_training" / "training.log"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=CHECKPOINT, help="folder of the checkpoint")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--first", type=int, default=1, help="number of the first stage to run")
    parser.add_argument("--log", type=Path, default=LOG, help="file that the log goes to")
    parser.add_argument("--start", type=Path, help="checkpoint that the first stage starts from")
    args = parser.parse_args()

    record = args.log.open("a" if args.start else "w", encoding="utf-8")

    def log(line: str) -> None:
        print(line, flush=True)
        print(line, file=record, flush=True)

    train(args.out, seed=args.seed, device=args.device, first=args.first, start=args.start, log=log)
    with tempfile.TemporaryDirectory() as folder:
        build(Path(folder))
        log(table(answers(args.out, Path(folder))))


if __name__ == "__main__":
    main()
