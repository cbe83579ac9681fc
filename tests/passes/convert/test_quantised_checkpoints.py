"""A checkpoint that is quantised already: its integers come through bit for bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from built_models import build_genai
from safetensors.torch import load_file, save_file
from test_streamed_build import PROMPT, checkpoint, dequantised, distance, float_logits, logits

from olivine.errors import ModelError
from olivine.models.huggingface import HfModel
from olivine.passes.base import Accelerator, Format, RunContext
from olivine.passes.quantize.quantize import Quantize, QuantizeParams
from olivine.quant.reading import TensorReader
from olivine.quant.stored.reading import QuantizedCheckpointReader


def quantise(source: Path, output: Path, **params: Any) -> Path:
    """Have Quantize write ``output``."""
    output.mkdir()
    (output.parent / "scratch").mkdir(exist_ok=True)
    context = RunContext(
        inputs={"model": source},
        input_format=Format.HF,
        output=output,
        checkpoint=output.parent / "scratch",
        data={},
        host=Accelerator(),
        target=Accelerator(),
        progress=lambda *_, **__: None,
        note=print,
    )
    Quantize().run(QuantizeParams(**params), context)
    return output


@pytest.mark.parametrize(
    ("form", "params"),
    [
        ("olive", {"bits": 4, "group_size": 16}),
        ("olive", {"bits": 8, "group_size": 32, "symmetric": False}),
        ("gptq", {"bits": 4, "group_size": 32, "symmetric": False}),
        ("compressed-tensors", {"bits": 4, "group_size": 32}),
        ("olive", {"method": "calibrated", "symmetric": False, "samples": 4, "sequence_length": 64}),
        ("gptq", {"method": "gptq", "group_size": 16, "samples": 4, "sequence_length": 64}),
    ],
)
def test_integers_come_through(form: str, params: dict[str, Any], pico_model: Path, tmp_path: Path) -> None:
    source = checkpoint(tmp_path / "model", pico_model, "llama", torch.float32)
    quantised = quantise(source, tmp_path / "quantised", form=form, **params)
    build_genai(quantised, tmp_path / "out", precision="int4", int4_accuracy_level=1)
    reader = QuantizedCheckpointReader(TensorReader(quantised))
    for node, module in (
        ("/model/layers.1/attn/o_proj", "model.layers.1.self_attn.o_proj"),
        ("/model/layers.2/mlp/down_proj", "model.layers.2.mlp.down_proj"),
        ("/model/layers.0/mlp/up_proj", "model.layers.0.mlp.up_proj"),
    ):
        expected = reader.read_rounded(module).dequantise().numpy()
        np.testing.assert_array_equal(dequantised(tmp_path / "out", node), expected)
    joined = [reader.read_rounded(f"model.layers.0.self_attn.{each}_proj").dequantise().numpy() for each in "qkv"]
    np.testing.assert_array_equal(
        dequantised(tmp_path / "out", "/model/layers.0/attn/qkv_proj"), np.concatenate(joined)
    )
    assert distance(logits(tmp_path / "out"), float_logits(source)) < 0.4


@pytest.mark.parametrize(("name", "form"), [("phi3", "gptq"), ("gemma", "olive")])
def test_scaled_norms_come_through(name: str, form: str, pico_model: Path, tmp_path: Path) -> None:
    source = checkpoint(tmp_path / "model", pico_model, name, torch.float32)
    tensors = load_file(source / "model.safetensors")
    norm = "model.layers.1.post_attention_layernorm.weight"
    tensors[norm][::16] += 3  # so that scales are worth it
    save_file(tensors, source / "model.safetensors", {"format": "pt"})
    params = {"form": form, "method": "gptq", "scaling": "awq", "bits": 8, "samples": 4, "sequence_length": 64}
    quantised = quantise(source, tmp_path / "quantised", **params)
    before, after = TensorReader(source), TensorReader(quantised)
    assert not np.array_equal(before.read(norm), after.read(norm))
    build_genai(quantised, tmp_path / "out", precision="int4", int4_accuracy_level=1, lm_head_bits=8)
    expected = np.concatenate(list(HfModel(quantised, Accelerator()).logits(PROMPT)))
    assert distance(logits(tmp_path / "out"), expected) < 0.02
    assert distance(logits(tmp_path / "out"), float_logits(source)) < 0.04


def test_matrices_that_the_checkpoint_left_as_they_are_stay_so(pico_model: Path, tmp_path: Path) -> None:
    source = checkpoint(tmp_path / "model", pico_model, "llama", torch.float32)
    quantised = quantise(
        source, tmp_path / "quantised", form="compressed-tensors", bits=8, modules_to_exclude=["*.down_proj"]
    )
    build_genai(quantised, tmp_path / "out", precision="int4", int4_accuracy_level=1, lm_head_bits=8)
    model = onnx.load(str(tmp_path / "out" / "model.onnx"), load_external_data=False)
    floats = {node.name for node in model.graph.node if node.op_type == "FusedMatMul"}
    assert floats == {f"/model/layers.{layer}/mlp/down_proj/MatMul" for layer in range(3)}
    assert distance(logits(tmp_path / "out"), float_logits(source)) < 0.03


def test_two_bits_for_whole_rows_are_refused_where_the_runtime_does(pico_model: Path, tmp_path: Path) -> None:
    source = checkpoint(tmp_path / "model", pico_model, "llama", torch.float32, intermediate_size=512)
    quantised = quantise(source, tmp_path / "quantised", form="gptq", bits=2, group_size=-1)
    with pytest.raises(ModelError, match=r"/mlp/down_proj cannot be built: .* at most 256, not 512 in one"):
        build_genai(quantised, tmp_path / "out", precision="int4")


def test_query_and_key_in_different_bits_are_refused(pico_model: Path, tmp_path: Path) -> None:
    source = checkpoint(tmp_path / "model", pico_model, "llama", torch.float32)
    quantised = quantise(
        source, tmp_path / "quantised", form="gptq", bits=4, overrides=[{"pattern": "*.q_proj", "bits": 8}]
    )
    with pytest.raises(ModelError, match=r"/model/layers\.0/attn/qkv_proj joins weights .* in different ways"):
        build_genai(quantised, tmp_path / "out", precision="int4")
