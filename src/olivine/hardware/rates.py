"""How fast a machine is: measured once by :mod:`olivine.hardware.calibration`, kept in the cache, read by the plan."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

from olivine.store.digests import digest_json
from olivine.store.disk import replace_file

if TYPE_CHECKING:
    from olivine.hardware.machine import Machine

VERSION = 1
"""Raised when what is measured means something else."""


@dataclass(frozen=True)
class Rates:
    """How fast a machine is.

    Attributes:
        float32: floating-point operations a second of a matrix product on all cores.
        bfloat16: the same in bfloat16; 0 if the processor has no units for it.
        memory: bytes a second that are copied from memory to memory on one core.
        read: bytes a second read from the cache's disk, past the system's own cache where that is possible.
        write: bytes a second written there, synced.
        interpreter: steps of a loop of Python a second.
        gpu_float32: floating-point operations a second on the first GPU; 0 without one.
        gpu_bfloat16: the same in bfloat16 (float16 where it has none).
        gpu_memory: bytes a second copied from and to its memory.
    """

    float32: float
    bfloat16: float
    memory: float
    read: float
    write: float
    interpreter: float
    gpu_float32: float = 0.0
    gpu_bfloat16: float = 0.0
    gpu_memory: float = 0.0


NOMINAL = Rates(100e9, 0.0, 5e9, 1e9, 3e8, 3e7, 50e12, 400e12, 1e12)
"""A machine such as there are many; what an earlier run took is compared with what it would have taken there."""


def kept_rates(cache_dir: Path, machine: Machine) -> Rates | None:
    """Return what was measured on this machine, ``None`` if nothing was, or what is kept cannot be read."""
    try:
        found = json.loads(rates_file(cache_dir, machine).read_text(encoding="utf-8"))
        return Rates(**{each.name: float(found["rates"][each.name]) for each in fields(Rates)})
    except (OSError, ValueError, KeyError, TypeError):
        return None  # it is measured again


def best_of(first: Rates, second: Rates | None) -> Rates:
    """Return the better of each rate."""
    if second is None:
        return first
    return Rates(**{each.name: max(getattr(first, each.name), getattr(second, each.name)) for each in fields(Rates)})


def keep_rates(file: Path, machine: Machine, rates: Rates) -> None:
    """Keep what was measured on this machine in :func:`rates_file`.

    Raises:
        OSError: the cache cannot be written.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    content = {"machine": machine.fingerprint, "rates": asdict(rates)}
    replace_file(str(file), (json.dumps(content, indent=2) + "\n").encode(), sync=False)


def rates_file(cache_dir: Path, machine: Machine) -> Path:
    """Return the file in the cache that keeps the rates of a machine."""
    return cache_dir / "machines" / f"{digest_json([VERSION, machine.fingerprint])}.json"
