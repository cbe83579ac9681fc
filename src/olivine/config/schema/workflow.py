"""A whole configuration."""

# Annotations are not postponed: pydantic would compile each once more, at every start.

from typing import Any, Literal

from pydantic import Field

from olivine.config.schema.data import DataConfig
from olivine.config.schema.engine import Engine, Tracking
from olivine.config.schema.evaluators import Evaluator
from olivine.config.schema.models import InputModel
from olivine.config.schema.node import Node
from olivine.config.schema.passes import PassConfig
from olivine.config.schema.systems import AzureMLClient, System

SCHEMA_VERSION = 1


class AutoOptimizer(Node):
    """Passes chosen by Olive 0.5 to 0.8 when a configuration names none; not available."""

    opt_level: int | None = None
    """How much is tried."""
    disable_auto_optimizer: bool | None = None
    """Whether no passes means none."""
    precision: str | None = None
    """Precision to reach."""
    precisions: list[str] | str | None = None
    """Precisions to try."""
    excluded_passes: list[str] | None = None
    """Passes not to take."""


class Build(Node):
    """One of several builds in one configuration; not available yet."""

    components: list[str] | None = None
    """Parts of the model that it takes."""
    pipeline: list[str] | None = None
    """Passes, in their order."""
    output_dir: str | None = None
    """Where its model is put."""
    host: str | None = None
    """System to run on."""
    target: str | None = None
    """System that it ships to."""
    evaluator: str | None = None
    """Evaluator of its models."""
    search_strategy: dict[str, Any] | bool | None = None
    """How it is searched."""


class Workflow(Node):
    """A whole configuration.

    ``data_configs`` is a list in the file; every reference to a data config, system or evaluator is by name and has
    been checked when a Workflow exists.
    """

    version: Literal[1] = 1
    """Version of this schema."""
    workflow_id: str = "default_workflow"
    """A name for the run."""
    input_model: InputModel
    """The model that goes in."""
    data_configs: list[DataConfig] = []
    """Data that passes and metrics refer to by name."""
    systems: dict[str, System] = {}
    """Places to run on or to ship to, by name."""
    passes: dict[str, PassConfig | list[PassConfig]] = {}
    """Passes in the order they run. A list of passes are alternatives for a search."""
    pass_flows: list[list[str]] | None = None
    """Several chains of passes, by name, each run from the input model; a search chooses."""
    evaluators: dict[str, Evaluator] = {}
    """Sets of metrics, by name."""
    engine: Engine = Engine()
    """How it runs and where results go."""
    target: str | System | None = None
    """Short for ``engine.target``."""
    tracking: Tracking | None = None
    """Where runs are tracked; nothing is sent anywhere without it."""
    azureml_client: AzureMLClient | None = None
    """The Azure Machine Learning workspace of systems and ``azureml://`` addresses."""
    workflow_host: str | None = None
    """System that every Step runs on, whatever ``host`` and ``target`` say; this machine is free to go meanwhile."""
    auto_optimizer_config: AutoOptimizer | None = None
    """How passes are chosen when none are named; not available."""
    builds: dict[str, Build] = {}
    """Several builds in one configuration, by name; ``_default`` holds what they share. Not available yet."""
    max_concurrent_builds: int | None = Field(default=None, ge=1)
    """How many builds run at once."""

    def data_config(self, name: str) -> DataConfig:
        """Return the data config called ``name``.

        Raises:
            KeyError: there is none (loading has checked every reference, so this is a defect of the caller).
        """
        for config in self.data_configs:
            if config.name == name:
                return config
        raise KeyError(name)

    def single_pass(self, name: str) -> PassConfig:
        """Return the pass called ``name``, which must not be a list of alternatives.

        Raises:
            KeyError: it is one (a configuration with alternatives is refused before it is planned).
        """
        config = self.passes[name]
        if isinstance(config, list):
            raise KeyError(name)
        return config
