"""An evaluation in parts: some of its metrics by themselves, each a Step of its own with a digest of its own."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

from olivine.evaluate import registry
from olivine.evaluate.base import RECORDING
from olivine.planning.plan import PlannedStep


def part_of(
    planned: PlannedStep,
    indexes: Collection[int],
    *,
    name: str,
    attempt: int = 1,
    params: Mapping[int, Mapping[str, Any]] | None = None,
) -> PlannedStep:
    """Return the measuring of some of an evaluation's metrics.

    Args:
        indexes: the metrics, by their ``index``.
        name: what the part is called.
        attempt: a second one has another digest, so that it is not answered from the Store.
        params: other parameters for metrics, by ``index``.
    """

    def own(key: str) -> bool:
        index = key.removeprefix(RECORDING).partition(".")[0]
        return not index.isdigit() or int(index) in indexes

    metrics = [
        each | ({"params": dict(params[each["index"]])} if params and each["index"] in params else {})
        for each in planned.step.params["metrics"]
        if each["index"] in indexes
    ]
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


def with_few(planned: PlannedStep, indexes: Collection[int]) -> dict[int, dict[str, Any]]:
    """Return those of the metrics ``indexes`` that can be measured on a few samples first, with the parameters for it.

    Parameters that name data configs are left out, as in the Step.
    """
    found = {}
    for each in planned.step.params["metrics"]:
        metric_type = registry.find(each["type"])
        if metric_type is None or each["index"] not in indexes:
            continue
        own = {
            key.partition(".")[2]: config.name
            for key, config in planned.data.items()
            if key.partition(".")[0] == str(each["index"])
        }
        few = metric_type.few(metric_type.params_type.model_validate(each["params"] | own))
        if few is not None:
            found[each["index"]] = {key: value for key, value in few.model_dump(mode="json").items() if key not in own}
    return found


def by_cost(planned: PlannedStep, *, last: Collection[int] = ()) -> list[list[int]]:
    """Return the indexes of an evaluation's metrics in groups, the cheapest to measure first.

    Args:
        last: metrics that are measured with the most expensive ones, as a few samples are measured before.
    """
    groups: dict[int, list[int]] = {}
    for each in planned.step.params["metrics"]:
        found = registry.find(each["type"])
        cost = found.cost if found is not None and each["index"] not in last else 3
        groups.setdefault(cost, []).append(each["index"])
    return [groups[cost] for cost in sorted(groups)]


def files_alone(planned: PlannedStep, indexes: Collection[int]) -> bool:
    """Return whether metrics only look at files."""
    types = {each["index"]: registry.find(each["type"]) for each in planned.step.params["metrics"]}
    return all((found := types[index]) is not None and found.cost == 0 for index in indexes)
