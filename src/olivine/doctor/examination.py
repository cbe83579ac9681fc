"""All that is looked at, in the order in which it is told."""

from __future__ import annotations

from pathlib import Path

from olivine.doctor.finding import Finding


def examine(cache_dir: Path) -> list[Finding]:
    """Look at everything that may keep a run from working here. Nothing is downloaded or sent, and nothing is changed
    but that a cache keeps how fast this machine is.

    Args:
        cache_dir: the Store to look at.
    """
    from olivine.doctor.packages import check_packages
    from olivine.doctor.providers import check_providers
    from olivine.doctor.speed import check_speed
    from olivine.doctor.surroundings import check_cache, check_disk, check_hub, check_machine
    from olivine.hardware.machine import this_machine

    return [
        *check_packages(),
        *check_machine(this_machine()),
        *check_speed(cache_dir, this_machine()),
        *check_providers(),
        *check_disk(cache_dir),
        *check_hub(),
        *check_cache(cache_dir),
    ]
