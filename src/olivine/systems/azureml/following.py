"""Following a job to its end: its state, and its log as it grows.

The SDK's own streaming is not used: it signs the log's address with an account key whatever the datastore is read with,
so that it fails where there is an identity, and shows the storage's refusal as the log where there is a SAS token.
"""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from olivine.errors import OlivineError, UnavailableError
from olivine.storage.workspace import Workspace
from olivine.systems.azureml.in_job import MARK

if TYPE_CHECKING:
    from olivine.storage.blobs import BlobFolder

LOGS = "workspaceartifactstore"
ENDED = frozenset({"Completed", "Failed", "Canceled"})
FIRST_POLL_S, LONGEST_POLL_S = 1.0, 10.0
PATIENCE_S = 1800.0
"""Seconds that the service may be out of reach while a job runs, which goes on meanwhile."""
REFUSED_S = 60.0
"""Seconds for which it may say that it does not know who asks: a token runs out, and there is another one."""
KEPT = 20
"""Last lines of a log that a failure shows."""

Hear = Callable[[str, str, dict[str, Any]], None]
"""Receives an event: the Step's digest, the kind, and the rest."""


@dataclass
class Log:
    """The log of a job, read as it grows.

    Attributes:
        last: its last lines, without events.
    """

    folder: BlobFolder
    last: deque[str] = field(default_factory=lambda: deque(maxlen=KEPT))
    _read: dict[str, int] = field(default_factory=dict)
    _rest: dict[str, bytes] = field(default_factory=dict)

    def lines(self, *, ended: bool = False) -> Iterator[str]:
        """Yield what has come since the last time, whole lines only, unless it has ended."""
        for entry in self.folder.entries():
            name = entry.name
            if "/" in name or not name.startswith("std_log"):
                continue
            position = self._read.get(name, 0)
            if entry.facts.size is not None and entry.facts.size < position:
                position, self._rest[name] = 0, b""  # the service began the job anew
            while content := self.folder.read_from(name, position):
                position += len(content)
                *whole, rest = (self._rest.get(name, b"") + content).split(b"\n")
                self._rest[name] = rest
                yield from (line.decode("utf-8", "replace") for line in whole)
            self._read[name] = position
            if ended and self._rest.get(name):
                yield self._rest.pop(name).decode("utf-8", "replace")


class Following:
    """Follows one job.

    Args:
        workspace: the job's.
        name: of the job.
        hear: receives the events of its Steps.
        write: receives every other line of its log.
        state: told whenever the job's state is another one.
    """

    def __init__(
        self,
        workspace: Workspace,
        name: str,
        *,
        hear: Hear,
        write: Callable[[str], None],
        state: Callable[[str], None],
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.workspace = workspace
        self.name = name
        self.hear = hear
        self.write = write
        self.state = state
        self.sleep = sleep
        self.log: Log | None = None
        self.unreadable = ""
        self.stop = False

    def to_the_end(self) -> str:
        """Follow the job until it has ended; return the state it ended in.

        Raises:
            UnavailableError: the service was out of reach for :data:`PATIENCE_S`; the job may be going on.
        """
        wait, before, failing_since = FIRST_POLL_S, "", None
        while True:
            try:
                found = state_of(self.workspace, self.name)
                failing_since = None
            except UnavailableError as error:
                failing_since = failing_since or time.monotonic()
                refused = _is_refusal(error)
                if time.monotonic() - failing_since > (REFUSED_S if refused else PATIENCE_S):
                    raise
                if refused:
                    # With its credential goes the token that it has kept, which is good for nothing now.
                    self.workspace.renew()
                self.write(f"olivine: the job's state cannot be asked for: {error}")
                found = None
            ended = found in ENDED
            if found is not None and found != before:
                before, wait = found, FIRST_POLL_S
                self.state(found)
            if ended or found in ("Running", "Finalizing"):
                self.read(ended=ended)
            if ended:
                return str(found)
            if self.stop:
                return "Stopped"
            self.sleep(wait)
            wait = min(wait * 1.2, LONGEST_POLL_S)

    def read(self, *, ended: bool) -> None:
        """Pass on what the log has got since the last time. A log that cannot be read keeps nobody from the result."""
        if self.unreadable:
            return
        try:
            if self.log is None:
                from olivine.storage.blobs import BlobFolder

                prefix = f"ExperimentRun/dcid.{self.name}/user_logs"
                store = self.workspace.datastore(LOGS)
                self.log = Log(BlobFolder(store, prefix, again=lambda: self.workspace.datastore(LOGS)))
            for line in self.log.lines(ended=ended):
                self.take(line, self.log)
        except UnavailableError as error:
            self.write(f"olivine: the job's log cannot be read now: {error}")
        except OlivineError as error:
            self.unreadable = str(error)
            self.write(f"olivine: the job's log cannot be read: {error}")

    def take(self, line: str, log: Log) -> None:
        """Take one line of the log."""
        line = line.rstrip("\r")
        if line.startswith(MARK):
            try:
                event = json.loads(line[len(MARK) :])
                self.hear(str(event["step"]), str(event["kind"]), dict(event["data"]))
                return
            except (ValueError, KeyError, TypeError):
                pass  # cut off, or not ours: it is shown as it is
        log.last.append(line)
        self.write(line)


def _is_refusal(error: BaseException) -> bool:
    """Return whether an error is the service's not knowing who asks."""
    from azure.core.exceptions import ClientAuthenticationError

    return isinstance(error.__cause__, ClientAuthenticationError)


def state_of(workspace: Workspace, name: str) -> str | None:
    """Return a job's state, ``None`` if there is no job of that name.

    Raises:
        UnavailableError: the service cannot be asked.
    """
    from azure.core.exceptions import ResourceNotFoundError

    with workspace.calling(f"looking for the job {name}"):
        try:
            status = workspace.ml.jobs.get(name).status
            return str(getattr(status, "value", status))
        except ResourceNotFoundError:
            return None
        except Exception as error:
            if getattr(error, "status_code", None) == 404:
                return None
            raise


def in_words(state: str) -> str:
    """Return the state of a job in words."""
    return {
        "NotStarted": "not started",
        "Queued": "waiting for the compute",
        "Preparing": "its environment is prepared",
        "Provisioning": "the compute starts",
        "Starting": "starting",
        "Running": "running",
        "Finalizing": "its results are put away",
        "CancelRequested": "being cancelled",
    }.get(state, state)
