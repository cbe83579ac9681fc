"""The contract of a System's runner: it gets a worker started and carries a request there and the answer back."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from olivine.errors import EXIT_FAILED, Location, OlivineError, Problem, StepError


@dataclass(frozen=True)
class StepRequest:
    """What a worker is asked to do. All of it is JSON; every path is absolute.

    Attributes:
        name: the Step's name in the configuration.
        kind: ``pass`` or ``evaluate``.
        type: the pass; ``evaluate``; or ``record``, which keeps what a metric compares other models with.
        params: resolved parameters; those that name data configs hold the keys of ``data``.
        digest: the Step's key in the Store.
        inputs: folders by name; for a runner that is elsewhere, as :attr:`Runner.elsewhere` says.
        input_format: format of ``inputs["model"]``.
        data: data configs by parameter.
        output: an existing, empty folder for the result.
        checkpoint: a folder that outlives the worker.
        log: file that everything the libraries print goes to.
        host: device and execution provider it runs on.
        target: device and execution provider the model ships to.
        trust_remote_code: whether code that comes with the model may run.
        shared: a folder that Steps share; empty if there is none.
        identities: by input and by data parameter, a text that changes whenever the content does.
        max_memory: bytes that the worker and its children may take; above them the Step is stopped.
        remedy: what helps if memory runs out; empty if only more memory does.
        rates: file that keeps how fast this machine is; if it is not there, a worker measures it after a long Step.
        hang_timeout: seconds that the worker may neither speak nor work; after them the Step is stopped.
        timeout: seconds that the Step may take, whatever its worker does; after them it is stopped.
        log_level: what of the libraries' logging goes to ``log``, in the numbers of Python's logging.
        requires: the packages that the worker needs, as ``pip`` takes them.
        spreads: whether several processes can share the work.
        hub: whether it reads the Hugging Face hub, and so may need its token.
    """

    name: str
    kind: str
    type: str
    params: dict[str, Any]
    inputs: dict[str, str]
    input_format: str
    data: dict[str, Any]
    output: str
    checkpoint: str
    log: str
    host: dict[str, str]
    target: dict[str, str]
    trust_remote_code: bool = False
    log_level: int = 20
    shared: str = ""
    identities: dict[str, str] = field(default_factory=dict)
    max_memory: int | None = None
    digest: str = ""
    requires: list[str] = field(default_factory=list)
    spreads: bool = False
    hub: bool = False
    remedy: str = ""
    rates: str = ""
    hang_timeout: float | None = None
    timeout: float | None = None

    def as_json(self) -> dict[str, Any]:
        """Return the request as a JSON object."""
        return asdict(self)


@dataclass(frozen=True)
class SearchRequest:
    """A whole search, for a runner that takes one (:attr:`Runner.searches`). All of it is JSON.

    Attributes:
        study: the study's id.
        digest: what changes whenever any candidate may be another.
        workflow: the canonical configuration with its choices, without what is only for the machine that asks.
        known: what planning has learnt of what it names (:class:`olivine.planning.known.Known`).
        digests: of the first candidate's Steps, as they have to come out there too.
        trust_remote_code: whether code that comes with the model may run.
        models: places of the models that any candidate may read, as :attr:`Runner.elsewhere` says.
        data: data configs that it may read.
        files: files and folders of this machine that its parameters name.
        requires: packages that it may need, as ``pip`` takes them.
        device: kind of processor that it runs on.
        hub: whether it reads the Hugging Face hub.
    """

    study: str
    digest: str
    workflow: dict[str, Any]
    known: dict[str, Any]
    digests: list[str]
    trust_remote_code: bool
    models: list[str]
    data: list[dict[str, Any]]
    files: list[str]
    requires: list[str]
    device: str
    hub: bool = False

    def as_json(self) -> dict[str, Any]:
        """Return the request as a JSON object."""
        return asdict(self)


@dataclass(frozen=True)
class StepAnswer:
    """What a worker hands back beside the files in ``output``; see :class:`olivine.passes.base.PassResult`.

    Attributes:
        peak_memory: peak resident memory of the worker while the Step ran, in bytes.
        seconds: wall time of the Step.
        away: address of the folder with the Step's files, if they stay there.
        files: then their paths, sizes and digests (``path``, ``size``, ``sha256``).
    """

    metrics: dict[str, Any]
    attributes: dict[str, Any]
    history: list[dict[str, float]]
    peak_memory: int
    seconds: float
    away: str = ""
    files: list[dict[str, Any]] = field(default_factory=list)


Report = Callable[[str, dict[str, Any]], None]
"""Receives what a running Step says: ``("progress", {...})`` or ``("note", {"text": ...})``."""


class Interrupted(KeyboardInterrupt):
    """The user stopped waiting for work that goes on elsewhere.

    Attributes:
        text: what goes on, where, and how to come back to it or end it.
        cancel: ends it.
    """

    def __init__(self, text: str, cancel: Callable[[], None]) -> None:
        super().__init__(text)
        self.text = text
        self.cancel = cancel


Deliver = Callable[[StepRequest, StepAnswer], None]
"""Receives each Step's answer when its files are in ``output``, or stay away."""


class Runner(ABC):
    """Runs Steps somewhere. Used as a context manager; leaving it ends whatever it started.

    Attributes:
        elsewhere: the runner sees to it itself that inputs get where they are used. Then an input is a folder here,
            ``step:DIGEST`` (of the Store, or made by the same call), ``hub:ID@REVISION``, each with ``/SUBFOLDER`` or
            without, or an address of a cloud.
        together: consecutive Steps are better handed over at once, by :meth:`run_together`.
    """

    elsewhere: bool = False
    together: bool = False

    @property
    def searches(self) -> bool:
        """Whether a search is better handed over as a whole, by :meth:`search`."""
        return False

    @abstractmethod
    def run(self, request: StepRequest, report: Report, *, fresh: bool = False) -> StepAnswer:
        """Run one Step to its end.

        Args:
            request: what to do.
            report: called in this thread with what the Step says.
            fresh: give it a process that ran nothing before (for measurements).

        Raises:
            OlivineError: the Step failed; the problems say why.
            KeyboardInterrupt: passed on after the worker has been ended.
        """

    def run_together(
        self,
        requests: Sequence[StepRequest],
        report: Callable[[StepRequest], Report],
        deliver: Deliver,
        stay: Collection[str] = (),
    ) -> None:
        """Run several Steps, of which later ones may use the results of earlier ones.

        Args:
            requests: in their order.
            report: gives what receives a Step's reports.
            deliver: called for each Step that is done, also if a later one fails.
            stay: digests of Steps whose files nobody needs here: a runner elsewhere leaves them there.

        Raises:
            OlivineError: a Step failed.
            Interrupted: the user stopped waiting.
        """
        for request in requests:
            deliver(request, self.run(request, report(request)))

    def search(self, request: SearchRequest, hear: Report) -> list[dict[str, Any]]:
        """Run a whole search, and return its trials as JSON. What their Steps have made is there for :meth:`run`.

        Args:
            hear: receives the events of the search as they happen: the kind of event and the rest of it.

        Raises:
            OlivineError: it did not come to its end.
            Interrupted: the user stopped waiting.
        """
        raise NotImplementedError(f"{type(self).__name__} takes no whole searches")

    def holds(self, away: str) -> bool:
        """Return whether the files that a Step has left at an address are still there.

        Raises:
            UnavailableError: nobody can be asked.
        """
        raise NotImplementedError

    def fetch(self, away: str, files: Sequence[Mapping[str, Any]], folder: Path, report: Report) -> None:
        """Fetch files that a Step has left at an address, each compared with its digest.

        Args:
            files: each with ``path``, ``size`` and ``sha256``.
            folder: an existing, empty folder for them.

        Raises:
            OlivineError: they are not there any more, or do not come.
        """
        raise NotImplementedError

    def abort(self) -> None:
        """End the Step that is running, which hangs, from another thread: :meth:`run` then raises.

        A runner that cannot do that does nothing.
        """
        return

    @abstractmethod
    def close(self) -> None:
        """End whatever was started. May be called twice."""

    def __enter__(self) -> Runner:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@dataclass(frozen=True)
class Failure:
    """A Step's failure as it travels from the worker: the problems, the exit status, and the traceback as text."""

    problems: list[dict[str, Any]] = field(default_factory=list)
    exit_code: int = EXIT_FAILED
    traceback: str = ""

    @classmethod
    def of(cls, error: OlivineError, traceback: str) -> Failure:
        """Pack an error."""
        return cls([asdict(problem) for problem in error.problems], error.exit_code, traceback)

    def unpack(self) -> StepError:
        """Return it as an error that keeps the exit status of the original."""
        problems = [
            Problem(
                each["what"],
                Location(**each["where"]) if each.get("where") else None,
                each.get("why", ""),
                each.get("remedy", ""),
            )
            for each in self.problems
        ]
        error = StepError(problems or "the Step failed without saying why", traceback=self.traceback)
        error.exit_code = self.exit_code
        return error


def existing(path: str | Path) -> Path:
    """Return ``path`` as a folder that exists."""
    path = Path(path)
    path.mkdir(parents=True, exist_ok=True)
    return path
