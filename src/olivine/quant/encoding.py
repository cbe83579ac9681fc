"""Weights into packed codes, compiled for the length of a group and the width of a code.

Both are constants to the compiler: a loop over 32 weights becomes four vectors without a remainder, and the codes of a
row are packed side by side when all of them are there.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from olivine.quant.compiled import part, whole


@part
def _code(weight, row, first, scale, zero, last, codes, start, group):  # type: ignore[no-untyped-def]
    """Set the codes of one group; return the squares of the norms of its error and of itself."""
    inverse = np.float32(1.0) / scale
    lost = np.float32(0.0)
    size = np.float32(0.0)
    for place in range(group):
        value = weight[row, first + place]
        code = min(max(np.rint(value * inverse) + zero, np.float32(0.0)), last)
        error = value - (code - zero) * scale
        lost += error * error
        size += value * value
        codes[start + place] = np.uint8(np.int32(code))
    return lost, size


@cache
def encoder(group: int, bits: int) -> Any:
    """Return the compiled encoder for groups of ``group`` weights and codes of ``bits`` bits.

    It is called with the weights, float32, finite, shape ``(N, K)``; scales, float32, not zero, and zero points, uint8,
    both of shape ``(N, groups)``; and the bytes to fill, shape ``(N, groups * group * bits / 8)``. It returns the
    squares of the norms of the error and of the weights. What is beyond ``K`` in the last group gets its zero point.
    """
    last = np.float32((1 << bits) - 1)

    @whole
    def encode(weight, scales, zeros, packed):  # type: ignore[no-untyped-def]
        rows, width = weight.shape
        groups = scales.shape[1]
        codes = np.empty(groups * group, np.uint8)
        pairs, fours = codes.view(np.uint16), codes.view(np.uint32)
        rest = np.zeros((1, group), np.float32)
        lost = np.float64(0.0)
        total = np.float64(0.0)
        full = width // group
        for row in range(rows):
            for index in range(full):
                zero, start = np.float32(zeros[row, index]), index * group
                error, size = _code(weight, row, start, scales[row, index], zero, last, codes, start, group)
                lost += error
                total += size
            if full < groups:
                # In a buffer of its own, with zeros behind it. Were the count not a constant, the compiled loop would
                # ask first whether the codes may lie among the weights, and ask for too much: where memory happens to
                # lie so, it adds up in another order.
                zero, start = np.float32(zeros[row, full]), full * group
                for place in range(width - start):
                    rest[0, place] = weight[row, start + place]
                error, size = _code(rest, 0, 0, scales[row, full], zero, last, codes, start, group)
                lost += error
                total += size
            stored = packed[row]
            for place in range(len(stored)):  # the first weight in the lowest bits; words are little-endian
                if bits == 8:
                    stored[place] = codes[place]
                elif bits == 4:
                    stored[place] = (pairs[place] | (pairs[place] >> 4)) & 0xFF
                else:
                    four = fours[place]
                    stored[place] = (four | (four >> 6) | (four >> 12) | (four >> 18)) & 0xFF
        return lost, total

    return encode
