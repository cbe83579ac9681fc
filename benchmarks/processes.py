"""Running a command to its end and noting what it took."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

import psutil

OFFLINE = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "CI": "1", "OLIVE_DISABLE_TELEMETRY": "1"}
"""CI=1 is what stops Olive's telemetry, which would otherwise wait for a network."""


@dataclass
class Figures:
    """What each run took.

    Attributes:
        seconds: wall time.
        memory: peak resident bytes of the process tree.
        anonymous: the part of it that no file backs, at its own peak; 0 where the system does not tell.
        codes: exit statuses.
    """

    seconds: list[float] = field(default_factory=list)
    memory: list[int] = field(default_factory=list)
    anonymous: list[int] = field(default_factory=list)
    codes: list[int] = field(default_factory=list)


def measure(command: list[str], folder: Path, into: Figures, interval: float = 0.005) -> None:
    """Run ``command`` in ``folder`` and note what it took; look at its memory every ``interval`` seconds."""
    with open(folder / "output.log", "ab") as log:
        started = time.monotonic()
        process = psutil.Popen(
            command, cwd=folder, stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=os.environ | OFFLINE
        )
        resident = anonymous = 0
        while process.poll() is None:
            with contextlib.suppress(psutil.Error):  # a process ended between listing and asking
                tree = [process, *process.children(recursive=True)]
                resident = max(resident, sum(each.memory_info().rss for each in tree))
                anonymous = max(anonymous, sum(map(_anonymous, tree)))
            time.sleep(interval)
        into.seconds.append(time.monotonic() - started)
        into.memory.append(resident)
        into.anonymous.append(anonymous)
        into.codes.append(process.returncode)


def _anonymous(process: psutil.Process) -> int:
    """Return the resident bytes of ``process`` that no file backs."""
    try:
        lines = Path(f"/proc/{process.pid}/status").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon")), 0)
