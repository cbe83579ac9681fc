"""What a model folder is, and what is said of a folder that is none."""

from __future__ import annotations

import json
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from olivine.errors import ModelError
from olivine.models.checkpoint import detect_format, model_files, read_checkpoint, read_safetensors
from olivine.passes.base import Format


@pytest.fixture
def checkpoint(pico_model: Path, tmp_path: Path) -> Path:
    """A checkpoint that a test may damage."""
    return Path(shutil.copytree(pico_model, tmp_path / "model"))


def write_safetensors(file: Path, tensors: dict[str, tuple[str, list[int], int]]) -> None:
    """Write a file of zeros: name -> dtype, shape, bytes."""
    header, offset = {}, 0
    for name, (dtype, shape, size) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header).encode()
    file.write_bytes(struct.pack("<Q", len(text)) + text + bytes(offset))


def make_sharded(folder: Path) -> Path:
    """Turn the index form: two shards, two tensors."""
    (folder / "model.safetensors").unlink()
    write_safetensors(folder / "model-00001-of-00002.safetensors", {"a.weight": ("F32", [2, 3], 24)})
    write_safetensors(folder / "model-00002-of-00002.safetensors", {"b.weight": ("BF16", [4], 8)})
    weight_map = {"a.weight": "model-00001-of-00002.safetensors", "b.weight": "model-00002-of-00002.safetensors"}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return folder


def problem(error: pytest.ExceptionInfo[ModelError]) -> str:
    return str(error.value)


def test_reads_what_torch_would_load(pico_model: Path) -> None:
    from transformers import AutoModelForCausalLM

    found = read_checkpoint(pico_model)
    model = AutoModelForCausalLM.from_pretrained(pico_model)
    assert {name: info.shape for name, info in found.tensors.items()} == {
        name: tuple(tensor.shape) for name, tensor in model.state_dict().items()
    }
    assert found.parameters == sum(parameter.numel() for parameter in model.parameters())
    assert found.format is Format.HF
    assert found.architecture == "Phi3ForCausalLM"
    assert found.modules["model.layers.0.self_attn.qkv_proj"] == (192, 64)
    assert not any(name.endswith("layernorm") for name in found.modules)
    assert not found.needs_remote_code


def test_tied_weights_are_counted_once(pico_model: Path, tmp_path: Path) -> None:
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(pico_model, tie_word_embeddings=True)
    model = AutoModelForCausalLM.from_config(config)
    model.save_pretrained(tmp_path)
    found = read_checkpoint(tmp_path)
    assert "lm_head" not in found.modules
    assert found.parameters == sum(parameter.numel() for parameter in model.parameters())


def test_reading_imports_no_framework(pico_model: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from olivine.models.checkpoint import read_checkpoint; "
        f"read_checkpoint(Path({str(pico_model)!r})); "
        "print([name for name in ('torch', 'safetensors', 'transformers', 'numpy', 'pickle') if name in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert [name for name in json.loads(out.replace("'", '"')) if name != "pickle"] == []


def test_shards_are_read_together(checkpoint: Path) -> None:
    found = read_checkpoint(make_sharded(checkpoint))
    assert found.parameters == 10
    assert {tensor.file for tensor in found.tensors.values()} == {
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
    }
    assert {file.name for file in found.files} >= {"model.safetensors.index.json", "model-00002-of-00002.safetensors"}


def test_files_that_shape_the_model_leave_papers_out(checkpoint: Path) -> None:
    for name in ("README.md", "pytorch_model.bin", "notes.json", ".gitattributes"):
        (checkpoint / name).write_text("x")
    (checkpoint / "modeling_own.py").write_text("")
    names = {file.name for file in model_files(checkpoint)}
    assert names == {
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
        "chat_template.jinja",
        "modeling_own.py",
    }


def test_tokenizer_files_hold_the_chat_template(pico_model: Path) -> None:
    names = {file.name for file in read_checkpoint(pico_model).tokenizer_files}
    assert names == {"tokenizer.json", "tokenizer_config.json", "chat_template.jinja"}


def test_code_of_its_own_is_a_fact(checkpoint: Path) -> None:
    config = json.loads((checkpoint / "config.json").read_text())
    (checkpoint / "config.json").write_text(json.dumps(config | {"auto_map": {"AutoConfig": "configuration.X"}}))
    assert read_checkpoint(checkpoint).needs_remote_code


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"genai_config.json": "{}", "model.onnx": ""}, Format.GENAI),
        ({"model.onnx": ""}, Format.ONNX),
        ({"adapter_config.json": "{}"}, Format.PEFT),
        ({"MLmodel": ""}, Format.MLFLOW),
        ({"config.json": "{}"}, Format.HF),
        ({"config.json": '{"quantization_config": {"quant_method": "bitsandbytes"}}'}, Format.HF_QUANTIZED),
    ],
)
def test_format_is_told_by_the_files(tmp_path: Path, files: dict[str, str], expected: Format) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    assert detect_format(tmp_path) is expected


def test_mlflow_folder_shows_the_checkpoint_inside(pico_model: Path, tmp_path: Path) -> None:
    (tmp_path / "MLmodel").write_text("flavors: {}")
    shutil.copytree(pico_model, tmp_path / "data" / "model")
    found = read_checkpoint(tmp_path)
    assert found.format is Format.MLFLOW
    assert found.architecture == "Phi3ForCausalLM"


def test_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="there is no model folder"):
        read_checkpoint(tmp_path / "nowhere")


def test_file_in_place_of_a_folder(pico_model: Path) -> None:
    with pytest.raises(ModelError, match=r"is a file.*Give the folder that it lies in"):
        read_checkpoint(pico_model / "model.safetensors")


def test_folder_without_config_names_what_is_there_and_the_folder_inside(pico_model: Path, tmp_path: Path) -> None:
    shutil.copytree(pico_model, tmp_path / "inner")
    with pytest.raises(ModelError, match=r"no config\.json") as error:
        read_checkpoint(tmp_path)
    assert "it holds inner/" in problem(error).lower()
    assert str(tmp_path / "inner") in problem(error)


def test_pickle_only_checkpoint_is_refused_with_the_way_out(checkpoint: Path) -> None:
    (checkpoint / "model.safetensors").rename(checkpoint / "pytorch_model.bin")
    with pytest.raises(ModelError, match="pickles") as error:
        read_checkpoint(checkpoint)
    assert "pytorch_model.bin" in problem(error)
    assert "save_pretrained('OUT')" in problem(error)


def test_pickled_adapter_is_refused(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text("{}")
    (tmp_path / "adapter_model.bin").write_bytes(b"x")
    with pytest.raises(ModelError, match="pickles"):
        read_checkpoint(tmp_path)


def test_missing_shard_is_named(checkpoint: Path) -> None:
    make_sharded(checkpoint)
    (checkpoint / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(ModelError, match=r"1 of 2 weight files are missing: model-00002-of-00002\.safetensors"):
        read_checkpoint(checkpoint)


def test_shards_without_their_index(checkpoint: Path) -> None:
    make_sharded(checkpoint)
    (checkpoint / "model.safetensors.index.json").unlink()
    with pytest.raises(ModelError, match=r"neither model\.safetensors nor model\.safetensors\.index\.json"):
        read_checkpoint(checkpoint)


def test_index_that_leads_out_of_the_folder(checkpoint: Path) -> None:
    make_sharded(checkpoint)
    index = {"weight_map": {"a.weight": "../../etc/model.safetensors"}}
    (checkpoint / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ModelError, match="no safetensors file beside it"):
        read_checkpoint(checkpoint)


def test_index_of_another_model(checkpoint: Path) -> None:
    make_sharded(checkpoint)
    index = {"weight_map": {"other.weight": "model-00001-of-00002.safetensors"}}
    (checkpoint / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ModelError, match="lack tensors that the index names: other"):
        read_checkpoint(checkpoint)


@pytest.mark.parametrize("keep", [0, 4, 8, 100, -1])
def test_truncated_weights(checkpoint: Path, keep: int) -> None:
    file = checkpoint / "model.safetensors"
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(ModelError, match=r"model\.safetensors") as error:
        read_checkpoint(checkpoint)
    assert "incomplete or damaged" in problem(error)


def test_truncation_says_how_much_is_missing(checkpoint: Path) -> None:
    file = checkpoint / "model.safetensors"
    size = file.stat().st_size
    file.write_bytes(file.read_bytes()[:-1000])
    with pytest.raises(ModelError, match=f"has {size - 1000:,} bytes and its header says {size:,}"):
        read_checkpoint(checkpoint)


def test_trailing_bytes_are_damage_too(checkpoint: Path) -> None:
    with open(checkpoint / "model.safetensors", "ab") as file:
        file.write(b"extra")
    with pytest.raises(ModelError, match="header says"):
        read_checkpoint(checkpoint)


def test_unknown_dtype(tmp_path: Path) -> None:
    write_safetensors(tmp_path / "x.safetensors", {"a": ("F3", [2], 1)})
    with pytest.raises(ModelError, match=r"'a'.*unknown dtype"):
        read_safetensors(tmp_path / "x.safetensors")


def test_broken_config_names_the_line(checkpoint: Path) -> None:
    (checkpoint / "config.json").write_text('{\n  "model_type": "phi3",\n}')
    with pytest.raises(ModelError, match=r"config\.json:3: config\.json is not valid JSON"):
        read_checkpoint(checkpoint)


def test_genai_folder_without_its_decoder(tmp_path: Path) -> None:
    (tmp_path / "genai_config.json").write_text('{"model": {"decoder": {"filename": "model.onnx"}}}')
    with pytest.raises(ModelError, match=r"model\.onnx is missing"):
        read_checkpoint(tmp_path)
