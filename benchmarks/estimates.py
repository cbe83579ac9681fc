"""What `olivine plan` estimates, beside what the run then takes: peak memory and bytes of each pass.

    python benchmarks/estimates.py [--shape pico half mini] [--folder MODELS]

For each shape a random Phi-3 checkpoint goes through LoRA (one step of 512 tokens) and through ModelBuilder with
int4, each in a worker of its own, so that none inherits another's memory. ``mini`` (3.8B) takes 16 GB of memory to
train.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from quantize import SHAPES, write_checkpoint

SHAPES["pico"] = {"hidden": 256, "layers": 4, "heads": 8, "key_heads": 8, "intermediate": 512, "vocabulary": 32064}
LORA = {
    "type": "LoRA",
    "r": 8,
    "target_modules": ["o_proj", "qkv_proj"],
    "train_data_config": "text",
    "training_args": {"max_steps": 1, "per_device_train_batch_size": 1, "gradient_checkpointing": True},
}
BUILDER = {"type": "ModelBuilder", "precision": "int4"}


def compared(folder: Path, shape: str, passes: dict[str, Any]) -> None:
    """Plan and run ``passes`` on the checkpoint of ``shape``, and print a row for each."""
    project = Path(tempfile.mkdtemp(dir=folder, prefix="run-"))
    (project / "text.jsonl").write_text((json.dumps({"text": "ab cd ef gh " * 40}) + "\n") * 64)
    workflow = {
        "input_model": {"model_path": str(folder / shape)},
        "data_configs": [{"name": "text", "data_files": "text.jsonl", "max_seq_len": 512}],
        "passes": passes,
    }
    (project / "workflow.json").write_text(json.dumps(workflow))
    command = [sys.executable, "-m", "olivine"]
    given: dict[str, Any] = {"cwd": project, "capture_output": True, "text": True, "check": True}
    planned = subprocess.run([*command, "plan", "workflow.json", "--json", "--force"], **given)
    estimates = {step["name"]: step["estimate"] for step in json.loads(planned.stdout)["steps"]}
    ran = subprocess.run([*command, "run", "workflow.json", "--json", "--force"], **given)
    for event in map(json.loads, ran.stdout.splitlines()):
        if event["event"] != "step-done":
            continue
        made = project / ".olivine-cache" / "artifacts" / event["digest"][:2] / event["digest"] / "files"
        size = sum(file.stat().st_size for file in made.rglob("*") if file.is_file())
        estimate = estimates[event["step"]]
        memory, output = estimate["memory_bytes"] / event["peak_memory"], estimate["output_bytes"] / size
        print(
            f"| {shape} | {event['type']} | {event['peak_memory'] / 1e6:.0f} MB | {memory:.2f} | {size / 1e6:.1f} MB | "
            f"{output:.2f} | {event['seconds']:.1f} s |",
            flush=True,
        )


def main() -> None:
    """Read the command line and compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", nargs="+", default=["pico", "half"], choices=list(SHAPES))
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "olivine-estimates")
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    print("| shape | pass | peak memory | estimate / truth | result | estimate / truth | time |")
    print("|---" * 7 + "|")
    for shape in given.shape:
        if not (given.folder / shape).is_dir():
            write_checkpoint(given.folder / shape, shape)
        compared(given.folder, shape, {"lora": LORA})
        compared(given.folder, shape, {"builder": BUILDER})


if __name__ == "__main__":
    main()
