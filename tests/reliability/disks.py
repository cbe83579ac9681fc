"""Disks that fill up at random writes: a small file system, or a limit on the size of a file."""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from small_example import Example, chance, undisturbed


def drive(folder: Path, base: Path, count: int, seed: int) -> Counter[str]:
    """Fill the disk ``count`` times at random writes, make room, run again; return how often each thing was seen.

    In turn, cache and output lie on a file system that is too small by a random amount (needs the right to mount), and
    files may not grow beyond a random size, as under a quota.
    """
    expected = undisturbed(base).results
    needed = _bytes_below(undisturbed(base).example.folder)
    largest = max(file.stat().st_size for file in undisturbed(base).example.folder.rglob("*") if file.is_file())
    random = chance(seed)
    seen: Counter[str] = Counter()
    for number in range(count):
        example = Example(folder / "full", base)
        with contextlib.ExitStack() as stack:
            size = random.randrange(64 * 1024, needed)
            mounted = number % 2 == 0 and stack.enter_context(_small_disk(example.folder / "disk", size))
            if mounted:
                for name in ("cache", "models"):
                    (example.folder / "disk" / name).mkdir()
                    (example.folder / name).symlink_to(example.folder / "disk" / name, target_is_directory=True)
                status = example.run("--force")
                kind = "small file system"
            else:
                limit = random.randrange(4096, largest)
                status = example.run("--force", preexec_fn=lambda limit=limit: _limit_files(limit))
                kind = "limit on the size of files"
            _judge(seen, status, example.said, kind)
            seen["WRONG faults in the cache or the output on a full disk"] += bool(example.faults())
            if mounted:
                subprocess.run(["mount", "-o", "remount,size=1g", str(example.folder / "disk")], check=True)
            again = example.run()
            seen["runs completed with room"] += again == 0
            if again != 0:
                seen[f"WRONG run with room that failed: {example.said[-300:]}"] += 1
            elif example.results() == expected:
                seen["results equal to the undisturbed run's, digest by digest"] += 1
            else:
                seen["WRONG results"] += 1
        shutil.rmtree(example.folder)
    return seen


def _judge(seen: Counter[str], status: int, said: str, kind: str) -> None:
    if status == 0:
        seen[f"{kind}: large enough after all"] += 1
        return
    seen[f"{kind}: full"] += 1
    if status not in (1, 2, 3) or "Traceback" in said:
        seen[f"WRONG end on a full disk, exit status {status}: {said[-300:]}"] += 1
    elif "disk is full" in said or "No space left" in said:
        seen["said so, with the place and the way out"] += 1
    else:
        seen[f"WRONG words on a full disk: {said[-300:]}"] += 1


@contextlib.contextmanager
def _small_disk(folder: Path, size: int) -> Iterator[bool]:
    """Mount a file system of ``size`` bytes; yield whether that is permitted."""
    folder.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(folder)], capture_output=True, check=False
    )
    try:
        yield done.returncode == 0
    finally:
        if done.returncode == 0:
            subprocess.run(["umount", "-l", str(folder)], check=True)


def _limit_files(limit: int) -> None:
    import signal

    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))


def _bytes_below(folder: Path) -> int:
    return sum(os.lstat(file).st_size for file in folder.rglob("*") if file.is_file())
