"""The processes of one job: started together, their words written to blobs while they run, ended together."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from azure.storage.blob import BlobClient

WRITE_EVERY_S = 0.2


class Processes:
    """One command, started once for each environment.

    Args:
        command: for ``bash -c``.
        folder: where it runs.
        environments: all of each process's environment.
        blobs: where what each says goes, standard output and standard error together.
        cancelled: ends them.
        limit: seconds after which they are ended.
    """

    def __init__(
        self,
        command: str,
        folder: Path,
        environments: list[dict[str, str]],
        blobs: list[BlobClient],
        cancelled: threading.Event,
        limit: float | None,
    ) -> None:
        self._cancelled = cancelled
        self._until = time.monotonic() + limit if limit is not None else None
        self.timed_out = False
        for blob in blobs:
            blob.create_append_blob()
        self._all = [
            subprocess.Popen(
                ["bash", "-c", command],
                cwd=folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            for environment in environments
        ]
        self._writers = [
            threading.Thread(target=self._write, args=(process, blob), daemon=True)
            for process, blob in zip(self._all, blobs, strict=True)
        ]

    @property
    def pids(self) -> list[int]:
        """Return the process ids."""
        return [each.pid for each in self._all]

    def run(self) -> list[int]:
        """Wait for all of them and return their exit statuses; if one fails, the others are ended."""
        for writer in self._writers:
            writer.start()
        while any(each.poll() is None for each in self._all):
            failed = any(each.poll() for each in self._all)
            self.timed_out = self._until is not None and time.monotonic() > self._until
            if failed or self.timed_out or self._cancelled.wait(0.05):
                time.sleep(0.2 if failed else 0)
                self.end()
        for writer in self._writers:
            writer.join(30)
        return [each.returncode if each.returncode >= 0 else 128 - each.returncode for each in self._all]

    def end(self) -> None:
        """Ask the groups to end, then end them."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            for each in self._all:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(each.pid, number)
            until = time.monotonic() + 5
            while time.monotonic() < until and any(each.poll() is None for each in self._all):
                time.sleep(0.05)

    def _write(self, process: subprocess.Popen[bytes], blob: BlobClient) -> None:
        """Append what a process says to its blob, a few times a second."""
        assert process.stdout is not None
        descriptor = process.stdout.fileno()
        waiting, written = b"", 0.0
        while piece := os.read(descriptor, 1 << 16):
            waiting += piece
            if time.monotonic() - written > WRITE_EVERY_S:
                blob.append_block(waiting)
                waiting, written = b"", time.monotonic()
            elif process.poll() is None:
                time.sleep(0.05)
        if waiting:
            blob.append_block(waiting)
