"""This machine: Steps run in a worker process beside the engine, which one Step's crash cannot take down.

One process serves consecutive passes, so that torch is imported once; a measurement gets a fresh one.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TextIO

from olivine.config.schema import HubToken
from olivine.errors import StepError
from olivine.hardware.machine import this_machine
from olivine.hardware.memory import killed_for_memory, memory_limit_bytes
from olivine.redaction import environment_for_child, redact
from olivine.systems.base import Failure, Report, Runner, StepAnswer, StepRequest
from olivine.systems.failures import beyond_limit, hung, killed, too_long
from olivine.systems.hang_watch import HangWatch
from olivine.systems.memory_watch import MemoryWatch
from olivine.systems.time_limit import TimeLimit

if TYPE_CHECKING:
    from olivine.systems.registry import Site


def runner(site: Site) -> Runner:
    """Return a runner whose workers run on this machine."""
    if isinstance(site.system.hf_token, HubToken):
        from olivine.storage.vault import hub_token_of

        return LocalRunner(site.log, token=hub_token_of(site.workflow))
    return LocalRunner(site.log, give_token=site.system.hf_token)


class _Ended(Exception):
    """A worker has ended without an answer."""

    def __init__(self, code: int, peak: int) -> None:
        self.code = code
        self.peak = peak


class LocalRunner(Runner):
    """Runs Steps in worker processes on this machine.

    Args:
        log: file, or an open text stream, for everything that workers and their libraries print, without secrets.
        give_token: whether workers may see the Hugging Face token of this environment.
        token: reads the token from elsewhere; workers of Steps that read the hub have it then, and no others.
        environment: variables that workers get besides.
        python: the interpreter that they run in.
    """

    def __init__(
        self,
        log: Path | TextIO,
        *,
        give_token: bool = False,
        token: Callable[[], str] | None = None,
        environment: Mapping[str, str] | None = None,
        python: str = sys.executable,
    ) -> None:
        self._log = log
        self._give_token = give_token
        self._token = token
        self._has_token = False
        self._environment = dict(environment or {})
        self._python = python
        self._worker: subprocess.Popen[str] | None = None
        self._pump: threading.Thread | None = None

    def run(self, request: StepRequest, report: Report, *, fresh: bool = False) -> StepAnswer:
        """See :meth:`Runner.run`."""
        hub = self._token is not None and request.hub
        if fresh or hub != self._has_token:
            self.close()
        worker = self.start(hub=hub)
        watch = MemoryWatch(worker.pid, request.max_memory)
        hang = HangWatch(worker.pid, request.hang_timeout) if request.hang_timeout is not None else None
        time = TimeLimit(worker.pid, request.timeout) if request.timeout is not None else None
        before = killed_for_memory()
        try:
            with watch, hang or contextlib.nullcontext(), time or contextlib.nullcontext():
                return self._converse(worker, request, report, hang.heard if hang is not None else lambda: None)
        except _Ended as end:
            if watch.limit is not None and watch.exceeded:
                raise beyond_limit(request.name, watch.exceeded, watch.limit, request.remedy) from None
            if hang is not None and hang.hung:
                raise hung(request.name, hang.limit) from None
            if time is not None and time.exceeded:
                raise too_long(request.name, time.limit) from None
            raise killed(
                request.name,
                -end.code if end.code < 0 else None,
                end.code,
                max(end.peak, watch.peak),
                this_machine().memory_bytes,
                limit=memory_limit_bytes(),
                by_kernel=killed_for_memory() > before,
                remedy=request.remedy,
            ) from None
        except StepError:
            raise  # it said so itself, and serves on
        except BaseException:
            self._kill()
            raise
        finally:
            if fresh:
                self.close()

    def _converse(
        self, worker: subprocess.Popen[str], request: StepRequest, report: Report, heard: Callable[[], None]
    ) -> StepAnswer:
        """Send one request and listen until its answer has come; ``heard`` is called whenever the worker speaks."""
        assert worker.stdin is not None
        assert worker.stdout is not None
        peak = 0
        with contextlib.suppress(BrokenPipeError):  # it died just now: the loop below finds no answer and says so
            worker.stdin.write(json.dumps(request.as_json()) + "\n")
            worker.stdin.flush()
        for line in worker.stdout:
            heard()
            message: dict[str, Any] = json.loads(line)
            kind = message.pop("kind")
            if kind == "result":
                return StepAnswer(**message)
            if kind == "failed":
                raise Failure(message["problems"], message["exit_code"], message["traceback"]).unpack()
            peak = max(peak, int(message.get("memory", 0)))
            report(kind, message)
        raise _Ended(worker.wait(), peak)

    def start(self, *, hub: bool = False) -> subprocess.Popen[str]:
        """Return the worker, a new one if there is none or it has ended; with the token read from elsewhere if ``hub``.

        Raises:
            OlivineError: that token cannot be read.
        """
        if self._worker is not None and self._worker.poll() is None:
            return self._worker
        if isinstance(self._log, Path):
            self._log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        environment = environment_for_child(hub_token=self._give_token) | self._environment
        if hub and self._token is not None:
            environment["HF_TOKEN"] = self._token()
            environment.pop("HF_HUB_DISABLE_IMPLICIT_TOKEN", None)
        self._has_token = hub
        self._worker = self._spawn(environment)
        assert self._worker.stderr is not None
        self._pump = threading.Thread(target=_write_log, args=(self._worker.stderr, self._log), daemon=True)
        self._pump.start()
        return self._worker

    def _spawn(self, environment: dict[str, str]) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [self._python, "-P", "-m", "olivine", "worker"],  # -P: nothing is imported from the current folder
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            errors="replace",
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

    def _close_pipes(self, worker: subprocess.Popen[str]) -> None:
        if self._pump is not None:
            self._pump.join(timeout=5)  # what the worker said last; a grandchild may hold the pipe open
        for pipe in (worker.stdin, worker.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()


def _write_log(said: IO[str], log: Path | TextIO) -> None:
    """Write what a worker says to ``log`` until it ends; this process outlives the worker's crash.

    On a full disk lines are lost, and it reads on: a worker whose output nobody takes would stand still, and what is
    wrong with the disk is said by the Step.
    """
    with said, contextlib.ExitStack() as opened:
        try:
            file = opened.enter_context(_Lines(log)) if isinstance(log, Path) else log
        except OSError:
            file = None
        for line in said:
            if file is not None:
                with contextlib.suppress(OSError):
                    file.write(redact(line))
                    file.flush()


class _Lines:
    """A file that lines are added to, unbuffered: what a full disk did not take is not tried again."""

    def __init__(self, path: Path) -> None:
        self._file = open(path, "ab", buffering=0)  # noqa: SIM115 (closed on leaving)

    def __enter__(self) -> _Lines:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def write(self, text: str) -> int:
        """Write ``text`` at once."""
        return self._file.write(text.encode("utf-8", "replace")) or 0

    def flush(self) -> None:
        """Do nothing: nothing is held back."""
