"""Rounding: on the grid, no worse than it claims, exact where it can be, and what the runtime computes with."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from olivine.quant.packing import pack
from olivine.quant.rounding import Rounded, round_weights
from olivine.quant.scheme import BITS, GROUP_SIZES, PER_CHANNEL, Scheme

METHODS = ("rtn", "rtn_half", "search", "k_quant", "hqq")

schemes = st.builds(Scheme, st.sampled_from(BITS), st.sampled_from([*GROUP_SIZES, PER_CHANNEL]), st.booleans())


def weights(rows: int, width: int, seed: int = 0) -> torch.Tensor:
    """Return a heavy-tailed matrix, as trained weights are."""
    generator = torch.Generator().manual_seed(seed)
    normal = torch.randn(rows, width, generator=generator)
    return normal * torch.exp(torch.randn(rows, width, generator=generator) * 0.5) * 0.02


def error(rounded: Rounded, weight: torch.Tensor) -> float:
    """Return the relative error in the Frobenius norm."""
    return float((rounded.dequantise() - weight).norm() / weight.norm())


@given(schemes, st.sampled_from(METHODS), st.integers(1, 5), st.integers(1, 70), st.integers(0, 99))
@settings(max_examples=150, deadline=None)
def test_stays_on_the_grid_for_any_shape(scheme: Scheme, method: str, rows: int, width: int, seed: int) -> None:
    rounded = round_weights(weights(rows, width, seed), scheme, method)  # type: ignore[arg-type]
    groups = scheme.groups(width)
    assert rounded.codes.shape == (rows, groups * scheme.group(width))
    assert rounded.codes.dtype == torch.uint8
    assert int(rounded.codes.max()) <= scheme.highest
    assert rounded.scales.shape == (rows, groups)
    assert (rounded.zeros is None) == scheme.symmetric
    assert rounded.dequantise().shape == (rows, width)
    padding = rounded.codes.view(rows, groups, -1).flatten(1)[:, width:]
    zero = scheme.middle if rounded.zeros is None else rounded.zeros[:, -1:]
    assert (padding == zero).all()  # an empty place must count as zero


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("symmetric", [True, False])
def test_zeros_are_exact_and_scales_finite(method: str, symmetric: bool) -> None:
    rounded = round_weights(torch.zeros(3, 40), Scheme(4, 16, symmetric), method)  # type: ignore[arg-type]
    assert (rounded.dequantise() == 0).all()
    assert torch.isfinite(rounded.scales).all()
    assert (rounded.scales != 0).all()


@pytest.mark.parametrize("bits", BITS)
def test_values_on_a_grid_are_found_again(bits: int) -> None:
    scheme = Scheme(bits, 32, symmetric=True)
    codes = torch.randint(0, 2**bits, (6, 64), generator=torch.Generator().manual_seed(1))
    codes[:, ::32] = 0  # the end of the range is in use
    weight = (codes - scheme.middle).float() * 0.25
    for method in ("rtn", "search", "k_quant"):
        torch.testing.assert_close(round_weights(weight, scheme, method).dequantise(), weight)


@pytest.mark.parametrize("bits", [2, 4])
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("group_size", [32, 128, PER_CHANNEL])
def test_search_beats_the_plain_rules(bits: int, symmetric: bool, group_size: int) -> None:
    weight = weights(64, 768)
    scheme = Scheme(bits, group_size, symmetric)
    plain = min(error(round_weights(weight, scheme, rule), weight) for rule in ("rtn", "rtn_half"))
    assert error(round_weights(weight, scheme, "search"), weight) < 0.97 * plain


def test_the_two_plain_rules_differ() -> None:
    weight = weights(64, 768)
    eighths, halves = (error(round_weights(weight, Scheme(), rule), weight) for rule in ("rtn", "rtn_half"))
    assert abs(eighths - halves) > 0.01 * halves


def test_importance_moves_the_error_to_where_it_counts_less() -> None:
    weight = weights(64, 256)
    importance = torch.where(torch.arange(256) % 2 == 0, 100.0, 1.0)
    scheme = Scheme(4, 32)
    plain = round_weights(weight, scheme, "search").dequantise() - weight
    told = round_weights(weight, scheme, "search", importance=importance).dequantise() - weight
    assert (told.square() * importance).sum() < 0.9 * (plain.square() * importance).sum()
    assert told.square().sum() > plain.square().sum()


def test_codes_are_chosen_for_scales_as_stored() -> None:
    weight = weights(16, 128)
    rounded = round_weights(weight, Scheme(8, 32), "search", scale_dtype=torch.float16)
    assert torch.equal(rounded.scales, rounded.scales.half().float())
    nearest = (weight.view(16, 4, 32) / rounded.scales.unsqueeze(-1)).round().clamp(-128, 127) + 128
    assert torch.equal(nearest.to(torch.uint8).flatten(1), rounded.codes)


def test_an_unknown_method_or_scheme_is_refused() -> None:
    with pytest.raises(ValueError, match="no rounding best"):
        round_weights(torch.zeros(1, 16), Scheme(), "best")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="3 bits"):
        Scheme(bits=3)
    with pytest.raises(ValueError, match="group size 48"):
        Scheme(group_size=48)


@given(schemes, st.integers(1, 12), st.integers(1, 150), st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_the_runtime_computes_with_what_dequantise_says(scheme: Scheme, rows: int, width: int, seed: int) -> None:
    rounded = round_weights(weights(rows, width, seed), scheme, "search")
    product = run_node(matmul_nbits(rounded), np.eye(width, dtype=np.float32))
    np.testing.assert_array_equal(product.T, rounded.dequantise().numpy())


def matmul_nbits(rounded: Rounded) -> onnx.ModelProto:
    """Return a model of one MatMulNBits with ``rounded`` as its weight."""
    rows, groups = rounded.scales.shape
    scheme = rounded.scheme
    packed = pack(rounded.codes.view(rows, groups, -1).numpy(), scheme.bits)
    inputs = {"B": packed, "scales": rounded.scales.reshape(-1).numpy()}
    if rounded.zeros is not None:
        inputs["zeros"] = pack(rounded.zeros.numpy(), scheme.bits).reshape(-1)
    node = helper.make_node(
        "MatMulNBits", ["A", *inputs], ["Y"], domain="com.microsoft", K=rounded.in_features, N=rows, bits=scheme.bits,
        block_size=scheme.group(rounded.in_features),
    )  # fmt: skip
    graph = helper.make_graph(
        [node],
        "one",
        [helper.make_tensor_value_info("A", TensorProto.FLOAT, ["m", rounded.in_features])],
        [helper.make_tensor_value_info("Y", TensorProto.FLOAT, ["m", rows])],
        [onnx.numpy_helper.from_array(value, name) for name, value in inputs.items()],
    )
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def run_node(model: onnx.ModelProto, given_input: np.ndarray) -> np.ndarray:
    """Run ``model`` on the CPU."""
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (result,) = session.run(None, {"A": given_input})
    return result
