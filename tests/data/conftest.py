"""The letter tokenizer, and data files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from letter_tokens import letter_tokenizer

from olivine.config.schema import DataConfig


@pytest.fixture(scope="session")
def letters() -> Any:
    """One token for each character; ``<s>`` and ``</s>`` around texts."""
    return letter_tokenizer()


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., DataConfig]:
    """Write a data file, as given or one JSON row a line, and return a config for it."""

    def make(content: str | bytes | list[Any], name: str = "rows.jsonl", **values: Any) -> DataConfig:
        file = tmp_path / name
        if isinstance(content, list):
            content = "".join(json.dumps(row) + "\n" for row in content)
        file.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
        return DataConfig.model_validate({"name": "train", "data_files": str(file)} | values)

    return make
