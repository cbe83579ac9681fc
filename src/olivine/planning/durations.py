"""How long Steps take on this machine: from what was measured of it, and from earlier runs of the same pass."""

from __future__ import annotations

import math
import statistics
import time
from typing import TYPE_CHECKING

from olivine.hardware.rates import NOMINAL, kept_rates
from olivine.passes.effort import Effort, effort_from
from olivine.passes.estimate import DIGESTING

if TYPE_CHECKING:
    from olivine.hardware.machine import Machine
    from olivine.passes.estimate import Estimate
    from olivine.store import Store

LOOKING_S = 0.2
"""Seconds that a plan may spend on looking through earlier results."""
NEAREST = 5
"""Earlier runs that count: those whose work is most like it."""
TOO_SMALL = 20
"""How many times less an earlier run may have done than what is estimated, if the machine's rates are known."""

EFFORT, MACHINE = "effort", "machine"
"""What an artifact's attributes have of it."""


class Durations:
    """Knows the rates of the machine, as far as they are kept in the cache, and the times of earlier runs.

    Args:
        store: with the cache of earlier runs.
        machine: this machine.
    """

    def __init__(self, store: Store, machine: Machine) -> None:
        self.rates = kept_rates(store.root, machine)
        self._past: dict[str, list[tuple[Effort, float]]] = {}
        until = time.monotonic() + LOOKING_S
        for artifact in store.artifacts():
            manifest = artifact.manifest
            effort = effort_from(manifest.attributes.get(EFFORT))
            if effort and manifest.seconds > 0 and manifest.attributes.get(MACHINE) == machine.fingerprint:
                self._past.setdefault(str(manifest.step.get("type")), []).append((effort, manifest.seconds))
            if time.monotonic() > until:
                break

    def digesting(self, count: int) -> float:
        """Return the seconds that it takes to read and digest so many bytes."""
        return Effort(read=float(count), moved=DIGESTING * count).seconds(self.rates or NOMINAL)

    def seconds(self, estimate: Estimate | None, step_type: str) -> float | None:
        """Return the seconds that a Step will take, ``None`` if neither the machine nor the pass has been measured."""
        if estimate is None or not estimate.effort:
            return None
        rates = self.rates or NOMINAL
        expected = estimate.effort.seconds(rates)
        past = [(effort.seconds(rates), seconds) for effort, seconds in self._past.get(step_type, ())]
        if self.rates is not None:
            past = [each for each in past if each[0] * TOO_SMALL > expected]
        if past:
            nearest = sorted(past, key=lambda each: abs(math.log(each[0] / expected)))[:NEAREST]
            return expected * statistics.median(took / would for would, took in nearest)
        return expected if self.rates is not None else None
