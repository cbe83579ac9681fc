"""A terminal with a program in it, as a user has one: what it shows, and keys that are pressed."""

from __future__ import annotations

import os
import pty
import subprocess
import threading
import time
from pathlib import Path
from types import TracebackType


class Terminal:
    """Runs a command in a pseudo-terminal of its own, which sends it signals for keys."""

    CTRL_C = "\x03"

    def __init__(self, command: list[str], folder: Path, environment: dict[str, str]) -> None:
        self._master, slave = pty.openpty()
        self._shown = bytearray()
        self.process = subprocess.Popen(
            command,
            cwd=folder,
            env={**environment, "TERM": "xterm", "COLUMNS": "200", "LINES": "50"},
            preexec_fn=lambda: os.login_tty(slave),
        )
        os.close(slave)
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        while True:
            try:
                found = os.read(self._master, 65536)
            except OSError:  # what Linux says when the program has gone
                return
            if not found:
                return
            self._shown += found

    @property
    def shown(self) -> str:
        """Everything that was shown so far."""
        return self._shown.decode("utf-8", "replace")

    def press(self, keys: str) -> None:
        """Press keys."""
        os.write(self._master, keys.encode())

    def wait_for(self, text: str, seconds: float = 300) -> None:
        """Wait until ``text`` is shown."""
        until = time.monotonic() + seconds
        while text not in self.shown:
            assert time.monotonic() < until, f"{text!r} was not shown in {seconds} s:\n{self.shown}"
            assert self.process.poll() is None or text in self.shown, f"it ended without {text!r}:\n{self.shown}"
            time.sleep(0.05)

    def end(self, seconds: float = 300) -> int:
        """Wait for the end; return the exit status."""
        return self.process.wait(seconds)

    def __enter__(self) -> Terminal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self._master)
