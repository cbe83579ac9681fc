"""The worker: reads requests from standard input, one JSON object a line, runs each Step, answers on standard output.

Whatever libraries print, native code included, goes to standard error, which whoever started the worker writes to the
run's log, without secrets. When its standard input ends without a ``stop``, whoever started it is gone, and so the
worker goes at once.
"""

from __future__ import annotations

import atexit
import faulthandler
import json
import logging
import os
import queue
import signal
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import IO, Any, NoReturn

from olivine.config.schema import DataConfig
from olivine.errors import OlivineError
from olivine.hardware.machine import this_machine
from olivine.hardware.peak import peak_memory, reset_peak_memory
from olivine.passes.base import Accelerator, Format, PassResult, RunContext
from olivine.systems.base import Failure
from olivine.systems.failures import explain
from olivine.telemetry import switch_off_telemetry

PROGRESS_INTERVAL_S = 0.1
LONG_S = 15.0
"""Seconds of a Step after which measuring the machine, a second and a half, is little."""


def serve() -> NoReturn:
    """Serve requests until told to stop, and end the process: to take torch down in order takes a second or two."""
    answers = os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8")
    os.dup2(2, 1)
    os.environ.setdefault("TQDM_DISABLE", "1")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    switch_off_telemetry()
    if hasattr(signal, "SIGUSR1"):
        faulthandler.register(signal.SIGUSR1, all_threads=True)  # whoever stops a worker that hangs sends it first
    requests: queue.Queue[dict[str, Any]] = queue.Queue()
    threading.Thread(target=_listen, args=(requests,), daemon=True).start()
    while True:
        request = requests.get()
        if request.get("stop"):
            _leave()
        logging.basicConfig(level=request["log_level"], force=True)
        _serve_one(request, answers)
        sys.stdout.flush()
        sys.stderr.flush()


def _leave() -> NoReturn:
    """End the process with what was registered for its end, and leave its memory to the system."""
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def _listen(requests: queue.Queue[dict[str, Any]]) -> None:
    """Put what arrives into the queue; leave at once when the other side is gone."""
    for line in sys.stdin:
        request = json.loads(line)
        requests.put(request)
        if request.get("stop"):
            return
    os._exit(1)


def _serve_one(request: dict[str, Any], answers: IO[str]) -> None:
    """Run one Step and write its answer."""
    reporter = _Reporter(answers)
    started = time.monotonic()
    reset_peak_memory()
    try:
        result = _run(request, reporter)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        trace = traceback.format_exc()
        print(trace, file=sys.stderr, flush=True)
        known = (
            error
            if isinstance(error, OlivineError)
            else explain(error, request["name"], peak_memory=peak_memory(), remedy=request.get("remedy", ""))
        )
        failure = Failure.of(known, trace)
        reporter.send("failed", problems=failure.problems, exit_code=failure.exit_code, traceback=trace)
        return
    reporter.send(
        "result",
        metrics=dict(result.metrics),
        attributes=dict(result.attributes),
        history=[dict(row) for row in result.history],
        peak_memory=peak_memory(),
        seconds=(seconds := time.monotonic() - started),
    )
    if request["kind"] == "pass" and seconds >= LONG_S:
        _measure_machine(request.get("rates", ""))


def _measure_machine(kept: str) -> None:
    """Measure how fast this machine is, if that is not kept yet: it tells later plans how long Steps take."""
    from olivine.hardware.calibration import calibrate
    from olivine.hardware.rates import keep_rates, rates_file

    file = Path(kept)
    machine = this_machine()
    if not kept or file.exists() or file.name != rates_file(Path(), machine).name:
        return
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        keep_rates(file, machine, calibrate(file.parent))
    except (OSError, ImportError):  # a cache that cannot be written, or no numpy: estimates go without
        traceback.print_exc(file=sys.stderr)


def _run(request: dict[str, Any], reporter: _Reporter) -> PassResult:
    data = {key: DataConfig.model_validate(value) for key, value in request["data"].items()}
    host, target = Accelerator(**request["host"]), Accelerator(**request["target"])
    inputs = {key: Path(value) for key, value in request["inputs"].items()}
    if request["kind"] == "evaluate" and request["type"] == "record":
        from olivine.evaluate.measuring import record

        noted = record(
            request["params"]["metrics"][0],
            model=inputs["model"],
            format=Format(request["input_format"]),
            data=data,
            target=host,
            progress=reporter.progress,
            output=Path(request["output"]),
            trust_remote_code=request["trust_remote_code"],
        )
        return PassResult(metrics=noted)
    if request["kind"] == "evaluate":
        from olivine.evaluate.base import RECORDING
        from olivine.evaluate.custom import check_scripts
        from olivine.evaluate.measuring import measure_all

        check_scripts(request["params"]["metrics"], request["params"].get("scripts", {}))
        metrics = measure_all(
            request["params"]["metrics"],
            model=inputs["model"],
            format=Format(request["input_format"]),
            data=data,
            target=target,
            progress=reporter.progress,
            trust_remote_code=request["trust_remote_code"],
            recordings={key.removeprefix(RECORDING): path for key, path in inputs.items() if key.startswith(RECORDING)},
        )
        return PassResult(metrics=metrics)
    from olivine.passes import registry

    pass_type = registry.find(request["type"])
    if pass_type is None:
        raise OlivineError(
            f"the pass {request['type']!r} is not installed where the Step runs",
            remedy="install the package that brings it there too",
        )
    params = pass_type.params_type.model_validate(request["params"] | {key: value.name for key, value in data.items()})
    context = RunContext(
        inputs=inputs,
        input_format=Format(request["input_format"]),
        output=Path(request["output"]),
        checkpoint=Path(request["checkpoint"]),
        data=data,
        host=host,
        target=target,
        progress=reporter.progress,
        note=reporter.note,
        trust_remote_code=request["trust_remote_code"],
        shared=Path(request["shared"]) if request.get("shared") else None,
        identities=request.get("identities", {}),
        max_memory=request.get("max_memory"),
    )
    return pass_type().run(params, context)


class _Reporter:
    """Writes what the Step says as lines of JSON, progress at most every :data:`PROGRESS_INTERVAL_S` seconds."""

    def __init__(self, answers: IO[str]) -> None:
        self._answers = answers
        self._last = 0.0
        self._lock = threading.Lock()

    def send(self, kind: str, **data: Any) -> None:
        """Write one line."""
        with self._lock:
            self._answers.write(json.dumps({"kind": kind, **data}, default=float) + "\n")

    def progress(self, done: float, total: float | None, *, unit: str = "", message: str = "", **values: float) -> None:
        """See :class:`olivine.passes.base.Progress`."""
        now = time.monotonic()
        if now - self._last < PROGRESS_INTERVAL_S and (total is None or done < total):
            return
        self._last = now
        self.send("progress", done=done, total=total, unit=unit, message=message, values=values, memory=peak_memory())

    def note(self, text: str) -> None:
        """See :class:`olivine.passes.base.RunContext`."""
        self.send("note", text=text)
