"""Drive faults into runs of the small example, many times, and say what was seen.

    python tests/reliability/run.py kills --count 200
    python tests/reliability/run.py disks|hubs|clocks|damage|power --count 20
    python tests/reliability/run.py sharing --count 5 --processes 8

Ends with status 1 if anything was seen that must not be.
"""

from __future__ import annotations

import argparse
import functools
import importlib
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

DRIVERS = ("kills", "disks", "hubs", "clocks", "sharing", "damage", "power")


def main() -> int:
    """Run one driver and print its counts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("driver", choices=DRIVERS)
    parser.add_argument("--count", type=int, default=20, help="how many faults")
    parser.add_argument("--seed", type=int, default=7, help="of the random moments")
    parser.add_argument("--processes", type=int, default=8, help="sharing: runs at a time")
    arguments = parser.parse_args()
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from conftest import build_pico_phi3

    drive = importlib.import_module(arguments.driver).drive
    if arguments.driver == "sharing":
        drive = functools.partial(drive, processes=arguments.processes)
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="reliability-") as folder:
        base = build_pico_phi3(Path(folder) / "pico")
        seen: Counter[str] = drive(Path(folder) / arguments.driver, base, arguments.count, arguments.seed)
    for what, times in sorted(seen.items(), key=lambda each: (each[0].startswith("WRONG"), -each[1])):
        if times:
            print(f"{times:6}  {what}")
    wrong = sum(times for what, times in seen.items() if what.startswith("WRONG"))
    print(f"{'WRONG' if wrong else 'all as it should be'}, {time.monotonic() - started:.0f} s, seed {arguments.seed}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
