"""Older dialects of the configuration, and the chain that translates them into the canonical one.

Each module translates one break. ``detect`` goes by evidence in the file; behind :func:`translate` nobody has heard of
dialects.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from olivine.config.dialects.translation import Fault, Translated
from olivine.errors import ConfigError

__all__ = ["CANONICAL", "Detected", "Fault", "Translated", "detect", "named", "translate"]

CANONICAL = "olivine-1"
KNOWN = (CANONICAL, "0.6")


@dataclass(frozen=True)
class Detected:
    """A dialect, and what told it."""

    name: str
    evidence: str


def named(name: str) -> str:
    """Return the dialect called ``name``.

    Raises:
        ConfigError: there is none.
    """
    if name in KNOWN:
        return name
    if name.startswith("0.6"):
        return "0.6"
    raise ConfigError(f"there is no dialect {name!r}", remedy=f"the dialects are {', '.join(KNOWN)}")


def detect(raw: dict[str, Any]) -> Detected:
    """Return the dialect that a configuration is written in. Without evidence of an older one it is the canonical."""
    if "version" in raw:
        return Detected(CANONICAL, "it has a version")
    model = raw.get("input_model")
    if isinstance(model, dict):
        if str(model.get("type", "")).lower() == "pytorchmodel":
            return Detected("0.6", "input_model.type is PyTorchModel")
        if isinstance(model.get("config"), dict):
            return Detected("0.6", "input_model has a nested config")
    for name, value in (raw.get("passes") or {}).items() if isinstance(raw.get("passes"), dict) else ():
        if isinstance(value, dict) and isinstance(value.get("config"), dict):
            return Detected("0.6", f"passes.{name} has a nested config")
    data = raw.get("data_configs")
    if isinstance(data, dict):
        return Detected("0.6", "data_configs is an object")
    for each in data if isinstance(data, list) else ():
        for key in ("params_config", "load_dataset_config", "pre_process_data_config", "components"):
            if isinstance(each, dict) and key in each:
                return Detected("0.6", f"a data config has {key}")
    for name, value in (raw.get("systems") or {}).items() if isinstance(raw.get("systems"), dict) else ():
        if isinstance(value, dict) and isinstance(value.get("config"), dict):
            return Detected("0.6", f"systems.{name} has a nested config")
    return Detected(CANONICAL, "nothing in it is of an older form")


def translate(raw: dict[str, Any], dialect: str) -> Translated:
    """Return ``raw`` in the canonical form, with notes, faults, and where everything came from."""
    if dialect == CANONICAL:
        return Translated({key: value for key, value in raw.items() if key != "$schema"})
    from olivine.config.dialects import v0_6

    return v0_6.translate(raw)
