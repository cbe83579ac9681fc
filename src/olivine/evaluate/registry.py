"""Which metrics there are: the built-in ones by name, others through the entry-point group ``olivine.metrics``."""

from __future__ import annotations

import importlib
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from olivine.evaluate.base import Metric

BUILTIN: dict[str, str] = {
    "accuracy": "olivine.evaluate.accuracy:Accuracy",
    "exact_match": "olivine.evaluate.exact_match:ExactMatch",
    "perplexity": "olivine.evaluate.perplexity:Perplexity",
    "divergence": "olivine.evaluate.divergence:Divergence",
    "speed": "olivine.evaluate.speed:Speed",
    "latency": "olivine.evaluate.latency:Latency",
    "throughput": "olivine.evaluate.latency:Throughput",
    "lm_eval": "olivine.evaluate.lm_eval:LmEval",
    "torch_metrics": "olivine.evaluate.torch_metrics:TorchMetrics",
    "custom": "olivine.evaluate.custom:Custom",
    "size": "olivine.evaluate.size:Size",
}


def names() -> list[str]:
    """Return the names of all metrics that are installed, built-in ones first."""
    return [*BUILTIN, *sorted(set(_third_party()) - set(BUILTIN))]


@cache
def find(name: str) -> type[Metric[Any]] | None:
    """Return the metric called ``name`` (in any case), or ``None``."""
    targets = (
        {known.lower(): target for known, target in {**_third_party(), **BUILTIN}.items()}
        if (name.lower() not in BUILTIN)
        else BUILTIN
    )
    target = targets.get(name.lower())
    if target is None:
        return None
    module, _, attribute = target.partition(":")
    found: type[Metric[Any]] = getattr(importlib.import_module(module), attribute)
    return found


@cache
def _third_party() -> dict[str, str]:
    from importlib.metadata import entry_points

    return {point.name: point.value for point in entry_points(group="olivine.metrics")}
