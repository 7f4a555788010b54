"""Training batches: a clip with several questions packed behind it.

The video is prefilled once and every question sees it as if alone: one sequence
`[text before, video, question 1, question 2, ...]` in which no question attends to another and all
start at the same position id.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

import av
import numpy as np
import torch
from transformers import PreTrainedTokenizerFast

from harness.toy import render
from harness.toy.questions import LETTERS, SUBTITLES, ToyQuestion, options_for, pick
from harness.toy.world import BOARD, EVENT_FRAMES, SHAPES, Event, Storyboard, compose, sampled
from toy_training.prompts import STYLES, prompt
from toy_training.tokens import OPTIONS_OPEN

IGNORE = -100
BEFORE = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n<|vision_start|>"
BEHIND = "<|vision_end|>{}<|im_end|>\n<|im_start|>assistant\n{}"


@dataclass(frozen=True)
class Batch:
    """`b` clips of `g` grids with `q` questions each, `n` tokens per packed sequence.

    frames uint8 [b, 2g, H, W, 3]; input_ids, letters, words, choices int [b, n] (targets: IGNORE where
    none; choices: at an option's word, its letter if it is right, else the end of text);
    times int [b, n]: at a word of a question that names an event, how often that is seen; else IGNORE;
    evidence bool [b, q, 16g]: the video tokens in which the answer is seen;
    groups int [b, n] (0: shared, i: question i, -1: padding); positions int [b, 3, n];
    seen int [b, 16g, 3]: the words for what each video token shows, (shape, colour, background);
    shape and colour are IGNORE where there is no event. kinds [b][q].
    """

    frames: np.ndarray
    input_ids: torch.Tensor
    letters: torch.Tensor
    words: torch.Tensor
    choices: torch.Tensor
    times: torch.Tensor
    groups: torch.Tensor
    positions: torch.Tensor
    evidence: torch.Tensor
    seen: torch.Tensor
    kinds: list[list[str]]


def through_h264(frames: np.ndarray) -> np.ndarray:
    """What a decoder sees of `frames`."""
    buffer = io.BytesIO()
    render.encode(frames, buffer)
    buffer.seek(0)
    return decode(buffer)


def decode(source: io.BytesIO) -> np.ndarray:
    """All frames of an mp4 as uint8 [frames, height, width, 3]."""
    with av.open(source) as container:
        container.streams.video[0].thread_count = 1
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


@dataclass(frozen=True)
class Tail:
    """One question behind a video: its tokens up to the answer's letter, the answer's word, how often
    the words that it is about are seen, and the number of options."""

    tokens: list[int]
    answer: int
    about: dict[int, int]
    options: int


class Episodes:
    """Draws batches from a seed.

    `kinds` maps a question kind to how often it is drawn; `encoded` is the share of clips that pass
    through H.264 (the rest get plain noise, which is cheaper).
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast, seed: int, kinds: dict[str, float]):
        self.rng = np.random.default_rng(seed)
        self.tokenizer = tokenizer
        self.before = tokenizer(BEFORE).input_ids
        self.video = tokenizer.convert_tokens_to_ids("<|video_pad|>")
        self.end = tokenizer.convert_tokens_to_ids("<|im_end|>")
        self.nothing = tokenizer.convert_tokens_to_ids("<|endoftext|>")
        self.open = tokenizer.convert_tokens_to_ids(OPTIONS_OPEN)
        self.kinds = list(kinds)
        self.weights = np.array(list(kinds.values())) / sum(kinds.values())
        self.noise = self.rng.normal(0, 4, 2**21).astype(np.int16)

    def batch(self, clips: int, grids: int, questions: int, *, encoded: float, step: float = 2.0) -> Batch:
        """`step` is the difference of temporal ids between grids (2.0 at 2 frames per second)."""
        frames, rows, kinds, seen, evidence = [], [], [], [], []
        for _ in range(clips):
            story = compose(self.rng, 2 * grids)
            frames.append(self._frames(story, encoded))
            seen.append(self._seen(story))
            asked = self._questions(story, questions)
            kinds.append([question.kind for question in asked])
            evidence.append(torch.stack([_tokens(question.evidence, story.frames) for question in asked]))
            rows.append([self._behind(question, story) for question in asked])
        return Batch(np.stack(frames), *self._pack(rows, grids, step), *map(torch.stack, (evidence, seen)), kinds)

    def _frames(self, story: Storyboard, encoded: float) -> np.ndarray:
        drawn = render.draw(story)
        if self.rng.random() < encoded:
            return through_h264(drawn)[sampled(story.frames)]
        start = int(self.rng.integers(self.noise.size))
        noise = np.resize(
            np.roll(self.noise, -start) if drawn.size > self.noise.size else self.noise[start:], drawn.size
        )
        return np.clip(drawn + noise.reshape(drawn.shape), 0, 255).astype(np.uint8)[sampled(story.frames)]

    def _seen(self, story: Storyboard) -> torch.Tensor:
        word = self.tokenizer.convert_tokens_to_ids
        scenes = torch.full((story.frames, BOARD * BOARD), IGNORE)
        for scene in story.scenes:
            scenes[scene.start : scene.stop] = word(scene.background)
        seen = torch.full((story.frames // 2 * BOARD * BOARD, 3), IGNORE)
        seen[:, 2] = scenes[sampled(story.frames)][::2].flatten()
        for e in story.events:
            seen[_tokens([e], story.frames)] = torch.tensor([word(w) for w in (e.shape, e.colour, e.background)])
        return seen

    def _questions(self, story: Storyboard, n: int) -> list[ToyQuestion]:
        asked: list[ToyQuestion] = []
        while len(asked) < n:
            question = pick(story, self.kinds[self.rng.choice(len(self.kinds), p=self.weights)], self.rng)
            if question:
                asked.append(question)
        return asked

    def _behind(self, question: ToyQuestion, story: Storyboard) -> Tail:
        style = "longvideobench" if question.kind == "named" else str(self.rng.choice(STYLES))
        n = 5 if style == "longvideobench" and self.rng.random() < 0.5 else 4
        options, right = options_for(question, story, self.rng, n=n)
        named = question.about[0] if question.kind == "named" else str(self.rng.choice(SHAPES))
        text = prompt(style, question.text, options, " ".join(SUBTITLES).format(named))
        tokens = self.tokenizer(BEHIND.format(text, LETTERS[right])).input_ids
        word = self.tokenizer.convert_tokens_to_ids
        about = {word(n): sum(n in (e.shape, e.colour) for e in story.events) for n in question.about}
        return Tail(tokens, word(question.answer), about, len(options))

    def _pack(self, rows: list[list[Tail]], grids: int, step: float) -> tuple[torch.Tensor, ...]:
        head, cells = len(self.before), BOARD * BOARD
        shared = head + grids * cells
        longest = max(sum(len(tail.tokens) for tail in row) for row in rows)
        shape = (len(rows), shared + longest)
        input_ids = torch.zeros(shape, dtype=torch.long)
        letters, words, choices = (torch.full(shape, IGNORE) for _ in range(3))
        times = torch.full(shape, IGNORE)
        groups = torch.full(shape, -1)
        positions = torch.zeros(len(rows), 3, shape[1], dtype=torch.long)

        grid = torch.arange(grids).repeat_interleave(cells)
        cell = torch.arange(cells).repeat(grids)
        video = head + torch.stack([(grid * step).long(), cell // BOARD, cell % BOARD])
        input_ids[:, :shared] = torch.tensor(self.before + [self.video] * (grids * cells))
        groups[:, :shared] = 0
        positions[:, :, :head] = torch.arange(head)
        positions[:, :, head:shared] = video
        resume = int(video.max()) + 1
        for b, row in enumerate(rows):
            at = shared
            for i, tail in enumerate(row, start=1):
                tokens = tail.tokens
                stop = at + len(tokens)
                input_ids[b, at:stop] = torch.tensor(tokens)
                groups[b, at:stop] = i
                positions[b, :, at:stop] = resume + torch.arange(len(tokens))
                letters[b, stop - 2], letters[b, stop - 1] = tokens[-1], self.end
                opened = at + tokens.index(self.open)
                words[b, opened] = tail.answer
                times[b, at:opened] = torch.tensor([tail.about.get(token, IGNORE) for token in tokens[: opened - at]])
                # Words and the letters between them take turns behind the opening.
                listed = slice(opened + 1, opened + 2 * tail.options, 2)
                choices[b, listed] = torch.where(input_ids[b, listed] == tail.answer, tokens[-1], self.nothing)
                at = stop
        return input_ids, letters, words, choices, times, groups, positions


def _tokens(events: Sequence[Event], frames: int) -> torch.Tensor:
    """The video tokens bool [16g] in which `events` are seen in at least one of the two frames."""
    shown = sampled(frames)
    at = torch.zeros(frames // 2, BOARD * BOARD, dtype=torch.bool)
    for e in events:
        inside = (shown >= e.start) & (shown < e.start + EVENT_FRAMES)
        at[:, e.row * BOARD + e.column] |= torch.from_numpy(inside.reshape(-1, 2).any(1))
    return at.flatten()


def attention_mask(groups: torch.Tensor) -> torch.Tensor:
    """Boolean [b, 1, n, n]: causal, and from one question to no other."""
    n = groups.shape[1]
    own = groups[:, :, None] == groups[:, None, :]
    shared = (groups == 0)[:, None, :]
    return ((own | shared) & torch.ones(n, n, dtype=torch.bool).tril())[:, None]
