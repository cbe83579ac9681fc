"""``systems``: places to run on or to ship to, and the workspaces of those in the cloud."""

# Annotations are not postponed: pydantic would compile each once more, at every start.

from typing import Any, Literal, Self

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from olivine.config.schema.node import Node

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
    """Where the Hugging Face token is found. The token itself is never in a configuration."""

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
    """Whether Steps may use the Hugging Face token of this environment, or the key vault that it is read from, by your
    identity. AzureML: jobs read it from a key vault, by theirs, and ``true`` means the secret ``hf-token`` in
    ``keyvault_name`` of the workspace, or in the workspace's own vault."""

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
    """AzureML: whether consecutive Steps on this system share a job, and a whole search is one."""
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
        if self.type not in ("AzureML", "LocalSystem") and not isinstance(self.hf_token, bool):
            error = f"a key vault is for AzureML and LocalSystem; for a {self.type} set HF_TOKEN, and hf_token: true"
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
