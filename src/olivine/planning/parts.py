"""An evaluation in parts: some of its metrics by themselves, each a Step of its own with a digest of its own."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from olivine.evaluate import registry
from olivine.evaluate.base import RECORDING
from olivine.planning.plan import PlannedStep


def part_of(planned: PlannedStep, indexes: Collection[int], *, name: str, attempt: int = 1) -> PlannedStep:
    """Return the measuring of some of an evaluation's metrics.

    Args:
        indexes: the metrics, by their ``index``.
        name: what the part is called.
        attempt: a second one has another digest, so that it is not answered from the Store.
    """

    def own(key: str) -> bool:
        index = key.removeprefix(RECORDING).partition(".")[0]
        return not index.isdigit() or int(index) in indexes

    metrics = [each for each in planned.step.params["metrics"] if each["index"] in indexes]
    scripts = {key: digest for key, digest in planned.step.params.get("scripts", {}).items() if own(key)}
    types = [registry.find(each["type"]) for each in metrics]
    dependent = any(each is not None and each.hardware_dependent for each in types)
    step = planned.step.model_copy(
        update={
            "params": {"metrics": metrics}
            | ({"scripts": scripts} if scripts else {})
            | ({"attempt": attempt} if attempt > 1 else {}),
            "inputs": {key: value for key, value in planned.step.inputs.items() if own(key)},
            "data": {key: value for key, value in planned.step.data.items() if own(key)},
            "version": sum(each.version for each in types if each is not None),
            "machine": planned.step.machine if dependent else None,
        }
    )
    # model_copy keeps what was cached on the original, and the digest is.
    step = type(step).model_validate(step.model_dump())
    return replace(
        planned,
        name=name,
        step=step,
        sources={key: value for key, value in planned.sources.items() if own(key)},
        data={key: value for key, value in planned.data.items() if own(key)},
        cached=False,
        estimate=None,
    )


def by_cost(planned: PlannedStep) -> list[list[int]]:
    """Return the indexes of an evaluation's metrics in groups, the cheapest to measure first."""
    groups: dict[int, list[int]] = {}
    for each in planned.step.params["metrics"]:
        found = registry.find(each["type"])
        groups.setdefault(found.cost if found is not None else 3, []).append(each["index"])
    return [groups[cost] for cost in sorted(groups)]
