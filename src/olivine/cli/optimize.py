"""Make the smallest and fastest model for a target, and measure it beside the one that went in.

  olivine optimize microsoft/Phi-3-mini-4k-instruct --target cpu --data eval.jsonl \\
      --text-template '### Text: {phrase}\\n### The tone is:\\n{tone}' --label-col tone
"""

from __future__ import annotations

import argparse

from olivine.cli.recipe import (
    add_measuring_arguments,
    add_model_argument,
    add_running_arguments,
    add_target_arguments,
    carry_out,
    measuring,
    running,
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `olivine optimize`."""
    add_model_argument(parser)
    add_target_arguments(parser)
    add_measuring_arguments(parser)
    goals = parser.add_argument_group(
        "goals", "exit status 4 if none meets them; without --precision several are tried"
    )
    goals.add_argument("--max-size", metavar="SIZE", help="bytes on disk at most: 2GB, 800MB")
    goals.add_argument("--min-accuracy", type=float, metavar="X", help="accuracy at least, e.g. 0.9")
    goals.add_argument("--max-accuracy-drop", type=float, metavar="X", help="at most so much below the input model")
    parser.add_argument("--no-measure", action="store_true", help="measure nothing (for targets that are not here)")
    add_running_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Choose the passes, show the configuration, run it."""
    from olivine.recipes import optimize

    workflow = optimize(
        arguments.model,
        target=arguments.target,
        precision=arguments.precision,
        max_size=arguments.max_size,
        min_accuracy=arguments.min_accuracy,
        max_accuracy_drop=arguments.max_accuracy_drop,
        measure=not arguments.no_measure,
        **measuring(arguments),
        **running(arguments),
    )
    return carry_out("optimize", workflow, arguments)
