"""Greedy decoding behind a prefilled cache."""

from __future__ import annotations

from collections.abc import Collection

from harness.compress.prefill import Prefill
from harness.late import torch


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
    record: bool = False,
) -> tuple[list[int], list[torch.Tensor]]:
    """Decode up to `max_new_tokens` tokens, the end token included; also the raw logits of each when recording.

    Args:
        run: the prefilled prompt; its tokens and the new ones are what the repetition penalty applies to.
        hidden: last hidden state of the prompt [d].
        first_position: ids [r, 1] of the first new token.
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
