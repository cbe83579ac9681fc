"""Olivine: one config file, one command, from a language model to the artefact that ships.

``import olivine`` loads nothing; names are looked up when they are first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from olivine.api import plan, run
    from olivine.engine.result import Result, StepResult
    from olivine.errors import OlivineError
    from olivine.events import Event
    from olivine.planning.plan import Plan
    from olivine.verbs import benchmark, convert, evaluate, finetune, optimize, quantize

__all__ = [
    "Event",
    "OlivineError",
    "Plan",
    "Result",
    "StepResult",
    "__version__",
    "benchmark",
    "convert",
    "evaluate",
    "finetune",
    "optimize",
    "plan",
    "quantize",
    "run",
]

_WHERE = {
    "run": "olivine.api",
    "plan": "olivine.api",
    "optimize": "olivine.verbs",
    "finetune": "olivine.verbs",
    "quantize": "olivine.verbs",
    "convert": "olivine.verbs",
    "benchmark": "olivine.verbs",
    "evaluate": "olivine.verbs",
    "Plan": "olivine.planning.plan",
    "Result": "olivine.engine.result",
    "StepResult": "olivine.engine.result",
    "Event": "olivine.events",
    "OlivineError": "olivine.errors",
}


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'olivine' has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(_WHERE[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
