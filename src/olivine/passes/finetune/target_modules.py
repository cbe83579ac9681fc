"""Which weights an adapter changes: the default for an architecture, and whether the names given match anything."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from olivine.errors import Location, Problem

if TYPE_CHECKING:
    from olivine.passes.finetune.adapter_params import AdapterParams

ALL_LINEAR = "all-linear"
_NO_TARGET = re.compile(r"embed|norm|router|relative_attention_bias|(^|_)gate$")
"""Last parts of names that are no attention or MLP projection: look-ups, norms, and gates that choose experts."""
_IN_A_LAYER = re.compile(r"\.\d+\.")


def default_targets(modules: Mapping[str, Sequence[int]]) -> list[str]:
    """Return the last names of all attention and MLP projections: 2-D weights inside a numbered layer, sorted.

    The output head and the embeddings lie outside the layers, so they are left alone.
    """
    last = {name.rpartition(".")[2] for name in modules if _IN_A_LAYER.search(name)}
    return sorted(name for name in last if not _NO_TARGET.search(name) or name in ("gate_proj", "gate_up_proj"))


def matching(targets: str | Sequence[str], modules: Iterable[str]) -> list[str]:
    """Return the modules that ``targets`` name: a regular expression for the whole name, or last parts of names."""
    if isinstance(targets, str):
        if targets == ALL_LINEAR:
            return [name for name in modules if _IN_A_LAYER.search(name)]
        pattern = re.compile(targets)
        return [name for name in modules if pattern.fullmatch(name)]
    return [name for name in modules if any(name == each or name.endswith(f".{each}") for each in targets)]


def ranks_of(params: AdapterParams, modules: Mapping[str, Sequence[int]]) -> dict[str, int]:
    """Return the rank of the update of each module that an adapter with these parameters changes."""
    from olivine.passes.finetune.adapter_weights import by_pattern

    names = matching(default_targets(modules) if params.target_modules is None else params.target_modules, modules)
    left_out = set(matching(params.exclude_modules or [], modules))
    layers = params.layers_to_transform
    chosen = None if layers is None else {layers} if isinstance(layers, int) else set(layers)
    return {
        name: int(by_pattern(params.rank_pattern, name, params.r))
        for name in names
        if name not in left_out and (chosen is None or layer_number(name) in chosen)
    }


def check_names(key: str, given: str | Sequence[str] | None, modules: Mapping[str, Sequence[int]]) -> list[Problem]:
    """Return a problem for each name under ``key`` that matches no module, with the nearest that does.

    Nothing is checked where the modules are not known yet (a model that is still to be downloaded).
    """
    if not given or not modules:
        return []
    known = sorted({name.rpartition(".")[2] for name in modules})
    if isinstance(given, str):
        try:
            if matching(given, modules):
                return []
        except re.error as error:
            return [Problem(f"{key} is no regular expression: {error}", Location(path=key))]
        given = [given]
    found = []
    for name in given:
        if not matching([name], modules):
            near = difflib.get_close_matches(name, known, 1)
            remedy = f"did you mean {near[0]}? " if near else ""
            found.append(
                Problem(
                    f"{name!r} in {key} matches no module of the model",
                    Location(path=key),
                    remedy=f"{remedy}the model has {', '.join(known)}",
                )
            )
    return found


def layer_number(name: str) -> int | None:
    """Return the number of the layer that the module ``name`` lies in, if it lies in one."""
    found = re.search(r"\.(\d+)(\.|$)", name)
    return int(found[1]) if found else None


def layer_count(modules: Iterable[str]) -> int:
    """Return one more than the highest layer number in the names."""
    return max((number for name in modules if (number := layer_number(name)) is not None), default=-1) + 1
