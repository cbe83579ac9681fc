"""A Plan: the Steps in order, what each takes and gives, and what the Store already holds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from olivine.config.schema import DataConfig, Workflow
from olivine.errors import Location
from olivine.hardware.targets import Target
from olivine.passes.base import Accelerator, Format
from olivine.passes.estimate import Estimate
from olivine.planning.fit import Fit
from olivine.planning.step import Step

if TYPE_CHECKING:
    from olivine.data.rows import Survey
    from olivine.search.planning import Search


EVALUATE_INPUT = "evaluate input model"
EVALUATE_FINAL = "evaluate final model"


@dataclass(frozen=True)
class Source:
    """Where an input of a Step comes from: a folder that exists, or the result of an earlier Step.

    Exactly one of ``path``, ``step`` (a digest), ``hub`` (an id, with ``revision``) and ``address`` is set.
    ``subfolder`` is appended to the folder.
    """

    path: Path | None = None
    step: str | None = None
    hub: str | None = None
    revision: str | None = None
    address: str | None = None
    """Something elsewhere that has not been fetched."""
    subfolder: str = ""
    identity: str = ""
    """What goes into the digest of a Step that consumes it."""
    where: Location | None = None
    """The place of a model of the hub in the configuration."""


@dataclass(frozen=True)
class PlannedStep:
    """A Step with all that is needed to run it and to tell the user about it.

    Attributes:
        name: its name in the configuration (``lora``), or ``evaluate input model`` / ``evaluate MODEL``.
        step: the frozen description.
        sources: where its inputs come from.
        consumes: format of the model that enters.
        produces: format of the result.
        data: the data configs by parameter, paths absolute.
        surveys: what was found in the data, by data config name.
        where: the place of the Step in the configuration.
        host: where it runs.
        target: where the model ships to.
        cached: whether the Store holds the result.
        system: the name of the system that runs it; empty for this machine.
        requires: packages that it needs there, as ``pip`` takes them.
        spreads: whether several processes can share its work.
        reads_hub: whether it may read the Hugging Face hub while it runs.
        notes: decisions worth telling.
        timeout: seconds that it may take, if its pass says so itself.
        estimate: what it will take; ``None`` if that cannot be told (a model that is not on this machine yet).
    """

    name: str
    step: Step
    sources: Mapping[str, Source]
    consumes: Format
    produces: Format
    data: Mapping[str, DataConfig]
    where: Location
    host: Accelerator
    target: Accelerator
    cached: bool
    system: str = ""
    requires: tuple[str, ...] = ()
    spreads: bool = False
    reads_hub: bool = False
    notes: tuple[str, ...] = ()
    timeout: float | None = None
    surveys: Mapping[str, Survey] = field(default_factory=dict)
    estimate: Estimate | None = None

    @property
    def place(self) -> str:
        """Where it runs, in words."""
        return f"{self.system} ({self.host.device})" if self.system else self.host.device

    @property
    def digest(self) -> str:
        """The key of its result in the Store."""
        return self.step.digest


@dataclass(frozen=True)
class Plan:
    """What a run will do.

    Attributes:
        workflow: the canonical configuration, as resolved.
        steps: in the order they run: the input model's evaluation, the passes, the final model's evaluation.
        final: where the model that ships comes from.
        final_format: its format.
        notes: notes of the dialect and of the plan as a whole.
        cache_dir: the Store.
        output_dir: where the result goes.
        trust_remote_code: whether code that comes with the model may run.
        layout: the release of Olive whose output folder is wanted (``olive-0.6``), if any.
        output_where: the place of ``output_dir`` in the configuration.
        scripts: Python files of metrics that may run.
        search: the search whose first candidate this is, if one is asked for.
        target: the machine that the model ships to.
        fit: what the final model takes there, if its size is known.
        unread: bytes of the model's files whose content was not read: the digests of the Steps are not those of a run,
            and whether the Store holds results is not known.
        unread_files: those files.
        whole: has read them, makes the plan again as it is for a run; ``None`` if the plan is only to be looked at.
    """

    workflow: Workflow
    steps: tuple[PlannedStep, ...]
    final: Source
    final_format: Format
    notes: tuple[str, ...]
    cache_dir: Path
    output_dir: Path
    dialect: str
    file: Path | None
    trust_remote_code: bool = False
    layout: str | None = None
    output_where: Location | None = None
    scripts: tuple[Path, ...] = ()
    search: Search | None = None
    target: Target | None = None
    fit: Fit | None = None
    unread: int = 0
    unread_files: tuple[Path, ...] = ()
    whole: Callable[[], Plan] | None = None

    @property
    def passes(self) -> tuple[PlannedStep, ...]:
        """The Steps that change the model."""
        return tuple(step for step in self.steps if step.step.kind == "pass")

    @property
    def model_dir(self) -> Path:
        """The folder that gets the model's files: the output folder, or what the layout has in it."""
        if self.layout is None:
            return self.output_dir
        from olivine.engine.layouts import model_folder

        return self.output_dir / model_folder(self.layout, self)

    def evaluation(self, which: str) -> PlannedStep | None:
        """Return the evaluation of ``input`` or ``final``, if one is planned."""
        names = {"input": EVALUATE_INPUT, "final": EVALUATE_FINAL}
        return next((step for step in self.steps if step.name == names[which]), None)
