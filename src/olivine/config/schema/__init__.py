"""The canonical workflow: the one form that every dialect is translated into, and the only one that Olivine runs.

Section names are those that users already know (``input_model``, ``data_configs``, ``systems``, ``passes``,
``evaluators``, ``engine``), in flat form. Parameters of a pass or a metric are checked against the class that its
``type`` names (:mod:`olivine.passes.registry`, :mod:`olivine.evaluate.registry`) while the file is loaded.
"""

from olivine.config.schema.data import Component, DataConfig, Strategy
from olivine.config.schema.engine import Engine, Packaging, PackagingType, SearchStrategy, SharedCache, Tracking
from olivine.config.schema.evaluators import Evaluator, Goal, GoalType, MetricConfig, SubType
from olivine.config.schema.models import WITHOUT_PATH, InputModel, LoadKwargs, ModelType
from olivine.config.schema.node import Node, gather
from olivine.config.schema.passes import PassConfig
from olivine.config.schema.systems import (
    SYSTEM_KEYS,
    Accelerator,
    Auth,
    AzureMLClient,
    Device,
    HubToken,
    System,
    SystemType,
)
from olivine.config.schema.workflow import SCHEMA_VERSION, AutoOptimizer, Build, Workflow

__all__ = [
    "SCHEMA_VERSION",
    "SYSTEM_KEYS",
    "WITHOUT_PATH",
    "Accelerator",
    "Auth",
    "AutoOptimizer",
    "AzureMLClient",
    "Build",
    "Component",
    "DataConfig",
    "Device",
    "Engine",
    "Evaluator",
    "Goal",
    "GoalType",
    "HubToken",
    "InputModel",
    "LoadKwargs",
    "MetricConfig",
    "ModelType",
    "Node",
    "Packaging",
    "PackagingType",
    "PassConfig",
    "SearchStrategy",
    "SharedCache",
    "Strategy",
    "SubType",
    "System",
    "SystemType",
    "Tracking",
    "Workflow",
    "gather",
]
