"""``engine`` and ``tracking``: how a workflow runs, and where its results go."""

# Annotations are not postponed: pydantic would compile each once more, at every start.

from typing import Any, Literal, Self

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from olivine.config.schema.node import Node
from olivine.config.schema.systems import System


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
