"""What tests of metrics share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from built_models import PROMPT

from olivine.config.schema import DataConfig
from olivine.evaluate.base import MetricContext
from olivine.models.checkpoint import detect_format
from olivine.passes.base import Accelerator


def context(model: Path, file: Path | None = None, **config: Any) -> MetricContext:
    """Return what a metric gets to measure ``model`` with the data in ``file``."""
    data = {} if file is None else {"data_config": DataConfig(name="data", data_files=str(file), **config)}
    return MetricContext(model, detect_format(model), data, Accelerator(), lambda *_, **__: None)


ACCURACY = {"data_config": "data", "prompt_template": PROMPT, "label_col": "tone", "max_new_tokens": 12}
