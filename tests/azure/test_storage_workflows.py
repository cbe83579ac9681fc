"""A workflow of Olive 0.6 with its model in a registry and its data in a datastore runs on this machine."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from standin.cloud import Cloud

SOURCES = Path(__file__).parents[2] / "src"
ROWS = "".join(
    json.dumps({"Question": f"what is {number} and {number}?", "Best Answer": str(2 * number)}) + "\n"
    for number in range(12)
).encode()


@pytest.fixture
def registered(cloud: Cloud, pico_model: Path, tmp_path: Path) -> str:
    """The pico model in the registry, as Azure's own models are laid out."""
    folder = tmp_path / "mlflow_model_folder"
    shutil.copytree(pico_model, folder / "data" / "model")
    (folder / "data" / "tokenizer").mkdir()
    for file in (folder / "data" / "model").glob("tokenizer*"):
        file.rename(folder / "data" / "tokenizer" / file.name)
    (folder / "MLmodel").write_text(
        "flavors:\n  hftransformersv2: {model_data: data, huggingface_id: org/pico, task_type: text-generation}\n"
        "  python_function: {loader_module: azureml.evaluate.mlflow.hftransformers}\n"
    )
    cloud.add_model("olivine-models", "workflow-pico", "3", folder, registry=True)
    return "workflow-pico"


def olive_06(cloud: Cloud, name: str, data_workspace: str) -> dict[str, Any]:
    client = {key: value for key, value in cloud.client(data_workspace).items() if not key.startswith("cloud")}
    return {
        "azureml_client": cloud.client("one"),
        "input_model": {
            "type": "PyTorchModel",
            "config": {
                "model_path": {
                    "type": "azureml_registry_model",
                    "config": {"name": name, "registry_name": "olivine-models", "version": "3"},
                },
                "model_file_format": "PyTorch.MLflow",
                "hf_config": {
                    "model_name": "org/pico",
                    "task": "text-generation",
                    "from_pretrained_args": {"trust_remote_code": True},
                },
            },
        },
        "data_configs": [
            {
                "name": "train",
                "type": "HuggingfaceContainer",
                "load_dataset_config": {
                    "params": {
                        "data_name": "json",
                        "data_files": {
                            "type": "azureml_datastore",
                            "config": {
                                "azureml_client": client,
                                "datastore_name": "training",
                                "relative_path": "workflow/train_data.json",
                            },
                        },
                        "split": "train",
                    }
                },
                "pre_process_data_config": {
                    "params": {
                        "dataset_type": "corpus",
                        "text_cols": ["Question", "Best Answer"],
                        "text_template": "<|user|>\n{Question}<|end|>\n<|assistant|>\n{Best Answer}\n<|end|>",
                        "corpus_strategy": "join",
                        "source_max_len": 64,
                    }
                },
            }
        ],
        "passes": {
            "lora": {
                "type": "LoRA",
                "config": {
                    "lora_r": 2,
                    "target_modules": ["o_proj"],
                    "train_data_config": "train",
                    "training_args": {"max_steps": 1, "per_device_train_batch_size": 1},
                },
            }
        },
        "engine": {"cache_dir": "cache", "output_dir": "out", "search_strategy": False},
    }


def test_it_runs_and_then_runs_without_a_network(cloud: Cloud, registered: str, tmp_path: Path) -> None:
    cloud.put_data("two", "training", "workflow/train_data.json", ROWS)
    cloud.credential("identity", "two")
    (tmp_path / "w.json").write_text(json.dumps(olive_06(cloud, registered, "two")))

    def olivine(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "olivine", *arguments],
            cwd=tmp_path,
            env=cloud.process_environment(PYTHONPATH=str(SOURCES)),
            capture_output=True,
            text=True,
            timeout=500,
        )

    planned = olivine("plan", "w.json")
    assert planned.returncode == 0, planned.stderr + planned.stdout
    assert "will be fetched first" in planned.stdout
    assert "12 rows" in planned.stdout
    first = olivine("run", "w.json")
    assert first.returncode == 0, first.stderr + first.stdout
    assert (tmp_path / "out" / "adapter_model.safetensors").is_file()
    asked = len(cloud.seen())
    again = olivine("run", "w.json", "--json")
    assert again.returncode == 0, again.stderr
    events = [json.loads(line) for line in again.stdout.splitlines()]
    assert [each["event"] for each in events if each["event"].startswith("step-")] == ["step-cached"]
    assert len(cloud.seen()) == asked
    card = (tmp_path / "out" / "model_card.md").read_text()
    assert "workflow-pico" in card
    secret = cloud.azurite.keys["olivineone"]
    for path in [*(tmp_path / "cache").rglob("*"), *(tmp_path / "out").rglob("*")]:
        assert not path.is_file() or secret.encode() not in path.read_bytes()


def test_what_is_wrong_in_azure_is_said_with_its_place(cloud: Cloud, registered: str, tmp_path: Path) -> None:
    config = olive_06(cloud, registered, "two")
    config["data_configs"][0]["load_dataset_config"]["params"]["data_files"]["config"]["datastore_name"] = "trainign"
    config["input_model"]["config"]["model_path"]["config"]["version"] = "33"
    (tmp_path / "w.json").write_text(json.dumps(config))
    done = subprocess.run(
        [sys.executable, "-m", "olivine", "plan", "w.json"],
        cwd=tmp_path,
        env=cloud.process_environment(PYTHONPATH=str(SOURCES)),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 2
    assert "w.json" in done.stderr
    assert "datastore trainign" in done.stderr
    assert "version 33" in done.stderr
    assert "Traceback" not in done.stderr
