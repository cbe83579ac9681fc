"""The contract of a pass: what it declares, what ``plan`` asks of it, and what the worker runs.

A pass is one class in one file. Importing the file must stay cheap (no torch, transformers, onnxruntime at the top):
``plan`` and ``config`` import it to check a configuration. Heavy imports go inside :meth:`Pass.run`.
"""

from __future__ import annotations

import builtins
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol, TypeVar

from pydantic import BaseModel, ConfigDict

from olivine.config.schema import DataConfig
from olivine.errors import Problem
from olivine.passes.effort import Effort
from olivine.passes.estimate import LIBRARIES, TRANSFORMERS, DataSize, Estimate


class Format(StrEnum):
    """What a model folder is. Passes declare what they accept and produce in these words."""

    HF = "hf"
    """Hugging Face checkpoint folder: ``config.json``, safetensors, tokenizer."""
    PEFT = "peft"
    """Adapter folder (``adapter_config.json``) that belongs to a base checkpoint."""
    MLFLOW = "mlflow"
    """MLflow model folder around a checkpoint."""
    HF_QUANTIZED = "hf-quantized"
    """Checkpoint with quantised weights."""
    ONNX = "onnx"
    """ONNX model without a generation configuration."""
    GENAI = "genai"
    """ONNX Runtime GenAI folder: ``genai_config.json``, ONNX model, tokenizer."""
    METRICS = "metrics"
    """Measurements; the result of an evaluation."""


class Params(BaseModel):
    """Base of a pass's parameters. A field's docstring is its documentation: what it does, what it costs."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


ParamsT = TypeVar("ParamsT", bound=Params)


@dataclass(frozen=True)
class Requirement:
    """A package that a pass needs: the distribution, the range it was seen to work with, the extra that installs it.

    Attributes:
        distribution: name on the package index; alternatives separated by ``|`` (``onnxruntime|onnxruntime-gpu``).
        extra: the extra of olivine that brings it (``finetune``); empty if none does.
        versions: PEP 440 specifier of the range with which the adapter's contract test was seen to pass.
    """

    distribution: str
    extra: str
    versions: str = ""


@dataclass(frozen=True)
class Accelerator:
    """Where a Step runs or what its result ships to.

    Attributes:
        device: ``cpu``, ``gpu`` or ``npu``; never ``auto`` (the plan has resolved it).
        execution_provider: ONNX Runtime's name, e.g. ``CPUExecutionProvider``.
    """

    device: str = "cpu"
    execution_provider: str = "CPUExecutionProvider"


@dataclass(frozen=True)
class ModelFacts:
    """What the plan knows about the model that enters a pass, from files alone.

    Attributes:
        format: its format.
        config: the checkpoint's ``config.json`` (of the base, for an adapter), empty if there is none.
        path: the folder, if it exists already (the input model, or a cached artifact); ``None`` for what is still
            to be made.
        modules: names and shapes of 2-D weights in the base checkpoint, e.g.
            ``{"model.layers.0.self_attn.qkv_proj": (768, 256)}``; empty if unknown.
        own_base: for an adapter: whether its artifact carries its own base checkpoint in ``base/`` (LoftQ).
        parameters: number of weights of the checkpoint (of the base, for an adapter); 0 if unknown.
        weights: bytes of these weights as they are stored.
        beside: bytes of tokenizer and configuration, which results have too; the plan adds them to an estimate.
        adapter: for an adapter: bytes of its own weights.
        adapted: for an adapter: the rank of the update of each module that it changes; ``None`` if that is unknown.
    """

    format: Format
    config: Mapping[str, Any] = field(default_factory=dict)
    path: Path | None = None
    modules: Mapping[str, Sequence[int]] = field(default_factory=dict)
    own_base: bool = False
    parameters: int = 0
    weights: int = 0
    beside: int = 0
    adapter: int = 0
    adapted: Mapping[str, int] | None = None


@dataclass(frozen=True)
class PlanContext:
    """What :meth:`Pass.resolve` and :meth:`Pass.check` may look at. Nothing in it needs a heavy import.

    Attributes:
        model: the model that enters.
        host: where the pass runs.
        target: where the final model ships to.
        has_bf16: whether ``host`` has bf16 matrix units (a CPU without them is some 200 times slower in bf16).
        data: the data configs that the parameters name, by parameter.
        sizes: how much is in them, as far as that is known without reading all; for estimates.
        cores: threads that a pass may run on ``host``.
        max_memory: bytes that the pass may take (``engine.max_memory``); ``None``: as much as it likes.
    """

    model: ModelFacts
    host: Accelerator
    target: Accelerator
    has_bf16: bool
    data: Mapping[str, DataConfig] = field(default_factory=dict)
    sizes: Mapping[str, DataSize] = field(default_factory=dict)
    cores: int = 1
    max_memory: int | None = None


class Progress(Protocol):
    """Receives what a running pass reports. Calls are cheap and may be frequent."""

    def __call__(self, done: float, total: float | None, *, unit: str = "", message: str = "", **values: float) -> None:
        """Report that ``done`` of ``total`` ``unit``s are done, with current values such as ``loss=1.2``."""


@dataclass(frozen=True)
class RunContext:
    """What a pass gets when it runs, inside a worker.

    Attributes:
        inputs: folders by name: ``model`` is the model that enters; for a ``peft`` model also ``base``, its checkpoint.
        input_format: format of ``model``.
        output: an existing empty folder; what the pass leaves there becomes the artifact, if it returns.
        checkpoint: a folder that outlives a killed worker; the same Step finds what it left there. Gone after success.
        data: the data configs that the parameters name (every parameter that ends in ``data_config``), paths absolute.
        host: where this runs.
        target: where the model ships to.
        progress: see :class:`Progress`.
        note: tells the user one line worth knowing ("paged_adamw_32bit needs a GPU: adamw_torch is used").
        trust_remote_code: whether the user allowed code that comes with the model to run.
        shared: a folder that Steps share, for what is costly to find and depends on less than a Step does; ``None`` if
            there is none. Files in it appear whole, and may be gone the next time.
        identities: by input and by data parameter, a text that changes whenever the content does; for keys in
            ``shared``.
        max_memory: bytes that the pass may take; it keeps to them where it can choose how much it holds at a time.
    """

    inputs: Mapping[str, Path]
    input_format: Format
    output: Path
    checkpoint: Path
    data: Mapping[str, DataConfig]
    host: Accelerator
    target: Accelerator
    progress: Progress
    note: Any
    trust_remote_code: bool = False
    shared: Path | None = None
    identities: Mapping[str, str] = field(default_factory=dict)
    max_memory: int | None = None


@dataclass(frozen=True)
class PassResult:
    """What a pass hands back beside the files in ``output``.

    Attributes:
        metrics: numbers worth keeping (``train_loss``, ``eval_loss``, ``train_runtime_s`` ...).
        attributes: facts later Steps or the model card need (``{"precision": "int4"}``); JSON.
        history: rows over time, e.g. ``[{"step": 10, "loss": 2.1}, ...]``.
    """

    metrics: Mapping[str, float] = field(default_factory=dict)
    attributes: Mapping[str, Any] = field(default_factory=dict)
    history: Sequence[Mapping[str, float]] = ()


class Pass(ABC, Generic[ParamsT]):
    """One technique. Subclasses set the class attributes and implement :meth:`run`.

    Attributes:
        type: the name in a configuration (``LoRA``); matched without regard to case.
        summary: one line for lists.
        reference_url: paper or specification.
        accepts: formats of the model that may enter.
        produces: format of the result.
        version: raise it when the same inputs give another result; part of the cache key.
        params_type: the pydantic model of the parameters.
        requires: packages it needs to run.
        shaped_by: distributions whose version changes the result; their versions are part of the cache key.
        own_base: the artifact carries its own base checkpoint in ``base/`` (only for ``produces = peft``).
        searchable: choices of its own for ``SEARCHABLE_VALUES``, by parameter.
        spreads: several processes, on one machine or several, can share its work.
        made_for_target: the result depends on the target's execution provider, so it is part of the cache key.
    """

    type: ClassVar[str]
    summary: ClassVar[str]
    reference_url: ClassVar[str] = ""
    accepts: ClassVar[frozenset[Format]]
    produces: ClassVar[Format]
    version: ClassVar[int] = 1
    params_type: ClassVar[builtins.type[Params]]
    requires: ClassVar[tuple[Requirement, ...]] = ()
    shaped_by: ClassVar[tuple[str, ...]] = ()
    own_base: ClassVar[bool] = False
    made_for_target: ClassVar[bool] = False
    spreads: ClassVar[bool] = False
    searchable: ClassVar[Mapping[str, tuple[Any, ...]]] = {}

    @classmethod
    def resolve(cls, params: ParamsT, context: PlanContext) -> tuple[ParamsT, list[str]]:
        """Replace ``auto`` and hardware-dependent values by what will be used here, with one note per decision.

        Called by ``plan`` before the Step's digest is taken, so the result is part of the cache key. Must be pure and
        idempotent: ``resolve(resolve(p)) == resolve(p)``.
        """
        return params, []

    @classmethod
    def check(cls, params: ParamsT, context: PlanContext) -> list[Problem]:
        """Return everything that is known to be wrong before anything runs. Called by ``plan`` after ``resolve``.

        ``where`` of a problem may hold only ``Location(path="r")``, the key within the pass; the plan adds the rest.
        """
        return []

    @classmethod
    def needs(cls, params: ParamsT) -> tuple[Requirement, ...]:
        """Return the packages that the pass needs with these parameters: :attr:`requires`, unless one asks for more.

        Called by ``plan`` after ``resolve``, for a machine that lacks one, and for the environment of a job.
        """
        return cls.requires

    @classmethod
    def estimate(cls, params: ParamsT, context: PlanContext, data: Mapping[str, DataConfig]) -> Estimate:
        """Return what :meth:`run` will take. Called by ``plan`` if the model's size is known.

        The default is that of a pass that loads the checkpoint once, and leaves one as large.
        """
        weights = context.model.weights
        effort = TRANSFORMERS + Effort(read=weights, written=weights)
        return Estimate({"loading": LIBRARIES + weights}, output=weights, effort=effort)

    @classmethod
    def adapted(cls, params: ParamsT, modules: Mapping[str, Sequence[int]]) -> Mapping[str, int] | None:
        """Return the rank of the update of each of ``modules`` that the adapter changes, ``None`` if that is unknown.

        Called by ``plan`` for passes that produce an adapter, so that it knows what merging it will take.
        """
        return None

    @classmethod
    def within(cls, params: ParamsT, context: PlanContext, data: Mapping[str, DataConfig]) -> tuple[ParamsT, list[str]]:
        """Change how the pass works, and not what it gives, so that it takes at most ``context.max_memory`` bytes.

        Called by ``plan`` if a budget is given, after ``resolve``; the parameters go into the Step's digest. Returns
        one note per decision. What cannot be made to fit is left as it is, and refused.
        """
        return params, []

    @abstractmethod
    def run(self, params: ParamsT, context: RunContext) -> PassResult:
        """Do the work: read ``context.inputs``, write ``context.output``.

        Called in a worker process, once, with resolved parameters. May be killed at any moment and called again with
        the same ``context.checkpoint``. Must be deterministic for given inputs, parameters and library versions.

        Raises:
            OlivineError: for anything the user can mend; other exceptions are reported as a failed Step.
        """
