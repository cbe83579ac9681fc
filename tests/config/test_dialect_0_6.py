"""Olive 0.6: what it meant is what the canonical form says."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from olivine.config import load
from olivine.config.availability import unavailable
from olivine.errors import ConfigError

COOKBOOK: dict[str, Any] = {
    "input_model": {
        "type": "PyTorchModel",
        "config": {
            "hf_config": {
                "model_name": "base",
                "task": "text-generation",
                "from_pretrained_args": {"trust_remote_code": True},
            }
        },
    },
    "systems": {
        "local_system": {
            "type": "LocalSystem",
            "config": {"accelerators": [{"device": "gpu", "execution_providers": ["CUDAExecutionProvider"]}]},
        }
    },
    "data_configs": [
        {
            "name": "dataset_default_train",
            "type": "HuggingfaceContainer",
            "load_dataset_config": {"params": {"data_name": "json", "data_files": "train.json", "split": "train"}},
            "pre_process_data_config": {
                "params": {
                    "dataset_type": "corpus",
                    "text_cols": ["phrase", "tone"],
                    "text_template": "### Text: {phrase}\n### The tone is:\n{tone}",
                    "corpus_strategy": "join",
                    "source_max_len": 2048,
                    "pad_to_max_len": False,
                    "use_attention_mask": False,
                }
            },
        }
    ],
    "passes": {
        "lora": {
            "type": "LoRA",
            "config": {
                "target_modules": ["o_proj", "qkv_proj"],
                "lora_r": 64,
                "lora_alpha": 64,
                "lora_dropout": 0.1,
                "train_data_config": "dataset_default_train",
                "eval_dataset_size": 0.3,
                "training_args": {"seed": 0, "max_steps": 150, "evaluation_strategy": "steps", "learning_rate": 0.0001},
            },
        },
        "merge_adapter_weights": {"type": "MergeAdapterWeights"},
        "builder": {"type": "ModelBuilder", "config": {"precision": "int4"}},
    },
    "engine": {
        "log_severity_level": 0,
        "search_strategy": False,
        "host": "local_system",
        "target": "local_system",
        "cache_dir": "cache",
        "output_dir": "models",
    },
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "base").mkdir()
    return tmp_path


def loaded(folder: Path, config: dict[str, Any], **options: Any) -> Any:
    file = folder / "olive-config.json"
    file.write_text(json.dumps(config, indent=1))
    return load(file, **options)


def changed(*path_and_value: Any) -> dict[str, Any]:
    """The cookbook's configuration with one value set."""
    *path, last, value = path_and_value
    config = copy.deepcopy(COOKBOOK)
    node: Any = config
    for part in path:
        node = node[part]
    node[last] = value
    return config


def test_the_cookbooks_configuration_keeps_its_meaning(folder: Path) -> None:
    found = loaded(folder, COOKBOOK)
    workflow = found.workflow
    assert found.dialect == "0.6.2"
    assert workflow.input_model.model_path == str(folder / "base")
    assert workflow.input_model.load_kwargs.trust_remote_code
    assert (workflow.systems["local_system"].device, workflow.systems["local_system"].execution_provider) == (
        "gpu",
        "CUDAExecutionProvider",
    )
    (data,) = workflow.data_configs
    assert data.strategy == "join"
    assert data.max_seq_len == 2048
    assert data.joiner is None
    assert data.data_files == str(folder / "train.json")
    lora = workflow.passes["lora"].params
    assert (lora["r"], lora["alpha"], lora["lora_dropout"]) == (64, 64, 0.1)
    assert lora["torch_dtype"] == "auto"
    assert lora["training_args"]["max_steps"] == 150
    assert workflow.engine.output_dir == str(folder / "models")


def test_old_defaults_are_written_out(folder: Path) -> None:
    config = changed("passes", "lora", "config", {"train_data_config": "dataset_default_train"})
    config["data_configs"][0]["pre_process_data_config"]["params"] = {"text_cols": "phrase", "source_max_len": 64}
    config["data_configs"][0]["load_dataset_config"]["params"] = {"data_name": "org/set"}
    workflow = loaded(folder, config).workflow
    lora = workflow.passes["lora"].params
    assert lora["lora_dropout"] == 0.0
    training = lora["training_args"]
    assert training["max_steps"] == 10000
    assert training["per_device_train_batch_size"] == 1
    assert training["gradient_accumulation_steps"] == 16
    assert training["learning_rate"] == 2e-4
    assert training["optim"] == "paged_adamw_32bit"
    (data,) = workflow.data_configs
    assert data.split == "validation"
    assert data.strategy == "line-by-line"
    assert data.joiner is None
    assert data.pad_to_max_len


def test_a_mistake_is_named_in_the_users_own_terms(folder: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        loaded(folder, changed("passes", "lora", "config", "lora_r", "sixty"))
    text = (folder / "olive-config.json").read_text().split("\n")
    line = next(number for number, each in enumerate(text, 1) if '"lora_r"' in each)
    assert f"olive-config.json:{line}, passes.lora.config.lora_r" in str(caught.value)


@pytest.mark.parametrize(
    "path",
    [
        ("input_model", "config", "hf_config", "modelname"),
        ("input_model", "config", "hf_config", "from_pretrained_args", "trust_remote_cod"),
        ("systems", "local_system", "config", "acelerators"),
        ("data_configs", 0, "pre_process_data_config", "params", "text_templat"),
        ("data_configs", 0, "load_dataset_config", "params", "splitt"),
        ("passes", "lora", "config", "lora_dropuot"),
        ("passes", "builder", "config", "precison"),
        ("engine", "outptu_dir"),
        ("pases",),
    ],
)
def test_no_unknown_key_is_dropped_in_silence(folder: Path, path: tuple[Any, ...]) -> None:
    with pytest.raises(ConfigError) as caught:
        loaded(folder, changed(*path, "x"))
    assert ".".join(str(part) for part in path) in str(caught.value)


def test_component_kwargs_go_before_params_config_before_components(folder: Path) -> None:
    config = copy.deepcopy(COOKBOOK)
    config["data_configs"] = {
        "dataset_default_train": {
            "name": "inner",
            "type": "HuggingfaceContainer",
            "params_config": {
                "data_name": "json",
                "data_files": "flat.json",
                "split": "train",
                "component_kwargs": {
                    "pre_process_data": {"text_template": "{phrase}", "source_max_len": 10, "corpus_strategy": "join"}
                },
                "source_max_len": 20,
            },
            "components": {"load_dataset": {"params": {"data_files": "component.json", "subset": "s"}}},
        }
    }
    (data,) = loaded(folder, config).workflow.data_configs
    assert data.name == "dataset_default_train"
    assert data.max_seq_len == 10
    assert data.data_files == str(folder / "flat.json")
    assert data.subset == "s"


def test_double_quant_under_lora_means_qlora_and_is_said(folder: Path) -> None:
    found = loaded(folder, changed("passes", "lora", "config", "double_quant", True))
    assert found.workflow.passes["lora"].type == "QLoRA"
    assert any("QLoRA" in str(note) for note in found.notes)


@pytest.mark.parametrize(
    ("accelerators", "expected"),
    [
        (["gpu"], ("gpu", None)),
        ([{"device": "cpu"}], ("cpu", None)),
        ([{"execution_providers": ["DmlExecutionProvider"]}], ("auto", "DmlExecutionProvider")),
    ],
)
def test_accelerators_in_every_form(folder: Path, accelerators: Any, expected: tuple[str, Any]) -> None:
    system = loaded(folder, changed("systems", "local_system", "config", "accelerators", accelerators)).workflow.systems
    assert (system["local_system"].device, system["local_system"].execution_provider) == expected


def test_the_engines_execution_providers_go_to_systems_without_one(folder: Path) -> None:
    config = changed("systems", "local_system", "config", "accelerators", ["cpu"])
    config["engine"]["execution_providers"] = ["CPUExecutionProvider"]
    assert loaded(folder, config).workflow.systems["local_system"].execution_provider == "CPUExecutionProvider"


def test_inputs_are_found_beside_the_file_then_in_the_working_directory(folder: Path) -> None:
    project = folder / "project"
    project.mkdir()
    (folder / "train.json").write_text("")
    file = project / "olive-config.json"
    file.write_text(json.dumps(COOKBOOK))
    workflow = load(file).workflow
    assert workflow.data_configs[0].data_files == str(folder / "train.json")
    assert workflow.engine.output_dir == str(folder / "models")
    (project / "train.json").write_text("")
    assert load(file).workflow.data_configs[0].data_files == str(project / "train.json")


def test_what_is_not_available_yet_is_said_and_not_skipped(folder: Path) -> None:
    for path, value in (
        (("engine", "packaging_config"), {"type": "Zipfile"}),
        (("systems", "local_system", "type"), "Docker"),
    ):
        found = unavailable(loaded(folder, changed(*path, value)).workflow)
        assert any(str(path[0]) in each.path for each in found), path


def test_an_override_is_in_the_files_own_terms(folder: Path) -> None:
    found = loaded(folder, COOKBOOK, overrides=["passes.lora.config.lora_r=8"])
    assert found.workflow.passes["lora"].params["r"] == 8


def test_an_mlflow_model_is_a_checkpoint_also_where_only_its_format_says_so(folder: Path) -> None:
    model = {"type": "PyTorchModel", "config": {"model_path": "m", "model_file_format": "PyTorch.MLflow"}}
    workflow = loaded(folder, changed("input_model", model)).workflow
    assert (workflow.input_model.type, workflow.input_model.model_file_format) == ("HfModel", None)
