"""MLflow folders: the checkpoint is found by names alone, and nothing in the folder can run or lead out of it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from olivine.errors import ModelError
from olivine.models.checkpoint import read_checkpoint
from olivine.models.mlflow import checkpoint_in, read_layout

TRANSFORMERS = """
flavors:
  python_function: {loader_module: mlflow.transformers, env: conda.yaml}
  transformers: {model_binary: model, components: [tokenizer], task: text-generation, source_model_name: org/tiny}
"""
AZURE = """
flavors:
  hftransformersv2: {model_data: data, hf_pretrained_class: AutoModelForCausalLM, huggingface_id: org/tiny}
  python_function: {loader_module: azureml.evaluate.mlflow.hftransformers}
"""


def lay_out(pico: Path, folder: Path, text: str, model: str, tokenizer: str, config: str = "") -> Path:
    """Write a checkpoint as an MLflow folder."""
    for part in (model, tokenizer, config):
        if part:
            (folder / part).mkdir(parents=True, exist_ok=True)
    for file in pico.iterdir():
        is_tokenizer = file.name.startswith(("tokenizer", "special", "chat"))
        part = tokenizer if is_tokenizer else config if config and file.name == "config.json" else model
        shutil.copy(file, folder / part / file.name)
    (folder / "MLmodel").write_text(text)
    (folder / "conda.yaml").write_text("name: x")
    return folder


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        (TRANSFORMERS, ("model", "components/tokenizer")),
        (AZURE, ("data/model", "data/tokenizer", "data/config")),
        (AZURE, ("data/model", "data/model")),
        (AZURE.replace("v2", ""), ("data/model", "data/tokenizer")),
    ],
)
def test_both_layouts_load_as_the_checkpoint_they_were(
    text: str, parts: tuple[str, ...], pico_model: Path, tmp_path: Path
) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    made, notes = checkpoint_in(lay_out(pico_model, tmp_path / "m", text, *parts), tmp_path / "shared")
    assert notes == ()
    assert read_checkpoint(made).parameters == read_checkpoint(pico_model).parameters
    tokens = AutoTokenizer.from_pretrained(made, local_files_only=True)("the cat")["input_ids"]
    assert tokens == AutoTokenizer.from_pretrained(pico_model, local_files_only=True)("the cat")["input_ids"]
    model = AutoModelForCausalLM.from_pretrained(made, local_files_only=True, use_safetensors=True)
    assert model.config.hidden_size == 64
    assert checkpoint_in(tmp_path / "m", tmp_path / "shared")[0] == made


def test_code_is_left_where_it_is_and_said(pico_model: Path, tmp_path: Path) -> None:
    text = AZURE.replace("huggingface_id", "code: code, huggingface_id")
    folder = lay_out(pico_model, tmp_path / "m", text, "data/model", "data/model")
    (folder / "data/model/own.py").write_text("raise SystemExit")
    made, notes = checkpoint_in(folder, tmp_path / "shared")
    assert "carries Python code" in notes[0]
    assert not list(made.glob("*.py"))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (AZURE.replace("data,", "../../..,"), "names the folder"),
        (AZURE.replace("data,", "/etc,"), "names the folder"),
        ("flavors:\n  sklearn: {}\n", "without a language model.*sklearn"),
        ("flavors: !!python/object/apply:os.system ['touch owned']\n", "cannot be read"),
        ("just text", "names no flavours"),
        ("flavors: {" + "a: [" * 100, "cannot be read"),
    ],
)
def test_an_mlmodel_that_wants_something_else_is_refused(text: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=said):
        read_layout(text, ["data/model/model.safetensors"], "m")
    assert not os.path.exists("owned")


def test_pickles_are_refused_with_the_way_out() -> None:
    names = ["data/model/pytorch_model.bin", "data/model/config.json"]
    with pytest.raises(ModelError, match=r"pytorch_model.bin only.*org/tiny.*save_pretrained"):
        read_layout(AZURE, names, "m")
    with pytest.raises(ModelError, match="holds no weights"):
        read_layout(AZURE, ["data/model/config.json"], "m")


def test_a_link_out_of_the_folder_is_refused(pico_model: Path, tmp_path: Path) -> None:
    folder = lay_out(pico_model, tmp_path / "m", AZURE, "data/model", "data/model")
    (tmp_path / "elsewhere.json").write_text("{}")
    (folder / "data/model/config.json").unlink()
    (folder / "data/model/config.json").symlink_to(tmp_path / "elsewhere.json")
    with pytest.raises(ModelError, match="leads out of"):
        checkpoint_in(folder, tmp_path / "shared")
