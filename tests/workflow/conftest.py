"""Fixtures of the workflow tests; what they build is in workflow_project.py."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from workflow_project import Project, canonical


@pytest.fixture
def project(tmp_path: Path, pico_model: Path) -> Project:
    return Project(tmp_path, pico_model)


@pytest.fixture
def changed() -> Callable[..., dict[str, Any]]:
    """The canonical workflow with one value set: ``changed("passes.lora.r", 8)``."""

    def change(path: str, value: Any) -> dict[str, Any]:
        config = canonical()
        node: Any = config
        *parents, last = path.split(".")
        for part in parents:
            node = node[int(part)] if isinstance(node, list) else node[part]
        node[int(last) if isinstance(node, list) else last] = value
        return config

    return change
