"""What tests on one machine cannot prove of Azure Machine Learning, tried in a real workspace.

    pip install 'olivine[azure,torch]' && az login
    python checklist.py --client client.json --compute cpu-cluster --model ./my-small-model
    python checklist.py --client client.json --compute arc --model azureml://registries/azureml/models/NAME/versions/1

``client.json`` is the ``azureml_client`` section of a workflow: subscription_id, resource_group, workspace_name. The
model should be small: it is quantised in jobs, once for each check that needs one (a few minutes of compute each, most
of it for the environment, which the service builds the first time). Nothing is deleted, neither jobs nor blobs.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

IMAGE = "mcr.microsoft.com/azureml/openmpi4.1.0-ubuntu22.04:latest"
CONDA = "name: olivine\nchannels: [conda-forge]\ndependencies: [python=3.11, pip]\n"


class Failed(Exception):
    """A check that did not hold; the text says why."""


class Checklist:
    """The checks, each in a folder of its own below ``folder``."""

    def __init__(self, arguments: argparse.Namespace, folder: Path) -> None:
        self.arguments = arguments
        self.folder = folder
        self.client: dict[str, Any] = json.loads(Path(arguments.client).read_text("utf-8"))

    def project(self, name: str, **system: Any) -> Path:
        """Write a workflow that quantises the model in a job; return its folder."""
        folder = self.folder / name
        folder.mkdir()
        (folder / "conda.yaml").write_text(CONDA)
        model = self.arguments.model
        compute = {
            "type": "AzureML",
            "device": self.arguments.device,
            "aml_compute": self.arguments.compute,
            "aml_docker_config": {"base_image": self.arguments.image, "conda_file_path": "conda.yaml"},
        }
        if self.arguments.datastore:
            compute["datastores"] = self.arguments.datastore
        # Another group size is another Step, and so another job: checks must not find each other's results.
        passes = {"quantize": {"type": "Quantize", "group_size": system.pop("group_size", 32)}}
        workflow = {
            "version": 1,
            "azureml_client": self.client,
            "input_model": {"model_path": str(Path(model).resolve()) if Path(model).exists() else model},
            "systems": {"aml": compute | system},
            "passes": passes,
            "engine": {"host": "aml", "target": "aml", "cache_dir": "cache", "output_dir": "models"},
        }
        (folder / "workflow.json").write_text(json.dumps(workflow, indent=2))
        return folder

    def start(self, folder: Path, *command: str) -> subprocess.Popen[str]:
        """Start the command line."""
        return subprocess.Popen(
            [sys.executable, "-m", "olivine", *command, "workflow.json"],
            cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
        )  # fmt: skip

    def run(self, folder: Path, *command: str) -> str:
        """Run the command line to its end and return what it said; it must succeed."""
        process = self.start(folder, *command)
        said, _ = process.communicate()
        if process.returncode != 0:
            raise Failed(f"`olivine {' '.join(command)}` ended with {process.returncode}:\n{said}")
        return said

    @staticmethod
    def jobs(folder: Path) -> list[Path]:
        """Return the records of the jobs that a project has submitted."""
        return sorted((folder / "cache" / "azureml" / "jobs").glob("*/record.json"))

    def plan_reads_only(self) -> None:
        """The plan finds compute, identity and model with your role, and submits nothing (RBAC)."""
        folder = self.project("plan")
        self.run(folder, "plan")
        if self.jobs(folder):
            raise Failed("the plan has submitted a job")

    def job_comes_home(self) -> None:
        """The image is built, the input arrives, the job's identity writes its output, the result comes home."""
        folder = self.project("run")
        self.run(folder, "run")
        if not any((folder / "models").iterdir()) or len(self.jobs(folder)) != 1:
            raise Failed(f"no model, or not one job: {self.jobs(folder)}")
        self.run(folder, "run")
        if len(self.jobs(folder)) != 1:
            raise Failed("the second run has submitted a job again")

    def killed_client_comes_back(self) -> None:
        """A client killed while its job waits or runs comes back to that job."""
        folder = self.project("killed", group_size=64)
        process = self.start(folder, "run")
        while not self.jobs(folder) and process.poll() is None:
            time.sleep(0.5)
        time.sleep(self.arguments.kill_after)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        self.run(folder, "run")
        if len(self.jobs(folder)) != 1:
            raise Failed(f"more than one job: {self.jobs(folder)}")

    def several_processes(self) -> None:
        """The service starts each process of a distributed job (only with --train, a JSON Lines file with `text`)."""
        folder = self.project("distributed", instance_count=2)
        workflow = json.loads((folder / "workflow.json").read_text())
        workflow["data_configs"] = [{"name": "train", "data_files": str(Path(self.arguments.train).resolve()),
                                     "text_cols": ["text"], "max_seq_len": 64}]  # fmt: skip
        workflow["passes"] = {"lora": {"type": "LoRA", "train_data_config": "train",
                                       "training_args": {"max_steps": 4}}}  # fmt: skip
        (folder / "workflow.json").write_text(json.dumps(workflow, indent=2))
        self.run(folder, "run")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--client", required=True, help="JSON file with the azureml_client section")
    parser.add_argument("--compute", required=True, help="an AmlCompute, or a Kubernetes compute that Arc attached")
    parser.add_argument("--model", required=True, help="folder, hub id or azureml:// address of a small model")
    parser.add_argument("--device", default="cpu", choices=("cpu", "gpu"))
    parser.add_argument("--image", default=IMAGE)
    parser.add_argument("--datastore", help="for uploads and results, e.g. one on Gen2 storage or without a key")
    parser.add_argument("--train", help="JSON Lines file with `text`, to try a distributed job")
    parser.add_argument("--kill-after", type=float, default=30, help="seconds from the submission to the kill")
    arguments = parser.parse_args()
    failed = 0
    with tempfile.TemporaryDirectory(prefix="olivine-checklist-") as scratch:
        checklist = Checklist(arguments, Path(scratch))
        checks: list[Callable[[], None]] = [
            checklist.plan_reads_only, checklist.job_comes_home, checklist.killed_client_comes_back,
        ]  # fmt: skip
        if arguments.train:
            checks.append(checklist.several_processes)
        for check in checks:
            started = time.monotonic()
            print(f"... {check.__doc__}", flush=True)
            try:
                check()
            except Failed as error:
                failed += 1
                print(f"    FAILED after {time.monotonic() - started:.0f} s: {error}", flush=True)
            else:
                print(f"    holds ({time.monotonic() - started:.0f} s)", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
