"""Scaling before rounding: the model computes the same, what divides is found by trying, and rounding loses less."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_calibration_walking import ARCHITECTURES, checkpoint

from olivine.quant.calibration.activations import Activations
from olivine.quant.calibration.calibrating import calibrate
from olivine.quant.calibration.hessian import Moments
from olivine.quant.calibration.methods import Method
from olivine.quant.calibration.scaling import Place, Scaled, fold, scale_layer, summary
from olivine.quant.calibration.walking import DecoderLayer, LayerWalker
from olivine.quant.reading import TensorReader
from olivine.quant.scheme import Scheme
from olivine.quant.stored.forms import FORMS, linear_modules
from olivine.quant.stored.writing import QuantizedCheckpointWriter

IDS = torch.randint(120, (6, 24), generator=torch.Generator().manual_seed(1))
METHOD = Method("gptq", correction=0.0)


@pytest.fixture(autouse=True)
def few_strengths(monkeypatch: pytest.MonkeyPatch) -> None:
    """Try two strengths only, in less time."""
    monkeypatch.setattr("olivine.quant.calibration.scaling.ALPHAS", (0.2, 0.4))


def uneven(name: str, folder: Path, dtype: torch.dtype = torch.float32) -> Any:
    """Write a model some of whose features have larger inputs than the others."""
    model = checkpoint(name, folder)
    with torch.no_grad():
        for path, parameter in model.named_parameters():
            if path.endswith(
                ("input_layernorm.weight", "attention_layernorm.weight", "pre_feedforward_layernorm.weight")
            ):
                parameter[::16] += 3.0
            elif path.endswith(("up_proj.weight", "v_proj.weight")):
                parameter[-len(parameter) // 4 :: 8] *= 5.0
    model.to(dtype).save_pretrained(folder)
    return model.float()


def writer_of(folder: Path, without: str = "lm_head", bits: int = 4) -> QuantizedCheckpointWriter:
    reader = TensorReader(folder)
    modules = linear_modules(reader.checkpoint.config, reader.checkpoint.modules, FORMS["compressed-tensors"])
    schemes = {name: Scheme(bits, 32, True) for name in modules if name != "lm_head" and not name.endswith(without)}
    (folder.parent / "out").mkdir()
    return QuantizedCheckpointWriter(
        reader, folder.parent / "out", "compressed-tensors", schemes, work=folder.parent / "work"
    )


def states_of(walker: LayerWalker) -> Activations:
    return walker.embed(IDS.tolist())


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_architecture_computes_the_same_with_other_norms(name: str, tmp_path: Path) -> None:
    model = uneven(name, tmp_path / "model", torch.bfloat16)
    writer, walker = writer_of(tmp_path / "model"), LayerWalker(TensorReader(tmp_path / "model"))
    with torch.no_grad():
        expected = model(IDS).logits
    states = states_of(walker)
    vectors: dict[str, torch.Tensor] = {}
    for index in range(walker.layer_count):
        with walker.layer(index) as layer:
            found = scale_layer(layer, states, writer, METHOD)
            assert [each.rsplit(".", 1)[-1] for each in found][1::2] == ["o_proj", "down_proj"]
            assert len(found) == 4
            assert None not in found.values()  # grouped queries, fused matrices and all
            for each in filter(None, found.values()):
                vectors |= each.vectors
            layer.advance(states)
    (batch,) = states.batches(10_000)
    with walker.head() as logits, torch.no_grad():
        torch.testing.assert_close(logits(states.read(batch)), expected, atol=1e-3, rtol=1e-3)
    assert any("norm" in each for each in vectors)
    for each, values in vectors.items():
        assert torch.equal(values, values.bfloat16().float())
        if each.endswith("weight"):
            assert not torch.equal(values, torch.from_numpy(walker.reader.read(each)))


def place_of(layer: DecoderLayer, consumer: str, producer: str, count: int) -> Place:
    return Place((f"{layer.name}.{consumer}",), f"{layer.name}.{producer}", torch.arange(count))


@pytest.mark.parametrize(
    ("consumer", "producer"),
    [
        ("mlp.down_proj", "mlp.gate_proj"),  # the activation comes between
        ("self_attn.o_proj", "self_attn.q_proj"),  # the softmax does
        ("self_attn.q_proj", "input_layernorm"),  # k and v have the same input, and would not be scaled
    ],
)
def test_what_would_change_the_layer_is_refused_and_changes_nothing(
    consumer: str, producer: str, tmp_path: Path
) -> None:
    checkpoint("Llama", tmp_path / "model")
    walker = LayerWalker(TensorReader(tmp_path / "model"))
    states = states_of(walker)
    hidden = states.read(next(states.batches(100)))
    with walker.layer(0) as layer:
        width = layer.linears[f"{layer.name}.{consumer}"].in_features
        before = {name: values.clone() for name, values in layer.module.named_parameters()}
        assert (
            fold(layer, place_of(layer, consumer, producer, width), torch.linspace(0.5, 2, width), {}, hidden) is None
        )
        for name, values in layer.module.named_parameters():
            assert torch.equal(values, before[name])
        right = place_of(layer, "mlp.down_proj", "mlp.up_proj", 96)
        assert fold(layer, right, torch.linspace(0.5, 2, 96), {}, hidden) == {}


def test_what_is_not_quantised_is_neither_scaled_nor_divided(tmp_path: Path) -> None:
    uneven("Llama", tmp_path / "model")
    walker = LayerWalker(TensorReader(tmp_path / "model"))
    with walker.layer(0) as layer:
        found = scale_layer(layer, states_of(walker), writer_of(tmp_path / "model", without="up_proj"), METHOD)
    scaled = {name.rsplit(".", 1)[-1]: each is not None for name, each in found.items()}
    assert scaled == {"q_proj": True, "o_proj": True, "gate_proj": False, "down_proj": False}


def test_scales_are_left_out_where_rounding_loses_nothing_without(tmp_path: Path) -> None:
    model = checkpoint("Llama", tmp_path / "model")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() == 2 and "layers" in name:
                parameter.copy_((parameter * 100).round().clamp(-7, 7).sub_(0.0) * 0.125)
                parameter[:, ::32] = -1.0  # on the grid of four bits: -8 / 8
    model.save_pretrained(tmp_path / "model")
    walker = LayerWalker(TensorReader(tmp_path / "model"))
    with walker.layer(0) as layer:
        found = scale_layer(layer, states_of(walker), writer_of(tmp_path / "model"), METHOD)
    assert {each.alpha for each in found.values() if each} == {0.0}
    assert all(each is not None and not each.vectors for each in found.values())


@pytest.mark.parametrize(("name", "method"), [("Phi3", "gptq"), ("Qwen2", "scale_estimation"), ("Gemma", "calibrated")])
def test_rounding_loses_less_with_scales(name: str, method: Any, tmp_path: Path) -> None:
    uneven(name, tmp_path / "model", torch.bfloat16)
    walker, writer = LayerWalker(TensorReader(tmp_path / "model")), writer_of(tmp_path / "model")
    states, how = states_of(walker), Method(method, sweeps=2)
    hidden = states.read(next(states.batches(1000)))

    def lost(layer: DecoderLayer, wanted: dict[str, torch.Tensor]) -> dict[str, float]:
        """Return how far the outputs of each matrix are from ``wanted`` if it is rounded."""
        found = {}
        for each, inputs in layer.inputs(hidden, list(layer.linears)).items():
            moments = Moments(inputs.shape[1])
            moments.add(inputs)
            weight, eliminated = layer.linears[each].weight, how.eliminate(moments.hessian)
            rounded = how.round(weight, eliminated, moments.mean_square, Scheme(4, 32, True), torch.float16)
            found[each] = float((inputs @ rounded.dequantise().T - wanted[each]).norm())
        return found

    with walker.layer(0) as layer:
        wanted = {
            each: inputs @ layer.linears[each].weight.T
            for each, inputs in layer.inputs(hidden, list(layer.linears)).items()
        }
        before = lost(layer, wanted)
        found = scale_layer(layer, states, writer, how)
        # what v and up put out is divided now: the error of the others is in the same units as before
        divided = {each for each in layer.linears if each.endswith(("v_proj", "up_proj"))}
        after = {each: value for each, value in lost(layer, wanted).items() if each not in divided}
    assert {each.alpha for each in found.values() if each} - {0.0}
    ratios = {each: value / before[each] for each, value in after.items()}
    assert max(ratios.values()) < 1.01
    assert min(ratios.values()) < 0.96
    assert len(ratios) >= 2


def test_the_notes_say_what_was_scaled_and_what_could_not_be() -> None:
    found = {"l.0.q_proj": Scaled(0.4, {}), "l.1.q_proj": Scaled(0.0, {}), "l.2.q_proj": None}
    assert summary(found) == [
        "scaling: the input of q_proj is scaled in 1 of 3 layers, alpha 0.40 on average; in 1 nothing before it can be "
        "divided"
    ]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_a_replaced_vector_is_written_in_the_type_of_the_original(dtype: torch.dtype, tmp_path: Path) -> None:
    uneven("Llama", tmp_path / "model", dtype)
    writer = writer_of(tmp_path / "model")
    name = "model.layers.1.input_layernorm.weight"
    values = np.linspace(-2, 2, 64, dtype=np.float32).astype(np.float16).astype(np.float32)
    values = torch.from_numpy(values).to(dtype).float().numpy()
    writer.replace(name, values)
    calibrate(writer, LayerWalker(TensorReader(tmp_path / "model")), IDS.tolist(), METHOD, work=tmp_path / "states")
    writer.copy_rest()
    writer.finish()
    reader = TensorReader(tmp_path / "out")
    np.testing.assert_array_equal(reader.read(name), values)
    assert reader.tensors[name].dtype == writer.tensors[name].dtype
    with pytest.raises(ValueError, match="cannot be replaced by 3 values"):
        writer.replace(name, values[:3])
    with pytest.raises(ValueError, match=r"q_proj\.weight cannot be replaced"):
        writer.replace("model.layers.0.self_attn.q_proj.weight", values)
