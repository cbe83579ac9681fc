"""Plain ONNX graphs as text models: what exporters leave, with past keys and values or without, what is refused."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from built_models import onnx_of
from onnx import TensorProto, helper, numpy_helper

from olivine.errors import ModelError
from olivine.models.checkpoint import detect_format, read_checkpoint
from olivine.models.text import open_text_model
from olivine.passes.base import Format

VOCABULARY = 400


def bigrams(folder: Path, tokenizer: Path, *, inputs: tuple[str, ...] = ("input_ids",)) -> np.ndarray:
    """Write a graph without past whose logits after a token are a row of a table; return the table."""
    table = np.random.default_rng(0).normal(size=(VOCABULARY, VOCABULARY)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("Gather", ["table", inputs[0]], ["logits"])],
        "bigrams",
        [helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "length"]) for name in inputs],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", "length", VOCABULARY])],
        [numpy_helper.from_array(table, "table")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    folder.mkdir(exist_ok=True)
    onnx.save(model, folder / "model.onnx")
    for file in tokenizer.glob("tokenizer*"):
        shutil.copyfile(file, folder / file.name)
    return table


def test_a_graph_without_past_reads_the_whole_text_for_every_token(pico_model: Path, tmp_path: Path) -> None:
    table = bigrams(tmp_path / "model", pico_model)
    model = open_text_model(tmp_path / "model")
    ids = [5, 17, 300]
    np.testing.assert_allclose(np.concatenate(list(model.logits(ids))), table[ids])
    expected, token = [], ids[-1]
    for _ in range(4):
        token = int(table[token].argmax())
        expected.append(token)
    assert list(model.generate(ids, 4, ignore_eos=True)) == expected


def test_an_exporters_folder_is_a_graph_though_the_checkpoints_configuration_is_there(pico_model: Path) -> None:
    folder = onnx_of(pico_model)
    assert (folder / "config.json").is_file()
    assert detect_format(folder) is Format.ONNX
    assert read_checkpoint(folder).config["vocab_size"] == VOCABULARY
    assert open_text_model(folder).context_length == 512


def test_a_graph_without_tokenizer_cannot_be_asked(pico_model: Path, tmp_path: Path) -> None:
    bigrams(tmp_path / "model", pico_model)
    for file in (tmp_path / "model").glob("tokenizer*"):
        file.unlink()
    with pytest.raises(ModelError, match=r"no tokenizer .* Put the model's tokenizer.json"):
        open_text_model(tmp_path / "model")


def test_a_graph_that_is_none_of_a_decoder_is_refused(pico_model: Path, tmp_path: Path) -> None:
    bigrams(tmp_path / "model", pico_model, inputs=("input_ids", "token_type_ids"))
    with pytest.raises(ModelError, match="none of a decoder"):
        open_text_model(tmp_path / "model")
