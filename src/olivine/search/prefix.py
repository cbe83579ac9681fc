"""The first passes of a candidate, which is what a search pass by pass makes and measures."""

from __future__ import annotations

from typing import Any

from olivine.config.schema import Workflow
from olivine.search.dimension import Dimension
from olivine.search.space import Point, Space


def owner_of(dimension: Dimension | str) -> str:
    """Return the pass that a dimension belongs to."""
    return (dimension if isinstance(dimension, str) else dimension.name).split(".")[0]


def cut(workflow: Workflow, space: Space, until: str) -> Workflow:
    """Return a candidate's workflow up to the pass ``until``, without goals: they are for what all passes make."""
    behind = _behind(workflow, space, until)
    passes = {name: value for name, value in workflow.passes.items() if name not in behind}
    evaluators = {
        name: each.model_copy(update={"metrics": [_without_goals(metric) for metric in each.metrics]})
        for name, each in workflow.evaluators.items()
    }
    return workflow.model_copy(update={"passes": passes, "evaluators": evaluators})


def chosen(point: Point, space: Space, until: str) -> Point:
    """Return what a point chooses in the passes up to ``until``."""
    behind = _behind(space.at(point), space, until)
    return {key: value for key, value in point.items() if owner_of(key) not in behind}


def following(workflow: Workflow, space: Space, until: str) -> str:
    """Return the pass that runs next after ``until``; empty if there is none."""
    behind = _behind(workflow, space, until)
    return next((name for name in workflow.passes if name in behind), "")


def _behind(workflow: Workflow, space: Space, until: str) -> set[str]:
    """Return the passes behind ``until``, which may itself be left out of the candidate."""
    declared = list(space.workflow.passes)
    names = list(workflow.passes)
    later = set(declared[declared.index(until) + 1 :])
    if until in names:  # a flow has an order of its own
        later = (later - set(names)) | set(names[names.index(until) + 1 :])
    return later


def _without_goals(metric: Any) -> Any:
    values = metric.sub_types
    if not values:
        return metric
    return metric.model_copy(update={"sub_types": [each.model_copy(update={"goal": None}) for each in values]})
