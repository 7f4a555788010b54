"""From a prompt and the features of its video to an answer."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from harness.compress.language import LanguageModel
from harness.compress.method import Method
from harness.compress.positions import next_position
from harness.compress.prefill import Prefill
from harness.compress.prompt import Prompt
from harness.compress.trace import Generation, Recording
from harness.late import inference_mode, torch


def penalised(logits: torch.Tensor, seen: torch.Tensor, penalty: float) -> torch.Tensor:
    """Logits [v] after the repetition penalty: those of `seen` tokens [v] (bool) are made less likely.

    A positive logit is divided by the penalty, a negative one multiplied (arXiv 1909.05858), as transformers does.
    """
    return torch.where(seen, torch.where(logits < 0, logits * penalty, logits / penalty), logits)


def greedy(
    run: Prefill,
    hidden: torch.Tensor,
    first_position: torch.Tensor,
    *,
    max_new_tokens: int,
    eos: Collection[int],
    repetition_penalty: float,
    min_new_tokens: int = 0,
    record: bool = False,
) -> tuple[list[int], list[torch.Tensor]]:
    """Decode up to `max_new_tokens` tokens, the end token included; also the raw logits of each when recording.

    Args:
        run: the prefilled prompt; its tokens and the new ones are what the repetition penalty applies to.
        hidden: last hidden state of the prompt [d].
        first_position: ids [r, 1] of the first new token.
        min_new_tokens: tokens that end an answer are ruled out before so many.
    """
    tokens: list[int] = []
    recorded: list[torch.Tensor] = []
    seen: torch.Tensor | None = None
    prompt = run.prompt
    while len(tokens) < max_new_tokens:
        logits = run.language.logits(hidden)
        if record:
            recorded.append(logits.cpu())
        if repetition_penalty != 1:
            if seen is None:
                seen = torch.zeros(logits.shape[0], dtype=torch.bool, device=logits.device)
                seen[prompt.input_ids.to(logits.device)] = True
            logits = penalised(logits, seen, repetition_penalty)
        if len(tokens) < min_new_tokens:
            logits = logits.index_fill(0, torch.tensor(sorted(eos), device=logits.device), -torch.inf)
        token = int(logits.argmax())
        tokens.append(token)
        if token in eos or len(tokens) == max_new_tokens:
            break
        if seen is not None:
            seen[token] = True
        index = len(tokens) - 1
        hidden = run.decode(token, first_position + index, prompt.n_prompt + index)
        run.method.after_token(run)
    return tokens, recorded


def prefill(
    language: LanguageModel,
    method: Method,
    prompt: Prompt,
    features: Sequence[torch.Tensor],
    *,
    max_new_tokens: int,
    record: bool = False,
    memo: dict[Any, Any] | None = None,
    repeats: bool = False,
) -> tuple[Prefill, torch.Tensor]:
    """Fill the cache with a prompt under a method.

    Args:
        language: the decoder.
        method: for the family of the model.
        prompt: with positions by the method's rule.
        features: each [V, d]; see `Prefill`.
        max_new_tokens: room that decoding will need.
        record: also keep scores and kept indices.
        memo: what has been computed from these features alone, for other prompts on the same video.
        repeats: whether the prompt will come again, under another method: what is passed before anything is evicted
            then stays on the device until it has come for the last time.

    Returns:
        What has been prefilled, and the last hidden state [d] of the prompt.

    Raises:
        QuestionError: a context that leaves no room for this question's video, or scores that are not numbers.
    """
    run = Prefill(
        language, method, prompt, features, max_new_tokens=max_new_tokens, record=record, memo=memo, repeats=repeats
    )
    method.begin(run)
    hidden = None
    for segment in run.segments:
        if segment.chunk is None and segment.tokens.stop == run.prompt.n_prompt:
            method.before_question(run)
        hidden = method.feed(run, segment)
        if segment.chunk is not None:
            if len(run.trace.kept) <= segment.chunk:
                run.trace.kept.append([segment.n_video] * language.num_layers)
            run.trace.cache_after_chunk.append(run.cache.lengths)
    run.finish()
    if hidden is None:
        raise ValueError(f"the segments of method {method.name} do not end with the prompt")
    return run, hidden


@inference_mode
def generate(
    language: LanguageModel,
    method: Method,
    prompt: Prompt,
    features: Sequence[torch.Tensor],
    *,
    max_new_tokens: int,
    min_new_tokens: int = 0,
    eos: Collection[int] = (),
    repetition_penalty: float | None = None,
    record: bool = False,
    memo: dict[Any, Any] | None = None,
    repeats: bool = False,
) -> Generation:
    """Answer one prompt greedily, compressing the video's tokens while prefilling.

    Args:
        language: the decoder.
        method: for the family of the model (`Method.for_family`).
        prompt: with positions by the method's rule, and the context that its tokens may take.
        features: the video's tokens as they enter the decoder [V, d]; where the family has them, followed by the
            features that are added behind the first layers.
        max_new_tokens: at most so many tokens are decoded.
        min_new_tokens: at least so many, the token that ends the answer not among them.
        eos: tokens that end the answer.
        repetition_penalty: `None` = that of the checkpoint.
        record: also return scores, kept indices, logits and the cache.
        memo: what has been computed from these features alone, for other prompts on the same video.
        repeats: whether this prompt will come again under another method (see `prefill`).

    Raises:
        QuestionError: a context that leaves no room for the video, or scores that are not numbers.
        ValueError: features and prompt do not belong together.
    """
    run, hidden = prefill(
        language,
        method,
        prompt,
        features,
        max_new_tokens=max_new_tokens,
        record=record,
        memo=memo,
        repeats=repeats,
    )
    following = next_position(run.prompt.positions)
    run.trace.next_position = int(following.max())
    tokens, logits = greedy(
        run,
        hidden,
        following,
        max_new_tokens=max_new_tokens,
        eos=eos,
        min_new_tokens=min_new_tokens,
        repetition_penalty=language.repetition_penalty if repetition_penalty is None else repetition_penalty,
        record=record,
    )
    if record:
        stacked = torch.stack(logits) if logits else torch.empty(0)
        run.trace.recording = Recording(run.scores, run.kept_indices, stacked, run.cache, run.entered)
    return Generation(tokens, run.trace)
