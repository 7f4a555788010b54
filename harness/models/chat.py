"""The chat prompt around a question, in which nothing that the question says is a control token."""

from __future__ import annotations

from typing import Any

from harness.errors import QuestionError
from harness.late import torch

_STAND_IN = "\ue000"  # a private-use character: stands for the question while the template is rendered


def check_text(text: str) -> None:
    """A text has a tokenisation.

    Raises:
        QuestionError: it holds half of a pair of surrogates, which stands for no character.
    """
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise QuestionError(f"the question holds {text[error.start]!r}, half of a character: {text[:80]!r}") from error


def tokens_of(processor: Any, video_token_id: int, text: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids of the prompt before the video's placeholder [a], and behind it [b].

    Tokens that steer the model, such as `<|im_end|>` or `<|video_pad|>`, come from the template alone: where `text`
    spells one, it is tokenised as the characters that it is.

    Args:
        processor: with a chat template that shows one video.
        video_token_id: the placeholder.
        text: what the user says.
    """
    tokenizer = processor.tokenizer
    added = [str(token) for token in tokenizer.added_tokens_decoder.values() if token.special]
    control = {*added, *tokenizer.all_special_tokens, tokenizer.convert_ids_to_tokens(video_token_id)}
    if any(token in text for token in control):
        ids = _piecewise(_render(processor, _STAND_IN), text, tokenizer, control)
    else:
        ids = tokenizer(_render(processor, text), add_special_tokens=False)["input_ids"]
    at = ids.index(video_token_id)
    return torch.tensor(ids[:at]), torch.tensor(ids[at + 1 :])


def _render(processor: Any, text: str) -> str:
    message = {"role": "user", "content": [{"type": "video"}, {"type": "text", "text": text}]}
    chat: str = processor.apply_chat_template([message], tokenize=False, add_generation_prompt=True)
    return chat


def _piecewise(chat: str, text: str, tokenizer: Any, control: set[str]) -> list[int]:
    """Tokens of a rendered chat with `text` in place of the stand-in; what lies between control tokens stays whole."""
    before, after = chat.split(_STAND_IN)
    start = max((before.rfind(token) + len(token) for token in control if token in before), default=0)
    stop = min((after.find(token) for token in control if token in after), default=len(after))
    said = before[start:] + text + after[:stop]
    return [
        *tokenizer(before[:start], add_special_tokens=False)["input_ids"],
        *tokenizer(said, add_special_tokens=False, split_special_tokens=True)["input_ids"],
        *tokenizer(after[stop:], add_special_tokens=False)["input_ids"],
    ]
