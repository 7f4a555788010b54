"""From a prompt and the features of its video to an answer."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import torch

from harness.compress.decode import greedy
from harness.compress.language import LanguageModel
from harness.compress.method import Method
from harness.compress.positions import next_position
from harness.compress.prefill import prefill
from harness.compress.prompt import Prompt
from harness.compress.trace import Generation, Recording


@torch.inference_mode()
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

    Raises:
        QuestionError: a context that leaves no room for the video, or scores that are not numbers.
        ValueError: features and prompt do not belong together.
    """
    run, hidden = prefill(language, method, prompt, features, max_new_tokens=max_new_tokens, record=record, memo=memo)
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
        run.trace.recording = Recording(run.scores, run.kept_indices, stacked, run.cache)
    return Generation(tokens, run.trace)
