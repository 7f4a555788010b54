"""LLaVA-Video weights in the authors' layout become one Hugging Face LLaVA-OneVision folder."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    AutoProcessor,
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
    PreTrainedTokenizerFast,
    Qwen2Config,
    SiglipVisionConfig,
)

from harness.models.convert import llava_video
from harness.models.convert.llava_video import SIGLIP_SO400M, model_config

SCRIPT = Path(__file__).parents[2] / "scripts" / "convert_llava_video.py"
TEXT = {
    "model_type": "llava",  # as the published files say; the fields are those of Qwen2
    "vocab_size": 272,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 4096,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1000000.0,
    "rope_scaling": None,
    "mm_vision_tower": "google/siglip-so400m-patch14-384",
    "mm_newline_position": "grid",
}
VISION = {
    "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 96,
}  # fmt: skip
ORIGINAL_NAMES = {
    "model.language_model.embed_tokens.": "model.embed_tokens.",
    "model.language_model.layers.": "model.layers.",
    "model.language_model.norm.": "model.norm.",
    "model.vision_tower.vision_model.": "model.vision_tower.vision_tower.vision_model.",
    "model.vision_tower.": "model.vision_tower.vision_tower.vision_model.",
    "model.multi_modal_projector.linear_1.": "model.mm_projector.0.",
    "model.multi_modal_projector.linear_2.": "model.mm_projector.2.",
    "model.image_newline": "model.image_newline",
    "lm_head.": "lm_head.",
}


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("convert_llava_video_script", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def stock() -> LlavaOnevisionForConditionalGeneration:
    torch.manual_seed(0)
    text = Qwen2Config(**{k: v for k, v in TEXT.items() if not k.startswith("m") or k == "max_position_embeddings"})
    vision = SiglipVisionConfig(**VISION, patch_size=14, vision_use_head=False)
    config = LlavaOnevisionConfig(text_config=text, vision_config=vision, image_token_index=259, video_token_index=260)
    return LlavaOnevisionForConditionalGeneration(config).eval()


def in_original_layout(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    state = {}
    for name, tensor in model.state_dict().items():
        prefix = next(p for p in ORIGINAL_NAMES if name.startswith(p))
        state[ORIGINAL_NAMES[prefix] + name.removeprefix(prefix)] = tensor.clone()
    return state


def byte_tokenizer() -> PreTrainedTokenizerFast:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(t, special=True) for t in ("<|endoftext|>", "<|im_start|>", "<|im_end|>")])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>")


@pytest.fixture(scope="module")
def original(stock, tmp_path_factory) -> Path:
    """A checkpoint as LLaVA-Video's authors publish them, in two files, with a stored rotary buffer."""
    folder = tmp_path_factory.mktemp("original")
    state = in_original_layout(stock) | {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4)}
    names = sorted(state)
    for part, chosen in enumerate((names[::2], names[1::2])):
        save_file({name: state[name] for name in chosen}, folder / f"model-{part + 1:05d}-of-00002.safetensors")
    (folder / "config.json").write_text(json.dumps(TEXT))
    (folder / "vision.json").write_text(json.dumps(VISION))
    byte_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture
def writable(original, tmp_path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "source"))


def convert(script, source: Path, target: Path, *more: str) -> int:
    return script.main([str(source), str(target), "--vision-config", str(source / "vision.json"), *more])


def video_inputs(processor, frames: int = 3):
    video = np.random.default_rng(0).integers(0, 256, (frames, 60, 80, 3), dtype=np.uint8)
    turn = {"role": "user", "content": [{"type": "video"}, {"type": "text", "text": "What is it?"}]}
    text = processor.apply_chat_template([turn], add_generation_prompt=True)
    return processor(text=text, videos=[video], return_tensors="pt")


def test_reloads_as_one_model_with_the_same_logits(script, original, stock, tmp_path):
    target = tmp_path / "converted"
    assert convert(script, original, target, "--shard-gb", "0.00002") == 0
    assert len(list(target.glob("*.safetensors"))) > 2
    model, loading = LlavaOnevisionForConditionalGeneration.from_pretrained(target, output_loading_info=True)
    assert not any(loading[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    processor = AutoProcessor.from_pretrained(target)
    inputs = video_inputs(processor)
    assert int((inputs["input_ids"] == model.config.video_token_id).sum()) == 3 * 3 * 3 + 1
    with torch.no_grad():
        got, want = model.eval()(**inputs).logits, stock(**inputs).logits
    assert torch.equal(got, want)
    state = stock.state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    end = processor.tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert end in model.generation_config.eos_token_id and not model.generation_config.do_sample


def test_prompt_is_the_conversation_of_the_original(script, original, tmp_path):
    assert convert(script, original, tmp_path / "out") == 0
    processor = AutoProcessor.from_pretrained(tmp_path / "out")
    turn = {"role": "user", "content": [{"type": "text", "text": "Why?"}, {"type": "video"}]}
    assert processor.apply_chat_template([turn], add_generation_prompt=True) == (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
        "<|im_start|>user\n<video>\nWhy?<|im_end|>\n<|im_start|>assistant\n"
    )


def test_dtype_of_the_checkpoint_is_kept(script, writable, tmp_path):
    for file in writable.glob("*.safetensors"):
        save_file({name: tensor.bfloat16() for name, tensor in load_file(file).items()}, file)
    assert convert(script, writable, tmp_path / "out") == 0
    written = load_file(tmp_path / "out" / "model.safetensors")
    assert {tensor.dtype for tensor in written.values()} == {torch.bfloat16}
    assert LlavaOnevisionForConditionalGeneration.from_pretrained(tmp_path / "out").dtype == torch.bfloat16


def test_without_a_head_the_embedding_is_the_head(script, writable, tmp_path):
    for file in writable.glob("*.safetensors"):
        save_file({name: t for name, t in load_file(file).items() if name != "lm_head.weight"}, file)
    assert convert(script, writable, tmp_path / "out") == 0
    model = LlavaOnevisionForConditionalGeneration.from_pretrained(tmp_path / "out")
    assert torch.equal(model.lm_head.weight, model.get_input_embeddings().weight)


def test_processor_of_another_model_is_taken_over(script, original, tmp_path):
    assert convert(script, original, tmp_path / "first") == 0
    processor = AutoProcessor.from_pretrained(tmp_path / "first")
    processor.chat_template = "{{ 'another template' }}"
    processor.save_pretrained(tmp_path / "stock")
    assert convert(script, original, tmp_path / "second", "--processor", str(tmp_path / "stock")) == 0
    again = AutoProcessor.from_pretrained(tmp_path / "second")
    assert again.apply_chat_template([{"role": "user", "content": "x"}]) == "another template"


def change(folder: Path, name: str, new: dict[str, torch.Tensor]) -> None:
    """Replace one tensor of the checkpoint by others."""
    for file in folder.glob("*.safetensors"):
        state = load_file(file)
        if name in state:
            del state[name]
            save_file(state | new, file)


def test_every_key_that_does_not_fit_is_listed(script, writable, tmp_path, capsys):
    change(writable, "model.norm.weight", {"model.vision_resampler.weight": torch.ones(2)})
    change(writable, "model.image_newline", {"model.image_newline": torch.ones(31)})
    change(writable, "model.mm_projector.0.bias", {"model.layers.2.mlp.up_proj.weight": torch.ones(48, 32)})
    assert convert(script, writable, tmp_path / "out") == 2
    lines = capsys.readouterr().err.splitlines()
    assert {line.strip() for line in lines[1:]} == {
        "no rule for: model.vision_resampler.weight",
        "not in the model: model.layers.2.mlp.up_proj.weight (language_model.model.layers.2.mlp.up_proj.weight)",
        "missing: language_model.model.norm.weight",
        "missing: multi_modal_projector.linear_1.bias",
        "shape: model.image_newline is [31], the model has [32]",
    }
    assert not (tmp_path / "out").exists() and not (tmp_path / "out.partial").exists()


def test_full_size_tower_is_expected_by_default(script, original, tmp_path, capsys):
    assert script.main([str(original), str(tmp_path / "out")]) == 2
    assert "the model has [1152, 3, 14, 14]" in capsys.readouterr().err


def test_names_of_the_seven_billion_model():
    text = {"hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28, "num_attention_heads": 28,
            "num_key_value_heads": 4, "vocab_size": 152064, "rope_theta": 1e6}  # fmt: skip
    config = model_config(text, SIGLIP_SO400M, tied=False, dtype=torch.bfloat16, image_id=151646, video_id=151647)
    shapes = llava_video.expected_shapes(config)
    assert len(shapes) == 28 * 12 + 3 + 26 * 16 + 5 + 4 + 1
    assert shapes["vision_tower.vision_model.encoder.layers.25.mlp.fc1.weight"] == (4304, 1152)
    assert shapes["multi_modal_projector.linear_1.weight"] == (3584, 1152)
    assert shapes["language_model.lm_head.weight"] == (152064, 3584)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "config.json").unlink(), "--text-config"),
        (lambda folder: [f.unlink() for f in folder.glob("tokenizer*")], "--processor"),
        (lambda folder: [f.unlink() for f in folder.glob("*.safetensors")], "no *.safetensors"),
        (lambda folder: next(folder.glob("*.safetensors")).write_bytes(b"\x40" * 20), "not a whole safetensors file"),
        (lambda folder: shutil.copy(next(folder.glob("*.safetensors")), folder / "twice.safetensors"), "remove one"),
    ],
)
def test_a_damaged_checkpoint_is_named_without_a_traceback(script, writable, tmp_path, capsys, damage, message):
    damage(writable)
    assert convert(script, writable, tmp_path / "out") == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and message in error


def test_too_small_a_disk_is_refused_before_writing(script, original, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(llava_video.shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    assert convert(script, original, tmp_path / "out") == 2
    assert "GB free" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_an_existing_output_is_left_alone(script, original, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    assert convert(script, original, tmp_path / "out") == 2
    assert "already exists" in capsys.readouterr().err


def test_an_unknown_source_says_how_to_get_it(script, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert script.main(["nobody/no-such-model", str(tmp_path / "out")]) == 2
    assert "hf download nobody/no-such-model" in capsys.readouterr().err
