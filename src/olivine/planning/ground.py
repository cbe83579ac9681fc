"""What every part of the planner stands on: configuration, machine, Store, and the problems found so far."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from olivine.config.schema import DataConfig, System, Workflow
from olivine.config.sizes import memory_limit
from olivine.errors import Location, OlivineError, Problem, UnavailableError
from olivine.hardware.machine import Machine, execution_providers
from olivine.hardware.placement import check_host, place
from olivine.hardware.targets import Target, target_of
from olivine.passes.base import Accelerator, ModelFacts, Requirement
from olivine.planning.away import (
    environment_of,
    is_away,
    machine_of,
    processes_of,
    runner_name,
    version_at,
)
from olivine.planning.plan import PlannedStep, Source
from olivine.planning.requirements import check_requirements, versions_of
from olivine.store import digest_json
from olivine.store.digests import state_of

if TYPE_CHECKING:
    from olivine.config import Loaded
    from olivine.data.rows import Survey
    from olivine.storage.fetching import Fetcher
    from olivine.store import Store


READ_AT_ONCE = 128 << 20
"""Bytes that are read for digests when a plan is only looked at: more takes longer than a look should."""


class Ground:
    """Holds what accumulates while a plan is made: problems, notes, and what has been looked up."""

    def __init__(
        self,
        loaded: Loaded,
        store: Store,
        trust_remote_code: bool,
        scripts: Collection[Path],
        machine: Machine,
        fetcher: Fetcher,
        fetch_models: bool,
    ) -> None:
        self.loaded = loaded
        self.workflow: Workflow = loaded.workflow
        self.store = store
        self.trust = trust_remote_code
        self.scripts = frozenset(each.resolve() for each in scripts)
        self.machine = machine
        self.fetcher = fetcher
        self.fetch_models = fetch_models
        self.online = True
        self.data_here: dict[str, DataConfig] = {}
        self.pinned: dict[str, DataConfig] = {}
        self.stay: set[str] = set()
        self.problems: list[Problem] = []
        self.unavailable: list[Problem] = []
        self.notes: list[str] = []
        self.steps: list[PlannedStep] = []
        self.surveys: dict[str, Survey] = {}
        self.identities: dict[str, Any] = {}
        self.checked: set[str] = set()
        self.unquantised: tuple[Source, ModelFacts] | None = None
        self.read_weights = True
        self.unread = 0
        self.unread_files: list[Path] = []
        engine = self.workflow.engine
        self.target = self._place(engine.target_system, "engine.target")
        self.target_machine = self._target_machine()
        self.limit = memory_limit(engine.max_memory, self.loaded.locate("engine.max_memory"))
        self.providers = execution_providers()

    # Digests of files and addresses --------------------------------------------------------------------------------

    def _identity(self, folder: Path, files: Sequence[Path], known: Mapping[str, str]) -> str:
        """Return what stands for files in digests: their content, or, if it is not read yet, their state.

        The second never equals the first, so nothing is found in the Store, or put there, under it.

        Args:
            folder: where they lie.
            files: the files.
            known: SHA-256 of some of them, by their path below ``folder``.
        """
        names = {each: str(each.relative_to(folder)) for each in files}
        unread = self._unread([each for each, name in names.items() if name not in known])
        if not unread:
            rest = [each for each, name in names.items() if not known.get(name)]
            read = dict(zip(rest, self.store.digest_files(rest), strict=True))
            content = [[name, known.get(name) or read[each]] for each, name in names.items()]
            return f"files:{digest_json(content)}"
        self.unread += unread
        self.unread_files += [each for each, name in names.items() if name not in known]
        state = [[str(each), *state_of(each)] for each in files]
        return f"unread:{digest_json(state)}"

    def _unread(self, files: Sequence[Path]) -> int:
        """Return the bytes of files whose content is left for the run: it is much, and nobody has read it."""
        if self.read_weights:
            return 0
        unread = sum(each.stat().st_size for each in files if not self.store.knows_digest(each))
        return unread if unread > READ_AT_ONCE else 0

    def _version_at(self, address: str) -> str:
        """Return what changes with the content of an address."""
        return version_at(address, self.fetcher, self._note) if self.online else ""

    # Places and problems --------------------------------------------------------------------------------

    def _target_machine(self) -> Target:
        """Return what is known of the machine that the model ships to."""
        name = self.workflow.engine.target_system
        system = self.workflow.systems[name] if name is not None else System()
        try:
            return target_of(name, system, self.target, self.machine)
        except ValueError as error:
            self._problem(Problem(str(error), self.loaded.locate(f"systems.{name}.memory")))
            return Target(name or "target", self.target)

    def _place(self, name: str | None, path: str) -> Accelerator:
        name = name or runner_name(self.workflow, None)
        system = self.workflow.systems[name] if name is not None else System()
        accelerator = place(system, self._machine_of(name))
        if not accelerator.execution_provider:
            self._problem(
                Problem(
                    f"{repr(name) if isinstance(name, str) else 'the target'} has no execution provider",
                    self.loaded.locate(path),
                    f"for a device {accelerator.device} there are several",
                    "name it, e.g. execution_provider: QNNExecutionProvider",
                )
            )
        return accelerator

    def _machine_of(self, name: str | None) -> Machine:
        """Return the machine that Steps of a system run on."""
        name = runner_name(self.workflow, name)
        system = self.workflow.systems[name] if name is not None else System()
        return machine_of(system) if is_away(system) else self.machine

    def _check_place(
        self, host: Accelerator, system: str, requires: Sequence[Requirement], subject: str, where: Location
    ) -> None:
        """Say what a Step needs that is not on this machine, if it runs here."""
        machine = self._machine_of(system or None)
        if not system or host.device == "npu":
            self.unavailable += check_host(host, machine, self.loaded.locate("engine.host"))
        if not system:
            self.unavailable += check_requirements(requires, subject, where)

    def _libraries(self, system: str, shaped_by: Sequence[str]) -> dict[str, str]:
        """Return the versions of the libraries that shape a result, or what says them where it is made elsewhere."""
        if system:
            return environment_of(self.workflow.systems[system], self.store.digest_file)
        return versions_of(shaped_by)

    def _shared_by(self, system: str, spreads: bool, notes: list[str]) -> dict[str, str]:
        """Return what says, in a digest, how many processes share a Step's work, for that shapes the result too."""
        count = processes_of(self.workflow.systems[system]) if system and spreads else 1
        if count == 1:
            return {}
        notes.append(f"{count} processes share the work: each step takes {count} times per_device_train_batch_size")
        return {"processes": str(count)}

    def _system_of(self, name: str | None) -> str:
        """Return the name of the system that runs a Step; empty for this machine."""
        name = runner_name(self.workflow, name)
        return name if name is not None and self.workflow.systems[name].type != "LocalSystem" else ""

    def _check_folders(self, output_dir: Path) -> None:
        """Find out now, not after an hour, that a result could not be written."""
        from olivine.store.publishing import check_writable

        for path, key in (
            (output_dir, "engine.output_dir"),
            (Path(self.workflow.engine.cache_dir), "engine.cache_dir"),
        ):
            problem = check_writable(path)
            if problem is not None:
                self._problem(replace(problem, where=self.loaded.locate(key)))
        model = Path(self.workflow.input_model.model_path)
        if model.is_dir() and output_dir.is_dir() and output_dir.samefile(model):
            self._problem(
                Problem(
                    f"{output_dir} is the folder of the input model",
                    self.loaded.locate("engine.output_dir"),
                    "the result would lie between its files",
                    "choose another folder",
                )
            )

    def _placed(self, problem: Problem, path: str) -> Problem:
        """Put a key's place in the configuration in front; a place in a data file stays as it is."""
        if problem.where is not None and problem.where.file is not None:
            return problem
        key = problem.where.path if problem.where is not None else None
        return replace(problem, where=self.loaded.locate(f"{path}.{key}" if key else path))

    def _note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)

    def _problem(self, problem: Problem) -> None:
        if problem not in self.problems:
            self.problems.append(problem)

    def _error(self, error: OlivineError, path: str) -> None:
        """Keep an error's problems, adding where in the configuration it belongs if it does not say a place itself."""
        into = self.unavailable if isinstance(error, UnavailableError) else self.problems
        for problem in error.problems:
            placed = self._placed(problem, path)
            if placed not in into:
                into.append(placed)
