"""The search of ``search.py`` as Olive 0.13 can have it, and what its runs leave to be counted.

Olive has no accuracy of generated answers, and `olive run` ends in a serialisation error for every custom metric. The
nearest that it has is torchmetrics' accuracy on what a data script makes of the logits: the label whose first token is
the likeliest to follow the prompt, the whole vocabulary considered. With labels that differ in their first token that
is the label that a greedy answer begins with.

As released, a search ends every candidate that shares a pass's result with an earlier one in an error
(``"FootprintNode" object has no field "model_config"``): with ``mended`` that one method is replaced before it starts.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SCRIPT = """
import json

import torch
from olive.data.registry import Registry
from transformers import AutoTokenizer


class Prompts(torch.utils.data.Dataset):
    def __init__(self, model_path, data_file, prompt, labels):
        tokenizer = AutoTokenizer.from_pretrained(model_path)
        rows = [json.loads(line) for line in open(data_file, encoding="utf-8")]
        first = [tokenizer(label, add_special_tokens=False)["input_ids"][0] for label in labels]
        assert len(set(first)) == len(labels)
        begin = [tokenizer.bos_token_id] if tokenizer.bos_token_id is not None else []
        asked = [begin + tokenizer(prompt.format(**row), add_special_tokens=False)["input_ids"] for row in rows]
        longest = max(map(len, asked))  # the evaluator joins the logits of all rows, so they need the same length
        self.rows = []
        for row, ids in zip(rows, asked):
            padding = longest - len(ids)
            given = {
                "input_ids": torch.tensor([0] * padding + ids),
                "attention_mask": torch.tensor([0] * padding + [1] * len(ids)),
            }
            self.rows.append((given, first[labels.index(row["tone"])]))

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, index):
        return self.rows[index]


@Registry.register_dataset()
def prompts(model_path, data_file, prompt, labels, **kwargs):
    return Prompts(model_path, data_file, prompt, labels)


@Registry.register_post_process()
def next_token(output, **kwargs):
    return output.logits[:, -1].argmax(-1)
"""

MENDED = """
import sys

from olive.engine.footprint import FootprintNode


def update(self, **values):
    for key, value in values.items():
        setattr(self, {"model_config": "model_config_data"}.get(key, key), value)


FootprintNode.update = update
from olive.cli.launcher import main

main(sys.argv[1:])
"""


@dataclass(frozen=True)
class Outcome:
    """What one search of Olive came to.

    Attributes:
        points: candidates that it tried.
        failed: those that ended in an error.
        passes: results of passes in its cache.
        evaluations: evaluations in its cache.
        best: the best accuracy in its cache among models that meet the goal for the size; ``None`` if there is none.
        picked: the accuracies of the models that it marks as its Pareto front.
        seconds: wall time.
        exit_code: of its process; ``None`` if its time was up.
    """

    points: int
    failed: int
    passes: int
    evaluations: int
    best: float | None
    picked: list[float]
    seconds: float
    exit_code: int | None


def choices(values: list[Any]) -> dict[str, Any]:
    """Return choices as alternatives of a pass in Olive 0.13 take them: lists are refused there."""
    return {"olive_parameter_type": "SearchParameter", "type": "Categorical", "support": values}


def workflow(
    folder: Path, config: dict[str, Any], prompt: str, size: int, strategy: dict[str, Any], vocabulary: int
) -> dict[str, Any]:
    """Return our configuration in Olive's words: `Rtn` and `KQuant` in place of our methods.

    Args:
        prompt: template of what is asked.
        size: goal for the bytes.
        vocabulary: tokens that the model knows.
    """
    train, rows = config["data_configs"]
    model = config["input_model"]["model_path"]
    lora, quantize = config["passes"]["lora"], config["passes"]["quantize"]
    widths = {"bits": choices(quantize["bits"]), "group_size": choices(quantize["group_size"]), "lm_head": True}
    return {
        "input_model": {"type": "HfModel", "model_path": model},
        "data_configs": [
            {
                "name": "train",
                "type": "HuggingfaceContainer",
                "load_dataset_config": {"data_name": "json", "data_files": train["data_files"], "split": "train"},
                "pre_process_data_config": {
                    "text_template": train["text_template"], "strategy": "line-by-line", "max_seq_len": 64,
                },
            },
            {
                "name": "eval",
                "type": "DataContainer",
                "user_script": str(folder / "prompts.py"),
                "load_dataset_config": {
                    "type": "prompts", "model_path": model, "data_file": rows["data_files"], "prompt": prompt,
                    "labels": ["Sad", "Joy", "Fear", "Surprise"],
                },
                "post_process_data_config": {"type": "next_token"},
            },
        ],
        "passes": {
            "lora": {**lora, "r": choices(lora["r"]), "torch_dtype": "float32",
                     "training_args": {**lora["training_args"], "optim": "adamw_torch"}},
            "merge": {"type": "MergeAdapterWeights"},
            "quantize": [{"type": "Rtn", **widths}, {"type": "KQuant", **widths}],
        },
        "evaluators": {
            "tone": {
                "type": "PyTorchEvaluator",
                "metrics": [
                    {"name": "tone", "type": "accuracy", "backend": "torch_metrics", "data_config": "eval",
                     "sub_types": [{"name": "accuracy_score", "priority": 1, "higher_is_better": True,
                                    "metric_config": {"task": "multiclass", "num_classes": vocabulary,
                                                      "average": "micro"}}]},
                    {"name": "size", "type": "size_on_disk",
                     "sub_types": [{"name": "bytes", "priority": 2, "higher_is_better": False,
                                    "goal": {"type": "threshold", "value": size}}]},
                ],
            }
        },
        "evaluator": "tone",
        "evaluate_input_model": False,
        "search_strategy": {"execution_order": "joint", "include_pass_params": False, **strategy},
        "cache_dir": str(folder / "cache"),
        "output_dir": str(folder / "models"),
        "log_severity_level": 1,
    }  # fmt: skip


def search(olive: Path, folder: Path, workflow: dict[str, Any], size: int, *, mended: bool, limit_s: float) -> Outcome:
    """Run Olive's search with what is in its cache, and return what it came to.

    Args:
        limit_s: seconds after which it is stopped.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "prompts.py").write_text(SCRIPT)
    (folder / "mended.py").write_text(MENDED)
    (folder / "workflow.json").write_text(json.dumps(workflow, indent=2))
    quiet = {"CI": "1", "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    command = [str(olive.parent / "python"), "mended.py"] if mended else [str(olive)]
    started = time.monotonic()
    with open(folder / "log.txt", "w") as log:
        running = subprocess.Popen(
            [*command, "run", "--config", "workflow.json"], cwd=folder, env=os.environ | quiet, stdout=log, stderr=log
        )
        try:
            code: int | None = running.wait(limit_s)
        except subprocess.TimeoutExpired:
            running.kill()
            running.wait()
            code = None
    seconds = time.monotonic() - started
    said = (folder / "log.txt").read_text(errors="replace")
    runs = list((folder / "cache").rglob("run.json"))
    measured = [json.loads(each.read_text()) for each in (folder / "cache").rglob("evaluations/*.json")]
    accuracies = [
        values["tone-accuracy_score"]["value"]
        for each in measured
        if (values := each.get("signal", each)) and values["size-bytes"]["value"] <= size
    ]
    picked = []
    for file in (folder / "models").rglob("footprint.json"):
        nodes = json.loads(file.read_text())
        for node in (nodes.get("nodes", nodes)).values():
            if node.get("is_pareto_frontier") and node.get("metrics"):
                picked.append(node["metrics"]["value"]["tone-accuracy_score"]["value"])
    return Outcome(
        points=said.count(" with search point "),
        failed=said.count(" ... FAILED."),
        passes=len(runs),
        evaluations=len(measured),
        best=max(accuracies, default=None),
        picked=sorted(picked, reverse=True),
        seconds=seconds,
        exit_code=code,
    )
