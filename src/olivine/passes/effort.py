"""What a Step does, in amounts that the rates of a machine turn into seconds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from olivine.hardware.rates import Rates

EMULATED = 200
"""How many times slower a matrix product in bfloat16 is on a processor that has no units for it."""


@dataclass(frozen=True)
class Effort:
    """What a Step does.

    Attributes:
        products: floating-point operations in matrix products, in float32.
        half_products: the same in bfloat16 or float16.
        moved: bytes that go through memory beside them, counted as if one core copied them.
        read: bytes read from disk.
        written: bytes written to disk.
        steps: steps of the interpreter: importing libraries, building graphs.
        on_gpu: whether the products are a GPU's.
    """

    products: float = 0.0
    half_products: float = 0.0
    moved: float = 0.0
    read: float = 0.0
    written: float = 0.0
    steps: float = 0.0
    on_gpu: bool = False

    def seconds(self, rates: Rates) -> float:
        """Return how long it takes on a machine."""
        full, half, memory = rates.float32, rates.bfloat16, rates.memory
        if self.on_gpu and rates.gpu_float32:
            full, half, memory = rates.gpu_float32, rates.gpu_bfloat16, rates.gpu_memory
        half = half or full / EMULATED
        return (
            self.products / full
            + self.half_products / half
            + self.moved / memory
            + self.read / rates.read
            + self.written / rates.write
            + self.steps / rates.interpreter
        )

    def __add__(self, other: Effort) -> Effort:
        values = {
            each.name: getattr(self, each.name) + getattr(other, each.name)
            for each in fields(self)
            if each.name != "on_gpu"
        }
        return Effort(**values, on_gpu=self.on_gpu or other.on_gpu)

    def __bool__(self) -> bool:
        return any(getattr(self, each.name) for each in fields(self) if each.name != "on_gpu")

    def as_json(self) -> dict[str, Any]:
        """Return it as a JSON object, without what is nothing."""
        return {key: value for key, value in asdict(self).items() if value}


def effort_from(content: Any) -> Effort | None:
    """Return what :meth:`Effort.as_json` gave, ``None`` if it is something else (of another release)."""
    if not isinstance(content, Mapping) or not set(content) <= {each.name for each in fields(Effort)}:
        return None
    if not all(isinstance(value, int | float) for value in content.values()):
        return None
    return Effort(**content)
