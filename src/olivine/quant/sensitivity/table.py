"""The table of sensitivities: divergence by group and option. Made once, kept in a file, used for any budget."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from olivine.quant.allocation import Option
from olivine.quant.scheme import Scheme
from olivine.quant.sensitivity import Measure
from olivine.quant.sensitivity.groups import FusedGroup

VERSION = 2
"""Raise it when the same model and data give other figures."""


@dataclass(frozen=True)
class Sensitivities:
    """What each option of each group does to the model alone.

    Attributes:
        measure: ``exact``: the divergence was measured. ``fisher``: it is estimated from the gradient.
        tokens: on how many tokens.
        losses: divergence from the float model, nats a token, by group and option (``None``: left as it is).
    """

    measure: Measure
    tokens: int
    losses: Mapping[str, Mapping[Scheme | None, float]]

    def options(self, groups: Mapping[str, FusedGroup], scale_bytes: int) -> dict[str, list[Option]]:
        """Return what the allocation chooses from, each option with its bytes."""
        return {
            name: [
                Option(scheme, groups[name].stored_bytes(scheme, scale_bytes), loss) for scheme, loss in losses.items()
            ]
            for name, losses in self.losses.items()
        }

    def save(self, file: Path) -> None:
        """Write it; readers see all of it or nothing."""
        rows = {
            name: [{"scheme": _as_json(scheme), "loss": loss} for scheme, loss in losses.items()]
            for name, losses in self.losses.items()
        }
        found = {"version": VERSION, "measure": self.measure, "tokens": self.tokens, "losses": rows}
        file.parent.mkdir(parents=True, exist_ok=True)
        part = file.with_name(f"{file.name}.{secrets.token_hex(4)}.tmp")
        part.write_text(json.dumps(found, indent=1), encoding="utf-8")
        os.replace(part, file)

    @classmethod
    def load(cls, file: Path) -> Sensitivities | None:
        """Return what :meth:`save` wrote, or ``None`` if there is nothing that can be used."""
        try:
            found = json.loads(file.read_text(encoding="utf-8"))
            if found["version"] != VERSION:
                return None
            losses = {
                name: {_scheme(row["scheme"]): float(row["loss"]) for row in rows}
                for name, rows in found["losses"].items()
            }
            return cls(found["measure"], int(found["tokens"]), losses)
        except (OSError, ValueError, KeyError, TypeError):
            return None  # absent, or cut off: it is made anew

    def scaled(self, factor: float) -> Sensitivities:
        """Return the same table with every loss times ``factor``."""
        losses = {name: {scheme: loss * factor for scheme, loss in each.items()} for name, each in self.losses.items()}
        return replace(self, losses=losses)


def _as_json(scheme: Scheme | None) -> dict[str, Any] | None:
    if scheme is None:
        return None
    return {"bits": scheme.bits, "group_size": scheme.group_size, "symmetric": scheme.symmetric}


def _scheme(found: Mapping[str, Any] | None) -> Scheme | None:
    return None if found is None else Scheme(found["bits"], found["group_size"], found["symmetric"])
