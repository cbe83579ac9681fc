"""A user's project whose Steps run as jobs: the phrase-tone workflow, with names of the stand-in cloud."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from standin.cloud import Cloud

TEMPLATE = "### Text: {phrase}\n### The tone is:\n{tone}"
ROWS = [
    {"phrase": f"the {animal} sat on the {place}", "tone": tone}
    for animal in ("cat", "dog", "bird", "fish", "horse")
    for place, tone in (("mat", "joy"), ("hat", "sad"), ("cat", "fear"), ("sport", "surprise"))
]


def rows() -> bytes:
    """The training rows as JSON Lines."""
    return "".join(json.dumps(row) + "\n" for row in ROWS).encode()


def workflow(cloud: Cloud, model: str, data: str, **system: Any) -> dict[str, Any]:
    """Fine-tune, merge and quantise in jobs of workspace one."""
    return {
        "version": 1,
        "input_model": {"model_path": model},
        "azureml_client": cloud.client("one"),
        "data_configs": [
            {"name": "train", "data_name": "json", "data_files": data, "text_template": TEMPLATE, "max_seq_len": 64}
        ],
        "systems": {
            "aml": {
                "type": "AzureML",
                "device": "cpu",
                "aml_compute": "cpu-cluster",
                "aml_docker_config": {
                    "base_image": "mcr.microsoft.com/azureml/base:latest",
                    "conda_file_path": "conda.yaml",
                },
            }
            | system
        },
        "passes": {
            "lora": {
                "type": "LoRA",
                "r": 4,
                "torch_dtype": "float32",
                "target_modules": ["o_proj", "qkv_proj"],
                "train_data_config": "train",
                "training_args": {"max_steps": 2, "per_device_train_batch_size": 2, "logging_steps": 1},
            },
            "merge": {"type": "MergeAdapterWeights"},
            "builder": {"type": "ModelBuilder", "precision": "int4"},
        },
        "engine": {"host": "aml", "target": "aml", "cache_dir": "cache", "output_dir": "models"},
    }


def measuring(cloud: Cloud, model: str, **system: Any) -> dict[str, Any]:
    """Measure the size of a model in a job: the least that a job can do."""
    config = workflow(cloud, model, "", **system)
    del config["passes"], config["data_configs"]
    config["evaluators"] = {"size": {"metrics": [{"type": "size"}]}}
    config["engine"]["evaluator"] = "size"
    return config


CONDA = {"name": "mine", "channels": ["conda-forge"], "dependencies": ["python=3.11", "pip", {"pip": ["scipy"]}]}


class JobProject:
    """The folder and the command line run in it."""

    def __init__(self, folder: Path, cloud: Cloud) -> None:
        self.folder = folder
        self.cloud = cloud
        self.running: subprocess.Popen[str] | None = None
        (folder / "conda.yaml").write_text(json.dumps(CONDA))

    def write(self, config: dict[str, Any]) -> None:
        (self.folder / "workflow.json").write_text(json.dumps(config, indent=2))

    def start(self, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "olivine", *arguments],
            cwd=self.folder,
            env=self.cloud.process_environment(**environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def kill(self) -> None:
        """End what runs now, as if the machine had lost its power."""
        assert self.running is not None
        os.killpg(self.running.pid, signal.SIGKILL)

    def olivine(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        process = self.start(*arguments, **environment)
        out, err = process.communicate(timeout=900)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def jobs(self) -> list[Any]:
        return self.cloud.jobs.all(self.cloud.workspaces["one"])
