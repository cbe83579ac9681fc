"""The compiled arithmetic gives what the one in torch gives."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from olivine.quant.kernels import as_stored, encode, find_scales
from olivine.quant.packing import unpack
from olivine.quant.rounding import as_stored as in_torch
from olivine.quant.rounding import round_weights
from olivine.quant.scheme import BITS, GROUP_SIZES, PER_CHANNEL, Scheme

METHODS = ("rtn", "rtn_half", "search", "k_quant")


def weights(rows: int, width: int, seed: int) -> np.ndarray:
    """Return a heavy-tailed matrix."""
    return np.random.default_rng(seed).standard_t(4, (rows, width)).astype(np.float32)


def compiled(weight: np.ndarray, scheme: Scheme, method: str) -> tuple[np.ndarray, float]:
    """Return the weights that the kernels stored, and the error that they say they made."""
    found, zeros = find_scales(weight, scheme, method)  # type: ignore[arg-type]
    scales = as_stored(found, "float32")
    packed, lost, whole = encode(weight, scheme, scales, zeros)
    rows, groups = scales.shape
    codes = unpack(packed, scheme.bits, packed.shape[1] * 8 // scheme.bits).reshape(rows, groups, -1)
    stored = (codes.astype(np.float32) - zeros[..., None]) * scales[..., None]
    return stored.reshape(rows, -1)[:, : weight.shape[1]], (lost / whole) ** 0.5


@given(
    st.sampled_from(BITS),
    st.sampled_from([*GROUP_SIZES, PER_CHANNEL]),
    st.booleans(),
    st.sampled_from(METHODS),
    st.integers(1, 6),
    st.integers(1, 200),
    st.integers(0, 99),
)
@settings(max_examples=150, deadline=None)
def test_errors_agree_for_any_shape(
    bits: int, group_size: int, symmetric: bool, method: str, rows: int, width: int, seed: int
) -> None:
    weight, scheme = weights(rows, width, seed), Scheme(bits, group_size, symmetric)
    stored, said = compiled(weight, scheme, method)
    norm = np.linalg.norm(weight)
    assert said == pytest.approx(np.linalg.norm(stored - weight) / norm, rel=1e-3, abs=1e-6)
    # Sums in another order may choose another of two ranges that serve equally well. That evens out over many weights;
    # where there are few, one that falls beside its code decides.
    if weight.size >= 64:
        rounded = round_weights(torch.from_numpy(weight), scheme, method)  # type: ignore[arg-type]
        theirs = float((rounded.dequantise() - torch.from_numpy(weight)).norm()) / norm
        assert said == pytest.approx(theirs, rel=0.05, abs=1e-6)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("symmetric", [True, False])
def test_nearly_all_weights_are_the_same(method: str, symmetric: bool) -> None:
    weight, scheme = weights(64, 768, 0), Scheme(4, 32, symmetric)
    stored, _ = compiled(weight, scheme, method)
    rounded = round_weights(torch.from_numpy(weight), scheme, method)  # type: ignore[arg-type]
    close = np.isclose(stored, rounded.dequantise().numpy(), rtol=1e-4, atol=1e-6).mean()
    assert close > (0.9 if method == "rtn_half" else 0.999)  # its largest weight falls halfway between two codes


@pytest.mark.parametrize("symmetric", [True, False])
def test_zeros_are_stored_as_zeros(symmetric: bool) -> None:
    stored, said = compiled(
        np.zeros((3, 40), np.float32) + np.eye(3, 40, dtype=np.float32), Scheme(4, 16, symmetric), "search"
    )
    assert (stored[:, 16:] == 0).all()
    assert said < 1e-6


@pytest.mark.parametrize("name", ["float32", "float16", "bfloat16"])
def test_scales_are_stored_as_torch_would_store_them(name: str) -> None:
    scales = np.array([0.0, 1e-9, -1e-9, 0.1, -0.3, 1e6, -1e6, 3.4e38, -3.4e38], np.float32)
    expected = in_torch(torch.from_numpy(scales), getattr(torch, name)).numpy()
    np.testing.assert_array_equal(as_stored(scales, name), expected)  # type: ignore[arg-type]


@pytest.mark.parametrize("width", [48, 64])
def test_errors_are_the_same_wherever_the_weights_lie_in_memory(width: int) -> None:
    weight = np.random.default_rng(0).standard_normal((7, width)).astype(np.float32)
    scheme = Scheme(4, 32, symmetric=True)
    scales, zeros = find_scales(weight, scheme, "search")
    found = set()
    for size in range(16, 420, 8):  # of what lay before and behind the weights, where the codes may go
        for _ in range(20):
            neighbours = [(np.empty(size, np.uint8), weight.copy()) for _ in range(12)]
            copies = [copy for _, copy in neighbours]
            del neighbours
            found |= {encode(copy, scheme, scales, zeros)[1:] for copy in copies}
    assert len(found) == 1
