"""The canonical workflow: the one form that every dialect is translated into, and the only one that Olivine runs.

Section names are those that users already know (``input_model``, ``data_configs``, ``systems``, ``passes``,
``evaluators``, ``engine``), in flat form. Parameters of a pass or a metric are checked against the class that its
``type`` names (:mod:`olivine.passes.registry`, :mod:`olivine.evaluate.registry`) while the file is loaded.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

SCHEMA_VERSION = 1


class Node(BaseModel):
    """A part of the configuration: frozen, and an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class LoadKwargs(Node):
    """How the checkpoint is loaded."""

    trust_remote_code: bool = False
    """Whether code that comes with the model may run. Also needs ``--trust-remote-code`` on the command line."""
    revision: str | None = None
    """Commit, tag or branch of a hub model. Pin a commit to be reproducible."""


class InputModel(Node):
    """The model that goes in."""

    type: Literal["HfModel", "ONNXModel"] = "HfModel"
    """``HfModel``: a checkpoint folder or hub id. ``ONNXModel``: an ONNX or ONNX Runtime GenAI folder."""
    model_path: str
    """Folder, or id on the Hugging Face hub (``org/name``)."""
    adapter_path: str | None = None
    """A PEFT adapter that belongs to the model."""
    task: str = "text-generation"
    """Task in Hugging Face terms."""
    load_kwargs: LoadKwargs = LoadKwargs()


Strategy = Literal["join", "join-random", "join-sliding-window", "line-by-line", "line-by-line-random"]


class DataConfig(Node):
    """Rows from files or the hub, and how they become token sequences."""

    name: str = Field(pattern=r"^[A-Za-z0-9_]+$")
    """What passes and metrics call it."""
    data_name: str | None = None
    """Format of ``data_files`` (``json``, ``csv``, ``parquet``, ``text``), a saved data set's folder, or a hub id.
    Inferred from the suffix when only ``data_files`` is given."""
    data_files: str | list[str] | None = None
    """Path, glob, or list of them."""
    data_dir: str | None = None
    """Folder inside a hub data set."""
    subset: str | None = None
    """Configuration name of a hub data set."""
    split: str = "train"
    """Split, slices allowed: ``train``, ``train[:70%]``, ``train[100:]``."""
    revision: str | None = None
    """Commit of a hub data set."""
    max_rows: int | None = Field(default=None, ge=1)
    """Read at most this many rows."""
    on_bad_row: Literal["error", "skip"] = "error"
    """A row with a null, a wrong type, or broken JSON: stop and name it, or leave it out and count it."""

    dataset_type: Literal["corpus", "pair"] = "corpus"
    """``corpus``: each row is one text. ``pair``: each row is a prompt and its completion."""
    text_template: str | None = None
    """``str.format`` template over the columns: ``"Text: {phrase}\\nTone: {tone}"``. Double literal braces."""
    text_cols: str | list[str] | None = None
    """Columns joined by one space, when there is no template. Default ``text``."""
    chat_template: bool | str | None = None
    """``true``: apply the tokenizer's chat template to ``message_col``; a string is a Jinja template of your own."""
    message_col: str = "messages"
    """Column with the list of ``{role, content}`` messages."""
    prompt_template: str | None = None
    """The prompt part of a pair, as a template; with it ``text_template`` is not needed."""
    completion_template: str | None = None
    """The completion part of a pair, as a template."""
    prompt_col: str | None = None
    """The prompt part of a pair, as a column."""
    completion_col: str | None = None
    """The completion part of a pair, as a column."""
    train_on: Literal["all", "completion"] | None = None
    """Which tokens are in the loss. Default: ``all`` for a corpus, ``completion`` for pairs and chats that ask for it.
    ``completion`` on a corpus with ``text_template`` counts the last column of the template as the completion."""

    strategy: Strategy = "join"
    """How texts become sequences; see the table in docs/data.md."""
    max_seq_len: int = Field(default=1024, ge=1)
    """Longest sequence, in tokens. For pairs: prompt and completion together."""
    max_prompt_len: int | None = Field(default=None, ge=1)
    """For pairs: prompts are cut to this many tokens."""
    max_completion_len: int | None = Field(default=None, ge=1)
    """For pairs: completions are cut to this many tokens."""
    joiner: str | None = "\n\n"
    """Text between rows in the ``join`` strategies; ``null`` puts nothing there."""
    add_special_tokens: bool = True
    """Begin each text with the BOS token and end it with EOS, as token ids, if the tokenizer has them."""
    last_block: Literal["keep", "drop"] = "keep"
    """``join``: whether the last, shorter block is trained on. What is dropped is reported."""
    stride: int | None = Field(default=None, ge=1)
    """``join-sliding-window``: tokens between the starts of two windows."""
    pad_to_max_len: bool = False
    """``line-by-line``: pad every sequence to ``max_seq_len`` rather than to the longest of its batch."""
    drop_short_sequences: bool = False
    """``line-by-line``: leave out sequences shorter than ``max_seq_len``; reported."""
    max_samples: int | None = Field(default=None, ge=1)
    """At most this many sequences. Required by the random strategies."""
    random_seed: int | None = None
    """Required by the random strategies."""
    random_retries: int = Field(default=10, ge=0)
    """``line-by-line-random``: draws to try for a sequence long enough, with ``drop_short_sequences``."""


class System(Node):
    """Somewhere a Step can run."""

    type: Literal["LocalSystem"] = "LocalSystem"
    device: Literal["auto", "cpu", "gpu", "npu"] = "auto"
    """Kind of processor; ``auto`` takes a GPU if one is there."""
    execution_provider: str | None = None
    """ONNX Runtime's name (``CPUExecutionProvider``, ``CUDAExecutionProvider``, ``DmlExecutionProvider`` ...)."""
    hf_token: bool = False
    """Whether Steps may use the Hugging Face token of this environment."""


class PassConfig(Node):
    """One pass: its type, and its parameters beside it. In memory the parameters are gathered in ``params``."""

    type: str
    """The pass, e.g. ``LoRA``; ``olivine passes`` lists them."""
    host: str | None = None
    """System to run on, if not the engine's."""
    evaluator: str | None = None
    """Evaluator for this pass's result, beside the engine's for the last."""
    params: dict[str, Any] = Field(default_factory=dict)
    """Filled from the keys beside ``type``."""

    @model_validator(mode="before")
    @classmethod
    def _gather(cls, value: Any) -> Any:
        return gather(value, {"type", "host", "evaluator"})


class MetricConfig(Node):
    """One metric: its type, and its parameters beside it. In memory the parameters are gathered in ``params``."""

    type: str
    """The metric, e.g. ``accuracy``, ``perplexity``, ``speed``, ``size``."""
    name: str | None = None
    """How the result is called; default: the type."""
    params: dict[str, Any] = Field(default_factory=dict)
    """Filled from the keys beside ``type``."""

    @model_validator(mode="before")
    @classmethod
    def _gather(cls, value: Any) -> Any:
        return gather(value, {"type", "name"})


class Evaluator(Node):
    """A set of metrics."""

    metrics: list[MetricConfig] = Field(min_length=1)


class Engine(Node):
    """How the workflow runs and where its results go."""

    host: str | None = None
    """System that passes run on; default: this machine."""
    target: str | None = None
    """System that the model ships to, and that metrics are measured on; default: this machine."""
    evaluator: str | None = None
    """Evaluator for the input model and the final model."""
    evaluate_input_model: bool = True
    """Whether the input model is measured too, to compare with."""
    search_strategy: Literal[False] | None = None
    """``false``: run the passes in order."""
    cache_dir: str = ".olivine-cache"
    """The Store. Runs may share one."""
    output_dir: str = "models"
    """Where the final model is put."""
    log_severity_level: int = Field(default=1, ge=0, le=4)
    """How much of what libraries log goes to the run's log file: 0 everything, 4 only fatal errors."""


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
    data_configs: list[DataConfig] = Field(default_factory=list)
    """Data that passes and metrics refer to by name."""
    systems: dict[str, System] = Field(default_factory=dict)
    """Places to run on or to ship to, by name."""
    passes: dict[str, PassConfig] = Field(default_factory=dict)
    """Passes in the order they run."""
    evaluators: dict[str, Evaluator] = Field(default_factory=dict)
    """Sets of metrics, by name."""
    engine: Engine = Engine()
    """How it runs and where results go."""

    def data_config(self, name: str) -> DataConfig:
        """Return the data config called ``name``.

        Raises:
            KeyError: there is none (loading has checked every reference, so this is a defect of the caller).
        """
        for config in self.data_configs:
            if config.name == name:
                return config
        raise KeyError(name)


def gather(value: Any, own: set[str]) -> Any:
    """Move the keys of ``value`` that are not in ``own`` into ``params``, so that a file can be flat."""
    if not isinstance(value, dict) or "params" in value:
        return value
    return {key: item for key, item in value.items() if key in own} | {
        "params": {key: item for key, item in value.items() if key not in own}
    }
