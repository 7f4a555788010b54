"""The toy's tokenizer: whole phrases are tokens, so that a prompt's text is about 25 of them.

A context of 1/64 of the prompt must still hold the text. Text is cut into the fewest pieces
(a unigram model in which every phrase costs the same); any other text falls back to characters
and bytes.
"""

from __future__ import annotations

from tokenizers import AddedToken, Tokenizer, decoders, models
from transformers import PreTrainedTokenizerFast

from harness.benchmarks.subtitles import ANSWER
from harness.toy.questions import BOTH, COUNTS, LETTERS, NEITHER, NOT_BOTH, SUBTITLES, TEXTS, TOGETHER
from harness.toy.world import BACKGROUNDS, COLOURS, SHAPES

SPECIAL = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
)

CHAT_TEMPLATE = """\
{%- if messages[0].role != 'system' -%}
{{ '<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n' }}
{%- endif -%}
{%- for message in messages -%}
{{ '<|im_start|>' + message.role + '\\n' }}
{%- if message.content is string -%}
{{ message.content }}
{%- else -%}
{%- for part in message.content -%}
{%- if part.type == 'image' or 'image' in part or 'image_url' in part -%}
{{ '<|vision_start|><|image_pad|><|vision_end|>' }}
{%- elif part.type == 'video' or 'video' in part -%}
{{ '<|vision_start|><|video_pad|><|vision_end|>' }}
{%- elif 'text' in part -%}
{{ part.text }}
{%- endif -%}
{%- endfor -%}
{%- endif -%}
{{ '<|im_end|>\\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{ '<|im_start|>assistant\\n' }}
{%- endif -%}
"""

PHRASE, CHARACTER, BYTE = -1.0, -10.0, -20.0

OPTIONS_OPEN = "?\nOptions:\nA. "
"""The token at which the question is complete and no option has been read."""


def phrases() -> list[str]:
    """Every piece of text that is one token, without the letters and the special tokens."""
    words = (*SHAPES, *COLOURS, *BACKGROUNDS, *COUNTS, TOGETHER, NOT_BOTH, BOTH, NEITHER)
    question_parts = [part for text in TEXTS.values() for part in text.rstrip("?").split("{}") if part]
    between = [f"{stop}\n{letter}. " for letter in LETTERS[1:] for stop in (".", "")]
    first_line = SUBTITLES[0]
    return [
        *words,
        *question_parts,
        OPTIONS_OPEN,
        *between,
        f".\n{ANSWER}",
        f"Subtitles: {first_line} ",
        "system\nYou are a helpful assistant.",
        "user\n",
        "assistant\n",
        "\n",
        *LETTERS,
    ]


def build_tokenizer() -> PreTrainedTokenizerFast:
    """The toy's tokenizer with Qwen's special tokens and the chat template."""
    pieces = {piece: PHRASE for piece in phrases()}
    for code in range(32, 127):
        pieces.setdefault(chr(code), CHARACTER)
    for byte in range(256):
        pieces[f"<0x{byte:02X}>"] = BYTE
    tokenizer = Tokenizer(models.Unigram([("<unk>", -100.0), *pieces.items()], unk_id=0, byte_fallback=True))
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=list(SPECIAL[1:]),
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
        model_max_length=32768,
    )
