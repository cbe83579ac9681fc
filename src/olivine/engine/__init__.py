"""Runs a Plan. Names are imported when they are first used, so that its small modules stay cheap."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from olivine.engine.engine import run_plan
    from olivine.engine.result import Result, StepResult

__all__ = ["Result", "StepResult", "run_plan"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'olivine.engine' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module("olivine.engine.engine" if name == "run_plan" else "olivine.engine.result"), name)
