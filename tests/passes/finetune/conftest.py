"""Small data, and adapters trained on it once for the whole session."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from small_training import rows_config, train_small, write_rows

from olivine.config.schema import DataConfig


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    """A model this small is faster on one thread, and bit-equal results need the same number in every process."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def rows(tmp_path_factory: pytest.TempPathFactory) -> DataConfig:
    """Forty phrases with their tone, in blocks of 32 tokens."""
    return rows_config(write_rows(tmp_path_factory.mktemp("rows") / "train.jsonl"))


@pytest.fixture(scope="session")
def trained(pico_model: Path, rows: DataConfig, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Return a function that trains an adapter on the pico model, once for each set of parameters."""
    known: dict[str, Path] = {}

    def train(name: str, base: Path | None = None, **changes: Any) -> Path:
        key = json.dumps([name, str(base), changes], sort_keys=True)
        if key not in known:
            folder = tmp_path_factory.mktemp(name)
            train_small(name, base or pico_model, rows, folder, **changes)
            known[key] = folder / "output"
        return known[key]

    return train
