"""Small data and parameters for training the pico model, for tests and for the processes that they kill."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from olivine.config.schema import DataConfig
from olivine.models.checkpoint import read_checkpoint
from olivine.passes import registry
from olivine.passes.base import Accelerator, Format, ModelFacts, Params, PassResult, PlanContext
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


def rows_config(file: Path) -> DataConfig:
    """Return the data config of the rows in ``file``: joined to blocks of 32 tokens."""
    return DataConfig(
        name="rows",
        data_files=str(file),
        data_name="json",
        text_template="### Text: {phrase}\n### The tone is:\n{tone}",
        max_seq_len=32,
    )


def train_small(name: str, model: Path, rows: DataConfig, folder: Path, **changes: Any) -> PassResult:
    """Run the pass ``name`` into ``folder/output``; ``progress`` and ``notes`` go to ``run_pass``, others to it."""
    extra = {key: changes.pop(key) for key in ("progress", "notes") if key in changes}
    pass_type = registry.find(name)
    assert pass_type is not None
    params = small_params(name, model, **changes)
    return run_pass(pass_type, params, {"model": model}, folder, data={"train_data_config": rows}, **extra)
