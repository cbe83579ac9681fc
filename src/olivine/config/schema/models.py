"""``input_model``: the model that goes in."""

# Annotations are not postponed: pydantic would compile each once more, at every start.

from typing import Any, Literal, Self, Union

from pydantic import model_validator
from pydantic_core import PydanticCustomError

from olivine.config.schema.node import Node


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
