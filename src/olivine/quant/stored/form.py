"""What a stored form of a quantised checkpoint has to say. Importable without numpy, so that a plan can ask it."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from olivine.errors import ModelError
from olivine.quant.scheme import BITS, GROUP_SIZES, PER_CHANNEL, Scheme

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

FormName = Literal["olive", "gptq", "compressed-tensors"]


@dataclass(frozen=True)
class StoredTensor:
    """One tensor of a quantised module.

    Attributes:
        dtype: in safetensors' words.
        shape: of the whole tensor.
        axis: along which output features run; ``None`` if it is the same whatever the weights are.
        features: output features in one element along ``axis``.
        optional: whether readers do without it.
    """

    dtype: str
    shape: tuple[int, ...]
    axis: int | None = 0
    features: int = 1
    optional: bool = False


@dataclass(frozen=True)
class PackedRows:
    """Some rows of a rounded matrix: ``n`` output features of ``K`` input features.

    Attributes:
        scheme: how they are rounded.
        in_features: ``K``.
        packed: codes, shape ``(n, ceil(K * bits / 8))``, the first in the lowest bits of a byte.
        scales: float32, shape ``(n, groups)``.
        zeros: uint8, shape ``(n, groups)``; ``None`` if the scheme is symmetric.
    """

    scheme: Scheme
    in_features: int
    packed: NDArray[np.uint8]
    scales: NDArray[np.float32]
    zeros: NDArray[np.uint8] | None

    @property
    def rows(self) -> int:
        """``n``."""
        return len(self.packed)


class StoredForm(ABC):
    """One way to store a quantised checkpoint.

    Attributes:
        name: as ``quant_method`` in ``config.json`` has it.
        unfuses: whether q, k and v (gate and up) are stored apart also where the model has them in one matrix.
        marks: the suffix of a tensor that only a quantised module has.
        all_or_nothing: whether every matrix of a decoder layer must be quantised.
    """

    name: ClassVar[FormName]
    unfuses: ClassVar[bool] = False
    marks: ClassVar[str] = "qweight"
    all_or_nothing: ClassVar[bool] = False

    def scale_dtype(self, source: str) -> str:
        """Return safetensors' word for the type of the scales, where the weights were stored as ``source``."""
        return "F16"

    @abstractmethod
    def tensors(self, module: str, rows: int, width: int, scheme: Scheme, scale_dtype: str) -> dict[str, StoredTensor]:
        """Return the tensors of ``module``, of ``rows`` output and ``width`` input features, by suffix."""

    @abstractmethod
    def why_not(self, rows: int, width: int, scheme: Scheme) -> str | None:
        """Return why a matrix of this shape cannot be stored in ``scheme``, or ``None``."""

    @abstractmethod
    def config(self, schemes: Mapping[str, Scheme], left: Sequence[str]) -> dict[str, Any]:
        """Return ``quantization_config``.

        Args:
            schemes: what each quantised module is stored as; at least one.
            left: linear modules that stay as they are.
        """

    @abstractmethod
    def scheme_of(self, config: Mapping[str, Any], module: str) -> Scheme:
        """Return what ``quantization_config`` says of ``module``.

        Raises:
            ModelError: it says something that Olivine cannot read.
        """

    @abstractmethod
    def encode(self, module: str, rows: PackedRows, scale_dtype: str) -> dict[str, NDArray[Any]]:
        """Return the part of each tensor that ``rows`` make, which begin at a multiple of 32; not of the constant ones.

        Raises:
            ValueError: a scale is not a number of ``scale_dtype``.
        """

    def constants(self, rows: int, width: int, scheme: Scheme) -> dict[str, NDArray[Any]]:
        """Return the tensors that are the same whatever the weights are."""
        return {}

    @abstractmethod
    def decode(
        self, tensors: Mapping[str, NDArray[Any]], scheme: Scheme, config: Mapping[str, Any], width: int
    ) -> PackedRows:
        """Undo :meth:`encode`: parts of the tensors of one module, optional ones if they are there, to rows.

        Raises:
            ModelError: they contradict ``scheme``, or hold what no :class:`PackedRows` can.
        """


def commonest(schemes: Mapping[str, Scheme]) -> Scheme:
    """Return the scheme that most modules have, the first of them if there are several."""
    return Counter(schemes.values()).most_common(1)[0][0]


def divides(width: int, scheme: Scheme) -> str | None:
    """Return why groups do not come out even in rows of ``width``, or ``None``."""
    if scheme.group_size != PER_CHANNEL and width % scheme.group_size:
        return f"groups of {scheme.group_size} do not divide its {width} input features"
    return None


def stored_zeros(zeros: NDArray[np.uint8], scheme: Scheme) -> NDArray[np.uint8] | None:
    """Return the zero points of rows from those that are stored, also where the scheme is symmetric.

    Raises:
        ModelError: the scheme is symmetric, and they are not.
    """
    if not scheme.symmetric:
        return zeros
    if (zeros != scheme.middle).any():
        raise ModelError(
            "the checkpoint calls itself symmetric and has zero points",
            why=f"a symmetric one of {scheme.bits} bits has {scheme.middle} everywhere",
            remedy="correct its quantization_config",
        )
    return None


def entries(said: Any) -> dict[str, Mapping[str, Any]]:
    """Return the entries of an object of objects in ``quantization_config``, which anybody may have written."""
    items = said.items() if isinstance(said, dict) else ()
    return {name: each for name, each in items if isinstance(each, dict)}


def matches(pattern: str, module: str) -> bool:
    """Return whether the regular expression ``pattern`` fits the beginning of ``module``.

    Raises:
        ModelError: it is no regular expression.
    """
    try:
        return re.match(pattern, module) is not None
    except re.error as error:
        raise ModelError(
            f"{pattern!r} in quantization_config is no regular expression: {error}", remedy="correct config.json"
        ) from None


def read_scheme(bits: Any, group_size: Any, symmetric: Any, module: str) -> Scheme:
    """Return the scheme that a ``quantization_config`` describes.

    Raises:
        ModelError: it is none that Olivine has.
    """
    known = isinstance(bits, int) and bits in BITS and group_size in (*GROUP_SIZES, PER_CHANNEL)
    if not known or not isinstance(symmetric, bool):
        raise ModelError(
            f"{module} is quantised to {bits} bits in groups of {group_size}, symmetric: {symmetric}",
            why=f"{', '.join(map(str, BITS))} bits in groups of {', '.join(map(str, GROUP_SIZES))} or -1 can be read",
            remedy="give the checkpoint that this one was quantised from",
        )
    return Scheme(bits, group_size, symmetric)


def scales_as(scales: NDArray[np.float32], dtype: str) -> NDArray[Any]:
    """Return ``scales`` in safetensors' type ``dtype``; bfloat16 as its bits.

    Raises:
        ValueError: one of them would change.
    """
    import numpy as np

    if dtype == "F32":
        return np.ascontiguousarray(scales, np.float32)
    if dtype == "F16":
        with np.errstate(over="ignore"):
            half = scales.astype(np.float16)
        exact = np.array_equal(half.astype(np.float32), scales)
        stored: NDArray[Any] = half
    else:
        bits = np.ascontiguousarray(scales, np.float32).view(np.uint32)
        exact = not (bits & 0xFFFF).any()
        stored = (bits >> 16).astype(np.uint16)
    if not exact:
        raise ValueError(f"the scales are no numbers of {dtype}: round the weights with that scale_dtype")
    return stored


def scales_from(stored: NDArray[Any]) -> NDArray[np.float32]:
    """Undo :func:`scales_as`."""
    import numpy as np

    from olivine.quant.reading import widened

    return widened(stored) if stored.dtype == np.uint16 else stored.astype(np.float32)
