"""Train the toy's checkpoint from a seed.

Two things make it learn within minutes: short clips come before long ones, and where a question is
complete but no option has been read, the answer's word is a target too, beside the option's letter.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import cross_entropy
from transformers import Qwen2_5_VLForConditionalGeneration

from harness.toy.checkpoint import build_model, save
from harness.toy.episodes import IGNORE, Batch, Episodes
from harness.toy.forward import fuse_norms, hidden_states
from harness.toy.questions import KINDS
from harness.toy.tokens import build_tokenizer

WARM_UP = 50
KIND_WEIGHTS = {"colour": 1.0, "shape": 1.0, "scene": 1.0, "named": 0.8, "order": 1.5, "next": 1.5, "count": 1.5}


@dataclass(frozen=True)
class Stage:
    """`steps` batches of about `clips` clips of lo..hi grids, `questions` questions to each clip.

    The learning rate runs straight from `rate` to `rate_end`; `encoded` is the share of clips that
    pass through H.264. Optimizers start anew with each stage, so that a stage depends on nothing
    but its seed and the weights before it.
    """

    steps: int
    clips: int
    questions: int
    lo: int
    hi: int
    rate: float
    rate_end: float
    encoded: float = 0.0


STAGES = (
    Stage(900, 20, 4, 3, 6, 3e-3, 3e-3),
    Stage(1000, 8, 8, 9, 9, 3e-3, 2e-3),
    Stage(1200, 6, 10, 9, 24, 2e-3, 1.5e-3),
    Stage(500, 4, 12, 16, 48, 1.5e-3, 1e-3, 0.3),
    Stage(250, 2, 16, 32, 128, 1e-3, 2e-5, 1.0),
)


def optimizers(model: torch.nn.Module, rate: float) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside the layers, AdamW for all else."""
    matrices, others = [], []
    for name, parameter in model.named_parameters():
        inside = parameter.ndim == 2 and "embed" not in name and "lm_head" not in name
        (matrices if inside else others).append(parameter)
    return [
        torch.optim.Muon(matrices, lr=rate, momentum=0.95, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, lr=rate, betas=(0.9, 0.98), weight_decay=0.0),
    ]


def batches(episodes: Episodes, stage: Stage) -> Iterator[Batch]:
    """The batches of a stage; the next one is drawn while the last is learnt."""

    def draw() -> Batch:
        grids = int(episodes.rng.integers(stage.lo, stage.hi + 1))
        clips = max(1, round(stage.clips * (stage.lo + stage.hi) / 2 / grids))
        step = float(episodes.rng.choice([1.0, 2.0, 2.0, 2.0, 4.0]))
        return episodes.batch(clips, grids, stage.questions, encoded=stage.encoded, step=step)

    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(draw)
        for step in range(1, stage.steps + 1):
            drawn = waiting.result()
            if step < stage.steps:
                waiting = pool.submit(draw)
            yield drawn


@dataclass
class Tally:
    """Letters right and asked, by question kind."""

    right: dict[str, int]
    asked: dict[str, int]

    @classmethod
    def empty(cls) -> Tally:
        return cls(defaultdict(int), defaultdict(int))

    def add(self, kind: str, right: bool) -> None:
        self.right[kind] += right
        self.asked[kind] += 1

    def __str__(self) -> str:
        return "  ".join(f"{k} {100 * self.right[k] / self.asked[k]:3.0f}" for k in KINDS if self.asked[k])


def losses(model: Qwen2_5_VLForConditionalGeneration, batch: Batch, tally: Tally) -> tuple[torch.Tensor, torch.Tensor]:
    """Cross entropy of the letters and of the words; counts the letters into `tally`."""
    states = hidden_states(model, batch)
    letters, words = (target.to(states.device) for target in (batch.letters, batch.words))
    at_letter, at_word = letters != IGNORE, words != IGNORE
    scores = model.lm_head(states[at_letter])
    # Per question the letter and then <|im_end|>, which is learnt at once.
    right = (scores.argmax(-1) == letters[at_letter])[::2].tolist()
    for kind, hit in zip((kind for row in batch.kinds for kind in row), right):
        tally.add(kind, hit)
    return (
        cross_entropy(scores, letters[at_letter]),
        cross_entropy(model.lm_head(states[at_word]), words[at_word]),
    )


def train(
    target: Path,
    *,
    seed: int = 0,
    stages: Sequence[Stage] = STAGES,
    first: int = 1,
    start: Path | None = None,
    device: str = "cpu",
    log: Callable[[str], None] = print,
    every: int = 50,
) -> Qwen2_5_VLForConditionalGeneration:
    """Train through `stages`, saving to `target` after each, and return the model.

    `first` and `start` resume: stages before number `first` are skipped and the weights come from
    the checkpoint `start`.
    """
    tokenizer = build_tokenizer()
    model = build_model(seed, tokenizer)
    if start:
        model = Qwen2_5_VLForConditionalGeneration.from_pretrained(start, dtype=torch.float32)
    fuse_norms(model.to(device).train())
    log(f"{sum(p.numel() for p in model.parameters()):,} parameters, seed {seed}, {device}")
    for number, stage in enumerate(stages, start=1):
        if number >= first:
            log(f"stage {number} of {len(stages)}: {stage}")
            _run(model, stage, Episodes(tokenizer, seed * 1000 + number, KIND_WEIGHTS), log, every)
            save(model, target)
    return model.eval()


def _run(
    model: Qwen2_5_VLForConditionalGeneration,
    stage: Stage,
    episodes: Episodes,
    log: Callable[[str], None],
    every: int,
) -> None:
    optims = optimizers(model, stage.rate)
    began = time.monotonic()
    tally, seen = Tally.empty(), []
    for step, batch in enumerate(batches(episodes, stage), start=1):
        done = step / stage.steps
        rate = min(1.0, step / WARM_UP) * (stage.rate * (1 - done) + stage.rate_end * done)
        for group in (group for optim in optims for group in optim.param_groups):
            group["lr"] = rate
        letter, word = losses(model, batch, tally)
        (2 * letter + word).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optim in optims:
            optim.step()
            optim.zero_grad(set_to_none=True)
        seen.append((letter.item(), word.item()))
        if step % every == 0 or step == stage.steps:
            spent = time.monotonic() - began
            a, b = np.mean(seen, axis=0)
            log(
                f"step {step:5d}/{stage.steps}  {spent:5.0f} s, ~{spent / step * (stage.steps - step):5.0f} s left"
                f"  loss: letter {a:.3f}, word {b:.3f}  % right: {tally}"
            )
            tally, seen = Tally.empty(), []
