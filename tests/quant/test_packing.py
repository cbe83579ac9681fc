"""Packing is undone by unpacking, for every width and shape, and agrees with the documented place of each code."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from olivine.quant import packing


@st.composite
def codes(draw: st.DrawFn, rows: int = 8, multiple: int = 1) -> tuple[int, np.ndarray]:
    """Draw a width and random codes of that width."""
    bits = draw(st.sampled_from([2, 4, 8]))
    shape = (draw(st.integers(1, rows)), draw(st.integers(1, 9)) * multiple)
    seed = draw(st.integers(0, 2**32 - 1))
    return bits, np.random.default_rng(seed).integers(0, 2**bits, shape).astype(np.uint8)


@given(codes())
def test_pack_is_undone(drawn: tuple[int, np.ndarray]) -> None:
    bits, given_codes = drawn
    packed = packing.pack(given_codes, bits)
    assert packed.shape == (len(given_codes), -(-given_codes.shape[1] * bits // 8))
    np.testing.assert_array_equal(packing.unpack(packed, bits, given_codes.shape[1]), given_codes)


@given(codes(multiple=16))
def test_pack_gptq_is_undone(drawn: tuple[int, np.ndarray]) -> None:
    bits, given_codes = drawn
    words = packing.pack_gptq(given_codes, bits)
    assert words.shape == (given_codes.shape[1] * bits // 32, len(given_codes))
    np.testing.assert_array_equal(packing.unpack_gptq(words, bits), given_codes)


@given(codes(), st.integers(1, 5))
def test_pack_gptq_zeros_is_undone(drawn: tuple[int, np.ndarray], times: int) -> None:
    bits, given_codes = drawn
    zeros = np.tile(given_codes, (16 * times, 1))
    np.testing.assert_array_equal(packing.unpack_gptq_zeros(packing.pack_gptq_zeros(zeros, bits), bits), zeros)


@given(codes())
def test_pack_compressed_is_undone(drawn: tuple[int, np.ndarray]) -> None:
    bits, given_codes = drawn
    words = packing.pack_compressed(given_codes, bits)
    assert words.shape == (len(given_codes), -(-given_codes.shape[1] * bits // 32))
    np.testing.assert_array_equal(packing.unpack_compressed(words, bits, given_codes.shape[1]), given_codes)


def test_first_code_is_in_the_lowest_bits() -> None:
    assert packing.pack(np.array([[1, 2, 3]], np.uint8), 4).tolist() == [[0x21, 0x03]]
    assert packing.pack(np.array([[1, 2, 3, 0, 1]], np.uint8), 2).tolist() == [[0b00111001, 0b01]]


def test_gptq_packs_down_the_columns_and_stores_zeros_less_one() -> None:
    given_codes = np.arange(8, dtype=np.uint8).reshape(1, 8)
    assert packing.pack_gptq(given_codes, 4).view(np.uint32).tolist() == [[0x76543210]]
    zeros = np.array([[8], [0], [1], [2], [3], [4], [5], [6]], np.uint8)
    assert packing.pack_gptq_zeros(zeros, 4).view(np.uint32).tolist() == [[0x543210F7]]


def test_what_does_not_fill_words_is_refused() -> None:
    with pytest.raises(ValueError, match="12 input features of 4 bits"):
        packing.pack_gptq(np.zeros((8, 12), np.uint8), 4)
    with pytest.raises(ValueError, match="3 output features"):
        packing.pack_gptq_zeros(np.zeros((3, 1), np.uint8), 4)
