"""The canonical workflow: the one form that every dialect is translated into, and the only one that Olivine runs.

Section names are those that users already know (``input_model``, ``data_configs``, ``systems``, ``passes``,
``evaluators``, ``engine``), in flat form. Parameters of a pass or a metric are checked against the class that its
``type`` names (:mod:`olivine.passes.registry`, :mod:`olivine.evaluate.registry`) while the file is loaded.
"""

# Annotations are not postponed here: pydantic would compile each of the two hundred once more, at every start.

from typing import Any, Literal, Self, Union

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

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
    torch_dtype: str | None = None
    """Kept for exports that load the model themselves; fine-tuning and ModelBuilder have parameters of their own."""
    attn_implementation: str | None = None
    """Kept like ``torch_dtype``."""
    device_map: str | dict[str, Any] | None = None
    """Kept like ``torch_dtype``."""
    max_memory: dict[str, Any] | None = None
    """Kept like ``torch_dtype``."""
    quantization_method: str | None = None
    """Quantises while loading (``bitsandbytes``, ``gptq``); not available: QLoRA and ModelBuilder quantise."""
    quantization_config: dict[str, Any] | None = None
    """Belongs to ``quantization_method``."""
    extra_args: dict[str, Any] | None = None
    """Any other argument of ``from_pretrained``; kept like ``torch_dtype``."""


ModelType = Literal[
    "HfModel",
    "ONNXModel",
    "PyTorchModel",
    "CompositeModel",
    "DiffusersModel",
    "DistributedHfModel",
    "DistributedOnnxModel",
    "OpenVINOModel",
    "OptimumModel",
    "QNNModel",
    "QairtModel",
    "QairtPreparedModel",
    "SNPEModel",
    "TensorFlowModel",
]
WITHOUT_PATH = frozenset({"PyTorchModel", "CompositeModel", "DistributedHfModel", "DistributedOnnxModel"})
"""Kinds of model that can do without ``model_path``: code makes them, or they are made of components."""


class InputModel(Node):
    """The model that goes in. Kinds other than the first two are understood, and not available yet."""

    type: ModelType = "HfModel"
    """``HfModel``: a checkpoint folder or hub id. ``ONNXModel``: an ONNX or ONNX Runtime GenAI folder."""
    model_path: str
    """Folder, or id on the Hugging Face hub (``org/name``), or an ``azureml://`` address."""
    adapter_path: str | None = None
    """A PEFT adapter that belongs to the model."""
    task: str = "text-generation"
    """Task in Hugging Face terms."""
    load_kwargs: LoadKwargs = LoadKwargs()
    """How the checkpoint is loaded."""
    name: str | None = None
    """What a component of a composite model is called."""
    model_components: list[Union["InputModel", str]] | None = None
    """What a composite model is made of: models, or names of files in ``model_path``."""
    model_variant: str | None = None
    """Family of a ``DiffusersModel`` (``sd``, ``sdxl``, ``flux``, ``auto``); kept."""
    model_class: str | None = None
    """Class of ``transformers`` that loads the model; kept: the checkpoint names it too."""
    model_file_format: str | None = None
    """How a ``PyTorchModel`` is stored; kept."""
    model_loader: str | None = None
    """Function of ``model_script`` that makes the model. It is recorded, and not called."""
    model_script: str | None = None
    """Python file with functions that other keys name. It is recorded, and not run."""
    script_dir: str | None = None
    """Folder that ``model_script`` imports from. It is recorded, and not searched."""
    io_config: dict[str, Any] | str | None = None
    """Names, shapes and types of inputs and outputs, for exports that trace the model; kept."""
    dummy_inputs_func: str | None = None
    """Function of ``model_script`` that makes inputs to trace with. It is recorded, and not called."""
    model_attributes: dict[str, Any] | None = None
    """Facts about the model for passes that are not available yet; kept."""
    generative: bool | None = None
    """Whether a ``HfModel`` generates; kept: the task tells."""
    onnx_file_name: str | None = None
    """The ONNX file in the folder ``model_path``."""
    external_initializers_file_name: str | None = None
    """File with initializers beside an ONNX file; kept."""
    constant_inputs_file_name: str | None = None
    """File with constant inputs beside an ONNX file; kept."""
    inference_settings: dict[str, Any] | None = None
    """Settings of an ONNX Runtime session; kept."""
    use_ort_extensions: bool | None = None
    """Whether a session needs onnxruntime-extensions; kept."""
    model_config_file: str | None = None
    """Configuration beside an OpenVINO, QNN or SNPE model; kept."""
    ranks: dict[str, Any] | None = None
    """``model_name_pattern``, ``num_ranks`` and the like of a distributed model; kept."""
    test_model_path: str | None = None
    """Small stand-in for quick trials; kept."""
    test_model_config: dict[str, Any] | None = None
    """How the stand-in is made; kept."""

    @model_validator(mode="after")
    def _has_a_path(self) -> Self:
        if not self.model_path and self.type not in WITHOUT_PATH:
            raise PydanticCustomError("key_missing", "model_path is missing", {"key": "model_path"})
        return self

    @model_validator(mode="before")
    @classmethod
    def _need_no_path(cls, value: Any) -> Any:
        if isinstance(value, dict) and str(value.get("type")) in WITHOUT_PATH and value.get("model_path") is None:
            return value | {"model_path": ""}
        return value


Strategy = Literal["join", "join-random", "join-sliding-window", "line-by-line", "line-by-line-random"]


class Component(Node):
    """A part of a data config by its type, and its parameters beside it."""

    type: str
    """The function: one of Olive's, or of ``user_script``."""
    params: dict[str, Any] = {}
    """Filled from the keys beside ``type``."""

    @model_validator(mode="before")
    @classmethod
    def _gather(cls, value: Any) -> Any:
        return gather(value, {"type"})


class DataConfig(Node):
    """Rows from files or the hub, and how they become token sequences."""

    name: str = Field(pattern=r"^[A-Za-z0-9_-]+$")
    """What passes and metrics call it."""
    type: str = "HuggingfaceContainer"
    """``HuggingfaceContainer``: rows of a data set, as below. Other containers are understood, and not available."""
    user_script: str | None = None
    """Python file with functions that components name. It is recorded, and not run."""
    script_dir: str | None = None
    """Folder that ``user_script`` imports from. It is recorded, and not searched."""
    load_dataset: Component | None = None
    """Loads rows in some other way than the keys below; not available yet."""
    pre_process_data: Component | None = None
    """Prepares rows for some other task than text generation; not available yet."""
    post_process_data: Component | None = None
    """Turns the outputs of a model into answers, for metrics that are not available yet; kept."""
    dataloader: Component | None = None
    """Makes batches, for metrics and passes that are not available yet; kept."""
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
    col_filters: dict[str, Any] | None = None
    """Only rows whose columns have these values; not available yet."""
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


Device = Literal["auto", "cpu", "gpu", "npu"]


class Accelerator(Node):
    """A processor beside the first of a system."""

    device: Device = "auto"
    """Kind of processor."""
    execution_provider: str | None = None
    """ONNX Runtime's name."""
    memory: int | str | None = None
    """Its memory, in bytes or like ``4GB``."""


Auth = Literal["default", "cli", "managed_identity", "workload_identity", "service_principal", "interactive"]


class AzureMLClient(Node):
    """An Azure Machine Learning workspace, and how to reach it."""

    subscription_id: str | None = None
    """Azure subscription."""
    resource_group: str | None = None
    """Resource group of the workspace."""
    workspace_name: str | None = None
    """Name of the workspace."""
    aml_config_path: str | None = None
    """A ``config.json`` that names the three."""
    read_timeout: int | None = None
    """Seconds to wait for an answer."""
    max_operation_retries: int | None = None
    """How often a failed request is made again."""
    operation_retry_interval: int | None = None
    """Seconds before the first of them."""
    auth: Auth = "default"
    """Who asks. ``default``: what azure-identity finds (environment, workload or managed identity, ``az login`` ...).
    ``service_principal`` is read from ``AZURE_TENANT_ID``, ``AZURE_CLIENT_ID`` and ``AZURE_CLIENT_SECRET``. A browser
    is opened for ``interactive`` only."""
    tenant_id: str | None = None
    """Tenant to sign in to, if not the account's own."""
    client_id: str | None = None
    """The managed or workload identity, where there are several."""
    default_auth_params: dict[str, Any] | None = None
    """Arguments of ``DefaultAzureCredential``."""
    keyvault_name: str | None = None
    """Key vault with the Hugging Face token."""
    cloud: str | None = None
    """``AzureCloud``, ``AzureUSGovernment``, ``AzureChinaCloud``, or a name for what ``cloud_metadata`` describes."""
    cloud_metadata: dict[str, str] | None = None
    """Addresses of another cloud, as the SDK takes them: ``resource_manager``, ``active_directory``,
    ``storage_endpoint`` ... Tokens are sent there."""


SystemType = Literal["LocalSystem", "AzureML", "Docker", "PythonEnvironment", "IsolatedORT"]


class HubToken(Node):
    """Where a job finds the Hugging Face token. The token itself is never in a configuration."""

    key_vault: str | None = None
    """Key vault that holds it; default: ``keyvault_name`` of the workspace."""
    secret: str = "hf-token"
    """Name of the secret in it."""


class System(Node):
    """Somewhere a Step can run. ``Docker`` and ``IsolatedORT`` are understood, and not available yet."""

    type: SystemType = "LocalSystem"
    """``LocalSystem`` is this machine; ``AzureML`` runs jobs on a compute of Azure Machine Learning."""
    device: Device = "auto"
    """Kind of processor; ``auto`` takes a GPU if one is there."""
    execution_provider: str | None = None
    """ONNX Runtime's name (``CPUExecutionProvider``, ``CUDAExecutionProvider``, ``DmlExecutionProvider`` ...)."""
    execution_provider_path: str | None = None
    """Library that holds the execution provider; kept."""
    memory: int | str | None = None
    """Memory of the processor, in bytes or like ``4GB``. The plan says whether the model fits a target that has it."""
    context_length: int | None = Field(default=None, ge=1)
    """Tokens of prompt and answer together that have to fit a target's memory; default: 4096, or what the model has."""
    compute_capability: float | None = Field(default=None, gt=0)
    """CUDA compute capability of a target's GPU (``8.6``): below 8.0 there is no bfloat16."""
    more_accelerators: list[Accelerator] | None = None
    """Further processors or execution providers, each for a model of its own; not available yet."""
    hf_token: bool | HubToken = False
    """Whether Steps may use the Hugging Face token of this environment. AzureML: jobs read it from a key vault, and
    ``true`` means the secret ``hf-token`` in ``keyvault_name`` of the workspace, or in the workspace's own vault."""

    aml_compute: str | None = None
    """AzureML: the compute."""
    aml_docker_config: dict[str, Any] | None = None
    """AzureML: ``base_image`` or ``dockerfile`` and ``build_context_path``; ``conda_file_path``, ``name``."""
    aml_environment_config: dict[str, Any] | None = None
    """AzureML: ``name``, ``version``, ``label`` of an environment that exists."""
    azureml_client_config: AzureMLClient | None = None
    """AzureML: a workspace other than that of the top level."""
    tags: dict[str, Any] | None = None
    """AzureML: tags of the jobs."""
    datastores: str | None = None
    """AzureML: the datastore for what is uploaded."""
    resources: dict[str, Any] | None = None
    """AzureML: resources of the jobs."""
    instance_count: int | None = Field(default=None, ge=1)
    """AzureML: machines for each job that fine-tunes; other Steps take one."""
    processes_per_instance: int | None = Field(default=None, ge=1)
    """AzureML: processes on each of these machines, commonly one for each GPU; default 1."""
    identity: Literal["managed", "user", "none"] | None = None
    """AzureML: who a job is: the compute's identity, or you. Default: the compute's if it has one or is a Kubernetes
    cluster, else you."""
    one_job_per: Literal["workflow", "step"] = "workflow"
    """AzureML: whether consecutive Steps on this system share a job."""
    experiment_name: str | None = None
    """AzureML: experiment that jobs belong to; default: ``workflow_id``."""

    image_name: str | None = None
    """Docker: the image."""
    base_image: str | None = None
    """Docker: the image to build on."""
    dockerfile: str | None = None
    """Docker: how the image is built."""
    build_context_path: str | None = None
    """Docker: the folder it is built from."""
    build_args: dict[str, Any] | None = None
    """Docker: arguments of the build."""
    run_params: dict[str, Any] | None = None
    """Docker: parameters of the container."""
    work_dir: str | None = None
    """Docker: the working directory in the container."""
    clean_image: bool | None = None
    """Docker: whether the image is removed afterwards."""

    python_environment_path: str | None = None
    """PythonEnvironment: its ``bin`` folder."""
    environment_variables: dict[str, Any] | None = None
    """PythonEnvironment: variables to set."""
    prepend_to_path: list[str] | None = None
    """PythonEnvironment: folders before ``PATH``."""
    olive_managed_env: bool | None = None
    """Whether the environment is made for the run, of what the passes need."""
    requirements_file: str | None = None
    """What a made environment holds besides."""
    is_dev: bool | None = None
    """Whether the local sources go with the job; kept."""

    @model_validator(mode="after")
    def _keys_fit_the_type(self) -> Self:
        for key in sorted(self.model_fields_set - SYSTEM_KEYS["all"] - SYSTEM_KEYS[self.type]):
            if getattr(self, key) is not None:
                raise PydanticCustomError("value_error", "", {"error": f"a {self.type} has no `{key}`"})
        if self.type != "AzureML" and not isinstance(self.hf_token, bool):
            error = f"a key vault is for AzureML; for a {self.type} set HF_TOKEN, and hf_token: true"
            raise PydanticCustomError("value_error", "", {"error": error})
        return self


_MADE = frozenset({"olive_managed_env", "requirements_file"})
SYSTEM_KEYS: dict[str, frozenset[str]] = {
    "all": frozenset(
        {
            "type", "device", "execution_provider", "execution_provider_path", "memory", "context_length",
            "compute_capability", "more_accelerators", "hf_token",
        }
    ),
    "LocalSystem": frozenset(),
    "AzureML": _MADE | {
        "aml_compute", "aml_docker_config", "aml_environment_config", "azureml_client_config", "tags", "datastores",
        "resources", "instance_count", "processes_per_instance", "identity", "one_job_per", "experiment_name", "is_dev",
    },
    "Docker": _MADE | {
        "image_name", "base_image", "dockerfile", "build_context_path", "build_args", "run_params", "work_dir",
        "clean_image", "is_dev",
    },
    "PythonEnvironment": _MADE | {"python_environment_path", "environment_variables", "prepend_to_path"},
    "IsolatedORT": frozenset({"python_environment_path", "environment_variables", "prepend_to_path"}),
}  # fmt: skip
"""The keys of each type of system, and those of all."""


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


class PassConfig(Node):
    """One pass: its type, and its parameters beside it. In memory the parameters are gathered in ``params``.

    For a search, a parameter may have a list of choices, a range (``{low: 4, high: 64}``, with ``step`` or ``log``),
    ``SEARCHABLE_VALUES`` (the pass's own choices), or ``DEFAULT_VALUE`` in place of a value.
    """

    type: str
    """The pass, e.g. ``LoRA``; ``olivine passes`` lists them."""
    host: str | None = None
    """System to run on, if not the engine's."""
    evaluator: str | None = None
    """Evaluator for this pass's result, beside the engine's for the last."""
    optional: bool | None = None
    """``true``: a search also tries to leave this pass out."""
    disable_search: bool | None = None
    """``true``: a search leaves this pass's parameters at what they are here."""
    timeout: float | None = Field(default=None, gt=0)
    """Seconds that this pass may take, if not the engine's ``step_timeout``."""
    params: dict[str, Any] = {}
    """Filled from the keys beside ``type``."""

    @model_validator(mode="before")
    @classmethod
    def _gather(cls, value: Any) -> Any:
        return gather(value, {"type", "host", "evaluator", "disable_search", "optional", "timeout"})


GoalType = Literal[
    "threshold", "min-improvement", "max-degradation", "percent-min-improvement", "percent-max-degradation"
]


class Goal(Node):
    """What a value has to reach."""

    type: GoalType
    """``threshold``: the value itself. The others compare with the input model: by how much the value is better at
    least, or worse at most, as a difference or in per cent."""
    value: float
    """The bound. Differences and per cents are not negative."""
    against: str | None = None
    """The model to compare with: the name of a pass, whose result is measured too; default: the input model."""

    @model_validator(mode="after")
    def _is_a_distance(self) -> Self:
        if self.type != "threshold" and self.value < 0:
            raise PydanticCustomError("value_error", "", {"error": f"a {self.type} is not negative"})
        return self


class SubType(Node):
    """One value of a metric, and what it counts for in a search."""

    name: str
    """The value, e.g. ``perplexity``, ``size_bytes``, ``avg``."""
    metric_config: dict[str, Any] | None = None
    """Settings of this value, as the library that computes it takes them."""
    priority: int | None = Field(default=None, ge=1)
    """Rank in comparing models, 1 first; without one it is measured only."""
    higher_is_better: bool | None = None
    """Direction, if the metric does not know it."""
    goal: Goal | None = None
    """What it has to reach."""


class MetricConfig(Node):
    """One metric: its type, and its parameters beside it. In memory the parameters are gathered in ``params``."""

    type: str
    """The metric, e.g. ``accuracy``, ``perplexity``, ``speed``, ``size``."""
    name: str | None = None
    """How the result is called; default: the type."""
    sub_types: list[SubType] | None = None
    """Values that guide a search, and their goals; default: none does."""
    params: dict[str, Any] = {}
    """Filled from the keys beside ``type``."""

    @model_validator(mode="before")
    @classmethod
    def _gather(cls, value: Any) -> Any:
        return gather(value, {"type", "name", "sub_types"})


class Evaluator(Node):
    """A set of metrics."""

    type: str | None = None
    """An evaluator with measures of its own (``LMEvaluator``, ``MTEBEvaluator``); not available yet."""
    metrics: list[MetricConfig] = []
    """What is measured; at least one, unless there is a ``type``."""
    user_script: str | None = None
    """Python file that defines the type. It is recorded, and not run."""
    script_dir: str | None = None
    """Folder that ``user_script`` imports from. It is recorded, and not searched."""
    params: dict[str, Any] = {}
    """Parameters of the type, filled from the keys beside it."""

    @model_validator(mode="before")
    @classmethod
    def _gather(cls, value: Any) -> Any:
        if isinstance(value, dict) and value.get("type") is not None:
            return gather(value, {"type", "metrics", "user_script", "script_dir"})
        return value

    @model_validator(mode="after")
    def _measures_something(self) -> Self:
        if not self.metrics and self.type is None:
            raise PydanticCustomError("key_missing", "metrics is missing", {"key": "metrics"})
        return self


class SearchStrategy(Node):
    """How the space of parameters and alternative passes is searched, and how long."""

    execution_order: Literal["joint", "pass-by-pass"] = "joint"
    """``joint``: points of the whole space. ``pass-by-pass``: the choices of one pass are settled after the other, by
    the model up to it (or up to the next that can be measured); goals are for the candidates that all passes make."""
    sampler: Literal["sequential", "random", "gp", "tpe", "nsga2"] = "sequential"
    """``sequential``: every point in order. ``random``. ``gp``: where a Gaussian process of the values so far promises
    most, which needs the fewest candidates. ``tpe``: towards what was good so far. ``nsga2``: crosses good ones, for
    several values at once."""
    max_samples: int | None = Field(default=None, ge=1)
    """Points to try; default: all. Those that a goal for the size rules out before anything is made do not count."""
    seed: int = 1
    """Seed of the random samplers."""
    with_replacement: bool = False
    """``random``: whether a point may come again."""
    multivariate: bool = True
    """``tpe``: whether parameters are sampled together."""
    group: bool = True
    """``tpe``: whether parameters that depend on each other are split into groups."""
    output_model_num: int | None = Field(default=None, ge=1)
    """How many of the best models are put out: the pick as always, the next best that qualify in ``others/2``,
    ``others/3`` ... of the output folder; default: the pick alone. All of them stay in the cache."""
    stop_when_goals_met: bool = False
    """``joint``: stop when a model reaches every goal."""
    max_iter: int | None = Field(default=None, ge=1)
    """``joint``: points to try at most, counted as for ``max_samples``."""
    max_time: int | None = Field(default=None, ge=1)
    """``joint``: seconds to search at most."""
    include_pass_params: bool = False
    """Whether parameters that are not given are searched over the pass's own choices, as releases of Olive do."""
    candidate_timeout: int | None = Field(default=None, ge=1)
    """Seconds after which a candidate is given up as hanging; default: ten times the longest so far, at least 600."""
    workers: int = Field(default=1, ge=1)
    """Candidates that are made at the same time, as far as memory goes. More than one only where nothing is timed."""


PackagingType = Literal["Zipfile", "Dockerfile", "AzureMLModels", "AzureMLData", "AzureMLDeployment"]


class Packaging(Node):
    """How the final models are packed; not available yet."""

    type: PackagingType = "Zipfile"
    """What is made."""
    name: str = "OutputModels"
    """How it is called."""
    export_in_mlflow_format: bool = False
    """Whether models are packed as MLflow models."""
    include_runtime_packages: bool | None = None
    """Zipfile: whether ONNX Runtime's packages go in."""
    include_sample_code: bool | None = None
    """Zipfile: whether sample code goes in."""
    base_image: str | None = None
    """Dockerfile: the image to build on."""
    requirements_file: str | None = None
    """Dockerfile: what to install."""
    version: int | str | None = None
    """AzureMLModels, AzureMLData: version of the asset."""
    description: str | None = None
    """AzureMLModels, AzureMLData: description of the asset."""
    model_name: str | None = None
    """AzureMLDeployment: the model."""
    model_version: int | str | None = None
    """AzureMLDeployment: its version."""
    model_description: str | None = None
    """AzureMLDeployment: its description."""
    model_package: dict[str, Any] | None = None
    """AzureMLDeployment: environment, server and model as they are packed."""
    deployment_config: dict[str, Any] | None = None
    """AzureMLDeployment: endpoint, deployment, compute."""


class SharedCache(Node):
    """A Store that others fill or use too."""

    url: str
    """Folder or address of a Store, as fsspec knows it: ``/mnt/team/olivine``, ``https://...``, ``s3://...``.
    Credentials come from the environment."""
    writable: bool = False
    """Whether results that are made here are put there."""

    @model_validator(mode="before")
    @classmethod
    def _of_an_address(cls, value: Any) -> Any:
        return {"url": value} if isinstance(value, str) else value


class Engine(Node):
    """How the workflow runs and where its results go."""

    host: str | None = None
    """System that passes run on; default: this machine."""
    target: str | System | None = None
    """Machine that the model ships to, and that metrics are measured on: a system, a profile that ``olivine targets``
    lists (``cpu-4gb``, ``cuda-24gb``), or a description in place: ``{device, execution_provider, memory}``. Default:
    this machine."""
    evaluator: str | None = None
    """Evaluator for the input model and the final model."""
    evaluate_input_model: bool = True
    """Whether the input model is measured too, to compare with."""
    search_strategy: SearchStrategy | Literal[False] | None = None
    """``false`` or nothing: run the passes in order."""
    cache_dir: str = ".olivine-cache"
    """The Store. Runs may share one."""
    shared_cache: SharedCache | None = None
    """A Store elsewhere that is asked for what ``cache_dir`` lacks: its address, or ``{url, writable}``. What it gives
    is checked against its digests."""
    output_dir: str = "models"
    """Where the final model is put."""
    output_name: str | None = None
    """What ``--layout olive-0.6`` puts before the names of files: ``NAME_gpu-cuda_model``."""
    packaging_config: list[Packaging] | None = None
    """How the final model is packed beside."""
    plot_pareto_frontier: bool = False
    """Whether a search draws its Pareto front; kept."""
    max_memory: int | str | None = None
    """Memory that a Step may take, in bytes or like ``12GB``. The plan refuses a Step that needs more, and one that
    takes more all the same is stopped before the system stops something else. Candidates that a search makes side by
    side share it."""
    hang_timeout: float | None = Field(default=1800, gt=0)
    """Seconds after which a Step is stopped whose worker neither says, computes, reads nor writes anything; ``null``:
    never. A Step that is only slow is not stopped."""
    step_timeout: float | None = Field(default=None, gt=0)
    """Seconds that a Step may take; one that takes longer is stopped, whatever it does. A pass may say its own with
    ``timeout``. Default: as long as it likes."""
    log_severity_level: int = Field(default=1, ge=0, le=4)
    """How much of what libraries log goes to the run's log file: 0 everything, 4 only fatal errors."""

    @property
    def target_system(self) -> str | None:
        """The name of the target among the systems; loading has put there what is described in place, and profiles."""
        assert not isinstance(self.target, System)
        return self.target


class Tracking(Node):
    """Where runs are tracked, also those that fail: parameters, measurements, curves and papers; no weights."""

    mlflow: str
    """Address of an MLflow server, ``http://localhost:5000``. Credentials come from the environment
    (``MLFLOW_TRACKING_USERNAME``, ``MLFLOW_TRACKING_PASSWORD``, ``MLFLOW_TRACKING_TOKEN``)."""
    experiment: str = "olivine"
    """Name of the experiment there."""

    @model_validator(mode="after")
    def _has_no_credentials(self) -> Self:
        if "@" in self.mlflow.partition("://")[2].partition("/")[0]:
            error = "it holds credentials; give them by MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
            raise PydanticCustomError("value_error", "", {"error": error})
        if not self.mlflow.startswith(("http://", "https://")):
            raise PydanticCustomError("value_error", "", {"error": "it must begin with http:// or https://"})
        return self


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


def gather(value: Any, own: set[str]) -> Any:
    """Move the keys of ``value`` that are not in ``own`` into ``params``, so that a file can be flat."""
    if not isinstance(value, dict) or "params" in value:
        return value
    return {key: item for key, item in value.items() if key in own} | {
        "params": {key: item for key, item in value.items() if key not in own}
    }
