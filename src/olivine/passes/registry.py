"""Which passes there are: the built-in ones by name, others through the entry-point group ``olivine.passes``.

A built-in pass is found without scanning installed packages, so that ``olivine run`` starts fast.
"""

from __future__ import annotations

import importlib
from functools import cache
from typing import TYPE_CHECKING, Any

from olivine.errors import ConfigError

if TYPE_CHECKING:
    from olivine.passes.base import Pass

ENTRY_POINT_GROUP = "olivine.passes"

BUILTIN: dict[str, str] = {
    "LoRA": "olivine.passes.finetune.lora:LoRA",
    "QLoRA": "olivine.passes.finetune.qlora:QLoRA",
    "DoRA": "olivine.passes.finetune.dora:DoRA",
    "LoftQ": "olivine.passes.finetune.loftq:LoftQ",
    "MergeAdapterWeights": "olivine.passes.finetune.merge:MergeAdapterWeights",
    "Quantize": "olivine.passes.quantize.quantize:Quantize",
    "ModelBuilder": "olivine.passes.convert.model_builder:ModelBuilder",
}


def names() -> list[str]:
    """Return the names of all passes that are installed, built-in ones first."""
    return [*BUILTIN, *sorted(set(_third_party()) - set(BUILTIN))]


@cache
def find(name: str) -> type[Pass[Any]] | None:
    """Return the pass called ``name`` (in any case), or ``None``.

    Raises:
        ConfigError: a third party's pass is registered but cannot be imported, or is not a pass.
    """
    by_folded = {known.lower(): known for known in BUILTIN}
    if name.lower() in by_folded:
        return _load(BUILTIN[by_folded[name.lower()]])
    for known, target in _third_party().items():
        if known.lower() == name.lower():
            return _load(target)
    return None


@cache
def _third_party() -> dict[str, str]:
    from importlib.metadata import entry_points

    return {point.name: point.value for point in entry_points(group=ENTRY_POINT_GROUP)}


def _load(target: str) -> type[Pass[Any]]:
    from olivine.passes.base import Pass

    module, _, attribute = target.partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ConfigError(
            f"the pass {target!r} cannot be imported: {error}",
            why="its package is registered under the entry-point group olivine.passes",
            remedy="repair or uninstall that package",
        ) from error
    if not (isinstance(found, type) and issubclass(found, Pass)):
        raise ConfigError(f"{target!r} is registered as a pass but is no subclass of olivine.passes.base.Pass")
    return found
