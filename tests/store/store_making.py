"""An artifact to test with, and a process that is killed at every moment that matters."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping

from olivine.store import Artifact, Store

DIGEST = "d1" * 16
STEP = {"kind": "pass", "type": "LoRA", "name": "lora", "params": {"r": 8}}


def put_into(
    store: Store, digest: str = DIGEST, files: Mapping[str, bytes] | None = None, **manifest: object
) -> Artifact:
    """Commit an artifact."""
    with store.stage(digest) as staging:
        for name, content in (files or {"model.onnx": b"weights" * 100, "sub/config.json": b"{}"}).items():
            (staging.path / name).parent.mkdir(parents=True, exist_ok=True)
            (staging.path / name).write_bytes(content)
        return staging.commit(**({"format": "hf", "step": STEP, "inputs": {"model": "files:ab"}} | manifest))


CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.chmod", "os.utime", "os.truncate")


def killed_before_each_change(action: Callable[[], object]) -> Iterator[int]:
    """Run ``action`` in a forked process that kills itself (signal 9) before its n-th change to the file system.

    Yields n, from 0, after each death; ends when the action came to its end. Python reports every change to its audit
    hooks, so no moment between two of them is left out.
    """
    moment = 0
    while True:
        child = os.fork()
        if child == 0:
            _die_before_change(moment)
            try:
                action()
            finally:
                os._exit(0 if sys.exc_info()[0] is None else 1)
        _, status = os.waitpid(child, 0)
        if os.WIFEXITED(status):
            assert os.WEXITSTATUS(status) == 0, "the action failed"
            return
        assert os.WTERMSIG(status) == signal.SIGKILL
        yield moment
        moment += 1


def _die_before_change(moment: int) -> None:
    left = moment

    def count(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal left
        writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        if event in CHANGES or writes:
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            left -= 1

    sys.addaudithook(count)
