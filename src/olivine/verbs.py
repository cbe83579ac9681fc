"""The Python interface without a configuration: ``olivine.optimize(model, ...)`` and its like."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec

from olivine import recipes
from olivine.api import run
from olivine.engine.result import Result

P = ParamSpec("P")


def _runs(recipe: Callable[P, dict[str, Any]]) -> Callable[P, Result]:
    """Return a function that runs the workflow that ``recipe`` makes of the same arguments."""

    @wraps(recipe)
    def run_recipe(*args: P.args, **kwargs: P.kwargs) -> Result:
        return run(recipe(*args, **kwargs))

    return run_recipe


optimize = _runs(recipes.optimize)
finetune = _runs(recipes.finetune)
quantize = _runs(recipes.quantize)
convert = _runs(recipes.convert)
benchmark = _runs(recipes.benchmark)
evaluate = _runs(recipes.evaluate)
