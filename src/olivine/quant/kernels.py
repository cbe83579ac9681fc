"""The same arithmetic as :mod:`olivine.quant.rounding` for CPUs, compiled, one pass over each group in registers.

torch makes some two hundred passes over a tile for a search; these make one. The tests hold the two against each other.
numba keeps the compiled code beside this file, or in the user's cache where this folder cannot be written.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from olivine.quant.compiled import compiled
from olivine.quant.encoding import encoder
from olivine.quant.rounding import FACTORS, LONG, LONG_FACTORS, LONG_RANGES, RANGES
from olivine.quant.scale_search import searcher
from olivine.quant.scheme import Rounding, Scheme

BFLOAT16_MAX = np.float32(3.3895314e38)


def find_scales(
    weight: NDArray[np.float32], scheme: Scheme, method: Rounding
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Return scales and zero points, each ``(N, groups)``, for ``weight`` of ``(N, K)``; any method but ``hqq``."""
    rows, width = weight.shape
    groups, group = scheme.groups(width), scheme.group(width)
    scales = np.zeros((rows, groups), np.float32)
    zeros = np.full((rows, groups), scheme.middle, np.uint8)
    searches = method in ("search", "k_quant")
    if searches and group <= LONG:
        search = searcher(group, symmetric=scheme.symmetric, by_size=method == "k_quant")
        factors = np.array(FACTORS if scheme.symmetric else RANGES, np.float32)
        search(weight, scheme.middle if scheme.symmetric else scheme.highest, factors, scales, zeros)
        return scales, zeros
    factors = np.array((LONG_FACTORS if scheme.symmetric else LONG_RANGES) if searches else (), np.float32)
    if scheme.symmetric:
        _symmetric(weight, group, scheme.middle, factors, method == "k_quant", method == "rtn_half", scales)
    else:
        _asymmetric(weight, group, scheme.highest, factors, method == "k_quant", scales, zeros)
    return scales, zeros


def as_stored(scales: NDArray[np.float32], name: Literal["float32", "float16", "bfloat16"]) -> NDArray[np.float32]:
    """Return ``scales`` with the precision and range of the type ``name``; see :func:`.rounding.as_stored`."""
    limits = np.finfo("float16" if name == "float16" else "float32")
    highest = BFLOAT16_MAX if name == "bfloat16" else limits.max
    stored = np.empty(scales.shape, np.float32)
    _stored(scales.reshape(-1), np.float32(highest), np.float32(limits.tiny), name == "bfloat16", stored.reshape(-1))
    return stored.astype(np.float16).astype(np.float32) if name == "float16" else stored


@compiled
def _stored(scales, highest, tiny, bfloat16, stored):  # type: ignore[no-untyped-def]
    """Clamp ``scales`` to what the type holds, no nearer to zero than ``tiny``."""
    for place in range(len(scales)):
        value = min(max(scales[place], -highest), highest)
        stored[place] = tiny if abs(value) < tiny else value
    if bfloat16:  # numpy has none: round the lower half of the word away, halves to even
        bits = stored.view(np.uint32)
        for place in range(len(bits)):
            bits[place] = (
                bits[place] + np.uint32(0x7FFF) + ((bits[place] >> np.uint32(16)) & np.uint32(1))
            ) & np.uint32(0xFFFF0000)


def encode(
    weight: NDArray[np.float32], scheme: Scheme, scales: NDArray[np.float32], zeros: NDArray[np.uint8]
) -> tuple[NDArray[np.uint8], float, float]:
    """Return the packed codes of ``weight``, as ONNX Runtime has them, and the squares of two norms.

    Args:
        weight: shape ``(N, K)``.
        scheme: what to store.
        scales: as they will be stored, not zero, shape ``(N, groups)``.
        zeros: zero points, shape ``(N, groups)``; also for a symmetric scheme.

    Returns:
        Bytes, shape ``(N, groups * group * bits / 8)``; the square of the norm of the error; that of ``weight``.
    """
    rows, width = weight.shape
    groups, group = scheme.groups(width), scheme.group(width)
    packed = np.zeros((rows, groups * group * scheme.bits // 8), np.uint8)
    lost, whole = encoder(group, scheme.bits)(weight, scales, zeros, packed)
    return packed, lost, whole


def widen(raw: NDArray[np.uint16]) -> tuple[NDArray[np.float32], bool]:
    """Return bfloat16 bits as float32, and whether all of them are finite; see :func:`.reading.widened`."""
    values = np.empty(raw.shape, np.float32)
    return values, bool(_widen(raw.reshape(-1), values.reshape(-1).view(np.uint32)))


@compiled
def _widen(raw, words):  # type: ignore[no-untyped-def]
    highest = np.uint16(0)
    for place in range(len(raw)):
        highest = max(highest, np.uint16(raw[place] & np.uint16(0x7FFF)))
        words[place] = np.uint32(raw[place]) << np.uint32(16)
    return highest < np.uint16(0x7F80)


@compiled
def _load(weight, row, start, stop, group, buffer):  # type: ignore[no-untyped-def]
    """Copy one group, padded with zeros; return its least and greatest weight, zero among them."""
    low = np.float32(0.0)
    high = np.float32(0.0)
    for place in range(stop - start):
        value = weight[row, start + place]
        buffer[place] = value
        low = min(low, value)
        high = max(high, value)
    for place in range(stop - start, group):
        buffer[place] = np.float32(0.0)
    return low, high


@compiled
def _count(buffer, by_size, counted):  # type: ignore[no-untyped-def]
    """Set what each error of the group counts."""
    if not by_size:
        for place in range(len(buffer)):
            counted[place] = np.float32(1.0)
        return
    total = np.float32(0.0)
    for place in range(len(buffer)):
        total += buffer[place] * buffer[place]
    typical = np.float32(np.sqrt(total / len(buffer)))
    for place in range(len(buffer)):
        counted[place] = abs(buffer[place]) + typical


@compiled
def _score(buffer, counted, inverse, lowest, highest):  # type: ignore[no-untyped-def]
    """Return ``sum(i*w*c)`` and ``sum(i*c*c)`` for the integers that ``inverse`` rounds to."""
    product = np.float32(0.0)
    square = np.float32(0.0)
    for place in range(len(buffer)):
        code = np.rint(buffer[place] * inverse)
        code = min(max(code, lowest), highest)
        weighted = code * counted[place]
        product += buffer[place] * weighted
        square += code * weighted
    return product, square


@compiled
def _symmetric(weight, group, half, factors, by_size, halves, scales):  # type: ignore[no-untyped-def]
    rows, width = weight.shape
    buffer = np.empty(group, np.float32)
    counted = np.empty(group, np.float32)
    lowest = np.float32(-half)
    highest = np.float32(half - 1)
    for row in range(rows):
        for index in range(scales.shape[1]):
            start = index * group
            low, high = _load(weight, row, start, min(start + group, width), group, buffer)
            if halves:
                scales[row, index] = max(-low, high) / np.float32(half - 0.5)
                continue
            extreme = (low if -low > high else high) / lowest
            if len(factors) == 0 or extreme == 0:
                scales[row, index] = extreme
                continue
            _count(buffer, by_size, counted)
            best_score = np.float32(-1.0)
            best = extreme
            for trial in range(len(factors) + 1):
                start_scale = extreme * factors[trial] if trial < len(factors) else best
                product, square = _score(buffer, counted, np.float32(1.0) / start_scale, lowest, highest)
                if square > 0 and product * product / square > best_score:
                    best_score = product * product / square
                    best = product / square
            scales[row, index] = best


@compiled
def _asymmetric(weight, group, top, factors, by_size, scales, zeros):  # type: ignore[no-untyped-def]
    rows, width = weight.shape
    buffer = np.empty(group, np.float32)
    counted = np.empty(group, np.float32)
    last = np.float32(top)
    for row in range(rows):
        for index in range(scales.shape[1]):
            start = index * group
            low, high = _load(weight, row, start, min(start + group, width), group, buffer)
            full = (high - low) / last
            scales[row, index] = full
            if full == 0:
                zeros[row, index] = 0
                continue
            exact = -low / full
            best_zero = min(max(np.rint(exact), np.float32(0.0)), last)
            if len(factors) == 0:
                zeros[row, index] = np.uint8(best_zero)
                continue
            _count(buffer, by_size, counted)
            best_score = np.float32(-1.0)
            best = full
            for trial in range(2 * len(factors) + 1):
                if trial < 2 * len(factors):
                    start_scale = full * factors[trial // 2]
                    zero = np.floor(exact) if trial % 2 == 0 else np.ceil(exact)
                    zero = min(max(zero, np.float32(0.0)), last)
                else:
                    start_scale, zero = best, best_zero
                product, square = _score(buffer, counted, np.float32(1.0) / start_scale, -zero, last - zero)
                if square > 0 and product * product / square > best_score:
                    best_score = product * product / square
                    best = product / square
                    best_zero = zero
            scales[row, index] = best
            zeros[row, index] = np.uint8(best_zero)
