"""Greedy decoding behind a prefilled cache."""

from __future__ import annotations

from collections.abc import Collection

import torch

from harness.compress.language import LanguageModel
from harness.compress.method import Method
from harness.compress.prefill import Prefilled, run_segment


def penalised(logits: torch.Tensor, seen: torch.Tensor, penalty: float) -> torch.Tensor:
    """Logits [v] after the repetition penalty: those of `seen` tokens [v] (bool) are made less likely.

    A positive logit is divided by the penalty, a negative one multiplied (arXiv 1909.05858), as transformers does.
    """
    return torch.where(seen, torch.where(logits < 0, logits * penalty, logits / penalty), logits)


def greedy(
    language: LanguageModel,
    method: Method,
    state: Prefilled,
    input_ids: torch.Tensor,
    first_position: torch.Tensor,
    *,
    max_new_tokens: int,
    eos: Collection[int],
    repetition_penalty: float,
    record: bool = False,
) -> tuple[list[int], list[torch.Tensor]]:
    """Decode up to `max_new_tokens` tokens, the end token included; also the raw logits of each when recording.

    Args:
        input_ids: the prompt [N]; with the new tokens it is what the repetition penalty applies to.
        first_position: ids [r, 1] of the first new token.
    """
    tokens: list[int] = []
    recorded: list[torch.Tensor] = []
    hidden, seen = state.hidden, None
    while len(tokens) < max_new_tokens:
        logits = language.logits(hidden)
        if record:
            recorded.append(logits.cpu())
        if repetition_penalty != 1:
            if seen is None:
                seen = torch.zeros(logits.shape[0], dtype=torch.bool, device=logits.device)
                seen[input_ids.to(logits.device)] = True
            logits = penalised(logits, seen, repetition_penalty)
        token = int(logits.argmax())
        tokens.append(token)
        if token in eos or len(tokens) == max_new_tokens:
            break
        if seen is not None:
            seen[token] = True
        index = len(tokens) - 1
        embeds = language.embed(torch.tensor([token]))
        ids = first_position + index
        hidden = run_segment(language, state.cache, method, embeds, ids, input_ids.shape[0] + index, decoded=True)
    return tokens, recorded
