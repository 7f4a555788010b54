"""Train the toy's checkpoint from a seed.

What makes it learn within half an hour: short clips come before long ones; where a question is
complete but no option has been read, the answer's word is a target too, and at each option whether it
is right, beside the letter at the end; each video feature has to name what it shows in the language
model's own embedding; and questions are told where to look (see `looking`).
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import binary_cross_entropy, cross_entropy
from transformers import Qwen2_5_VLForConditionalGeneration

from harness.toy.questions import KINDS
from toy_training.checkpoint import build_model, save
from toy_training.episodes import IGNORE, Batch, Episodes
from toy_training.forward import attention, forward, fuse_norms
from toy_training.tokens import build_tokenizer

WARM_UP = 50
EVEN = {"colour": 1.0, "shape": 1.0, "scene": 1.0, "named": 0.8, "order": 1.5, "both": 1.5, "count": 1.5}
HARD = {"colour": 1.0, "shape": 0.8, "scene": 1.5, "named": 1.0, "order": 3.0, "both": 0.5, "count": 2.5}
CUTS = {"colour": 0.8, "shape": 0.8, "scene": 4.0, "named": 0.8, "order": 2.0, "both": 0.5, "count": 2.0}
ALL = {"colour": 1.0, "shape": 1.0, "scene": 2.0, "named": 1.0, "order": 2.0, "both": 0.5, "count": 2.5}
"""How often each kind of question is drawn: at first; when the easy ones are learnt; where clips with
several scenes are new, in which one event's background is not that of the clip; and at the end."""

HALF = 4
"""So many events take half of the attention of a word that names them."""

SPAN = 256
"""Temporal ids of the longest video: 128 grids at two frames per second."""


@dataclass(frozen=True)
class Stage:
    """`steps` batches of about `clips` clips of lo..hi grids, `questions` questions to each clip.

    The learning rate runs straight from `rate` to `rate_end`; `encoded` is the share of clips that
    pass through H.264; `weights` are those of the five costs (see `losses`); `kinds` is how often each
    kind of question is drawn. Optimizers start anew with each stage, so that a stage depends on
    nothing but its seed and the weights before it.
    """

    steps: int
    clips: int
    questions: int
    lo: int
    hi: int
    rate: float
    rate_end: float
    encoded: float = 0.0
    weights: tuple[float, ...] = (2.0, 1.0, 1.0, 1.0, 0.5)
    kinds: Mapping[str, float] = field(default_factory=lambda: EVEN)


LATE = (3.0, 1.0, 0.5, 1.0, 1.0)

STAGES = (
    Stage(700, 12, 6, 4, 8, 1e-2, 8e-3),
    Stage(900, 7, 9, 5, 15, 8e-3, 4e-3),
    Stage(700, 7, 9, 5, 16, 5e-3, 2e-3, weights=LATE, kinds=HARD),
    Stage(300, 4, 12, 16, 48, 2.5e-3, 1.5e-3, 0.3, weights=LATE, kinds=HARD),
    Stage(250, 4, 12, 12, 40, 2.5e-3, 1.56e-3, 0.3, weights=LATE, kinds=HARD),
    Stage(400, 7, 9, 6, 16, 6e-3, 2e-3, weights=LATE, kinds=CUTS),
    Stage(300, 5, 11, 8, 32, 2.5e-3, 1e-3, 0.4, weights=LATE, kinds=ALL),
    Stage(140, 2, 16, 32, 128, 1e-3, 2e-5, 1.0, weights=LATE, kinds=ALL),
)


def optimizers(model: torch.nn.Module, rate: float) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside the layers, AdamW for all else.

    The patch embedding sums over 1176 pixels, so a step of AdamW moves it far: it gets the smallest rate.
    """
    matrices, patch, others = [], [], []
    for name, parameter in model.named_parameters():
        inside = parameter.ndim == 2 and "embed" not in name and "lm_head" not in name
        (patch if "patch_embed" in name else matrices if inside else others).append(parameter)
    groups = [{"params": others, "share": 0.2}, {"params": patch, "share": 0.04}]
    return [
        torch.optim.Muon(matrices, lr=rate, momentum=0.95, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.98), weight_decay=0.0),
    ]


def batches(episodes: Episodes, stage: Stage) -> Iterator[Batch]:
    """The batches of a stage; the next one is drawn while the last is learnt."""

    def draw() -> Batch:
        grids = int(episodes.rng.integers(stage.lo, stage.hi + 1))
        clips = max(1, round(stage.clips * (stage.lo + stage.hi) / 2 / grids))
        # Short clips are spread over up to as many temporal ids as long ones: order is read from them.
        step = float(episodes.rng.uniform(2, max(2, SPAN / grids)))
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
    """Letters right, words right, and questions asked, by kind."""

    counts: dict[str, np.ndarray]

    @classmethod
    def empty(cls) -> Tally:
        return cls(defaultdict(lambda: np.zeros(3)))

    def add(self, kind: str, letter: bool, word: bool) -> None:
        self.counts[kind] += (letter, word, 1)

    def __str__(self) -> str:
        shares = {kind: 100 * self.counts[kind][:2] / self.counts[kind][2] for kind in KINDS if kind in self.counts}
        return "  ".join(f"{kind} {letter:.0f}/{word:.0f}" for kind, (letter, word) in shares.items())


def losses(model: Qwen2_5_VLForConditionalGeneration, batch: Batch, tally: Tally) -> torch.Tensor:
    """Costs [5] of letters, words, features, options and looks; counts right letters and words into `tally`."""
    outcome = forward(model, batch)
    states = outcome.states
    letters, words, choices = (t.to(states.device) for t in (batch.letters, batch.words, batch.choices))
    at_letter, at_word, at_choice = letters != IGNORE, words != IGNORE, choices != IGNORE
    letter_scores, word_scores = model.lm_head(states[at_letter]), model.lm_head(states[at_word])
    kinds = [kind for row in batch.kinds for kind in row]
    # Each question has two targets: the letter, and <|im_end|> behind it, which is learnt at once.
    letter_right = (letter_scores.argmax(-1) == letters[at_letter])[::2].tolist()
    word_right = (word_scores.argmax(-1) == words[at_word]).tolist()
    for kind, *right in zip(kinds, letter_right, word_right, strict=False):
        tally.add(kind, *right)
    return torch.stack(
        [
            cross_entropy(letter_scores, letters[at_letter]),
            cross_entropy(word_scores, words[at_word]),
            naming(model, outcome.video, batch.seen.to(states.device)),
            cross_entropy(model.lm_head(states[at_choice]), choices[at_choice]),
            looking(model, batch, outcome.entered),
        ]
    )


def naming(model: Qwen2_5_VLForConditionalGeneration, video: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
    """Cross entropy of naming what each feature [b, v, hidden] shows, events and empty cells by halves."""
    scores = model.lm_head(model.model.language_model.norm(video)).log_softmax(-1)
    named = (seen != IGNORE).to(scores.dtype)
    costs = -(scores.gather(-1, seen.clamp(min=0)) * named).sum(-1) / named.sum(-1)
    event = seen[..., 0] != IGNORE
    return (costs[event].mean() + costs[~event].mean()) / 2


def looking(model: Qwen2_5_VLForConditionalGeneration, batch: Batch, entered: tuple[torch.Tensor, ...]) -> torch.Tensor:
    """Where questions look, as a cost.

    In the first layer a word looks at the features of the events that it names (half of the heads),
    and its attention to them is n / (n + HALF) for n events (the other half): so it can be counted. In
    the second and third, where the question is complete it looks at the evidence of the answer.
    """
    device = entered[0].device
    ids, times, evidence, seen = (t.to(device) for t in (batch.input_ids, batch.times, batch.evidence, batch.seen))
    first = int((batch.groups[0] == 0).sum()) - seen.shape[1]
    video = slice(first, first + seen.shape[1])

    m = int((times != IGNORE).sum(1).max())
    rows = (times != IGNORE).int().topk(m, dim=1).indices
    n = times.gather(1, rows)
    # Rows of clips with fewer words must look at something too: the last place sees the whole video.
    rows = rows.where(n != IGNORE, ids.shape[1] - 1)
    word = ids.gather(1, rows)[..., None]
    named = ((word == seen[:, None, :, 0]) | (word == seen[:, None, :, 1]))[:, None]
    looks = attention(model, batch, 0, entered[0], rows, 0)[..., video].log_softmax(-1)
    there = looks.masked_fill(~named, -torch.inf).logsumexp(-1)
    cost = -there[(n > 0)[:, None].expand_as(there)].mean()

    mass = attention(model, batch, 0, entered[0], rows, 1)[..., video].masked_fill(~named, -torch.inf).logsumexp(-1)
    wanted = (n.clamp(min=0) / (n.clamp(min=0) + HALF))[:, None].expand_as(mass)
    cost = cost + binary_cross_entropy(mass.exp().clamp(1e-6, 1 - 1e-6), wanted, weight=(n >= 0)[:, None].float())

    rows = (batch.words != IGNORE).nonzero()[:, 1].view(len(ids), -1).to(device)
    seen_at_all = evidence.any(-1)[:, None]
    for layer in (1, 2):
        looks = attention(model, batch, layer, entered[layer], rows, 0)[..., video].log_softmax(-1)
        there = looks.masked_fill(~evidence[:, None], -torch.inf).logsumexp(-1)
        cost = cost - there[seen_at_all.expand_as(there)].mean() / 2
    return cost


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
            _run(model, stage, Episodes(tokenizer, seed * 1000 + number, stage.kinds), log, every, target)
            save(model, target)
    return model.eval()


def _run(
    model: Qwen2_5_VLForConditionalGeneration,
    stage: Stage,
    episodes: Episodes,
    log: Callable[[str], None],
    every: int,
    target: Path,
) -> None:
    optims = optimizers(model, stage.rate)
    began = time.monotonic()
    tally, seen = Tally.empty(), []
    for step, batch in enumerate(batches(episodes, stage), start=1):
        done = step / stage.steps
        rate = min(1.0, step / WARM_UP) * (stage.rate * (1 - done) + stage.rate_end * done)
        for group in (group for optim in optims for group in optim.param_groups):
            group["lr"] = rate * group.get("share", 1.0)
        parts = losses(model, batch, tally)
        parts.dot(parts.new_tensor(stage.weights)).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optim in optims:
            optim.step()
            optim.zero_grad(set_to_none=True)
        seen.append(parts.tolist())
        if step % every == 0 or step == stage.steps:
            spent = time.monotonic() - began
            letter, word, feature, option, look = np.mean(seen, axis=0)
            log(
                f"step {step:5d}/{stage.steps}  {spent:5.0f} s, ~{spent / step * (stage.steps - step):5.0f} s left"
                f"  cost: letter {letter:.3f}, word {word:.3f}, feature {feature:.3f}, option {option:.3f},"
                f" look {look:.3f}  % right letter/word: {tally}"
            )
            tally, seen = Tally.empty(), []
            save(model, target)
