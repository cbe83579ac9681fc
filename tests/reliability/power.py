"""What would be lost if the power went: the order of writes, syncs and renames of a run, as strace sees it.

The rule: when a name becomes visible by a rename, everything that it names has been synced since it was last written,
folders included; and the folder that it appears in is synced after that. The mark of when an artifact was last used may
be lost.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from small_example import LONGEST_S, Example

from olivine.store.artifact import USED

CALLS = (
    "openat,creat,write,pwrite64,writev,pwritev,ftruncate,truncate,copy_file_range,sendfile,fallocate,"
    "fsync,fdatasync,sync_file_range,rename,renameat,renameat2,link,linkat,mkdir,mkdirat,unlink,unlinkat"
)
_QUOTED = r'"((?:[^"\\]|\\.)*)"'
_ON_FILE = re.compile(r"(\w+)\(\d+<([^>]*)>")
_RENAME = re.compile(rf"rename(?:at2?)?\((?:AT_FDCWD(?:<[^>]*>)?, )?{_QUOTED}, (?:AT_FDCWD(?:<[^>]*>)?, )?{_QUOTED}")
_OPEN = re.compile(rf"openat\(AT_FDCWD(?:<[^>]*>)?, {_QUOTED}, ([A-Z_|]+)")
_UNLINK = re.compile(rf"unlink(?:at)?\((?:AT_FDCWD(?:<[^>]*>)?, )?{_QUOTED}")
_WRITES = frozenset({"write", "pwrite64", "writev", "pwritev", "ftruncate", "copy_file_range", "sendfile", "fallocate"})


def drive(folder: Path, base: Path, count: int, seed: int) -> Counter[str]:
    """Trace ``count`` runs and check every rename of a durable thing; return how often each thing was seen."""
    if shutil.which("strace") is None:
        raise RuntimeError("strace is not installed: apt-get install strace")
    seen: Counter[str] = Counter()
    for number in range(count):
        example = Example(folder / f"traced-{number}", base)
        trace = folder / "trace.txt"
        command = ["strace", "-f", "-y", "-qq", "-s", "0", "-e", f"trace={CALLS}", "-o", str(trace), *example.command()]
        with open(example.folder / "said.txt", "w") as said:
            done = subprocess.run(
                command,
                cwd=example.folder,
                env=os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
                stdout=said,
                stderr=said,
                timeout=LONGEST_S,
                check=False,
            )
        if done.returncode != 0:
            seen[f"WRONG run that failed under strace: {example.said[-300:]}"] += 1
        with open(trace, encoding="utf-8", errors="replace") as lines:
            seen.update(check(lines, example.folder))
        seen["runs traced"] += 1
    return seen


def is_durable(target: str, folder: Path) -> bool:
    """Return whether what is renamed to ``target`` has to survive a power cut: an artifact, or a file of the output."""
    parts = Path(os.path.relpath(target, folder)).parts
    if parts[:2] == ("cache", "artifacts"):
        return len(parts) == 4
    if parts[:2] == ("cache", "checkpoints"):
        return parts[-1] == "complete.json"
    return parts[:1] == ("models",) and ".olivine-" not in parts[-1]


def check(lines: Iterable[str], folder: Path) -> Counter[str]:
    """Follow the trace and judge every rename of a durable thing below ``folder``.

    Args:
        lines: of ``strace -f -y``; calls that another thread cut in two are put together.
        folder: the project; only what happens below it counts.
    """
    root = os.path.realpath(folder)
    unsynced: set[str] = set()
    fresh: set[str] = set()
    waiting: dict[str, str] = {}
    seen: Counter[str] = Counter()
    for call in _whole_calls(lines):
        if " = -1 " in call or "resumed>" in call:
            continue
        if (renamed := _RENAME.search(call)) is not None:
            source, target = (_absolute(each, root) for each in renamed.groups())
            if not target.startswith(root + os.sep):
                continue
            inside = [
                each
                for each in unsynced | fresh
                if (each == source or each.startswith(source + os.sep)) and os.path.basename(each) != USED
            ]
            if is_durable(target, Path(root)):
                seen["renames of artifacts, checkpoints and outputs"] += 1
                for each in inside:
                    kind = "folder" if each in fresh else "file"
                    seen[f"WRONG {kind} not synced before its rename: {os.path.relpath(each, root)}"] += 1
                waiting[os.path.dirname(target)] = target
            for group in (unsynced, fresh):
                for each in [each for each in group if each == source or each.startswith(source + os.sep)]:
                    group.discard(each)
                    group.add(target + each[len(source) :])
        elif (opened := _OPEN.search(call)) is not None:
            path, flags = _absolute(opened[1], root), opened[2]
            if path.startswith(root + os.sep) and ("O_CREAT" in flags or "O_TRUNC" in flags):
                unsynced.add(path)
                fresh.add(os.path.dirname(path))
        elif (removed := _UNLINK.search(call)) is not None:
            unsynced.discard(_absolute(removed[1], root))
        elif (on_file := _ON_FILE.search(call)) is not None and (on_file[2] + os.sep).startswith(root + os.sep):
            name, path = on_file[1], on_file[2].removesuffix(" (deleted)")
            if name in _WRITES:
                unsynced.add(path)
            elif name in ("fsync", "fdatasync"):
                unsynced.discard(path)
                fresh.discard(path)
                seen["syncs of files and folders"] += 1
                waiting.pop(path, None)
    for target in waiting.values():
        seen[f"WRONG folder not synced after the rename to {os.path.relpath(target, root)}"] += 1
    return seen


def _whole_calls(lines: Iterable[str]) -> Iterable[str]:
    """Yield the calls, those in two parts as one, when they end."""
    begun: dict[str, str] = {}
    for line in lines:
        thread, _, call = line.rstrip("\n").partition(" ")
        call = call.strip()
        if call.endswith("<unfinished ...>"):
            begun[thread] = call.removesuffix("<unfinished ...>")
        elif call.startswith("<... ") and thread in begun:
            yield begun.pop(thread) + call.partition("resumed>")[2]
        else:
            yield call


def _absolute(path: str, root: str) -> str:
    return os.path.normpath(os.path.join(root, path))
