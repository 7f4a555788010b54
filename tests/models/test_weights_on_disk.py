"""A checkpoint that is not whole is refused by name of file and tensor."""

import json
import os

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_checkpoints import save_tiny

from harness.errors import UserError
from harness.models import checkpoint
from harness.models.checkpoint import (
    WeightsError,
    check_finite,
    check_processor,
    check_rope,
    check_tensors,
    finite,
    own_scaling,
)
from harness.models.qwen2_5_vl import Qwen25VL
from harness.settings.weights import weights_identity

NAME = "model.layers.0.mlp.down_proj.weight"


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    return save_tiny("qwen2_5_vl", tmp_path_factory.mktemp("sound"))


@pytest.fixture
def folder(sound, tmp_path):
    for path in sound.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path


def change(folder, edit):
    file = folder / "model.safetensors"
    tensors = {name: tensor.clone() for name, tensor in load_file(file).items()}
    edit(tensors)
    save_file(tensors, file, {"format": "pt"})


def split(folder):
    """The same tensors in two files with an index."""
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(tensors)
    weight_map = {}
    for k, part in enumerate((names[::2], names[1::2])):
        file = f"model-{k}.safetensors"
        save_file({name: tensors[name] for name in part}, folder / file, {"format": "pt"})
        weight_map |= dict.fromkeys(part, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return weight_map


def fill(name, value):
    def edit(tensors):
        tensors[name].view(-1)[-1] = value

    return edit


def test_a_sound_checkpoint_passes_whole_or_in_parts(folder):
    check_tensors(folder)
    check_finite(folder)
    split(folder)
    check_tensors.cache_clear()
    check_tensors(folder)
    check_finite(folder)


def test_names_of_older_checkpoints_pass(folder):
    """Releases of transformers differ in which of the two names they write."""

    def other(name: str) -> str:
        return name.removeprefix("model.") if name.startswith("model.visual.") else f"model.{name}"

    change(folder, lambda t: t.update({other(n): t.pop(n) for n in [*t] if "visual." in n}))
    check_tensors(folder)


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda t: t.pop(NAME), "lacks model.language_model.layers.0.mlp.down_proj.weight"),
        (lambda t: t.update({"foo.weight": torch.zeros(2)}), "holds foo.weight, which its architecture does not have"),
        (
            lambda t: t.update({NAME: t[NAME][:-1].clone()}),
            r"has shape \[31, 48\] instead of \[32, 48\]",
        ),
        (lambda t: t.clear(), "lacks .* and .* more"),
    ],
)
def test_missing_unexpected_and_misshaped_tensors_are_named(folder, edit, words):
    change(folder, edit)
    with pytest.raises(WeightsError, match=f"model.safetensors: .*{words}"):
        check_tensors(folder)
    with pytest.raises(UserError, match=words):
        Qwen25VL.load(str(folder), device="cpu")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_value_that_is_no_number_is_named(folder, value):
    change(folder, fill(NAME, value))
    check_tensors(folder)
    with pytest.raises(WeightsError, match=f"{NAME} holds NaN or infinity"):
        check_finite(folder)
    with pytest.raises(UserError, match="down_proj.weight holds NaN or infinity"):
        Qwen25VL.load(str(folder), device="cpu")


@pytest.mark.parametrize("keep", [0, 5, 2000, -1])
def test_a_file_cut_short_is_named(folder, keep):
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:keep])
    for check in (check_tensors, check_finite):
        with pytest.raises(WeightsError, match="model.safetensors: is cut short or damaged"):
            check(folder)


def test_a_part_that_is_not_there_or_lacks_a_tensor_is_named(folder):
    weight_map = split(folder)
    name = next(name for name, file in weight_map.items() if file == "model-1.safetensors")
    tensors = load_file(folder / "model-1.safetensors")
    save_file({k: v for k, v in tensors.items() if k != name}, folder / "model-1.safetensors", {"format": "pt"})
    with pytest.raises(WeightsError, match=f"model-1.safetensors: lacks {name}, which the index says it has"):
        check_tensors(folder)
    (folder / "model-1.safetensors").unlink()
    with pytest.raises(WeightsError, match="model-1.safetensors: is missing"):
        check_tensors(folder)
    (folder / "model.safetensors.index.json").write_text("{}")
    with pytest.raises(WeightsError, match="index.json: is no index"):
        check_tensors(folder)


@pytest.mark.parametrize("text", ["", "{}", '{"model_type": "nobody_knows"}', '{"model_type": "bert"}'])
def test_a_configuration_of_no_model_is_named(folder, text):
    (folder / "config.json").write_text(text)
    with pytest.raises(WeightsError, match="config.json: names no model known here"):
        check_tensors(folder)


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json", "processor_config.json"])
def test_a_damaged_file_beside_the_weights_is_named(folder, name):
    check_processor(folder)
    (folder / name).write_bytes((folder / name).read_bytes()[:-2])
    with pytest.raises(WeightsError, match=f"{name}: is cut short or damaged"):
        check_processor(folder)
    with pytest.raises(UserError, match=f"{name}: is cut short or damaged"):
        Qwen25VL.load(str(folder), device="cpu")


def test_a_folder_without_a_tokenizer_is_named(folder):
    for path in folder.glob("token*"):
        path.unlink()
    with pytest.raises(WeightsError, match="holds no tokenizer"):
        check_processor(folder)


def test_a_large_file_is_read_once_until_it_changes(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "REMEMBERED_BYTES", 0)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    read = []
    real = checkpoint._check_file
    monkeypatch.setattr(checkpoint, "_check_file", lambda path: read.append(path) or real(path))
    check_finite(folder)
    check_finite(folder)
    assert len(read) == 1
    status = (folder / "model.safetensors").stat()
    change(folder, fill(NAME, float("nan")))
    os.utime(folder / "model.safetensors", ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    for _ in range(2):
        with pytest.raises(WeightsError):
            check_finite(folder)
    assert len(read) == 3


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float8_e4m3fn])
def test_one_bad_value_among_many_is_found(dtype):
    values = torch.zeros(10_000, dtype=torch.float32)
    assert finite(values.to(dtype)) and finite(torch.tensor([3])) and finite(torch.empty(0, dtype=dtype))
    values[7777] = float("nan")
    assert not finite(values.to(dtype))


def identity(folder):
    weights_identity.cache_clear()
    return weights_identity(folder)


def test_identity_covers_what_loading_reads_and_nothing_else(folder):
    split(folder)
    first = identity(folder)
    for name in ("README.txt", "LICENSE.md", "notes.json", "old.safetensors"):
        (folder / name).write_text("{}")
    assert identity(folder) == first
    seen = {first}
    for name in ("model-0.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json"):
        file = folder / name
        whole = file.read_bytes()
        for at in (len(whole) // 3, len(whole) // 2, -1):
            file.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at:][1:])
            seen.add(identity(folder))
        file.write_bytes(whole)
    assert len(seen) == 13 and identity(folder) == first
    (folder / "merges.txt").write_text("a b")
    assert identity(folder) != first


def test_weights_in_a_folder_below_are_identified_and_those_outside_are_refused(folder, tmp_path_factory):
    weight_map = split(folder)
    index = folder / "model.safetensors.index.json"
    (folder / "sub").mkdir()
    (folder / "model-0.safetensors").rename(folder / "sub" / "a.safetensors")
    moved = {name: "sub/a.safetensors" if file == "model-0.safetensors" else file for name, file in weight_map.items()}
    index.write_text(json.dumps({"metadata": {}, "weight_map": moved}))
    first = identity(folder)
    check_tensors.cache_clear()
    check_tensors(folder)
    tensors = load_file(folder / "sub" / "a.safetensors")
    save_file({name: -tensor for name, tensor in tensors.items()}, folder / "sub" / "a.safetensors", {"format": "pt"})
    assert identity(folder) != first
    away = tmp_path_factory.mktemp("away") / "a.safetensors"
    (folder / "sub" / "a.safetensors").rename(away)
    for name in (str(away), f"../{away.parent.name}/a.safetensors"):
        changed = {key: name if file.startswith("sub") else file for key, file in moved.items()}
        index.write_text(json.dumps({"metadata": {}, "weight_map": changed}))
        with pytest.raises(UserError, match="which is outside the folder"):
            identity(folder)


@pytest.mark.parametrize(
    ("file", "key"),
    [
        ("config.json", "transformers_weights"),
        ("config.json", "configuration_files"),
        ("tokenizer_config.json", "fast_tokenizer_files"),
        ("adapter_config.json", "base_model_name_or_path"),
    ],
)
def test_what_sends_the_loader_to_other_files_is_refused(folder, file, key):
    content = json.loads((folder / file).read_text()) if (folder / file).exists() else {}
    (folder / file).write_text(json.dumps({**content, key: ["sub/x.safetensors"]}))
    with pytest.raises(UserError, match=f"{file}: (has the key '{key}'|loads an adapter)"):
        identity(folder)


def test_a_tensor_in_two_files_is_refused(folder):
    split(folder)
    one, two = (load_file(folder / f"model-{k}.safetensors") for k in (0, 1))
    name = next(iter(one))
    save_file({**two, name: one[name] + 1}, folder / "model-1.safetensors", {"format": "pt"})
    with pytest.raises(WeightsError, match=f"holds {name}, which the index does not say it has"):
        check_tensors(folder)


def test_an_index_without_metadata_is_refused(folder):
    weight_map = split(folder)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    with pytest.raises(WeightsError, match="is no index of a checkpoint.*metadata"):
        check_tensors(folder)


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.float8_e4m3fn, torch.complex64, torch.bool])
def test_weights_that_are_no_plain_numbers_are_refused(folder, dtype):
    change(folder, lambda tensors: tensors.update({NAME: tensors[NAME].to(dtype)}))
    with pytest.raises(WeightsError, match=f"{NAME} is of the format .*; allowed: F64, F32, F16, BF16"):
        check_finite(folder)


@pytest.mark.parametrize("part", [None, "text_config"])
@pytest.mark.parametrize("key", ["rope_scaling", "rope_parameters"])
def test_a_checkpoint_that_stretches_its_positions_itself_is_refused(folder, part, key):
    check_rope(folder)
    config = json.loads((folder / "config.json").read_text())
    (config if part is None else config[part])[key] = {"rope_type": "yarn", "factor": 4.0}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(WeightsError, match=r"config.json: stretches the rotary embedding itself \(yarn, factor 4.0\)"):
        check_rope(folder)
    assert not own_scaling({"type": "mrope"}) and not own_scaling(None) and own_scaling({"rope_type": "linear"})


@pytest.mark.parametrize(
    "edit",
    [
        "c['text_config']['hidden_size'] = 0", "c['text_config']['num_hidden_layers'] = 10**7", "c['dtype'] = 'eval'",
        "c['text_config']['num_attention_heads'] = 0", "c['text_config']['vocab_size'] = 'x'",
        "c['text_config'] = None", "c['text_config']['layer_types'] = ['x']", "c.clear()",
    ],
)  # fmt: skip
def test_a_configuration_edited_by_hand_is_named(folder, edit):
    c = json.loads((folder / "config.json").read_text())
    c["text_config"].pop("layer_types", None)
    exec(edit, {"c": c})
    (folder / "config.json").write_text(json.dumps(c))
    with pytest.raises(WeightsError):
        check_tensors(folder)


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json", "generation_config.json"])
def test_deeply_nested_json_is_named(folder, name):
    (folder / name).write_text('{"a":' * 50_000)
    with pytest.raises(WeightsError, match=name):
        check_processor(folder)
