"""What a quantised matrix is stored as. Importable without torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

BITS = (2, 4, 8)
"""Widths that ONNX Runtime's MatMulNBits and GatherBlockQuantized have kernels for."""

GROUP_SIZES = (16, 32, 64, 128, 256)
"""Group sizes that those kernels take."""

PER_CHANNEL = -1
"""As ``group_size``: one scale per row."""

Rounding = Literal["rtn", "rtn_half", "search", "k_quant", "hqq"]
"""See :func:`olivine.quant.rounding.round_weights`."""


Calibrated = Literal["gptq", "scale_estimation", "calibrated"]
"""See :class:`olivine.quant.calibration.methods.Method`."""


@dataclass(frozen=True)
class Scheme:
    """How the weights of one matrix are stored: ``w = (q - z) * s``, with one ``s`` (and ``z``) per group of a row.

    Attributes:
        bits: width of ``q``: 2, 4 or 8.
        group_size: consecutive weights of a row (input features) that share a scale; ``PER_CHANNEL`` for whole rows.
        symmetric: ``z`` is ``2 ** (bits - 1)`` and not stored; else ``z`` is stored with ``bits`` bits per group.
    """

    bits: int = 4
    group_size: int = 32
    symmetric: bool = True

    def __post_init__(self) -> None:
        if self.bits not in BITS:
            raise ValueError(f"{self.bits} bits: {', '.join(map(str, BITS))} can be stored")
        if self.group_size != PER_CHANNEL and self.group_size not in GROUP_SIZES:
            raise ValueError(f"group size {self.group_size}: {', '.join(map(str, GROUP_SIZES))} can be stored")

    @property
    def highest(self) -> int:
        """The largest ``q``; the smallest is 0."""
        return (1 << self.bits) - 1

    @property
    def middle(self) -> int:
        """``z`` of a symmetric scheme."""
        return 1 << (self.bits - 1)

    def group(self, in_features: int) -> int:
        """Return the weights per group in rows of ``in_features``.

        A row that is one group has the smallest power of two that holds it, at least 16: what MatMulNBits demands.
        """
        if self.group_size != PER_CHANNEL:
            return self.group_size
        return max(16, 1 << (in_features - 1).bit_length())

    def groups(self, in_features: int) -> int:
        """Return the groups of a row; the last may be part empty."""
        return -(-in_features // self.group(in_features))

    def why_no_kernel(self, in_features: int) -> str | None:
        """Return why ONNX Runtime cannot multiply with rows of ``in_features`` stored so, or ``None``."""
        if self.bits == 2 and self.group(in_features) > GROUP_SIZES[-1]:
            return f"ONNX Runtime takes 2-bit weights in groups of at most {GROUP_SIZES[-1]}, not {in_features} in one"
        return None

    def stored_bytes(self, rows: int, in_features: int, scale_bytes: int = 4) -> int:
        """Return the bytes of a matrix of ``rows`` rows in ONNX Runtime's layout, scales of ``scale_bytes`` each.

        Whole groups are stored, empty part included.
        """
        return sum(self.stored_parts(rows, in_features, scale_bytes))

    def stored_parts(self, rows: int, in_features: int, scale_bytes: int) -> tuple[int, int, int]:
        """Return the bytes of codes, scales and zero points, the last 0 if there are none; see :meth:`stored_bytes`."""
        groups = self.groups(in_features)
        packed = groups * self.group(in_features) * self.bits // 8
        zeros = 0 if self.symmetric else -(-groups * self.bits // 8)
        return rows * packed, rows * groups * scale_bytes, rows * zeros
