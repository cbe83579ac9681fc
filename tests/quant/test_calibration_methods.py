"""Rounding by second moments: what each part promises, and that it holds in whole models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from test_calibration_walking import ARCHITECTURES, checkpoint

from olivine.quant.calibration.calibrating import calibrate
from olivine.quant.calibration.descent import descend
from olivine.quant.calibration.gptq import Elimination, gptq
from olivine.quant.calibration.hessian import Moments
from olivine.quant.calibration.methods import Method
from olivine.quant.calibration.walking import LayerWalker
from olivine.quant.reading import TensorReader
from olivine.quant.rounding import Rounded, round_weights
from olivine.quant.scheme import PER_CHANNEL, Scheme
from olivine.quant.stored.forms import FORMS, linear_modules
from olivine.quant.stored.reading import QuantizedCheckpointReader
from olivine.quant.stored.writing import QuantizedCheckpointWriter

SCHEMES = (Scheme(4, 32, True), Scheme(4, 16, False), Scheme(2, 64, False), Scheme(8, PER_CHANNEL, True))


def problem(rows: int = 48, width: int = 192, tokens: int = 800) -> tuple[torch.Tensor, torch.Tensor]:
    """Return a weight, and inputs whose features are of different sizes and depend on one another."""
    made = torch.Generator().manual_seed(3)
    weight = torch.randn(rows, width, generator=made)
    mixing = torch.randn(width, width, generator=made) * 0.5 + torch.eye(width) * 3
    sizes = torch.logspace(-1, 1, width)[torch.randperm(width, generator=made)]
    return weight, torch.randn(tokens, width, generator=made) @ mixing * sizes


def moments_of(inputs: torch.Tensor, original: torch.Tensor | None = None) -> Moments:
    found = Moments(inputs.shape[1])
    for start in range(0, len(inputs), 300):
        found.add(inputs[start : start + 300], None if original is None else original[start : start + 300])
    return found


def lost(weight: torch.Tensor, rounded: Rounded, inputs: torch.Tensor) -> float:
    """Return the mean square of the output's error."""
    return float(((weight - rounded.dequantise()) @ inputs.T).square().mean())


@pytest.mark.parametrize("scheme", SCHEMES)
def test_each_method_loses_less_of_the_output_than_rounding_to_nearest(scheme: Scheme) -> None:
    weight, inputs = problem()
    moments = moments_of(inputs)
    nearest = lost(weight, round_weights(weight, scheme, "search", scale_dtype=torch.float16), inputs)
    found = {}
    for method in (Method("gptq", act_order=False), Method("gptq"), Method("scale_estimation"), Method("calibrated")):
        eliminated = method.eliminate(moments.hessian)
        rounded = method.round(weight, eliminated, moments.mean_square, scheme, torch.float16)
        assert torch.equal(rounded.scales, rounded.scales.half().float())
        assert int(rounded.codes.max()) <= scheme.highest
        found[method.name, method.act_order] = lost(weight, rounded, inputs)
    assert max(found.values()) < 0.7 * nearest
    assert min(found, key=lambda key: found[key])[0] == "calibrated"


def test_features_that_do_not_depend_on_each_other_are_rounded_to_nearest() -> None:
    weight, _ = problem()
    scheme = Scheme(4, 32, True)
    found = gptq(weight, Elimination.of(torch.eye(192)), scheme)
    assert torch.equal(found.codes, round_weights(weight, scheme, "search", importance=torch.ones(192)).codes)


def test_descent_never_makes_a_row_worse() -> None:
    weight, inputs = problem()
    eliminated = Elimination.of(moments_of(inputs).hessian, damping=1e-6)
    rounded = round_weights(weight, Scheme(4, 32, False), "rtn")
    before = ((weight - rounded.dequantise()) @ inputs.T).square().mean(1)
    for _ in range(3):
        rounded = descend(weight, eliminated.matrix, rounded, sweeps=1)
        after = ((weight - rounded.dequantise()) @ inputs.T).square().mean(1)
        assert bool((after <= before * (1 + 1e-4)).all())
        before = after


@pytest.mark.parametrize("group_size", [32, 256, PER_CHANNEL])
def test_descent_of_scales_alone_finds_the_least_squares(group_size: int) -> None:
    weight, inputs = problem(rows=4, width=256)
    rounded = round_weights(weight, Scheme(8, group_size, True), "rtn")
    matrix = Elimination.of(moments_of(inputs).hessian, damping=1e-6).matrix
    found = descend(weight, matrix, rounded, sweeps=1, scale_dtype=torch.float32)
    assert lost(weight, found, inputs) <= lost(weight, rounded, inputs)


def test_matrices_are_rounded_in_parts_of_rows_with_the_same_result(monkeypatch: pytest.MonkeyPatch) -> None:
    weight, inputs = problem()
    moments, method = moments_of(inputs), Method("calibrated")
    eliminated = method.eliminate(moments.hessian)

    def codes() -> torch.Tensor:
        found = method.round(weight, eliminated, moments.mean_square, Scheme(4, 32, False), torch.float16)
        return found.codes.int()

    whole = codes()
    monkeypatch.setattr("olivine.quant.calibration.methods.ROW_BYTES", 4 * 192 * 16)
    assert float((codes() != whole).float().mean()) < 0.005  # sums in another order may tip the balance


def test_a_corrected_weight_makes_up_for_what_its_inputs_lost() -> None:
    weight, original = problem()
    inputs = original + 0.3 * original.roll(1, 1)
    wanted = original @ weight.T
    found = moments_of(inputs, original).corrected(weight, 1.0, 1e-6)
    before, after = (float((inputs @ each.T - wanted).square().mean()) for each in (weight, found))
    assert after < 0.01 * before
    assert moments_of(inputs).corrected(weight, 1.0) is weight


def test_features_that_are_always_zero_are_no_obstacle() -> None:
    weight, inputs = problem()
    inputs[:, ::3] = 0
    moments, method = moments_of(inputs), Method("calibrated")
    found = method.round(weight, method.eliminate(moments.hessian), moments.mean_square, SCHEMES[0], torch.float16)
    assert bool(found.dequantise().isfinite().all())


def quantised(source: Path, folder: Path, method: Method | None, sequences: Any) -> QuantizedCheckpointReader:
    """Quantise all but ``lm_head``; without a method to nearest."""
    reader = TensorReader(source)
    modules = linear_modules(reader.checkpoint.config, reader.checkpoint.modules, FORMS["compressed-tensors"])
    scheme = Scheme(4, 32, True)
    schemes = {name: scheme for name in modules if name != "lm_head"}
    (folder / "out").mkdir(parents=True)
    writer = QuantizedCheckpointWriter(reader, folder / "out", "compressed-tensors", schemes, work=folder / "work")
    if method is None:
        for name, source_rows in writer.sources.items():
            weight = torch.from_numpy(reader.read(source_rows.tensor))
            writer.add(name, round_weights(weight, scheme, "rtn", scale_dtype=torch.float32))
    else:
        calibrate(writer, LayerWalker(reader), sequences, method, work=folder / "states")
    writer.copy_rest()
    writer.finish()
    return QuantizedCheckpointReader(TensorReader(folder / "out"))


@pytest.mark.parametrize("name", ["Phi3", "Llama", "Mistral", "Qwen2", "Qwen3", "Gemma", "Gemma2", "Gemma3Text"])
def test_every_architecture_loses_less_of_its_hidden_states(name: str, tmp_path: Path) -> None:
    assert name in ARCHITECTURES
    model = checkpoint(name, tmp_path / "model")
    made = torch.Generator().manual_seed(5)
    sequences = torch.randint(120, (24, 32), generator=made).tolist()
    held_out = torch.randint(120, (8, 32), generator=made)
    with torch.no_grad():
        expected = model.model(held_out).last_hidden_state
    errors = []
    for number, method in enumerate((None, Method("gptq", correction=0.0), Method("calibrated"))):
        found = quantised(tmp_path / "model", tmp_path / str(number), method, sequences)
        with torch.no_grad():
            for module in found.schemes:
                model.get_submodule(module).weight.copy_(found.read_rounded(module).dequantise())
            errors.append(float((model.model(held_out).last_hidden_state - expected).norm()))
    assert errors[1] < 0.9 * errors[0]
    assert errors[2] < 0.9 * errors[0]
