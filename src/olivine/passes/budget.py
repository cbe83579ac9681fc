"""Parameters of passes that choose the bits of each matrix under a budget, and what a plan can say about them."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field
from pydantic_core import PydanticCustomError

from olivine.config.sizes import parse_size
from olivine.errors import Location, Problem
from olivine.passes.base import Params
from olivine.quant.sensitivity import Measure

BUDGETS = ("max_size", "average_bits", "max_divergence")


def _size(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return parse_size(value)
    except ValueError as error:
        raise PydanticCustomError("no_size", "{said}", {"said": str(error)}) from None


SizeInBytes = Annotated[int, BeforeValidator(_size, json_schema_input_type=int | str)]


class BudgetParams(Params):
    """What the choice of bits may cost; exactly one budget."""

    max_size: SizeInBytes | None = Field(default=None, ge=1)
    """Budget: bytes of the whole result, everything that ships included, like ``2.2GB``."""
    average_bits: float | None = Field(default=None, gt=0, le=32)
    """Budget: bits per weight, averaged over all matrices, scales and zero points included."""
    max_divergence: float | None = Field(default=None, gt=0)
    """Budget: mean Kullback-Leibler divergence of the next-token distribution from that of the float model, in nats;
    0.02 is hard to notice. It is measured on the calibration text, and the smallest model within it is made."""
    calibration_data_config: str | None = None
    """Data config whose text tells which matrices matter. Default: a text that comes with Olivine; text like that which
    the model will see is better."""
    sensitivity: Measure = "fisher"
    """How the choice learns what rounding a matrix does. ``fisher``: estimated from gradients, layer by layer from
    disk, in about three passes over the calibration text. ``exact``: measured, one pass for each matrix and option,
    with the model in memory: for small models."""


def check_budget(params: BudgetParams, key: str, value: Any) -> list[Problem]:
    """Return what is wrong with the budget: ``key`` is the parameter that asks for a choice when it is ``auto``."""
    given = [name for name in BUDGETS if getattr(params, name) is not None]
    if value != "auto":
        idle = [*given, *(["calibration_data_config"] if params.calibration_data_config is not None else [])]
        return [
            Problem(
                f"{name} goes with {key}: auto, and {key} is {value}",
                Location(path=name),
                f"with {key}: {value} every matrix has the same bits",
                f"set {key}: auto, or leave {name} out",
            )
            for name in idle
        ]
    if len(given) == 1:
        return []
    return [
        Problem(
            f"{key}: auto has {'no budget' if not given else f'{len(given)} budgets: ' + ', '.join(given)}",
            Location(path=given[1] if given else key),
            "it chooses the bits of each matrix so that the model fits one",
            f"give one of {', '.join(BUDGETS)}, e.g. max_size: 2.2GB",
        )
    ]
