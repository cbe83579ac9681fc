"""Whether a search finds what the full grid finds, and at what share of its evaluations.

    python benchmarks/search.py [--base BASE] [--seeds 10] [--share 0.4] [--small] [--olive PEER/bin/olive] [--folder F]

On the phrase-tone example: LoRA rank x quantisation method x group size x bits, 81 points, under goals for accuracy and
size. First every point is made and measured (`sampler: sequential`). Then, for each seed, the search and random drawing
(`--samplers`) run in the same cache, so that they cost no more training: what counts is which points they ask for.

What is too large is stopped at its size, before its accuracy is measured, by the grid too. An evaluation is a candidate
of which the accuracy is measured; a search may try as many candidates as `--share` of the grid's evaluations, rounded
down, those that are stopped included. The optimum is the highest accuracy that the grid finds among the candidates that
meet the goals, and a search has found it if its pick has no lower one: exactly, though one standard error of such an
accuracy on 200 rows is 1.7 points. Work is as from an empty cache: passes, evaluations, and the sum of the seconds
that each took when it ran.

With --olive the same space is searched by Olive, as far as it has it: see `olive_search.py`.

Without --base the example's base model is built first (two minutes on two idle cores).
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import olive_search

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
    with open(folder / "log.txt", "a") as log:
        done = subprocess.run([sys.executable, "-m", "olivine", "run", "workflow.json"], cwd=folder, stdout=log)
    if done.returncode not in (0, 4):
        raise SystemExit(f"the search failed with exit status {done.returncode}")
    found: dict[str, Any] = json.loads((folder / "models" / "status.json").read_text())["search"]
    return found, time.monotonic() - started


@dataclass(frozen=True)
class Work:
    """What the candidates of a search take from an empty cache.

    Attributes:
        passes: different passes that run.
        evaluations: candidates whose accuracy is measured.
        stopped: candidates that are stopped at their size.
        seconds: that its Steps took when they ran.
    """

    passes: int
    evaluations: int
    stopped: int
    seconds: float


def work_of(found: dict[str, Any]) -> Work:
    """Return what the candidates of a search consist of, each Step counted once."""
    steps = {step["digest"]: step for trial in found["trials"] for step in trial["steps"]}
    return Work(
        passes=sum(step["type"] not in ("evaluate", "record") for step in steps.values()),
        evaluations=sum(None not in trial["values"] for trial in found["trials"]),
        stopped=sum(trial["state"] == "stopped" for trial in found["trials"]),
        seconds=sum(step["seconds"] for step in steps.values()),
    )


def random_chance(points: int, best: int, drawn: int) -> float:
    """Return how likely one of the ``best`` is among ``drawn`` of so many ``points``."""
    return 1 - math.comb(points - best, drawn) / math.comb(points, drawn)


def show_searches(samplers: list[str], seeds: int, budget: int, best: float, run: Any) -> None:
    """Search with each sampler and seed, and print a row for each."""
    print("\n| sampler | seed | evaluations | passes | stopped | seconds from empty | accuracy | found at | "
          "the grid's optimum |")  # fmt: skip
    print("|---" * 9 + "|")
    told = []
    for sampler in samplers:
        hits, evaluations, passes, seconds = 0, [], [], []
        for seed in range(seeds):
            found = run({"sampler": sampler, "seed": seed, "max_samples": budget})
            pick, work = found["trials"][found["pick"]], work_of(found)
            hit = pick["qualifies"] and pick["values"][0] >= best
            measured = [trial["number"] for trial in found["trials"] if None not in trial["values"]]
            at = 1 + measured.index(pick["number"]) if pick["number"] in measured else "-"
            cells = [sampler, seed, work.evaluations, work.passes, work.stopped, f"{work.seconds:.0f}",
                     pick["values"][0], at, "yes" if hit else "no"]  # fmt: skip
            print("| " + " | ".join(map(str, cells)) + " |", flush=True)
            hits += hit
            evaluations.append(work.evaluations)
            passes.append(work.passes)
            seconds.append(work.seconds)
        told.append(f"{sampler}: {hits} of {seeds} seeds found the optimum; on average {sum(evaluations) / seeds:.1f} "
                    f"evaluations, {sum(passes) / seeds:.1f} passes, {sum(seconds) / seeds:.0f} s")  # fmt: skip
    print("\n" + "\n".join(told), flush=True)


def show_olive(arguments: argparse.Namespace, folder: Path, config: dict[str, Any], budget: int) -> None:
    """Search with Olive, and print a row for each seed; as released with the first, and mended with all."""
    vocabulary = json.loads((Path(config["input_model"]["model_path"]) / "config.json").read_text())["vocab_size"]
    print("\n| Olive | seed | points | failed | passes in its cache | evaluations in its cache | best accuracy | "
          "its front | seconds | exit |")  # fmt: skip
    print("|---" * 10 + "|")
    for name, mended, seeds in (("as released", False, 1), ("mended", True, arguments.olive_seeds)):
        for seed in range(seeds):
            here = folder / ("mended" if mended else "released")
            strategy = {"sampler": "tpe", "sampler_config": {"max_samples": budget, "seed": seed}}
            done = olive_search.search(
                arguments.olive, here,
                olive_search.workflow(here, config, TEXT, arguments.max_size, strategy, vocabulary),
                arguments.max_size, mended=mended, limit_s=arguments.olive_limit,
            )  # fmt: skip
            exit_code = "stopped" if done.exit_code is None else done.exit_code
            cells = [name, seed, done.points, done.failed, done.passes, done.evaluations, done.best, done.picked,
                     f"{done.seconds:.0f}", exit_code]  # fmt: skip
            print("| " + " | ".join(map(str, cells)) + " |", flush=True)


def main() -> int:
    """Run the grid, then the searches, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", type=Path, help="the example's base model")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--share", type=float, default=0.4, help="of the grid's evaluations (default: %(default)s)")
    parser.add_argument("--max-size", type=int, default=3_150_000, help="goal for the size in bytes")
    parser.add_argument("--min-accuracy", type=float, default=0.5, help="goal for the accuracy")
    parser.add_argument("--steps", type=int, default=60, help="training steps of each adapter")
    parser.add_argument("--small", action="store_true", help="a space of 24 points in place of 81")
    parser.add_argument("--samplers", nargs="*", default=["gp", "tpe", "random"])
    parser.add_argument("--olive", type=Path, help="Olive 0.13's command, to search the same space with it too")
    parser.add_argument("--olive-seeds", type=int, default=1)
    parser.add_argument("--olive-points", type=int, help="candidates that it may try (default: the searches' budget)")
    parser.add_argument("--olive-limit", type=float, default=3600, help="seconds after which it is stopped")
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
        best, work = grid["trials"][grid["pick"]], work_of(grid)
        if not best["qualifies"]:
            raise SystemExit("nothing in the grid meets the goals: choose others")
        (folder / "grid.json").write_text(json.dumps(grid))
        highest = best["values"][0]
        equal = [each for each in grid["trials"] if each["qualifies"] and each["values"][0] == highest]
        budget = math.floor(work.evaluations * arguments.share)
        print(f"\ngrid: {len(grid['trials'])} points, {work.stopped} stopped at their size, "
              f"{work.evaluations} evaluations, {grid['failed']} failed, {work.passes} passes; "
              f"{work.seconds:.0f} s in its Steps, {seconds:.0f} s this time")  # fmt: skip
        print(f"optimum: accuracy {highest}, {len(equal)} of the points have it: {[each['point'] for each in equal]}")
        chance = random_chance(len(grid["trials"]), len(equal), budget)
        print(f"budget: {budget} candidates, {arguments.share} of {work.evaluations} evaluations; as many drawn at "
              f"random hold one of the best in {chance:.0%} of draws")  # fmt: skip
        show_searches(
            arguments.samplers, arguments.seeds, budget, highest, lambda each: search(folder, config(each))[0]
        )
        if arguments.olive:
            show_olive(arguments, folder.absolute() / "olive", config({}), arguments.olive_points or budget)
    return 0


if __name__ == "__main__":
    sys.exit(main())
