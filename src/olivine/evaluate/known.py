"""Metrics and evaluators of Olive that Olivine understands and does not have: their parameters, and what to do."""

from __future__ import annotations

import builtins
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict


class KnownParams(BaseModel):
    """Base of the parameters of a metric that is only understood."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class UserConfig(KnownParams):
    """What a metric of Olive was given: functions of a Python file, of which only the names are read, and settings."""

    user_script: str | None = None
    """Python file with the functions. It is recorded, and not run."""
    script_dir: str | None = None
    """Folder that the file imports from. It is recorded, and not searched."""
    data_dir: str | dict[str, Any] | None = None
    """Folder of the data."""
    dataloader_func: str | None = None
    """Function that makes batches."""
    post_processing_func: str | None = None
    """Function that turns outputs into answers."""
    evaluate_func: str | None = None
    """Function that measures a model."""
    metric_func: str | None = None
    """Function that measures answers."""
    func_kwargs: dict[str, Any] | None = None
    """Arguments of the functions, by function."""
    evaluate_func_kwargs: dict[str, Any] | None = None
    """Arguments of ``evaluate_func``."""
    metric_func_kwargs: dict[str, Any] | None = None
    """Arguments of ``metric_func``."""
    batch_size: int | None = None
    """Rows in a batch."""
    input_names: list[Any] | None = None
    """Inputs to make up."""
    input_shapes: list[Any] | None = None
    """Their shapes."""
    input_types: list[Any] | None = None
    """Their types."""
    inference_settings: dict[str, Any] | None = None
    """Settings of the session, by framework."""
    shared_kv_buffer: bool | None = None
    """Whether past and present keys and values share memory."""
    io_bind: bool | None = None
    """Whether inputs and outputs stay on the device."""
    run_kwargs: dict[str, Any] | None = None
    """Arguments of every run of the session."""


class TensorMetricParams(KnownParams):
    """Parameters of a metric of Olive."""

    data_config: str | None = None
    """The data to run."""
    user_config: UserConfig | None = None
    """Functions and settings."""
    sample_log_num: int | None = None
    """How many samples are written into a file."""
    sample_log_dir: str | None = None
    """Where."""


@dataclass(frozen=True)
class KnownMetric:
    """A metric that is understood and not available.

    Attributes:
        type: its name in a canonical configuration.
        summary: one line for lists.
        why: why it is not available.
        instead: what to do.
    """

    type: str
    summary: str
    why: str
    instead: str
    params_type: builtins.type[BaseModel] = TensorMetricParams


FUNCTIONS = ("dataloader_func", "post_processing_func", "evaluate_func", "metric_func")
"""Keys of ``user_config`` that name code."""
_TENSORS = "it measures tensors, not what a language model answers"
ANSWERS = "use accuracy, perplexity or torch_metrics"
"""What to do in place of most metrics."""

METRICS: tuple[KnownMetric, ...] = (
    KnownMetric(
        "huggingface_metrics", "scores that evaluate computes (Olive's accuracy with that backend)", _TENSORS, ANSWERS
    ),
)

EVALUATORS: dict[str, tuple[str, str]] = {
    "LMEvaluator": ("its tasks are a metric here", "use metrics: [{type: lm_eval, tasks: [...]}]"),
    "MTEBEvaluator": ("it needs mteb", "run mteb on the final model"),
}
"""Evaluators with measures of their own: why they are not available, and what to do."""


def names() -> list[str]:
    """Return the names of all metrics that are only understood."""
    return [each.type for each in METRICS]


def find(name: str) -> KnownMetric | None:
    """Return the metric called ``name`` (in any case), or ``None``."""
    return next((each for each in METRICS if each.type == name.lower()), None)
