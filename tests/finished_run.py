"""A project in which a whole workflow has run, once a session: fine-tuned, merged, built as int4, measured."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

from built_models import PROMPT, rows

CARD = """---
license: other
license_name: pico-licence
license_link: https://example.org/licence
language: [en, fa]
model-index: "not carried"
---
# Pico
"""
HOSTILE = "</script><script>window.hurt=1</script>"
"""Markup that stands in the data as a phrase and as a label, and must stay text."""
PERSIAN = "غمگین"


def workflow() -> dict[str, Any]:
    """Return the workflow. The names of two labels are markup and right-to-left text."""
    return {
        "version": 1,
        "workflow_id": f"tones {HOSTILE}",
        "input_model": {"model_path": "pico"},
        "data_configs": [
            {"name": "tones", "data_files": "rows.jsonl", "text_template": PROMPT + "{tone}", "max_seq_len": 64}
        ],
        "passes": {
            "lora": {
                "type": "LoRA",
                "r": 4,
                "target_modules": ["o_proj", "qkv_proj"],
                "train_data_config": "tones",
                "eval_dataset_size": 0.2,
                "training_args": {"max_steps": 6, "logging_steps": 1, "eval_strategy": "steps", "eval_steps": 2},
            },
            "merge": {"type": "MergeAdapterWeights"},
            "builder": {"type": "ModelBuilder", "precision": "int4", "int4_block_size": 32},
        },
        "evaluators": {
            "e": {
                "metrics": [
                    {
                        "type": "accuracy",
                        "data_config": "tones",
                        "prompt_template": PROMPT,
                        "label_col": "tone",
                        "answer_by": "likelihood",
                    },
                    {"type": "size"},
                ]
            }
        },
        "engine": {"evaluator": "e", "output_dir": "out", "cache_dir": "cache"},
    }


def olivine(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command line in ``folder`` to its end."""
    return subprocess.run(
        [sys.executable, "-m", "olivine", *arguments],
        cwd=folder,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=300,
    )


@cache
def finished_run(pico: Path) -> Path:
    """Return the project's folder; its output is in ``out``. Read only: copy it before changing it."""
    folder = Path(tempfile.mkdtemp(prefix="finished-", dir=pico.parent))
    shutil.copytree(pico, folder / "pico")
    (folder / "pico" / "README.md").write_text(CARD)
    labelled = [*rows(), {"phrase": HOSTILE, "tone": HOSTILE}, {"phrase": "دلم گرفته", "tone": PERSIAN}]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in labelled))
    (folder / "workflow.json").write_text(json.dumps(workflow(), ensure_ascii=False))
    done = olivine(folder, "run", "workflow.json")
    assert done.returncode == 0, done.stderr
    return folder
