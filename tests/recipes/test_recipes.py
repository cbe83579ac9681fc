"""Verbs without a configuration: what they stand for can be planned, says what it means, and runs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from built_models import PROMPT, genai_of, rows
from finished_run import olivine as command
from safetensors.numpy import save_file

import olivine
from olivine import recipes
from olivine.errors import ConfigError, OlivineError
from olivine.recipes.table import PASSES, TARGETS

TEMPLATE = PROMPT + "{tone}"


@pytest.fixture
def folder(tmp_path: Path, pico_model: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a checkpoint ``base`` and rows."""
    (tmp_path / "base").symlink_to(pico_model, target_is_directory=True)
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows()))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def types(workflow: dict[str, Any]) -> list[str]:
    return [each["type"] for each in workflow.get("passes", {}).values()]


def metrics(workflow: dict[str, Any]) -> list[str]:
    return [each["type"] for each in workflow["evaluators"]["measure"]["metrics"]]


def test_optimize_builds_small_and_measures_what_the_options_say_enough_for(folder: Path) -> None:
    workflow = recipes.optimize("base", data="rows.jsonl", text_template=TEMPLATE, label_col="tone")
    assert workflow["passes"] == {"build": {"type": "ModelBuilder", "precision": "int4"}}
    assert metrics(workflow) == ["accuracy", "perplexity", "speed", "size"]
    assert [step.name for step in olivine.plan(workflow).steps][1] == "build"
    assert metrics(recipes.optimize("base")) == ["speed", "size"]
    assert "evaluators" not in recipes.optimize("base", measure=False)


def test_goals_gate_and_try_more_than_one_precision(folder: Path) -> None:
    said: dict[str, Any] = {"data": "rows.jsonl", "text_template": TEMPLATE, "label_col": "tone"}
    workflow = recipes.optimize("base", max_size="1.5MB", max_accuracy_drop=0.01, **said)
    measured = {metric["type"]: metric for metric in workflow["evaluators"]["measure"]["metrics"]}
    assert measured["size"]["sub_types"][0]["goal"] == {"type": "threshold", "value": 1_500_000}
    assert measured["accuracy"]["sub_types"][0]["goal"] == {"type": "max-degradation", "value": 0.01}
    assert workflow["passes"]["build"]["precision"] == ["int4", "int8"]
    olivine.plan(workflow)
    assert recipes.optimize("base", max_size=9, precision="int8")["passes"]["build"]["precision"] == "int8"
    for wrong in ({"max_size": "2 bananas"}, {"min_accuracy": 0.9}, {"max_size": 9, "measure": False}):
        with pytest.raises(ConfigError):
            recipes.optimize("base", **wrong)


def test_convert_keeps_what_the_checkpoint_computes(folder: Path) -> None:
    assert recipes.convert("base")["passes"]["build"]["precision"] == "fp32"
    assert recipes.convert("base", target="cuda")["passes"]["build"]["precision"] == "fp16"
    olivine.plan(recipes.convert("base"))


def test_finetune_trains_on_all_rows_merges_and_builds_only_for_a_target(folder: Path) -> None:
    said: dict[str, Any] = {"data": "rows.jsonl", "text_template": TEMPLATE, "max_seq_len": 64}
    plain = recipes.finetune("base", method="dora", rank=4, **said)
    assert types(plain) == ["DoRA", "MergeAdapterWeights"]
    assert plain["passes"]["finetune"]["alpha"] == 4
    assert "max_samples" not in plain["data_configs"][0]
    assert types(recipes.finetune("base", target="cpu", **said)) == ["LoRA", "MergeAdapterWeights", "ModelBuilder"]
    assert types(recipes.finetune("base", merge=False, **said)) == ["LoRA"]
    olivine.plan(recipes.finetune("base", target="cpu", eval_data="rows.jsonl", label_col="tone", **said))


def test_finetune_keeps_to_the_positions_that_a_small_model_has(folder: Path) -> None:
    workflow = recipes.finetune("base", data="rows.jsonl", text_template=TEMPLATE)
    assert workflow["data_configs"][0]["max_seq_len"] == 512
    olivine.plan(workflow)
    config = json.loads((folder / "base" / "config.json").read_text()) | {"max_position_embeddings": 4096}
    shutil.copytree(folder / "base", folder / "long")
    (folder / "long" / "config.json").write_text(json.dumps(config))
    assert "max_seq_len" not in recipes.finetune("long", data="rows.jsonl", text_template=TEMPLATE)["data_configs"][0]


def test_quantize_measures_before_and_after_if_there_is_data(folder: Path) -> None:
    workflow = recipes.quantize("base", bits=8, form="gptq", data="rows.jsonl", text_template=TEMPLATE)
    assert types(workflow) == ["Quantize"]
    assert metrics(workflow) == ["perplexity", "size"]
    olivine.plan(workflow)


def test_an_adapter_is_merged_into_the_checkpoint_that_it_names(folder: Path, pico_model: Path) -> None:
    adapter = folder / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(pico_model)}))
    save_file({"lora_A.weight": np.zeros((2, 2), np.float32)}, adapter / "adapter_model.safetensors")
    workflow = recipes.optimize("adapter", measure=False)
    assert workflow["input_model"] == {"model_path": str(pico_model), "adapter_path": "adapter"}
    assert types(workflow) == ["MergeAdapterWeights", "ModelBuilder"]
    olivine.plan(workflow)
    (adapter / "adapter_config.json").write_text("{}")
    with pytest.raises(OlivineError, match="does not say which checkpoint"):
        recipes.optimize("adapter")


def test_a_model_that_is_ready_is_benchmarked_and_not_optimized(folder: Path, pico_model: Path) -> None:
    ready = str(genai_of(pico_model, "int4"))
    with pytest.raises(ConfigError, match="olivine benchmark"):
        recipes.optimize(ready)
    workflow = recipes.benchmark(ready, repeats=2)
    assert "passes" not in workflow
    assert {"type": "speed", "repeats": 2} in workflow["evaluators"]["measure"]["metrics"]
    olivine.plan(workflow)


@pytest.mark.parametrize(
    ("verb", "arguments", "said"),
    [
        ("optimize", {"target": "toaster"}, "cpu, cuda"),
        ("optimize", {"label_col": "tone"}, "needs data"),
        ("optimize", {"text_template": TEMPLATE}, "without data"),
        ("finetune", {"data": "rows.jsonl", "text_template": TEMPLATE, "text_cols": ["tone"]}, "two ways"),
        ("finetune", {"data": "rows.jsonl", "prompt_template": PROMPT}, "go together"),
        ("finetune", {"data": "rows.jsonl", "merge": False, "target": "cpu"}, "merged checkpoint"),
        ("finetune", {"data": "rows.jsonl", "label_col": "tone"}, "eval data"),
    ],
)
def test_what_contradicts_itself_is_refused(folder: Path, verb: str, arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        getattr(recipes, verb)("base", **arguments)


def test_the_table_names_only_passes_and_precisions_that_are_there() -> None:
    from olivine.models.genai import PROVIDERS
    from olivine.passes import registry
    from olivine.passes.convert.builder_checks import VALID

    named = {each for passes in PASSES.values() for each in passes} - {"finetune"}
    assert named <= set(registry.BUILTIN)
    for target in TARGETS.values():
        assert {target.small, target.full} <= set(VALID[PROVIDERS[target.execution_provider]])


def test_the_command_shows_and_writes_the_configuration_that_it_runs(folder: Path) -> None:
    shown = command(folder, "optimize", "base", "--no-measure", "--set", "passes.build.int4_block_size=64")
    assert shown.returncode == 0, shown.stderr
    assert (folder / "models" / "genai_config.json").is_file()
    text = shown.stdout.partition("configuration:\n")[2].partition("\n\n")[0]
    assert yaml.safe_load(text)["passes"]["build"] == {
        "type": "ModelBuilder",
        "precision": "int4",
        "int4_block_size": 64,
    }
    written = command(
        folder,
        *("optimize", "base", "--no-measure", "--set", "passes.build.int4_block_size=64", "--dry-run"),
        *("--write-config", "configs/workflow.yaml"),
    )
    assert written.returncode == 0, written.stderr
    again = command(folder, "run", "configs/workflow.yaml", "--json")
    assert again.returncode == 0, again.stderr
    events = [json.loads(line) for line in again.stdout.splitlines()]
    assert events[-1]["steps"][0]["cached"]
    assert events[-1]["output_dir"] == str(folder / "models")
    other = command(folder, "convert", "base", "--dry-run", "--write-config", "configs/workflow.yaml")
    assert other.returncode == 2
    assert "says something else" in " ".join(other.stderr.split())


def test_a_model_that_is_not_there_and_an_option_that_is_none_are_refused(folder: Path) -> None:
    missing = command(folder, "quantize", "./bass", HF_HUB_OFFLINE="1")
    assert missing.returncode == 2
    assert "bass" in missing.stderr
    wrong = command(folder, "finetune", "base", "--data", "rows.jsonl", "--ranks", "4")
    assert wrong.returncode == 2
    assert "--rank" in wrong.stderr
    shutil.rmtree(folder / "models", ignore_errors=True)
    assert not (folder / ".olivine-cache").exists()
