"""The whole workflow beside Microsoft Olive 0.13, in one run: start-up, cold, cached, and a typo.

    python benchmarks/workflow.py --olive PEER/bin/olive [--dtype float32] [--length 2048] [--steps 10] [--repeats 3]

Both tools get the same random 5M-weight Phi-3, the same phrases, LoRA with the same hyperparameters and the same number
of steps and tokens (4 sequences of ``--length`` tokens a step), merge, and ModelBuilder int4. As in the example's own
configuration no dtype is given: each tool chooses. ``--dtype`` gives both the same. Olive 0.13
needs a virtual environment of its own, with the versions that it still works with::

    pip install 'olive-ai[cpu,finetune]==0.13.0' 'onnxruntime-genai==0.14.1' 'torch<2.14' requests

Commands alternate, so that the machine's drift hits both; the ratio is of medians. A row in which a command did not end
as it should, or without a model, gets no ratio: a tool that fails at once is not fast.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
import tempfile
from pathlib import Path

from processes import Figures, measure

HERE = Path(__file__).resolve().parent
PHRASES = HERE.parent / "examples" / "phrase-tone" / "data" / "train.jsonl"
TEMPLATE = "### Text: {phrase}\n### The tone is:\n{tone}"


def write_model(folder: Path) -> None:
    """Write a random Phi-3 checkpoint of 5M weights in bfloat16, and a tokenizer trained on the phrases."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import Phi3Config, Phi3ForCausalLM, PreTrainedTokenizerFast

    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|user|>", "<|assistant|>", "<|end|>", "<|system|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=4096,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train([str(PHRASES)], trainer)
    PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token=special[0], eos_token=special[0], pad_token=special[0], model_max_length=4096
    ).save_pretrained(folder)
    torch.manual_seed(0)
    config = Phi3Config(
        hidden_size=256,
        num_hidden_layers=4,
        num_attention_heads=8,
        num_key_value_heads=8,
        intermediate_size=704,
        vocab_size=4096,
        max_position_embeddings=4096,
        original_max_position_embeddings=4096,
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=0,
        sliding_window=None,
    )
    Phi3ForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)


def write_data(folder: Path, tokens: int) -> None:
    """Write the phrases often enough to fill every step with full blocks."""
    rows = PHRASES.read_text(encoding="utf-8").splitlines()
    repeats = 1 + tokens // (15 * len(rows))
    (folder / "train.jsonl").write_text("\n".join(rows * repeats) + "\n", encoding="utf-8")


NO_MODEL = 99
"""Counts as the exit status of a run that made no model."""


def expected(row: str, who: str) -> int:
    """Return the exit status that ``row`` ends with when the tool works: Olive trains in spite of the typo."""
    return 2 if (row, who) == ("typo", "ours") else 0


TRAINING = {
    "seed": 0,
    "data_seed": 42,
    "per_device_train_batch_size": 1,
    "per_device_eval_batch_size": 1,
    "gradient_accumulation_steps": 4,
    "gradient_checkpointing": False,
    "learning_rate": 0.0001,
    "num_train_epochs": 1,
    "logging_steps": 10,
    "adam_beta2": 0.999,
    "max_grad_norm": 0.3,
}


def ours(folder: Path, model: Path, steps: int, length: int, dtype: dict[str, str]) -> dict[str, object]:
    """Return the workflow in the canonical schema."""
    return {
        "version": 1,
        "input_model": {"model_path": str(model)},
        "data_configs": [
            {
                "name": "train",
                "data_files": str(folder / "train.jsonl"),
                "text_template": TEMPLATE,
                "max_seq_len": length,
            }
        ],
        "passes": {
            "lora": {
                "type": "LoRA",
                "r": 64,
                "alpha": 64,
                "lora_dropout": 0.1,
                "target_modules": ["o_proj", "qkv_proj"],
                **dtype,
                "train_data_config": "train",
                "training_args": TRAINING | {"max_steps": steps},
            },
            "merge": {"type": "MergeAdapterWeights"},
            "builder": {"type": "ModelBuilder", "precision": "int4"},
        },
        "engine": {"cache_dir": "cache", "output_dir": "models"},
    }


def theirs(folder: Path, model: Path, steps: int, length: int, dtype: dict[str, str]) -> dict[str, object]:
    """Return the same workflow in the form Olive 0.13 accepts."""
    return {
        "input_model": {"type": "HfModel", "model_path": str(model), "task": "text-generation"},
        "systems": {
            "local": {
                "type": "LocalSystem",
                "accelerators": [{"device": "cpu", "execution_providers": ["CPUExecutionProvider"]}],
            }
        },
        "data_configs": [
            {
                "name": "train",
                "type": "HuggingfaceContainer",
                "load_dataset_config": {
                    "data_name": "json",
                    "data_files": str(folder / "train.jsonl"),
                    "split": "train",
                },
                "pre_process_data_config": {
                    "text_template": TEMPLATE,
                    "strategy": "join",
                    "max_seq_len": length,
                    "pad_to_max_len": False,
                    "use_attention_mask": False,
                },
            }
        ],
        "passes": {
            "lora": {
                "type": "LoRA",
                "r": 64,
                "alpha": 64,
                "lora_dropout": 0.1,
                "target_modules": ["o_proj", "qkv_proj"],
                **dtype,
                "train_data_config": "train",
                "training_args": TRAINING | {"max_steps": steps},
            },
            "merge": {"type": "MergeAdapterWeights"},
            "builder": {"type": "ModelBuilder", "precision": "int4"},
        },
        "host": "local",
        "target": "local",
        "search_strategy": False,
        "cache_dir": "cache",
        "output_dir": "models",
    }


def main() -> None:
    """Run both tools in turn and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--olive", type=Path, help="the peer's command; without it only our figures are printed")
    parser.add_argument("--dtype", help="of the fine-tuning; without it each tool chooses")
    parser.add_argument("--length", type=int, default=2048)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    root = Path(tempfile.mkdtemp(prefix="bench-"))
    model = root / "model"
    write_model(model)
    command = {"ours": [sys.executable, "-m", "olivine"]}
    if arguments.olive:
        command["olive"] = [str(arguments.olive.absolute())]
    rows: dict[str, dict[str, Figures]] = {}

    def note(row: str, who: str, extra: list[str]) -> None:
        figures = rows.setdefault(row, {}).setdefault(who, Figures())
        measure(command[who] + extra, root / who, figures)
        if row in ("cold", "cached") and not any((root / who / "models").rglob("genai_config.json")):
            figures.codes[-1] = NO_MODEL  # Olive ends with 0 after it has told the log that nothing was made
        print(f"{row:<8} {who:<6} {figures.seconds[-1]:8.2f} s  {figures.memory[-1] / 2**20:7.0f} MiB  "
              f"exit {figures.codes[-1]}", flush=True)  # fmt: skip

    dtype = {"torch_dtype": arguments.dtype} if arguments.dtype else {}
    for who in command:
        (root / who).mkdir()
        write_data(root / who, arguments.steps * 4 * arguments.length)
        config = (ours if who == "ours" else theirs)(root / who, model, arguments.steps, arguments.length, dtype)
        (root / who / "config.json").write_text(json.dumps(config, indent=1))
        passes = config["passes"]
        assert isinstance(passes, dict)
        passes["lora"]["lora_dropuot"] = 0.2
        (root / who / "typo.json").write_text(json.dumps(config, indent=1))
    for _ in range(arguments.repeats):
        for who in command:
            note("help", who, ["--help"])
        for who in command:
            for leftover in ("cache", "models"):
                shutil.rmtree(root / who / leftover, ignore_errors=True)
            note("cold", who, ["run", "--config", "config.json"])
        for who in command:
            note("cached", who, ["run", "--config", "config.json"])
    for who in command:
        note("typo", who, ["run", "--config", "typo.json"])
    print("\n| what | Olive 0.13 | ours | ratio |\n|---|---|---|---|")
    for row, figures in rows.items():
        cells = []
        for who in ("olive", "ours"):
            if who in figures:
                found = figures[who]
                cells.append(
                    f"{statistics.median(found.seconds):.2f} s, {statistics.median(found.memory) / 2**20:.0f} MiB, "
                    f"exit {found.codes[-1]}"
                )
            else:
                cells.append("")
        failed = [who for who, found in figures.items() if set(found.codes) != {expected(row, who)}]
        ratio = f"none: {' and '.join(failed)} failed" if failed else ""
        if len(figures) == 2 and not failed:
            ratio = f"{statistics.median(figures['ours'].seconds) / statistics.median(figures['olive'].seconds):.3f}"
        print(f"| {row} | {cells[0]} | {cells[1]} | {ratio} |")
    print(f"\nlogs: {root}")


if __name__ == "__main__":
    main()
