"""Files of the cache that were cut, altered, emptied or removed between two runs."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from pathlib import Path
from random import Random

from small_example import Example, chance, undisturbed

from olivine.store import Store


def drive(folder: Path, base: Path, count: int, seed: int) -> Counter[str]:
    """Damage ``count`` files of the cache, one a time, run again, and return how often each thing was seen."""
    expected = undisturbed(base).results
    random = chance(seed)
    seen: Counter[str] = Counter()
    for _ in range(count):
        example = Example(folder / "damaged", base)
        shutil.copytree(undisturbed(base).example.cache, example.cache)
        files = sorted(file for file in example.cache.rglob("*") if file.is_file() and file.stat().st_size)
        file = random.choice([each for each in files if "runs" not in each.relative_to(example.cache).parts[:1]])
        how = random.choice(sorted(DAMAGES))
        part = file.relative_to(example.cache).parts[0]
        file.chmod(0o644)
        DAMAGES[how](file, random)
        seen["files damaged"] += 1
        seen[f"damage: {how}"] += 1
        seen[f"in: {part}"] += 1
        if part == "artifacts" and file.name != "used":
            seen["damages to artifacts that `cache verify` tells"] += bool(Store(example.cache).verify())
            seen["damages to artifacts"] += 1
        status = example.run()
        seen["runs completed afterwards"] += status == 0
        if status != 0:
            seen[f"WRONG run that failed after {how} of {part}: {example.said[-300:]}"] += 1
        elif example.results() == expected:
            seen["results equal to the undisturbed run's, digest by digest"] += 1
        else:
            seen[f"WRONG results after {how} of {part}"] += 1
        seen["WRONG faults left in the cache"] += bool(example.faults())
        shutil.rmtree(example.folder)
    return seen


def _altered(file: Path, random: Random) -> None:
    content = bytearray(file.read_bytes())
    content[random.randrange(len(content))] ^= 1 << random.randrange(8)
    file.write_bytes(content)


DAMAGES = {
    "one bit turned": _altered,
    "cut": lambda file, random: os.truncate(file, random.randrange(file.stat().st_size)),
    "emptied": lambda file, random: os.truncate(file, 0),
    "removed": lambda file, random: file.unlink(),
    "lengthened": lambda file, random: file.write_bytes(file.read_bytes() + b"\0"),
}
