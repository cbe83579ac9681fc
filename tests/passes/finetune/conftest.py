"""Small data, and adapters trained on it once for the whole session."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from olivine.config.schema import DataConfig
from olivine.models.checkpoint import read_checkpoint
from olivine.passes import registry
from olivine.passes.base import Accelerator, Format, ModelFacts, Params, PlanContext
from olivine.passes.conformance import run_pass

PHRASES = ("cricket is a wonderful sport", "the night was dark", "she lost her keys", "what a party", "rain again")
TONES = ("joy", "fear", "sadness", "surprise")


def write_rows(file: Path, count: int = 40) -> Path:
    """Write ``count`` distinct rows as JSON Lines."""
    rows = [{"phrase": f"{PHRASES[i % len(PHRASES)]} {i}", "tone": TONES[i % len(TONES)]} for i in range(count)]
    file.write_text("\n".join(map(json.dumps, rows)) + "\n", encoding="utf-8")
    return file


def plan_for(model: Path, *, device: str = "cpu", has_bf16: bool = False) -> PlanContext:
    """Return what the plan knows of the checkpoint ``model``."""
    checkpoint = read_checkpoint(model)
    facts = ModelFacts(Format.HF, checkpoint.config, model, checkpoint.modules)
    return PlanContext(facts, Accelerator(device), Accelerator(), has_bf16)


def small_params(name: str, model: Path, **changes: Any) -> Params:
    """Return resolved parameters of a few short steps."""
    pass_type = registry.find(name)
    assert pass_type is not None
    given = {"r": 4, "alpha": 8, "train_data_config": "rows", "training_args": {}} | changes
    given["training_args"] = {"max_steps": 3, "learning_rate": 0.01, "logging_steps": 1} | given["training_args"]
    found: Params = pass_type.resolve(pass_type.params_type.model_validate(given), plan_for(model))[0]
    return found


@pytest.fixture(scope="session")
def rows(tmp_path_factory: pytest.TempPathFactory) -> DataConfig:
    """Forty phrases with their tone, in blocks of 32 tokens."""
    file = write_rows(tmp_path_factory.mktemp("rows") / "train.jsonl")
    return DataConfig(
        name="rows",
        data_files=str(file),
        data_name="json",
        text_template="### Text: {phrase}\n### The tone is:\n{tone}",
        max_seq_len=32,
    )


@pytest.fixture(scope="session")
def trained(pico_model: Path, rows: DataConfig, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Return a function that trains an adapter on the pico model, once for each set of parameters."""
    known: dict[str, Path] = {}

    def train(name: str, base: Path | None = None, **changes: Any) -> Path:
        key = json.dumps([name, str(base), changes], sort_keys=True)
        if key not in known:
            folder = tmp_path_factory.mktemp(name)
            model = base or pico_model
            pass_type = registry.find(name)
            assert pass_type is not None
            run_pass(
                pass_type,
                small_params(name, model, **changes),
                {"model": model},
                folder,
                data={"train_data_config": rows},
            )
            known[key] = folder / "output"
        return known[key]

    return train
