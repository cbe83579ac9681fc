"""A whole search as one piece of work on another machine: what is sent there, and what is done with it there.

There the same study runs, with the same Steps in the same digests. What it finds comes home as trials; the Steps of the
candidates that are put out are fetched like those of any other work, and what nobody asks for stays where it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from olivine.config.schema import SearchStrategy, Workflow
from olivine.evaluate import registry as metric_registry
from olivine.passes import registry as pass_registry
from olivine.passes.base import Requirement
from olivine.planning.known import learn
from olivine.planning.requirements import specifiers
from olivine.store import Store, digest_json
from olivine.systems.base import SearchRequest
from olivine.systems.requests import reference

if TYPE_CHECKING:
    from olivine.config import Loaded
    from olivine.planning.plan import Plan

OPTUNA = Requirement("optuna", "search", ">=4.5,<6")
NUMPY = Requirement("numpy", "search", "")


def search_request(plan: Plan, store: Store, *, online: bool = True) -> SearchRequest:
    """Return what is asked of the other machine.

    Args:
        plan: of the first candidate, with the search in it.
        online: whether it may be asked what lies at an address.

    Raises:
        OlivineError: what the workflow names cannot be found.
    """
    from olivine.search.study import study_id
    from olivine.storage.fetching import Fetcher

    assert plan.search is not None
    loaded = plan.search.loaded
    workflow = loaded.workflow
    known = learn(
        loaded,
        plan.workflow,
        store,
        trust_remote_code=plan.trust_remote_code,
        scripts=plan.scripts,
        fetcher=Fetcher(store, workflow.azureml_client),
        online=online,
    )
    study = study_id(loaded)
    digests = [step.digest for step in plan.steps]
    return SearchRequest(
        study=study,
        digest=digest_json([study, digests, known.identities()])[:32],
        workflow=sent(workflow).model_dump(mode="json"),
        known=known.as_json(),
        digests=digests,
        trust_remote_code=plan.trust_remote_code,
        models=[reference(each) for each in known.sources()],
        data=[each.config.model_dump(mode="json") for each in known.data.values()],
        files=[path for path, _ in known.scripts.values()] + sorted(files_in(workflow)),
        requires=requirements(workflow, plan),
        device=plan.steps[0].host.device,
        hub=any(step.reads_hub for step in (*plan.steps, *plan.search.steps)),
    )


def sent(workflow: Workflow) -> Workflow:
    """Return a workflow without what is only for this machine."""
    engine = workflow.engine.model_copy(
        update={"cache_dir": "", "output_dir": "", "packaging_config": None, "shared_cache": None}
    )
    systems = {name: each.model_copy(update={"azureml_client_config": None}) for name, each in workflow.systems.items()}
    return workflow.model_copy(update={"engine": engine, "systems": systems, "azureml_client": None, "tracking": None})


def files_in(workflow: Workflow) -> set[str]:
    """Return the files and folders of this machine that parameters name."""
    found: set[str] = set()
    _collect(workflow.model_dump(mode="json", include={"passes", "evaluators"}), found)
    return found


def _collect(value: Any, found: set[str]) -> None:
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list):
        for each in value:
            _collect(each, found)
    elif isinstance(value, str) and value.startswith("/") and 1 < len(value) < 4096 and Path(value).exists():
        found.add(value)


def requirements(workflow: Workflow, plan: Plan) -> list[str]:
    """Return the packages that any candidate may need, as ``pip`` takes them."""
    needed: list[Requirement] = []
    formats = {plan.steps[0].consumes}
    for value in workflow.passes.values():
        for each in value if isinstance(value, list) else [value]:
            kind = pass_registry.find(each.type)
            if kind is not None:
                needed += kind.requires
                formats.add(kind.produces)
    for evaluator in workflow.evaluators.values():
        for metric in evaluator.metrics:
            measured = metric_registry.find(metric.type)
            if measured is not None:
                needed += [each for format_ in formats for each in measured.requires.get(format_, ())]
    strategy = workflow.engine.search_strategy
    if isinstance(strategy, SearchStrategy) and strategy.sampler != "sequential":
        needed.append(NUMPY if strategy.sampler == "gp" else OPTUNA)
    own = [each for step in plan.steps for each in step.requires]
    return sorted({*own, *specifiers(needed, plan.steps[0].host.device)})


def received(request: SearchRequest, scratch: Path) -> Loaded:
    """Return the configuration that was sent, with folders of this machine."""
    from olivine.config.loading import Loaded, Places

    engine = {**request.workflow["engine"], "cache_dir": str(scratch / "cache"), "output_dir": str(scratch / "models")}
    workflow = Workflow.model_validate({**request.workflow, "engine": engine})
    places = Places(None, None, {}, {})
    return Loaded(workflow, (), f"olivine-{workflow.version}", "sent", None, workflow, places)
