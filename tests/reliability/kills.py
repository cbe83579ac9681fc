"""Kills at random moments over the run of the example, each run completed afterwards."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

from small_example import Example, chance, kill, undisturbed

MOST_PER_ROUND = 8


def drive(folder: Path, base: Path, count: int, seed: int) -> Counter[str]:
    """Kill ``count`` times, and return how often each thing was seen; what begins with ``WRONG`` must not be.

    In a round a run is killed up to eight times, started again each time, and then left to complete. Signal 9 goes to
    the engine, to the worker, or to both at once. After each kill every byte of the cache is checked; after each round
    what was made is compared with what an undisturbed run makes.
    """
    expected, seconds = undisturbed(base).results, undisturbed(base).seconds
    random = chance(seed)
    seen: Counter[str] = Counter()
    while seen["kills"] < count:
        example = Example(folder / "killed", base)
        for _ in range(random.randint(1, MOST_PER_ROUND)):
            if seen["kills"] == count:
                break
            whom = random.choice(["engine", "worker", "both"])
            process = example.start("--json")
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=random.uniform(0, 0.9 * seconds))
            if process.returncode is not None:
                seen["runs that were over before the kill"] += 1
                break
            if not kill(process, whom):
                kill(process, "engine")
                whom = "engine"
            seen["kills"] += 1
            seen[f"of the {whom}" if whom != "both" else "of both"] += 1
            seen[f"while: {example.current_step()}"] += 1
            seen["kills with a whole training checkpoint to go on from"] += bool(example.checkpoints())
            if process.returncode == 0:
                seen["WRONG exit status 0 after a kill"] += 1
            seen["WRONG faults in the cache or the output after a kill"] += bool(example.faults())
        status = example.run()
        seen["runs completed afterwards"] += status == 0
        if status != 0:
            seen[f"WRONG run that did not complete: {example.said[-300:]}"] += 1
        elif example.results() == expected:
            seen["results equal to the undisturbed run's, digest by digest"] += 1
        else:
            made = example.results()
            differing = sorted(key for key in expected | made if expected.get(key) != made.get(key))
            seen[f"WRONG results: {', '.join(differing)}"] += 1
        seen["WRONG leftovers of a finished run"] += bool(example.leftovers())
        shutil.rmtree(example.folder)
        print(f"{seen['kills']} kills: {dict(seen)}", file=sys.stderr, flush=True)
    return seen
