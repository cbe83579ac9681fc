"""The search for scales of groups of one length, compiled for it: many groups side by side, one in each lane.

A group of 32 weights is but four vectors, and adding up what is in them takes as long as all else. So the weights of
:data:`LANES` groups are turned round first: each vector has one weight of each of eight groups, every sum stays in its
lane, and all candidates are tried while the block is in the first cache. The compiler sees to the vectors, but only if
it knows the shapes (the length of a group is a constant to it, and the parts are put into the whole), and if it can
tell that what it writes is not what it reads (so all that a lane needs is in one array).
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from olivine.quant.compiled import part, whole

LANES = 64

INVERSE, LOWEST, HIGHEST, PRODUCT, SQUARE, TYPICAL, LOW, HIGH, RANGE, SCALE, ZERO, SCORE, ROWS = range(13)
"""Rows of the array of lanes: what rounds, the ends of the codes, the two sums, the root mean square of the group, its
ends, its full range in steps; and the best so far."""

LEAST = np.float32(1.2e-38)
"""Where every code is zero there is nothing to divide by, but by this."""

STEP = 4
"""Weights of a lane that are added up before the sums are put back; every length is a multiple of it."""


@part
def _load(weight, first, block, group):  # type: ignore[no-untyped-def]
    """Turn the groups from ``first`` on into the lanes of ``block``; return how many there are."""
    rows, width = weight.shape
    groups = (width + group - 1) // group
    row, index = first // groups, first % groups
    count = min(LANES, rows * groups - first)
    for lane in range(count):
        start = index * group
        if start + group <= width:
            for place in range(group):
                block[place, lane] = weight[row, start + place]
        else:
            for place in range(width - start):
                block[place, lane] = weight[row, start + place]
            for place in range(width - start, group):
                block[place, lane] = np.float32(0.0)
        index += 1
        if index == groups:
            row, index = row + 1, 0
    return count


@part
def _measure(block, lanes, group, by_size):  # type: ignore[no-untyped-def]
    """Find the ends of every group, zero among them, and how large its weights are."""
    lanes[LOW] = np.float32(0.0)
    lanes[HIGH] = np.float32(0.0)
    lanes[TYPICAL] = np.float32(0.0)
    for place in range(0, group, STEP):
        for lane in range(LANES):
            low, high, total = lanes[LOW, lane], lanes[HIGH, lane], lanes[TYPICAL, lane]
            for step in range(STEP):
                value = block[place + step, lane]
                low, high = min(low, value), max(high, value)
                if by_size:
                    total += value * value
            lanes[LOW, lane], lanes[HIGH, lane] = low, high
            if by_size:
                lanes[TYPICAL, lane] = total
    for lane in range(LANES):
        lanes[TYPICAL, lane] = np.sqrt(lanes[TYPICAL, lane] / np.float32(group))


@part
def _keep_better(block, lanes, group, by_size):  # type: ignore[no-untyped-def]
    """Round with ``INVERSE``, and keep the scale and zero point (``-LOWEST``) of lanes that come closer so."""
    lanes[PRODUCT] = np.float32(0.0)
    lanes[SQUARE] = np.float32(0.0)
    for place in range(0, group, STEP):
        for lane in range(LANES):
            inverse, lowest, highest = lanes[INVERSE, lane], lanes[LOWEST, lane], lanes[HIGHEST, lane]
            product, square = lanes[PRODUCT, lane], lanes[SQUARE, lane]
            for step in range(STEP):
                value = block[place + step, lane]
                code = min(max(np.rint(value * inverse), lowest), highest)
                counted = code * (abs(value) + lanes[TYPICAL, lane]) if by_size else code
                product += value * counted
                square += code * counted
            lanes[PRODUCT, lane], lanes[SQUARE, lane] = product, square
    for lane in range(LANES):
        # Chosen and not branched: so eight lanes are decided at once.
        scale = lanes[PRODUCT, lane] / max(lanes[SQUARE, lane], LEAST)
        score, best = lanes[PRODUCT, lane] * scale, lanes[SCORE, lane]
        lanes[SCORE, lane] = max(score, best)
        lanes[SCALE, lane] = scale if score > best else lanes[SCALE, lane]
        lanes[ZERO, lane] = -lanes[LOWEST, lane] if score > best else lanes[ZERO, lane]


@part
def _invert(lanes, row, factor):  # type: ignore[no-untyped-def]
    for lane in range(LANES):
        scale = lanes[row, lane] * factor
        lanes[INVERSE, lane] = np.float32(1.0) / (scale if scale != 0 else np.float32(1.0))


@cache
def searcher(group: int, *, symmetric: bool, by_size: bool) -> Any:
    """Return the compiled search for groups of ``group`` weights.

    It is called with the weights, float32, finite, shape ``(N, K)``; the count of steps below the top code, or below
    zero if it is symmetric; the factors to try; and the scales, float32, and zero points, uint8, both of shape
    ``(N, groups)``, to fill. A group of zeros gets the scale 0, and an asymmetric one the zero point 0.

    Args:
        group: a multiple of 4.
        symmetric: whether the zero point is in the middle.
        by_size: whether errors count by the size of the weight, as with k-quants; else they all count the same.
    """

    @whole
    def search_symmetric(weight, steps, factors, scales, zeros):  # type: ignore[no-untyped-def]
        block = np.zeros((group, LANES), np.float32)
        lanes = np.zeros((ROWS, LANES), np.float32)
        lanes[LOWEST] = np.float32(-steps)
        lanes[HIGHEST] = np.float32(steps - 1)
        found = scales.reshape(-1)
        for first in range(0, len(found), LANES):
            count = _load(weight, first, block, group)
            _measure(block, lanes, group, by_size)
            for lane in range(LANES):
                low, high = lanes[LOW, lane], lanes[HIGH, lane]
                lanes[RANGE, lane] = (low if -low > high else high) / lanes[LOWEST, lane]
            lanes[SCALE] = lanes[RANGE]
            lanes[SCORE] = np.float32(-1.0)
            for trial in range(len(factors)):
                _invert(lanes, RANGE, factors[trial])
                _keep_better(block, lanes, group, by_size)
            _invert(lanes, SCALE, np.float32(1.0))
            _keep_better(block, lanes, group, by_size)
            for lane in range(count):
                found[first + lane] = lanes[SCALE, lane]

    @whole
    def search_asymmetric(weight, steps, factors, scales, zeros):  # type: ignore[no-untyped-def]
        block = np.zeros((group, LANES), np.float32)
        lanes = np.zeros((ROWS, LANES), np.float32)
        last = np.float32(steps)
        found, points = scales.reshape(-1), zeros.reshape(-1)
        for first in range(0, len(found), LANES):
            count = _load(weight, first, block, group)
            _measure(block, lanes, group, by_size)
            for lane in range(LANES):
                full = (lanes[HIGH, lane] - lanes[LOW, lane]) / last
                lanes[RANGE, lane] = full
                exact = -lanes[LOW, lane] / full if full != 0 else np.float32(0.0)
                lanes[ZERO, lane] = min(max(np.rint(exact), np.float32(0.0)), last)
            lanes[SCALE] = lanes[RANGE]
            lanes[SCORE] = np.float32(-1.0)
            for trial in range(2 * len(factors) + 1):
                refining = trial == 2 * len(factors)
                if refining:
                    _invert(lanes, SCALE, np.float32(1.0))
                else:
                    _invert(lanes, RANGE, factors[trial // 2])
                for lane in range(LANES):
                    full = lanes[RANGE, lane]
                    exact = -lanes[LOW, lane] / full if full != 0 else np.float32(0.0)
                    zero = np.floor(exact) if trial % 2 == 0 else np.ceil(exact)
                    zero = lanes[ZERO, lane] if refining else min(max(zero, np.float32(0.0)), last)
                    lanes[LOWEST, lane], lanes[HIGHEST, lane] = -zero, last - zero
                _keep_better(block, lanes, group, by_size)
            for lane in range(count):
                found[first + lane] = lanes[SCALE, lane]
                points[first + lane] = np.uint8(lanes[ZERO, lane])

    return search_symmetric if symmetric else search_asymmetric
