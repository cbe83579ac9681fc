"""This machine: Steps run in a worker process beside the engine, which one Step's crash cannot take down.

One process serves consecutive passes, so that torch is imported once; a measurement gets a fresh one.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import IO, Any

from olivine.hardware.machine import this_machine
from olivine.systems.base import Failure, Report, Runner, StepAnswer, StepRequest
from olivine.systems.failures import killed

SECRETS = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HUGGINGFACE_TOKEN")
"""Environment variables that a worker gets only when its system says ``hf_token: true``."""


class LocalRunner(Runner):
    """Runs Steps in worker processes on this machine.

    Args:
        log: file for what workers print before their first Step gives them its own log.
        give_token: whether workers may see the Hugging Face token of this environment.
    """

    def __init__(self, log: Path, *, give_token: bool = False) -> None:
        self._log = log
        self._give_token = give_token
        self._worker: subprocess.Popen[str] | None = None

    def run(self, request: StepRequest, report: Report, *, fresh: bool = False) -> StepAnswer:
        """See :meth:`Runner.run`."""
        if fresh:
            self.close()
        worker = self.start()
        try:
            return self._converse(worker, request, report)
        except BaseException:
            self._kill()
            raise
        finally:
            if fresh:
                self.close()

    def _converse(self, worker: subprocess.Popen[str], request: StepRequest, report: Report) -> StepAnswer:
        """Send one request and listen until its answer has come."""
        assert worker.stdin is not None
        assert worker.stdout is not None
        peak = 0
        with contextlib.suppress(BrokenPipeError):  # it died just now: the loop below finds no answer and says so
            worker.stdin.write(json.dumps(request.as_json()) + "\n")
            worker.stdin.flush()
        for line in worker.stdout:
            message: dict[str, Any] = json.loads(line)
            kind = message.pop("kind")
            if kind == "result":
                return StepAnswer(**message)
            if kind == "failed":
                raise Failure(message["problems"], message["exit_code"], message["traceback"]).unpack()
            peak = max(peak, int(message.get("memory", 0)))
            report(kind, message)
        code = worker.wait()
        raise killed(request.name, -code if code < 0 else None, code, peak, this_machine().memory_bytes)

    def start(self) -> subprocess.Popen[str]:
        """Return the worker, a new one if there is none or it has ended."""
        if self._worker is not None and self._worker.poll() is None:
            return self._worker
        environment = {key: value for key, value in os.environ.items() if self._give_token or key not in SECRETS}
        self._log.parent.mkdir(parents=True, exist_ok=True)
        with open(self._log, "ab") as log:
            self._worker = self._spawn(environment, log)
        return self._worker

    def _spawn(self, environment: dict[str, str], log: IO[bytes]) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "olivine", "worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            encoding="utf-8",
            env=environment,
            # Ctrl-C reaches the engine alone, which then ends the worker in order.
            start_new_session=True,
        )

    def _kill(self) -> None:
        if self._worker is not None:
            self._worker.kill()
            self._worker.wait()
            self._close_pipes(self._worker)
            self._worker = None

    def abort(self) -> None:
        """See :meth:`Runner.abort`."""
        worker = self._worker
        if worker is not None:
            worker.kill()

    def close(self) -> None:
        """See :meth:`Runner.close`."""
        worker, self._worker = self._worker, None
        if worker is None:
            return
        assert worker.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            worker.stdin.write('{"stop": true}\n')
            worker.stdin.flush()
        try:
            worker.wait(timeout=10)
        except subprocess.TimeoutExpired:
            worker.kill()
            worker.wait()
        self._close_pipes(worker)

    @staticmethod
    def _close_pipes(worker: subprocess.Popen[str]) -> None:
        for pipe in (worker.stdin, worker.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
