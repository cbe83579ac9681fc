"""What breaks ask about the model of a document."""

from __future__ import annotations

from typing import Any

from olivine.config.dialects.document import Document

DEFAULT_TASK = "text-generation-with-past"
"""What Olive takes for an HfModel that names no task, from 0.7 on."""


def task_of(document: Document) -> Any:
    """Return the model's task; for an HfModel without one, Olive's default; else ``None``."""
    model = document.root.section("input_model")
    task = model.get("task") or model.section("hf_config").get("task")
    if task is None and str(model.get("type", "")).lower() == "hfmodel":
        return DEFAULT_TASK
    return task
