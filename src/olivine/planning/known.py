"""What planning has learnt of the model and the data of a workflow, so that it can be planned where they are not.

A search that runs on another machine plans its candidates there. Their digests have to be those that would be computed
here, so whatever was looked up here goes along: identities, sizes, files' digests. Nothing of it is looked at again.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from olivine.config.schema import DataConfig, Workflow
from olivine.errors import Location, PlanError, UnavailableError
from olivine.evaluate import registry as metric_registry
from olivine.evaluate.base import REFERENCE, Metric
from olivine.hardware.machine import this_machine
from olivine.passes.base import Format, ModelFacts, Params
from olivine.passes.estimate import DataSize
from olivine.planning.making import Planner
from olivine.planning.plan import Source

if TYPE_CHECKING:
    from olivine.config import Loaded
    from olivine.hardware.machine import Machine
    from olivine.storage.fetching import Fetcher
    from olivine.store import Store

Model = tuple[Source, ModelFacts]


@dataclass(frozen=True)
class KnownData:
    """What is known of a data config.

    Attributes:
        config: it, with the paths or addresses of its files.
        identity: what stands for it in digests.
        size: how much there is, if rows were looked at.
    """

    config: DataConfig
    identity: Any
    size: DataSize | None


@dataclass(frozen=True)
class Known:
    """What is known of everything that a workflow names.

    Attributes:
        model: the input model.
        base: its base, if it is an adapter.
        data: by name.
        references: models that metrics are told to compare with, by their names.
        scripts: files of metrics by their names in the configuration: absolute path and digest.
        environments: what stands for the libraries of other systems in digests, by system.
        limit: bytes that a Step may take.
    """

    model: Model
    base: Source | None
    data: Mapping[str, KnownData]
    references: Mapping[str, Model]
    scripts: Mapping[str, tuple[str, str]]
    environments: Mapping[str, dict[str, str]]
    limit: int | None

    def sources(self) -> list[Source]:
        """Return the models that Steps may read."""
        models = [self.model[0], *(source for source, _ in self.references.values())]
        return models + ([self.base] if self.base is not None else [])

    def identities(self) -> Any:
        """Return what changes whenever something that is known does."""
        return [
            [source.identity for source in self.sources()],
            {name: each.identity for name, each in self.data.items()},
            [digest for _, digest in self.scripts.values()],
            self.environments,
        ]

    def as_json(self) -> dict[str, Any]:
        """Return it as a JSON object."""
        return {
            "model": _model_as_json(self.model),
            "base": _source_as_json(self.base) if self.base is not None else None,
            "data": {
                name: {
                    "config": each.config.model_dump(mode="json"),
                    "identity": each.identity,
                    "size": asdict(each.size) if each.size is not None else None,
                }
                for name, each in self.data.items()
            },
            "references": {name: _model_as_json(each) for name, each in self.references.items()},
            "scripts": {name: list(each) for name, each in self.scripts.items()},
            "environments": dict(self.environments),
            "limit": self.limit,
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any], folder: Callable[[str], Path]) -> Known:
        """Read what :meth:`as_json` gave.

        Args:
            folder: gives the folder that holds here what was at a path where it was learnt.
        """
        return cls(
            model=_model_from_json(content["model"], folder),
            base=_source_from_json(content["base"]) if content["base"] is not None else None,
            data={
                name: KnownData(
                    DataConfig.model_validate(each["config"]),
                    each["identity"],
                    DataSize(**each["size"]) if each["size"] is not None else None,
                )
                for name, each in content["data"].items()
            },
            references={name: _model_from_json(each, folder) for name, each in content["references"].items()},
            scripts={name: (path, digest) for name, (path, digest) in content["scripts"].items()},
            environments=content["environments"],
            limit=content["limit"],
        )


def learn(
    loaded: Loaded,
    workflow: Workflow,
    store: Store,
    *,
    trust_remote_code: bool,
    scripts: Collection[Path],
    fetcher: Fetcher,
    online: bool = True,
) -> Known:
    """Look up everything that a workflow names.

    Args:
        loaded: the configuration, with its choices.
        workflow: one candidate of it.
        online: whether it may be asked what lies at an address. The other arguments are those of
            :func:`olivine.planning.making.make_plan`.

    Raises:
        PlanError, UnavailableError: something cannot be found.
    """
    planner = LearningPlanner(
        replace(loaded, workflow=workflow), store, trust_remote_code, scripts, this_machine(), fetcher, True
    )
    planner.online = online
    found = planner.learn(loaded)
    if planner.problems:
        raise PlanError(planner.problems + planner.unavailable)
    if planner.unavailable:
        raise UnavailableError(planner.unavailable)
    return found


class LearningPlanner(Planner):
    """Looks at everything that a workflow names, and plans nothing."""

    def learn(self, loaded: Loaded) -> Known:
        """Return what there is; what is wrong is in the planner's problems.

        Args:
            loaded: the configuration with its choices, of which the planner has one candidate.
        """
        source, facts, base = self._input_model()
        data: dict[str, KnownData] = {}
        texts = set(_texts(loaded.workflow.model_dump(mode="json", include={"passes", "evaluators"})))
        for name in sorted({config.name for config in loaded.workflow.data_configs} & texts):
            config = self._data_config(name)
            identity = self._identify(config)
            data[name] = KnownData(config, identity, self._sizes({name: config}).get(name))
        references: dict[str, Model] = {}
        scripts: dict[str, tuple[str, str]] = {}
        for evaluator, each in loaded.workflow.evaluators.items():
            for index, metric in enumerate(each.metrics):
                kind = metric_registry.find(metric.type)
                if kind is None:
                    continue
                reference = metric.params.get(REFERENCE)
                if isinstance(reference, str):
                    place = loaded.locate(f"evaluators.{evaluator}.metrics.{index}")
                    compared = self._reference(reference, place)
                    if compared is not None:
                        references[reference] = compared
                script = kind.script(kind.params_type.model_validate(metric.params))
                if script is not None:
                    scripts[script] = str(self._file(script)), self._script_digest(script)
        return Known(
            model=(source, facts),
            base=base,
            data=data,
            references=references,
            scripts=scripts,
            environments={
                name: self._libraries(name, ())
                for name, system in loaded.workflow.systems.items()
                if system.type != "LocalSystem"
            },
            limit=self.limit,
        )


class InformedPlanner(Planner):
    """Plans with what is known, and looks at nothing."""

    def __init__(
        self,
        loaded: Loaded,
        store: Store,
        trust_remote_code: bool,
        scripts: Collection[Path],
        machine: Machine,
        fetcher: Fetcher,
        fetch_models: bool,
        known: Known,
    ) -> None:
        super().__init__(loaded, store, trust_remote_code, scripts, machine, fetcher, fetch_models)
        self.known = known
        self.limit = known.limit

    def _input_model(self) -> tuple[Source, ModelFacts, Source | None]:
        return *self.known.model, self.known.base

    def _data_config(self, name: str) -> DataConfig:
        return self.known.data[name].config

    def _check_data(self, config: DataConfig) -> None:
        return

    def _identify(self, config: DataConfig) -> Any:
        return self.known.data[config.name].identity

    def _sizes(self, data: Mapping[str, DataConfig]) -> dict[str, DataSize]:
        found = {key: self.known.data[config.name].size for key, config in data.items()}
        return {key: size for key, size in found.items() if size is not None}

    def _libraries(self, system: str, shaped_by: Collection[str]) -> dict[str, str]:
        return self.known.environments[system]

    def _reference(self, reference: str, where: Location) -> Model | None:
        return self.known.references[reference]

    def _check_metric(
        self, metric_type: type[Metric[Any]], params: Params, own: Mapping[str, DataConfig], path: str
    ) -> None:
        return

    def _script(self, params: Any, script: str, where: Location) -> Any:
        user = params.user_config.model_copy(update={"user_script": self.known.scripts[script][0]})
        return params.model_copy(update={"user_config": user})

    def _script_digest(self, script: str) -> str:
        return self.known.scripts[script][1]


def _texts(value: Any) -> list[str]:
    """Return every text in a value."""
    if isinstance(value, dict):
        return [text for each in value.values() for text in _texts(each)]
    if isinstance(value, list):
        return [text for each in value for text in _texts(each)]
    return [value] if isinstance(value, str) else []


def _source_as_json(source: Source) -> dict[str, Any]:
    content = {each.name: getattr(source, each.name) for each in fields(source) if each.name != "where"}
    return content | {"path": str(source.path) if source.path is not None else None}


def _source_from_json(content: Mapping[str, Any]) -> Source:
    return Source(**{**content, "path": Path(content["path"]) if content["path"] is not None else None})


def _model_as_json(model: Model) -> dict[str, Any]:
    source, facts = model
    content = {each.name: getattr(facts, each.name) for each in fields(facts)}
    content |= {
        "format": facts.format.value,
        "path": str(facts.path) if facts.path is not None else None,
        "modules": {name: list(shape) for name, shape in facts.modules.items()},
    }
    return {"source": _source_as_json(source), "facts": content}


def _model_from_json(content: Mapping[str, Any], folder: Callable[[str], Path]) -> Model:
    facts = content["facts"]
    path = folder(facts["path"]) if facts["path"] is not None else None
    return _source_from_json(content["source"]), ModelFacts(
        **{**facts, "format": Format(facts["format"]), "path": path}
    )
