"""What a plan has to know of Steps that run on another machine: nothing there can be looked at while planning."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from olivine.config.schema import DataConfig, PassConfig, System, Workflow
from olivine.errors import UnavailableError
from olivine.hardware.machine import Machine
from olivine.storage.addresses import is_address
from olivine.store import digest_json
from olivine.store.disk import replace_file

if TYPE_CHECKING:
    from olivine.planning.plan import Source
    from olivine.storage.fetching import Fetcher

AWAY = frozenset({"AzureML"})
"""Types of systems that are other machines."""


def is_away(system: System) -> bool:
    """Return whether a system is another machine."""
    return system.type in AWAY


def has_addresses(config: DataConfig) -> bool:
    """Return whether rows of a data config lie elsewhere."""
    files = [config.data_files] if isinstance(config.data_files, str) else config.data_files or []
    return any(map(is_address, files))


def runner_name(workflow: Workflow, name: str | None) -> str | None:
    """Return the system that runs what ``host`` or ``target`` gives to ``name``: ``workflow_host`` runs all."""
    host = workflow.workflow_host
    return host if host is not None and is_away(workflow.systems[host]) else name


def machine_of(system: System) -> Machine:
    """Return what is assumed of another machine: its GPUs know bfloat16, its processors do not."""
    kind = (system.resources or {}).get("instance_type") or ""
    return Machine(f"{system.type} {system.aml_compute or ''} {kind}".strip(), 0, 0, False)


def environment_of(system: System, digest_file: Callable[[Path], str]) -> dict[str, str]:
    """Return what identifies the libraries of another machine in a Step's digest: its image, packages, environment.

    Raises:
        OlivineError: a file that it names cannot be read.
    """
    docker = dict(system.aml_docker_config or {})
    for key in ("conda_file_path", "dockerfile"):
        path = Path(str(docker.get("build_context_path") or "."), str(docker[key])) if docker.get(key) else None
        if path is not None and path.is_file():
            docker[key] = digest_file(path)
    docker.pop("build_context_path", None)
    return {"environment": digest_json([docker, system.aml_environment_config])[:16]}


def processes_of(system: System) -> int:
    """Return how many processes share the work of a Step whose work can be shared."""
    return (system.instance_count or 1) * (system.processes_per_instance or 1)


def model_stays(workflow: Workflow) -> bool:
    """Return whether the input model is used on other machines only, so that it need not come here."""
    return all(is_away(_system(workflow, name)) for name in _hosts(workflow) | _measuring(workflow))


def only_system(workflow: Workflow) -> str | None:
    """Return the system on another machine that runs every Step, if one does."""
    users = {workflow.engine.host, *_hosts(workflow), *_measuring(workflow)}
    found = {runner_name(workflow, each) for each in users}
    name = next(iter(found)) if len(found) == 1 else None
    return name if name is not None and is_away(workflow.systems[name]) else None


def data_stays(workflow: Workflow, name: str) -> bool:
    """Return whether a data config is read on other machines only."""
    users = set[str | None]()
    for config in _passes(workflow):
        if name in config.params.values():
            users.add(config.host or workflow.engine.host)
    for evaluator in workflow.evaluators.values():
        if any(name in metric.params.values() for metric in evaluator.metrics):
            users |= _measuring(workflow)
    return all(is_away(_system(workflow, user)) for user in users)


def version_at(address: str, fetcher: Fetcher, note: Callable[[str], None]) -> str:
    """Return what changes with the content of an address, by asking what lies there; nothing is fetched.

    What never changes (a version of a model) is not asked for. Where nobody answers, what was there last is taken, so
    that what is in the Store is found without a network.

    Raises:
        OlivineError: there is nothing, or nobody answers and nobody has before.
    """
    from olivine.storage.addresses import parse
    from olivine.storage.remote import version_of

    found = parse(address)
    if found.fixed:
        return ""
    seen = Path(fetcher.store.shared_dir, "seen", f"{digest_json(str(found))[:32]}.txt")
    try:
        version = version_of(fetcher.look(address))
    except UnavailableError:
        try:
            version = seen.read_text("utf-8")
        except OSError:
            pass
        else:
            note(f"{found} is taken to be as it was last: nobody answers")
            return version
        raise
    seen.parent.mkdir(parents=True, exist_ok=True)
    replace_file(seen, version.encode(), sync=False)
    return version


def reads_hub(sources: Mapping[str, Source], data: Mapping[str, DataConfig]) -> bool:
    """Return whether a Step with these inputs and data may have to read the Hugging Face hub."""
    from olivine.data.formats import FORMATS

    names = [each.data_name for each in data.values() if each.data_files is None]
    hub_data = any(name is not None and name not in FORMATS and not Path(name).is_dir() for name in names)
    return hub_data or any(each.hub is not None for each in sources.values())


def identity_of(config: DataConfig, identify: Callable[[str], Any]) -> Any:
    """Return what identifies the content and use of rows that lie elsewhere.

    Args:
        identify: gives what changes with the content of an address.
    """
    how = config.model_dump(mode="json", exclude={"name", "data_files"})
    files = [config.data_files] if isinstance(config.data_files, str) else config.data_files or []
    return {"content": [[each, identify(each)] for each in files], "config": how}


def _passes(workflow: Workflow) -> Iterator[PassConfig]:
    for value in workflow.passes.values():
        yield from value if isinstance(value, list) else [value]


def _hosts(workflow: Workflow) -> set[str | None]:
    return {config.host or workflow.engine.host for config in _passes(workflow)}


def _measuring(workflow: Workflow) -> set[str | None]:
    measured = workflow.engine.evaluator is not None or any(each.evaluator for each in _passes(workflow))
    return {workflow.engine.target_system} if measured else set()


def _system(workflow: Workflow, name: str | None) -> System:
    runs_on = runner_name(workflow, name)
    return workflow.systems[runs_on] if runs_on is not None else System()
