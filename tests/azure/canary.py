"""A secret that is put where secrets are, and what looks for it where none should be."""

from __future__ import annotations

import contextlib
import threading
from pathlib import Path

import psutil
from standin.cloud import Cloud

CANARY = "hf_CANARYbbbbbbbbbbbbbbbbbbbbbbbbbbbb"


def where_in(folder: Path, text: str) -> list[str]:
    """Return the files below ``folder`` in which ``text`` is."""
    files = (path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    return [str(path) for path in files if text.encode() in path.read_bytes()]


class Watch(threading.Thread):
    """Looks into the environments of all processes of the cloud's jobs while it is entered.

    Attributes:
        holders: command lines of those that had the text in theirs; ``others``: of those that had not.
        pids: processes of this machine that are watched too.
    """

    def __init__(self, cloud: Cloud, text: str) -> None:
        super().__init__(daemon=True)
        self.cloud = cloud
        self.text = text
        self.holders: set[str] = set()
        self.others: set[str] = set()
        self.pids: list[int] = []
        self.over = threading.Event()

    def run(self) -> None:
        while not self.over.wait(0.02):
            jobs = [job.processes.pids for job in self.cloud.jobs.all() if job.processes is not None]
            for pids in (self.pids, *jobs):
                for pid in pids:
                    with contextlib.suppress(psutil.Error):
                        first = psutil.Process(pid)
                        for process in (first, *first.children(recursive=True)):
                            self.look(process)

    def look(self, process: psutil.Process) -> None:
        with contextlib.suppress(psutil.Error):
            found = self.holders if self.text in process.environ().values() else self.others
            found.add(" ".join(process.cmdline()))

    def __enter__(self) -> Watch:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self.join()
