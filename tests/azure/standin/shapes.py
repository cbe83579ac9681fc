"""Holds answers to written examples: the same keys, values of the same kind.

In an example a key that ends in ``?`` may be missing, the key ``*`` stands for every name, a list has one element
like all others, and null stands for anything.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any


@cache
def examples() -> dict[str, Any]:
    """Return all examples by name."""
    return {
        path.stem: json.loads(path.read_text("utf-8")) for path in (Path(__file__).parent / "shapes").glob("*.json")
    }


def differences(found: Any, example: Any, where: str = "") -> list[str]:
    """Return where ``found`` is not like ``example``."""
    if example is None:
        return []
    if isinstance(example, dict):
        if not isinstance(found, dict):
            return [f"{where}: {found!r} is no object"]
        if "*" in example:
            return [each for key in found for each in differences(found[key], example["*"], f"{where}.{key}")]
        wrong = []
        for key, value in example.items():
            name = key.removesuffix("?")
            if name in found:
                wrong += differences(found[name], value, f"{where}.{name}")
            elif not key.endswith("?"):
                wrong.append(f"{where}.{name} is missing")
        known = {key.removesuffix("?") for key in example}
        return wrong + [f"{where}.{key} is not in the example" for key in found if key not in known]
    if isinstance(example, list):
        if not isinstance(found, list):
            return [f"{where}: {found!r} is no list"]
        return [each for index, item in enumerate(found) for each in differences(item, example[0], f"{where}[{index}]")]
    kinds = (int, float) if isinstance(example, float) else type(example)
    return [] if isinstance(found, kinds) else [f"{where}: {found!r} is not like {example!r}"]
