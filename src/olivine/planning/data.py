"""Planning of the data that Steps read: surveyed, checked against the model, identified."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from olivine.config.schema import DataConfig
from olivine.errors import Location, OlivineError, Problem, UnavailableError
from olivine.passes.base import Accelerator, Format, ModelFacts, Params, Requirement
from olivine.passes.estimate import DataSize, Estimate
from olivine.planning.away import data_stays, has_addresses, identity_of, reads_hub
from olivine.planning.ground import Ground
from olivine.planning.plan import PlannedStep, Source
from olivine.planning.requirements import specifiers
from olivine.planning.step import Step

if TYPE_CHECKING:
    from olivine.data.rows import Survey


class DataPlanning(Ground):
    """Looks at data configs."""

    def _data_config(self, name: str) -> DataConfig:
        """Return a data config whose files are on this machine: what is elsewhere is fetched, once."""
        if name not in self.data_here:
            from olivine.planning.elsewhere import data_here

            config = self.workflow.data_config(name)
            if has_addresses(config) and data_stays(self.workflow, name):
                self.data_here[name] = config
                self.stay.add(name)
                return config
            on_hub = is_on_hub(config)
            try:
                config = self._hub_data(config) if on_hub else data_here(config, self.fetcher, self._note)
            except OlivineError as error:
                self._error(error, f"data_configs.{name}" + ("" if on_hub else ".data_files"))
                # It is said once; rows that are not here need not be missed, too.
                self.checked.add(name)
                self.identities[name] = None
            self.data_here[name] = config
        return self.data_here[name]

    def _hub_data(self, config: DataConfig) -> DataConfig:
        """Return a data config of the hub with the folder in the Store; what is kept of the run names the commit."""
        from olivine.planning.elsewhere import hub_data_here

        if data_stays(self.workflow, config.name):
            if not self.fetch_models:
                return config
            from olivine.data.hub import commit_of, data_is_offline

            try:
                pinned = config if data_is_offline() else config.model_copy(update={"revision": commit_of(config)})
            except UnavailableError as error:  # the hub may answer where the rows are read
                self._note(f"the commit of {config.data_name} is not known here: {error.problems[0].why}")
                pinned = config
            found = pinned
        else:
            both = hub_data_here(config, self.fetcher, self._note, fetch=self.fetch_models)
            found, pinned = both.here, both.pinned
        self.pinned[config.name] = pinned
        configs = [pinned if each.name == config.name else each for each in self.workflow.data_configs]
        self.workflow = self.workflow.model_copy(update={"data_configs": configs})
        return found

    def _check_data(self, config: DataConfig) -> None:
        """Check a data config and its rows, once."""
        if config.name in self.checked:
            return
        self.checked.add(config.name)
        from olivine.data.rows import find_problems
        from olivine.data.sequences import check_config

        try:
            found = check_config(config) if config.name in self.stay else find_problems(config)
        except OlivineError as error:
            self._error(error, f"data_configs.{config.name}")
            return
        for problem in found:
            self._problem(self._placed(problem, f"data_configs.{config.name}"))

    def _check_lengths(self, config: DataConfig, facts: ModelFacts) -> None:
        """Refuse joined blocks that are longer than the model has positions for."""
        limit = facts.config.get("max_position_embeddings")
        if not config.strategy.startswith("join") or not isinstance(limit, int) or config.max_seq_len <= limit:
            return
        self._problem(
            Problem(
                f"blocks of {config.max_seq_len} tokens do not fit the model, which has positions for {limit}",
                self.loaded.locate(f"data_configs.{config.name}.max_seq_len"),
                "what lies beyond would be trained on positions that the model never saw",
                f"set max_seq_len to at most {limit}",
            )
        )

    def _identify(self, config: DataConfig) -> Any:
        """Survey the rows of a data config, and return what identifies its content and use in a digest."""
        if config.name in self.identities:
            return self.identities[config.name]
        from olivine.data.identity import identity
        from olivine.data.rows import survey

        found: Any = None
        try:
            if config.name in self.stay:
                self.identities[config.name] = identity_of(config, self._version_at)
                return self.identities[config.name]
            self.surveys[config.name] = survey(config)
            found = identity(self.pinned.get(config.name, config), self.store.digest_file, self.store.digest_tree)
        except OlivineError as error:
            self._error(error, f"data_configs.{config.name}")
        self.identities[config.name] = found
        return found

    def _add(
        self,
        name: str,
        step: Step,
        *,
        sources: Mapping[str, Source],
        consumes: Format,
        produces: Format,
        data: Mapping[str, DataConfig],
        where: Location,
        host: Accelerator,
        system: str,
        requires: Sequence[Requirement],
        estimate: Estimate | None,
        sound: bool,
        hub: bool = False,
        spreads: bool = False,
        timeout: float | None = None,
        notes: Sequence[str] = (),
    ) -> None:
        """Put a Step at the end of the plan; see :class:`PlannedStep`.

        Args:
            sound: whether nothing was found wrong with it; only then the Store is asked for its result.
            hub: whether it may read the Hugging Face hub for more than its inputs and data.
        """
        surveys = {each.name: self.surveys[each.name] for each in data.values() if each.name in self.surveys}
        planned = PlannedStep(
            name=name,
            step=step,
            sources=sources,
            consumes=consumes,
            produces=produces,
            data=data,
            where=where,
            host=host,
            target=self.target,
            cached=sound and self.store.find(step.digest) is not None,
            system=system,
            requires=specifiers(requires, host.device),
            spreads=spreads,
            timeout=timeout,
            reads_hub=hub or reads_hub(sources, data),
            notes=tuple(notes),
            surveys=surveys,
            estimate=estimate,
        )
        self.steps.append(planned)

    def _sizes(self, data: Mapping[str, DataConfig]) -> dict[str, DataSize]:
        """Return how much there is in data configs, by the key that names them, as far as that is known."""
        found = {}
        for key, config in data.items():
            surveyed = self.surveys.get(config.name)
            if surveyed is not None and surveyed.rows is not None and surveyed.first_rows:
                found[key] = DataSize(surveyed.rows, _characters(config, surveyed))
        return found


def is_on_hub(config: DataConfig) -> bool:
    """Return whether a data config names a data set of the hub; what is wrong with it is not said here."""
    from olivine.data.sources import find_source

    try:
        return find_source(config).kind == "hub"
    except OlivineError:
        return False


def _characters(config: DataConfig, survey: Survey) -> float:
    """Return the mean length of the texts of the rows that were read."""
    from olivine.data.templates import render

    lengths = []
    for row in survey.first_rows:
        try:
            lengths.append(sum(len(piece.text) for piece in render(config, row).pieces))
        except (OlivineError, ValueError):  # a chat needs the tokenizer; other faults have been told
            lengths.append(sum(len(str(value)) for value in row.values.values()))
    return sum(lengths) / len(lengths)


def data_references(params: Params) -> dict[str, str]:
    """Return the parameters that name a data config (every name that ends in ``data_config``) and are set."""
    return {
        key: value
        for key in type(params).model_fields
        if key.endswith("data_config") and isinstance(value := getattr(params, key), str)
    }
