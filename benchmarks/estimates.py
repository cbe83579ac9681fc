"""What `olivine plan` estimates, beside what the run then takes: peak memory, disk, bytes of the result, time.

    python benchmarks/estimates.py [--shape pico half mini] [--only lora merge ...] [--folder MODELS] [--cores N]

For each shape a random Phi-3 checkpoint goes through the cases below, each pass in a worker of its own, so that none
inherits another's memory. Before that `olivine doctor` measures the machine, so that times can be told; earlier runs of
the same passes do not count, for every case has a cache of its own. ``mini`` (3.8B) takes 16 GB of memory to train and
7.6 GB of disk; `--only merge builder quantize` takes 2 GB of memory.

Memory and bytes are the same on a busy machine; times are not. There ``--cores 1`` helps: everything runs on one core,
and the processor seconds of a Step, which waiting for the core does not change, are what it would take if it had that
core to itself, but for waiting for the disk.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import psutil
from quantize import SHAPES, write_checkpoint

SHAPES["pico"] = {"hidden": 256, "layers": 4, "heads": 8, "key_heads": 8, "intermediate": 512, "vocabulary": 32064}

LORA = {
    "type": "LoRA",
    "r": 8,
    "target_modules": ["o_proj", "qkv_proj"],
    "train_data_config": "text",
    "training_args": {"max_steps": 2, "per_device_train_batch_size": 1, "gradient_accumulation_steps": 2},
}
CHECKPOINTING = LORA | {"training_args": {**LORA["training_args"], "gradient_checkpointing": True}}  # type: ignore[dict-item]
CALIBRATED = {"type": "Quantize", "method": "gptq", "samples": 16, "sequence_length": 256}
PERPLEXITY = {"type": "perplexity", "data_config": "text", "max_seq_len": 512, "max_tokens": 1024}
SPEED = {"type": "speed", "prompt_tokens": 64, "new_tokens": 16, "repeats": 3}
FEW = {"perplexity": {"max_tokens": 256}, "speed": {"new_tokens": 8, "repeats": 1}}
"""What is changed for models that take minutes for a text."""
BUILDER = {"type": "ModelBuilder", "precision": "int4"}

CASES: dict[str, tuple[dict[str, Any], list[dict[str, Any]]]] = {
    "lora": ({"lora": LORA}, []),
    "checkpointing": ({"lora": CHECKPOINTING}, []),
    "merge": ({"adapter": {}, "merge": {"type": "MergeAdapterWeights"}}, []),
    "merge-float32": ({"adapter": {}, "merge": {"type": "MergeAdapterWeights", "torch_dtype": "float32"}}, []),
    "builder": ({"builder": BUILDER}, []),
    "builder-loaded": ({"builder": BUILDER | {"int4_algo_config": "rtn"}}, []),
    "quantize": ({"quantize": {"type": "Quantize"}}, []),
    "calibrated": ({"quantize": CALIBRATED}, []),
    "evaluate": ({}, [PERPLEXITY, SPEED]),
    "evaluate-genai": ({"builder": BUILDER}, [PERPLEXITY, SPEED]),
}
"""Passes and metrics by name. ``adapter`` stands for one of random weights, which takes no training."""


class Watch(threading.Thread):
    """Sees the most bytes that a folder, and the workers of a process with their children, have held while it runs.

    Attributes:
        disk: bytes of the folder.
        memory: resident bytes of the workers.
        processor: seconds of processors that each worker, its children included, has taken so far.
    """

    def __init__(self, folder: Path, pid: int) -> None:
        super().__init__(daemon=True)
        self.folder, self.engine, self.over = folder, psutil.Process(pid), threading.Event()
        self.disk = self.memory = 0
        self.processor: dict[int, float] = {}

    def run(self) -> None:
        """Look until told to end."""
        while not self.over.wait(0.2):
            self.disk = max(self.disk, _bytes(self.folder))
            taken = 0
            with contextlib.suppress(psutil.Error):
                for each in self.engine.children(recursive=True):
                    with contextlib.suppress(psutil.Error):
                        taken += each.memory_info().rss
            self.memory = max(self.memory, taken)
            self.look()

    def look(self) -> float:
        """Return the seconds of processors that all workers have taken so far."""
        with contextlib.suppress(psutil.Error):
            for worker in self.engine.children():
                with contextlib.suppress(psutil.Error):
                    taken = sum(_processor(each) for each in [worker, *worker.children(recursive=True)])
                    self.processor[worker.pid] = max(self.processor.get(worker.pid, 0.0), taken)
        return sum(self.processor.values())


def _processor(process: psutil.Process) -> float:
    """Return the seconds of processors that a process, and those of its children that have ended, have taken."""
    times = process.cpu_times()
    return float(times.user + times.system + times.children_user + times.children_system)


def _bytes(folder: Path) -> int:
    """Return the bytes of the files in a folder, each once: some get another name while it is looked through."""
    found = {}
    for file in folder.rglob("*"):
        with contextlib.suppress(OSError):
            if file.is_file() and not file.is_symlink():
                status = file.stat()
                found[status.st_ino] = status.st_blocks * 512
    return sum(found.values())


def random_adapter(model: Path, folder: Path) -> None:
    """Write a LoRA adapter of random weights for the attention of the checkpoint in ``model``."""
    import torch
    from safetensors.torch import save_file

    config = json.loads((model / "config.json").read_text())
    hidden, size = config["hidden_size"], config["hidden_size"] // config["num_attention_heads"]
    outputs = {
        "qkv_proj": size * (config["num_attention_heads"] + 2 * config["num_key_value_heads"]),
        "o_proj": hidden,
    }
    tensors = {}
    for layer in range(config["num_hidden_layers"]):
        for name, rows in outputs.items():
            key = f"base_model.model.model.layers.{layer}.self_attn.{name}"
            tensors[f"{key}.lora_A.weight"] = torch.randn(8, hidden) * 0.01
            tensors[f"{key}.lora_B.weight"] = torch.randn(rows, 8) * 0.01
    folder.mkdir()
    save_file(tensors, folder / "adapter_model.safetensors")
    adapter = {"peft_type": "LORA", "r": 8, "lora_alpha": 8, "target_modules": list(outputs), "task_type": "CAUSAL_LM"}
    (folder / "adapter_config.json").write_text(json.dumps(adapter))


def compared(folder: Path, shape: str, case: str) -> None:
    """Plan and run a case on the checkpoint of ``shape``, and print a row for each Step."""
    passes, metrics = CASES[case]
    project = Path(tempfile.mkdtemp(dir=folder, prefix="run-"))
    cache = project / ".olivine-cache"
    (project / "text.jsonl").write_text((json.dumps({"text": "ab cd ef gh " * 40}) + "\n") * 64)
    model: dict[str, Any] = {"model_path": str(folder / shape)}
    if "adapter" in passes:
        random_adapter(folder / shape, project / "adapter")
        model["adapter_path"] = "adapter"
    workflow: dict[str, Any] = {
        "version": 1,
        "input_model": model,
        "data_configs": [{"name": "text", "data_files": "text.jsonl", "max_seq_len": 512}],
        "passes": {name: value for name, value in passes.items() if value},
    }
    if metrics:
        if shape not in ("pico", "half"):
            metrics = [metric | FEW.get(metric["type"], {}) for metric in metrics]
        workflow["evaluators"] = {"measure": {"metrics": metrics}}
        workflow["engine"] = {"evaluator": "measure", "evaluate_input_model": not passes}
    (project / "workflow.json").write_text(json.dumps(workflow))
    command = [sys.executable, "-m", "olivine"]
    given: dict[str, Any] = {"cwd": project, "capture_output": True, "text": True}
    cache.mkdir()
    subprocess.run([*command, "doctor"], check=False, **given)
    started = time.perf_counter()
    planned = subprocess.run([*command, "plan", "workflow.json", "--json", "--force"], check=True, **given)
    planning = time.perf_counter() - started
    plan = json.loads(planned.stdout)
    estimates = {step["name"]: step["estimate"] for step in plan["steps"]}
    before = _bytes(cache)
    running = subprocess.Popen(
        [*command, "run", "workflow.json", "--json", "--force"],
        cwd=project,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    watch = Watch(cache, running.pid)
    watch.start()
    assert running.stdout is not None
    done, begun, event = [], 0.0, {}
    for event in map(json.loads, running.stdout):
        if event["event"] == "step-started":
            begun = watch.look()
        elif event["event"] == "step-done":
            done.append(event | {"processor": watch.look() - begun})
    code = running.wait()
    watch.over.set()
    watch.join()
    if code not in (0, 4):
        print(f"| {shape} | {case} | failed: {str(event)[:300]}", flush=True)
        return
    disk = max(1, watch.disk - before)
    for event in done:
        if len(done) == 1:
            event["peak_memory"] = max(event["peak_memory"], watch.memory)  # with its children
        made = cache / "artifacts" / event["digest"][:2] / event["digest"] / "files"
        size = sum(file.stat().st_size for file in made.rglob("*") if file.is_file())
        estimate = estimates[event["step"]]
        told = [f"{event['peak_memory'] / 1e6:.0f} MB", f"{estimate['memory_bytes'] / event['peak_memory']:.2f}"]
        if event["type"] == "evaluate":
            told += ["", "", "", ""]
        else:
            both = estimate["output_bytes"] + estimate["temporary_bytes"]
            told += [f"{size / 1e6:.1f} MB", f"{estimate['output_bytes'] / size:.2f}"]
            told += ["", ""] if metrics else [f"{disk / 1e6:.1f} MB", f"{both / disk:.2f}"]
        for seconds in (event["seconds"], event["processor"]):
            told += [f"{seconds:.1f} s", f"{estimate['seconds'] / seconds:.2f}" if estimate["seconds"] else ""]
        told += [f"{planning:.2f} s"]
        print(f"| {shape} | {case} | {event['type']} | {' | '.join(told)} |", flush=True)
    shutil.rmtree(project)


def main() -> None:
    """Read the command line and compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", nargs="+", default=["pico", "half"], choices=list(SHAPES))
    parser.add_argument("--only", nargs="+", default=list(CASES), choices=list(CASES))
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "olivine-estimates")
    parser.add_argument("--cores", type=int, help="run everything on so many of this machine's cores")
    given = parser.parse_args()
    if given.cores:
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: given.cores])
    given.folder.mkdir(parents=True, exist_ok=True)
    what = ["shape", "case", "type"]
    for each in ("peak memory", "result", "disk", "time", "processor"):
        what += [each, "est./truth"]
    print("| " + " | ".join([*what, "planned in"]) + " |")
    print("|---" * (len(what) + 1) + "|")
    for shape in given.shape:
        if not (given.folder / shape).is_dir():
            write_checkpoint(given.folder / shape, shape)
        for case in given.only:
            compared(given.folder, shape, case)


if __name__ == "__main__":
    main()
