"""The Python interface: ``olivine.plan(config)`` and ``olivine.run(config)``, with no command line behind them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from olivine.engine.engine import run_plan
from olivine.engine.result import Result
from olivine.events import Event
from olivine.planning.making import make_plan
from olivine.planning.plan import Plan
from olivine.planning.resources import check_resources
from olivine.store import Store

if TYPE_CHECKING:
    from olivine.config import Loaded


def plan(
    config: str | Path | Mapping[str, Any],
    *,
    overrides: Sequence[str] = (),
    dialect: str | None = None,
    trust_remote_code: bool = False,
    allow_scripts: Sequence[str | Path] = (),
    layout: str | None = None,
) -> Plan:
    """Work out what a run would do, without doing it. Data that is elsewhere is fetched, models are only looked at.

    Args:
        config: a file (JSON or YAML, any dialect), or the same as a mapping; then paths are relative to the working
            directory.
        overrides: ``"passes.lora.r=16"`` and the like.
        dialect: read it as this dialect instead of detecting it.
        trust_remote_code: let Python code that comes with the model run.
        allow_scripts: Python files of metrics that may run.
        layout: lay out the output folder as a release of Olive did (:mod:`olivine.engine.layouts`).

    Raises:
        ConfigError: the configuration cannot be accepted; all problems at once.
        PlanError: the run could not work; all problems at once.
        UnavailableError: something needed is not on this machine.
    """
    return prepare(
        config,
        overrides=overrides,
        dialect=dialect,
        trust_remote_code=trust_remote_code,
        allow_scripts=allow_scripts,
        layout=layout,
        fetch_models=False,
        read_weights=False,
    )[0]


def run(
    config: str | Path | Mapping[str, Any],
    *,
    overrides: Sequence[str] = (),
    dialect: str | None = None,
    trust_remote_code: bool = False,
    allow_scripts: Sequence[str | Path] = (),
    layout: str | None = None,
    on_event: Callable[[Event], None] | None = None,
) -> Result:
    """Run a workflow and return what came of it.

    Args:
        on_event: receives every event (:class:`olivine.events.Event`) in the calling thread. The other arguments are
            those of :func:`plan`.

    Raises:
        OlivineError: as :func:`plan`, and ``StepError`` or ``StoreError`` if the run fails.

    Example:
        >>> import olivine
        >>> result = olivine.run("workflow.yaml", overrides=["passes.lora.r=16"])  # doctest: +SKIP
        >>> result.metrics["final"]["accuracy"]  # doctest: +SKIP
    """
    sink = on_event or (lambda event: None)
    made, store = prepare(
        config,
        overrides=overrides,
        dialect=dialect,
        trust_remote_code=trust_remote_code,
        allow_scripts=allow_scripts,
        layout=layout,
        beside=True,
        tell=lambda text: sink(Event("note", data={"text": text})),
    )
    return execute(made, store, sink)


def execute(plan: Plan, store: Store, sink: Callable[[Event], None]) -> Result:
    """Run a plan, or the search that it begins."""
    if plan.search is None:
        return run_plan(plan, store, sink)
    from olivine.search.study import run_study

    return run_study(plan, store, sink)


def prepare(
    config: str | Path | Mapping[str, Any],
    *,
    overrides: Sequence[str] = (),
    dialect: str | None = None,
    trust_remote_code: bool = False,
    allow_scripts: Sequence[str | Path] = (),
    layout: str | None = None,
    force: bool = False,
    refresh: bool = False,
    fetch_models: bool = True,
    tell: Callable[[str], None] | None = None,
    read_weights: bool = True,
    beside: bool = False,
    online: bool = True,
) -> tuple[Plan, Store]:
    """Load and plan, and return the plan with the Store it was made against.

    Args:
        force: go on where memory or disk seem too small, or the model too large for its target.
        refresh: ask whether what was fetched from elsewhere has changed there.
        fetch_models: fetch also models that are elsewhere, and not only data.
        tell: receives a sentence now and then while something is fetched.
        read_weights: see :func:`olivine.planning.making.make_plan`; a plan that is to be run needs it.
        beside: whether that may be left to the run, beside its first Step (:mod:`olivine.engine.beside`).
        online: whether the workspaces of AzureML systems may be asked for what their Steps name. The other arguments
            are those of :func:`plan`.
    """
    from olivine.config import load
    from olivine.config.availability import refuse_unavailable
    from olivine.engine.beside import can_begin
    from olivine.models import hub_token
    from olivine.storage.fetching import Fetcher
    from olivine.storage.vault import hub_token_of, with_vault_values

    if layout is not None:
        from olivine.engine.layouts import named

        layout = named(layout)
    source = dict(config) if isinstance(config, Mapping) else Path(config)
    loaded = load(source, overrides=overrides, dialect=dialect)
    refuse_unavailable(loaded)
    loaded = with_vault_values(loaded, online=online)
    hub_token.take_from(hub_token_of(loaded.workflow))
    store = Store(Path(loaded.workflow.engine.cache_dir))
    scripts = [Path(each).expanduser() for each in allow_scripts]
    fetcher = Fetcher(store, loaded.workflow.azureml_client, refresh, tell or (lambda text: None))

    planner: Callable[..., Plan] = make_plan
    if loaded.workflow.engine.search_strategy:
        from olivine.search.planning import plan_search

        planner = plan_search

    def make(*, read: bool) -> Plan:
        return planner(
            loaded,
            store,
            trust_remote_code=trust_remote_code,
            scripts=scripts,
            fetcher=fetcher,
            fetch_models=fetch_models,
            read_weights=read,
            online=online,
        )

    def checked(*, read: bool) -> Plan:
        first = make(read=read)
        made = check_resources(first, loaded, force=force)
        short = made.notes[len(first.notes) :]

        def whole() -> Plan:
            again = make(read=True)
            return replace(again, notes=(*again.notes, *short), layout=layout)

        return replace(made, whole=whole if made.unread and beside else None)

    at_once = read_weights and not beside
    made = checked(read=at_once)
    if fetch_models and _download(made, tell or (lambda text: None)):
        # Now it is known what the models are, down to their commits.
        made = checked(read=at_once)
    if made.whole is not None and not can_begin(made):
        made = checked(read=True)
    made = replace(examined(made, loaded, online=online), layout=layout)
    if layout is not None:
        from olivine.engine.layouts import check_folder

        check_folder(made)
    return made, store


def _download(plan: Plan, tell: Callable[[str], None]) -> bool:
    """Fetch the models on the hub that Steps on this machine take. Return whether there were any."""
    absent = {
        (source.hub, source.revision): source
        for step in plan.steps
        if not step.system
        for source in step.sources.values()
        if source.hub is not None
    }
    for (name, revision), source in absent.items():
        from olivine.errors import OlivineError
        from olivine.models.hub import fetch

        assert name is not None
        tell(f"downloading {name}")
        try:
            fetch(name, revision, code=plan.trust_remote_code)
        except OlivineError as error:
            raise error.placed(source.where) from None
    return bool(absent)


def examined(plan: Plan, loaded: Loaded, *, online: bool) -> Plan:
    """Return the plan, having looked at what its Steps need on other machines.

    Raises:
        PlanError, UnavailableError: something is not there, or cannot be asked for.
    """
    used = {loaded.workflow.systems[step.system].type for step in plan.steps if step.system}
    if "AzureML" not in used and not loaded.workflow.engine.packaging_config:
        return plan
    from olivine.systems.azureml.checking import examine

    return examine(plan, loaded, online=online)
