"""Whether a search finds what the full grid finds, and at what share of its evaluations.

    python benchmarks/search.py [--base BASE] [--seeds 5] [--share 0.4] [--small] [--olive PEER/bin/olive] [--folder F]

On the phrase-tone example: LoRA rank x quantisation method x group size x bits, under goals for accuracy and size.
First every point is made and measured (`sampler: sequential`), then for each seed a TPE search with `share` of the
evaluations runs in the same cache, so that it costs no more training: what is counted is which points it asks for. One
row per seed: whether its pick is as accurate as the grid's, after how many candidates it had it, how many it ran, and
how many passes and evaluations these would have taken from an empty cache.

With --olive the same space is searched by Olive, as far as it has it (`Rtn` and `KQuant` in place of our methods, the
output layer quantised as the others), in a cache that its seeds share. It goes by the perplexity of the same rows:
Olive 0.13 has no accuracy of answers, and `olive run` fails on every custom metric.

Without --base the example's base model is built first (two minutes on two idle cores).
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

EXAMPLE = Path(__file__).parent.parent / "examples" / "phrase-tone"
TEXT = "### Text: {phrase}\n### The tone is:\n"


def workflow(
    base: Path, size: int, accuracy: float, strategy: dict[str, Any], steps: int, small: bool
) -> dict[str, Any]:
    """Return the configuration: the space, the goals, and how it is searched."""
    data = EXAMPLE / "data"
    common = {"text_template": TEXT + "{tone}", "strategy": "line-by-line", "max_seq_len": 64}
    return {
        "version": 1,
        "workflow_id": "phrase_tone_search",
        "input_model": {"model_path": str(base.absolute())},
        "data_configs": [
            {"name": "train", "data_files": str(data / "train.jsonl"), **common},
            {"name": "eval", "data_files": str(data / "eval.jsonl"), **common},
        ],
        "passes": {
            "lora": {
                "type": "LoRA",
                "r": [2, 16] if small else [2, 8, 32],
                "alpha": 32,
                "target_modules": ["o_proj", "qkv_proj"],
                "train_data_config": "train",
                "training_args": {
                    "max_steps": steps,
                    "per_device_train_batch_size": 16,
                    "learning_rate": 0.002,
                    "logging_steps": 10,
                },
            },
            "merge": {"type": "MergeAdapterWeights"},
            "quantize": {
                "type": "Quantize",
                "bits": [2, 4, 8],
                "group_size": [32, 128] if small else [32, 64, 128],
                "method": ["rtn", "k_quant"] if small else ["rtn", "search", "k_quant"],
                "lm_head_bits": 8,
            },
        },
        "evaluators": {
            "tone": {
                "metrics": [
                    {
                        "type": "accuracy",
                        "data_config": "eval",
                        "prompt_template": TEXT,
                        "label_col": "tone",
                        "sub_types": [
                            {"name": "accuracy", "priority": 1, "goal": {"type": "threshold", "value": accuracy}}
                        ],
                    },
                    {
                        "type": "size",
                        "sub_types": [{"name": "size_bytes", "goal": {"type": "threshold", "value": size}}],
                    },
                ]
            }
        },
        "engine": {
            "evaluator": "tone",
            "evaluate_input_model": False,
            "search_strategy": strategy,
            "cache_dir": "cache",
            "output_dir": "models",
        },
    }


def search(folder: Path, config: dict[str, Any]) -> tuple[dict[str, Any], float]:
    """Run a search; return what it found, and the seconds that it took."""
    (folder / "workflow.json").write_text(json.dumps(config, indent=2))
    started = time.monotonic()
    done = subprocess.run([sys.executable, "-m", "olivine", "run", "workflow.json"], cwd=folder)
    if done.returncode not in (0, 4):
        raise SystemExit(f"the search failed with exit status {done.returncode}")
    found: dict[str, Any] = json.loads((folder / "models" / "status.json").read_text())["search"]
    return found, time.monotonic() - started


def work_of(found: dict[str, Any]) -> tuple[int, int]:
    """Return how many different passes and evaluations the candidates of a search consist of."""
    steps = {step["digest"]: step["type"] for trial in found["trials"] for step in trial["steps"]}
    evaluations = sum(kind in ("evaluate", "record") for kind in steps.values())
    return len(steps) - evaluations, evaluations


def choices(values: list[Any]) -> dict[str, Any]:
    """Return choices as alternatives of a pass in Olive 0.13 take them: lists are refused there."""
    return {"olive_parameter_type": "SearchParameter", "type": "Categorical", "support": values}


def olive_workflow(folder: Path, config: dict[str, Any], size: int, strategy: dict[str, Any]) -> dict[str, Any]:
    """Return the same search for Olive 0.13."""
    data = [
        {
            "name": each["name"],
            "type": "HuggingfaceContainer",
            "load_dataset_config": {"data_name": "json", "data_files": each["data_files"], "split": "train"},
            "pre_process_data_config": {"text_template": each["text_template"], "strategy": "line-by-line",
                                        "max_seq_len": 64},
        }
        for each in config["data_configs"]
    ]  # fmt: skip
    lora, quantize = config["passes"]["lora"], config["passes"]["quantize"]
    widths = {"bits": choices(quantize["bits"]), "group_size": choices(quantize["group_size"])}
    ranked = {"name": "perplexity", "priority": 1, "higher_is_better": False, "metric_config": {}}
    return {
        "input_model": {"type": "HfModel", "model_path": config["input_model"]["model_path"]},
        "data_configs": data,
        "passes": {
            "lora": {**lora, "r": choices(lora["r"]), "torch_dtype": "float32",
                     "training_args": {**lora["training_args"], "optim": "adamw_torch"}},
            "merge": {"type": "MergeAdapterWeights"},
            "quantize": [{"type": "Rtn", **widths, "lm_head": True}, {"type": "KQuant", **widths, "lm_head": True}],
        },
        "evaluators": {
            "tone": {
                "type": "PyTorchEvaluator",
                "metrics": [
                    {"name": "tone", "type": "accuracy", "backend": "torch_metrics", "data_config": "eval",
                     "sub_types": [ranked]},
                    {"name": "size", "type": "size_on_disk",
                     "sub_types": [{"name": "bytes", "priority": 2, "higher_is_better": False,
                                    "goal": {"type": "threshold", "value": size}}]},
                ]
            }
        },
        "evaluator": "tone",
        "evaluate_input_model": False,
        "search_strategy": {"execution_order": "joint", **strategy},
        "cache_dir": str(folder / "cache"),
        "output_dir": str(folder / "models"),
        "log_severity_level": 1,
    }  # fmt: skip


def olive_search(olive: Path, folder: Path, workflow: dict[str, Any]) -> tuple[str, float]:
    """Run Olive's search; return what it printed, and the seconds that it took."""
    (folder / "workflow.json").write_text(json.dumps(workflow, indent=2))
    quiet = {"CI": "1", "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
    started = time.monotonic()
    done = subprocess.run([str(olive), "run", "--config", "workflow.json"], cwd=folder, env=os.environ | quiet,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)  # fmt: skip
    (folder / "log.txt").write_text(done.stdout)
    return done.stdout, time.monotonic() - started


def show_olive(olive: Path, folder: Path, config: dict[str, Any], size: int, budget: int, seeds: int) -> None:
    """Search with Olive, and print a row for each seed."""
    folder.mkdir(parents=True, exist_ok=True)
    print("\n| Olive, seed | points | failed | evaluations in its cache | seconds |")
    print("|---" * 5 + "|")
    for seed in range(seeds):
        strategy = {"sampler": "tpe", "max_samples": budget, "seed": seed}
        said, seconds = olive_search(olive, folder, olive_workflow(folder, config, size, strategy))
        points, failed = said.count(" with search point "), said.count(" ... FAILED.")
        evaluations = len(list((folder / "cache").glob("*/evaluations/*.json")))
        print(f"| {seed} | {points} | {failed} | {evaluations} | {seconds:.0f} |", flush=True)


def main() -> int:
    """Run the grid, then the searches, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", type=Path, help="the example's base model")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--share", type=float, default=0.4, help="of the grid's evaluations (default: %(default)s)")
    parser.add_argument("--max-size", type=int, default=3_150_000, help="goal for the size in bytes")
    parser.add_argument("--min-accuracy", type=float, default=0.5, help="goal for the accuracy")
    parser.add_argument("--steps", type=int, default=60, help="training steps of each adapter")
    parser.add_argument("--small", action="store_true", help="a space of 24 points in place of 81")
    parser.add_argument("--sampler", default="tpe")
    parser.add_argument("--olive", type=Path, help="Olive 0.13's command, to search the same space with it too")
    parser.add_argument("--olive-seeds", type=int, default=1)
    parser.add_argument("--folder", type=Path, help="keep the project here, and go on with what is in its cache")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = arguments.folder or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        base = arguments.base
        if base is None:
            base = folder / "base-model"
            subprocess.run([sys.executable, str(EXAMPLE / "build_base_model.py"), "--output", str(base)], check=True)

        def config(strategy: dict[str, Any]) -> dict[str, Any]:
            return workflow(
                base, arguments.max_size, arguments.min_accuracy, strategy, arguments.steps, arguments.small
            )  # fmt: skip

        grid, seconds = search(folder, config({"sampler": "sequential"}))
        best = grid["trials"][grid["pick"]]
        count = len(grid["trials"])
        print(f"\ngrid: {count} candidates ({grid['complete']} measured in full, {grid['stopped']} stopped early, "
              f"{grid['failed']} failed), {work_of(grid)[0]} passes, {work_of(grid)[1]} evaluations, "
              f"{seconds:.0f} s")  # fmt: skip
        print(f"optimum: accuracy {best['values'][0]}, {best['size_bytes']} bytes, {best['point']}")
        if not best["qualifies"]:
            raise SystemExit("nothing in the grid meets the goals: choose others")
        budget = math.floor(count * arguments.share)
        hits, rows = 0, []
        for seed in range(arguments.seeds):
            strategy = {"sampler": arguments.sampler, "seed": seed, "max_samples": budget}
            found, seconds = search(folder, config(strategy))
            pick = found["trials"][found["pick"]]
            hit = pick["qualifies"] and pick["values"][0] >= best["values"][0]
            hits += hit
            rows.append(
                (seed, len(found["trials"]), pick["number"] + 1, *work_of(found), pick["values"][0], hit, seconds)
            )
        print("\n| seed | candidates | pick found at | passes | evaluations | accuracy | the grid's optimum | "
              "seconds, all cached |")  # fmt: skip
        print("|---" * 8 + "|")
        for seed, tried, at, passes, measured, accuracy, hit, seconds in rows:
            cells = [
                seed,
                f"{tried} of {count}",
                at,
                passes,
                measured,
                accuracy,
                "yes" if hit else "no",
                f"{seconds:.1f}",
            ]
            print("| " + " | ".join(map(str, cells)) + " |")
        print(f"\n{hits} of {arguments.seeds} seeds found the optimum with {budget} of {count} candidates", flush=True)
        if arguments.olive:
            show_olive(arguments.olive, folder.absolute() / "olive", config({}), arguments.max_size, budget,
                       arguments.olive_seeds)  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main())
