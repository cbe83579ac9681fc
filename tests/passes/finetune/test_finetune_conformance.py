"""Every fine-tuning pass keeps the promises that all passes make."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from olivine.config.schema import DataConfig
from olivine.passes import registry
from olivine.passes.base import Pass
from olivine.passes.conformance import PassConformance


class AdapterConformance(PassConformance):
    """What the adapter passes are tested with."""

    name = ""

    @pytest.fixture
    def pass_type(self) -> type[Pass[Any]]:
        found = registry.find(self.name)
        assert found is not None
        return found

    @pytest.fixture
    def params(self) -> dict[str, Any]:
        return {
            "r": 4,
            "train_data_config": "rows",
            "eval_dataset_size": 0.2,
            "training_args": {"max_steps": 4, "gradient_accumulation_steps": 2, "group_by_length": True},
        }

    @pytest.fixture
    def inputs(self, pico_model: Path) -> Mapping[str, Path]:
        return {"model": pico_model}

    @pytest.fixture
    def data(self, rows: DataConfig) -> Mapping[str, DataConfig]:
        return {"train_data_config": rows}


class TestLoRA(AdapterConformance):
    name = "LoRA"


class TestDoRA(AdapterConformance):
    name = "DoRA"


class TestQLoRA(AdapterConformance):
    name = "QLoRA"


class TestLoftQ(AdapterConformance):
    name = "LoftQ"


class TestMergeAdapterWeights(PassConformance):
    @pytest.fixture
    def pass_type(self) -> type[Pass[Any]]:
        found = registry.find("MergeAdapterWeights")
        assert found is not None
        return found

    @pytest.fixture
    def params(self) -> dict[str, Any]:
        return {}

    @pytest.fixture
    def inputs(self, pico_model: Path, trained: Callable[..., Path]) -> Mapping[str, Path]:
        return {"model": trained("LoRA"), "base": pico_model}
