"""From a prompt and the features of its video to an answer."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from harness.compress.decode import greedy
from harness.compress.language import LanguageModel
from harness.compress.method import Method
from harness.compress.positions import next_position
from harness.compress.prefill import Prefill
from harness.compress.prompt import Prompt
from harness.compress.trace import Generation, Recording
from harness.late import inference_mode, torch


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
        repetition_penalty=language.repetition_penalty if repetition_penalty is None else repetition_penalty,
        record=record,
    )
    if record:
        stacked = torch.stack(logits) if logits else torch.empty(0)
        run.trace.recording = Recording(run.scores, run.kept_indices, stacked, run.cache, run.entered)
    return Generation(tokens, run.trace)
