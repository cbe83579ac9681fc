"""The first Step of a run whose model nobody has read yet: it begins at once, and the files are read beside it.

What a large checkpoint is takes long to read, and where processors or the disk have time left beside the Step, that is
time won. Until it is known the Step goes by where the files are and when they changed, so that a killed run goes on
where it was; its result appears in the Store under the digest that says what was read, as any other.
"""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING

from olivine.errors import OlivineError, StoreError
from olivine.store.digests import state_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from olivine.engine.steps import Steps
    from olivine.planning.plan import Plan
    from olivine.store import Artifact, Store


def can_begin(plan: Plan) -> bool:
    """Return whether the first Step can begin before its model is read: a pass, and all on this machine."""
    first = plan.steps[0]
    away = any(step.system for step in plan.steps) or plan.workflow.engine.packaging_config
    return plan.search is None and first.step.kind == "pass" and not away


class Found(Exception):
    """The Store has the result that is being made."""

    def __init__(self, artifact: Artifact) -> None:
        self.artifact = artifact


class Reading(threading.Thread):
    """Reads files for their digests. It ends with the process, and raises where it is waited for.

    Args:
        store: keeps the digests.
        files: what to read.
    """

    def __init__(self, store: Store, files: Sequence[Path]) -> None:
        super().__init__(daemon=True)
        self._store = store
        self._files = files
        self._error: OlivineError | None = None

    def run(self) -> None:
        """Read."""
        try:
            self._store.digest_files(self._files)
        except OlivineError as error:
            self._error = error

    def finish(self) -> None:
        """Wait until all is read.

        Raises:
            OlivineError: a file cannot be read, or is being written to.
        """
        self.join()
        if self._error is not None:
            raise self._error


def do_first(steps: Steps) -> None:
    """Do the first Step of ``steps.plan`` while the model's files are read, and make the plan one that knows them.

    Raises:
        OlivineError: the Step failed, or a file could not be read.
    """
    first, store = steps.plan.steps[0], steps.store
    steps.current = first.name
    waited = False

    def told_of_waiting(pid: int | None) -> None:
        nonlocal waited
        waited = True
        steps.told_of_waiting(first.name)(pid)

    files = steps.plan.unread_files
    before = _states(files)
    with store.digests_held():
        reading = Reading(store, files)
        reading.start()
        with store.lock(first.digest, told_of_waiting), store.stage(first.digest) as staging:
            try:
                if waited:  # another process has made it now, most likely
                    _know(steps, reading)
                steps.begin(first)

                def heard() -> None:
                    if steps.plan.unread and not reading.is_alive():
                        _know(steps, reading)

                answer = steps.ask(first, steps.request(first, staging), fresh=False, heard=heard)
                if steps.plan.unread:
                    message = "reading the rest of the model's files"
                    steps.emit("progress", first.name, done=0, total=None, message=message)
                    _know(steps, reading)
                after = _states(files)
                changed = next((file for file in files if after[file] != before[file]), None)
                if changed is not None:
                    raise StoreError(
                        f"{changed} changed while it was used",
                        why="which of its contents the result was made of cannot be told",
                        remedy="run it again when whatever writes the file is done",
                    )
                planned = steps.plan.steps[0]
                with store.lock(planned.digest, steps.told_of_waiting(planned.name)):
                    _look(steps)
                    staging.digest = planned.digest
                    steps.done(planned, steps.commit(planned, staging, answer), cached=False)
            except Found as found:
                steps.done(steps.plan.steps[0], found.artifact, cached=True)
            store.forget_checkpoint(first.digest)


def _states(files: Sequence[Path]) -> dict[Path, list[int] | None]:
    """Return what changes when a file does; ``None`` for one that is gone."""
    found: dict[Path, list[int] | None] = dict.fromkeys(files)
    for file in files:
        with contextlib.suppress(OSError):
            found[file] = state_of(file)
    return found


def _know(steps: Steps, reading: Reading) -> None:
    """Wait for the reading, and make the plan one that knows what was read.

    Raises:
        Found: the Store has the result.
        OlivineError: a file could not be read.
    """
    reading.finish()
    assert steps.plan.whole is not None
    steps.plan = steps.plan.whole()
    _look(steps)


def _look(steps: Steps) -> None:
    planned = steps.plan.steps[0]
    artifact = steps.store.find(planned.digest) or steps.fetch_shared(planned)
    if artifact is not None:
        raise Found(artifact)
