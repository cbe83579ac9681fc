"""Several runs of the same workflow on one cache at the same time."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path

from small_example import LONGEST_S, Example, kill_tree, undisturbed


def drive(folder: Path, base: Path, count: int, seed: int, processes: int = 8) -> Counter[str]:
    """Start ``processes`` runs at once, ``count`` times, and return how often each thing was seen."""
    expected = undisturbed(base).results
    seen: Counter[str] = Counter()
    for _ in range(count):
        runs = [Example(folder / f"user-{number}", base) for number in range(processes)]
        cache = folder / "cache"
        started = []
        try:
            for run in runs:
                started.append(run.start("--set", f"engine.cache_dir={cache}", "--json"))
            codes = [process.wait(timeout=LONGEST_S * 2) for process in started]
        finally:
            for process in started:
                kill_tree(process)
        seen[f"runs, {processes} at a time"] += processes
        seen["that ended well"] += codes.count(0)
        seen["WRONG runs that failed"] += sum(code != 0 for code in codes)
        made: Counter[str] = Counter()
        for run in runs:
            run.cache = cache
            for line in (run.folder / "said.txt").read_text().splitlines():
                event = json.loads(line)
                if event["event"] == "step-done":
                    made[event["step"]] += 1
                elif event["event"] == "step-waiting":
                    seen["waits for another run that was making the same"] += 1
            seen["results equal to the undisturbed run's, digest by digest"] += run.results() == expected
            seen["WRONG results"] += run.results() != expected
        seen["Steps made once, and used by all"] += sum(times == 1 for times in made.values())
        seen["WRONG Steps made more than once"] += sum(times > 1 for times in made.values())
        seen["WRONG faults in the cache"] += bool(runs[0].faults())
        for run in runs:
            shutil.rmtree(run.folder)
        shutil.rmtree(cache)
    return seen
