"""A user's project: a pico model, a few phrases, and one workflow in the canonical form and in Olive's 0.6 dialect."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

TEMPLATE = "### Text: {phrase}\n### The tone is:\n{tone}"
ROWS = [
    {"phrase": f"the {animal} sat on the {place}", "tone": tone}
    for animal in ("cat", "dog", "bird", "fish", "horse")
    for place, tone in (("mat", "joy"), ("hat", "sad"), ("cat", "fear"), ("sport", "surprise"))
]


def canonical() -> dict[str, Any]:
    """The workflow in the canonical schema."""
    return {
        "version": 1,
        "input_model": {"model_path": "base"},
        "data_configs": [
            {"name": "train", "data_files": "train.jsonl", "text_template": TEMPLATE, "max_seq_len": 64},
            {"name": "eval", "data_files": "eval.jsonl", "text_template": TEMPLATE, "max_seq_len": 64},
        ],
        "passes": {
            "lora": {
                "type": "LoRA",
                "r": 4,
                "target_modules": ["o_proj", "qkv_proj"],
                "train_data_config": "train",
                "eval_dataset_size": 0.2,
                "training_args": {"max_steps": 4, "per_device_train_batch_size": 2, "logging_steps": 1},
            },
            "merge": {"type": "MergeAdapterWeights"},
            "builder": {"type": "ModelBuilder", "precision": "int4"},
        },
        "evaluators": {
            "tone": {
                "metrics": [
                    {
                        "type": "accuracy",
                        "data_config": "eval",
                        "prompt_template": "### Text: {phrase}\n### The tone is:\n",
                        "label_col": "tone",
                    },
                    {"type": "size"},
                ]
            }
        },
        "engine": {"evaluator": "tone", "cache_dir": "cache", "output_dir": "models"},
    }


def olive_06() -> dict[str, Any]:
    """The passes of the same workflow, as users of Olive 0.6 have it from the Phi cookbook."""
    return {
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
                "config": {"accelerators": [{"device": "cpu", "execution_providers": ["CPUExecutionProvider"]}]},
            }
        },
        "data_configs": [
            {
                "name": "dataset_default_train",
                "type": "HuggingfaceContainer",
                "load_dataset_config": {"params": {"data_name": "json", "data_files": "train.jsonl", "split": "train"}},
                "pre_process_data_config": {
                    "params": {
                        "dataset_type": "corpus",
                        "text_cols": ["phrase", "tone"],
                        "text_template": TEMPLATE,
                        "corpus_strategy": "join",
                        "source_max_len": 64,
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
                    "lora_r": 4,
                    "lora_alpha": 4,
                    "lora_dropout": 0.1,
                    "train_data_config": "dataset_default_train",
                    "eval_dataset_size": 0.3,
                    "training_args": {
                        "seed": 0,
                        "data_seed": 42,
                        "per_device_train_batch_size": 1,
                        "per_device_eval_batch_size": 1,
                        "gradient_accumulation_steps": 2,
                        "gradient_checkpointing": False,
                        "learning_rate": 0.0001,
                        "num_train_epochs": 3,
                        "max_steps": 3,
                        "logging_steps": 1,
                        "evaluation_strategy": "steps",
                        "eval_steps": 2,
                        "group_by_length": True,
                        "adam_beta2": 0.999,
                        "max_grad_norm": 0.3,
                    },
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


class Project:
    """The folder and the command line run in it."""

    def __init__(self, folder: Path, base: Path) -> None:
        self.folder = folder
        (folder / "base").symlink_to(base, target_is_directory=True)
        self.write_rows("train.jsonl", ROWS)
        self.write_rows("eval.jsonl", ROWS[:3])

    def write_rows(self, name: str, rows: list[Any]) -> None:
        (self.folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))

    def write(self, config: dict[str, Any], name: str = "workflow.json") -> str:
        (self.folder / name).write_text(json.dumps(config, indent=2))
        return name

    def olivine(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "olivine", *arguments],
            cwd=self.folder,
            env=os.environ | environment,
            capture_output=True,
            text=True,
            timeout=300,
        )

    def refused(self, config: dict[str, Any] | None = None, *arguments: str, code: int = 2) -> str:
        """Run a workflow that must be refused before anything runs; return what was said, on one line."""
        if config is not None:
            self.write(config)
        done = self.olivine("run", "workflow.json", *arguments)
        said = " ".join(done.stderr.split())
        assert done.returncode == code, done.stdout + done.stderr
        assert "Traceback" not in said
        assert not (self.folder / "models").exists()
        assert not list((self.folder / "cache" / "artifacts").glob("*")) if (self.folder / "cache").exists() else True
        return said
