"""How codes, scales and zero points lie in memory, for each consumer. Every packing has its inverse beside it.

ONNX Runtime's layout is described with MatMulNBits and GatherBlockQuantized in its ContribOperators.md: per row, per
group, ``bits * group / 8`` bytes, the first code in the lowest bits; zero points per row, padded to whole bytes.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]


def pack(codes: Bytes, bits: int) -> Bytes:
    """Pack the last axis: ``8 / bits`` codes a byte, the first in the lowest bits.

    Args:
        codes: values below ``2**bits``, shape ``(..., n)``; a last, part filled byte is padded with zero bits.
        bits: 2, 4 or 8.

    Returns:
        Shape ``(..., ceil(n * bits / 8))``.
    """
    if bits == 8:
        return np.ascontiguousarray(codes)
    each = 8 // bits
    missing = -codes.shape[-1] % each
    if missing:
        codes = np.concatenate([codes, np.zeros((*codes.shape[:-1], missing), np.uint8)], axis=-1)
    parts = codes.reshape(*codes.shape[:-1], -1, each)
    packed = parts[..., 0].copy()
    for place in range(1, each):
        packed |= parts[..., place] << np.uint8(bits * place)
    return packed


def unpack(packed: Bytes, bits: int, count: int) -> Bytes:
    """Undo :func:`pack`: return the first ``count`` codes of the last axis."""
    if bits == 8:
        return packed[..., :count]
    each = 8 // bits
    shifts = np.arange(each, dtype=np.uint8) * np.uint8(bits)
    codes = (packed[..., None] >> shifts) & np.uint8(2**bits - 1)
    return codes.reshape(*packed.shape[:-1], -1)[..., :count]


def pack_gptq(codes: Bytes, bits: int) -> NDArray[np.int32]:
    """Return ``qweight`` of the GPTQ layout: codes ``(N, K)`` to int32 ``(K * bits / 32, N)``, along the columns.

    Source: the layout of AutoGPTQ, which transformers reads; the method is https://arxiv.org/abs/2210.17323.

    Raises:
        ValueError: ``K`` does not fill whole 32-bit words.
    """
    rows, width = codes.shape
    if width * bits % 32:
        raise ValueError(f"{width} input features of {bits} bits do not fill whole 32-bit words")
    words = np.ascontiguousarray(pack(codes, bits)).view("<i4")
    return np.ascontiguousarray(words.reshape(rows, -1).T)


def unpack_gptq(words: NDArray[np.int32], bits: int) -> Bytes:
    """Undo :func:`pack_gptq`: int32 ``(K * bits / 32, N)`` to codes ``(N, K)``."""
    packed = np.ascontiguousarray(words.T).view(np.uint8)
    return unpack(packed, bits, packed.shape[-1] * 8 // bits)


def pack_gptq_zeros(zeros: Bytes, bits: int) -> NDArray[np.int32]:
    """Return ``qzeros`` of the GPTQ layout: zero points ``(N, groups)`` to int32 ``(groups, N * bits / 32)``.

    The first version of the layout stores each zero point less one, and readers add it back; they wrap around.

    Raises:
        ValueError: ``N`` does not fill whole 32-bit words.
    """
    rows, groups = zeros.shape
    if rows * bits % 32:
        raise ValueError(f"{rows} output features of {bits} bits do not fill whole 32-bit words")
    less = ((zeros.T.astype(np.int16) - 1) % 2**bits).astype(np.uint8)
    return np.ascontiguousarray(pack(np.ascontiguousarray(less), bits)).view("<i4").reshape(groups, -1)


def unpack_gptq_zeros(words: NDArray[np.int32], bits: int) -> Bytes:
    """Undo :func:`pack_gptq_zeros`: int32 ``(groups, N * bits / 32)`` to zero points ``(N, groups)``."""
    packed = np.ascontiguousarray(words).view(np.uint8)
    less = unpack(packed, bits, packed.shape[-1] * 8 // bits)
    return np.ascontiguousarray(((less.astype(np.int16) + 1) % 2**bits).astype(np.uint8).T)


def pack_compressed(codes: Bytes, bits: int) -> NDArray[np.int32]:
    """Return ``weight_packed`` of compressed-tensors' ``pack-quantized`` layout: codes ``(N, K)`` to int32 rows.

    The codes are offset by ``2**(bits-1)``, which is what :class:`~olivine.quant.rounding.Rounded` holds; the last word
    of a row is padded with zero bits.
    """
    rows, width = codes.shape
    each = 32 // bits
    missing = -width % each
    padded = np.concatenate([codes, np.zeros((rows, missing), np.uint8)], axis=1) if missing else codes
    return np.ascontiguousarray(pack(padded, bits)).view("<i4").reshape(rows, -1)


def unpack_compressed(words: NDArray[np.int32], bits: int, width: int) -> Bytes:
    """Undo :func:`pack_compressed`."""
    return unpack(np.ascontiguousarray(words).view(np.uint8), bits, width)
