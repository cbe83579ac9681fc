"""Clocks that jump while the example runs (``clock_jump.c`` moves them; it needs a C compiler)."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections import Counter
from pathlib import Path

from small_example import LONGEST_S, Example, chance, kill_tree, undisturbed

DAY = 86400
JUMPS = (-3650 * DAY, -DAY, -3600, -60, 60, 3600, DAY, 3650 * DAY)
"""Seconds."""


def built(folder: Path) -> Path | None:
    """Compile ``clock_jump.c`` into ``folder`` and return the library, or ``None`` if there is no C compiler."""
    compiler = shutil.which("cc")
    if compiler is None:
        return None
    library = folder / "clock_jump.so"
    source = Path(__file__).with_name("clock_jump.c")
    subprocess.run([compiler, "-shared", "-fPIC", "-o", str(library), str(source), "-ldl"], check=True)
    return library


def drive(folder: Path, base: Path, count: int, seed: int) -> Counter[str]:
    """Let the wall clock jump at random moments of ``count`` runs, to and fro; return how often each thing was seen.

    After that each run is repeated by the right clock, and has to find everything in the cache.
    """
    folder.mkdir(parents=True, exist_ok=True)
    library = built(folder)
    if library is None:
        raise RuntimeError("there is no C compiler: apt-get install gcc libc6-dev")
    expected, seconds = undisturbed(base).results, undisturbed(base).seconds
    random = chance(seed)
    seen: Counter[str] = Counter()
    for _ in range(count):
        example = Example(folder / "jumping", base)
        shift = example.folder / "shift"
        shift.write_text(f"{random.choice(JUMPS):+d}")
        process = example.start(environment={"LD_PRELOAD": str(library), "CLOCK_JUMP": str(shift)})
        end = time.monotonic() + LONGEST_S
        try:
            while process.poll() is None and time.monotonic() < end:
                time.sleep(random.uniform(0, seconds / 3))
                (example.folder / "shift.new").write_text(f"{random.choice(JUMPS):+d}")
                os.replace(example.folder / "shift.new", shift)
                seen["jumps"] += process.poll() is None
        finally:
            kill_tree(process)
        seen["runs under a jumping clock"] += 1
        seen["that ended well"] += process.returncode == 0
        if process.returncode != 0:
            seen[f"WRONG run that failed: {example.said[-300:]}"] += 1
        seen["WRONG faults in the cache"] += bool(example.faults())
        again = example.run("--json")
        made = (example.folder / "said.txt").read_text().count('"step-started"')
        seen["runs afterwards that found everything in the cache"] += again == 0 and made == 0
        seen["WRONG runs afterwards that failed or made something again"] += again != 0 or made > 0
        seen["results equal to the undisturbed run's, digest by digest"] += example.results() == expected
        seen["WRONG results"] += example.results() != expected
        shutil.rmtree(example.folder)
    return seen
