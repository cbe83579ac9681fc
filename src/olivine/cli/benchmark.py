"""Measure one model as it is: speed, size, and with data accuracy and perplexity; with a report and a record.

  olivine benchmark models --data eval.jsonl --text-template '{question} {answer}'

What was measured on this machine before comes from the cache; another --cache measures anew. `olivine evaluate`
measures several models side by side and keeps nothing.
"""

from __future__ import annotations

import argparse

from olivine.cli.recipe import (
    add_measuring_arguments,
    add_model_argument,
    add_running_arguments,
    add_speed_arguments,
    carry_out,
    measuring,
    running,
)
from olivine.recipes.table import TARGETS


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `olivine benchmark`."""
    add_model_argument(parser)
    parser.add_argument("--target", choices=list(TARGETS), default="cpu", help="where it runs (default: cpu)")
    add_measuring_arguments(parser)
    add_speed_arguments(parser.add_argument_group("speed"))
    add_running_arguments(parser, output="benchmark")


def run(arguments: argparse.Namespace) -> int:
    """Show the configuration, run it."""
    from olivine.recipes import benchmark

    workflow = benchmark(
        arguments.model,
        target=arguments.target,
        prompt_tokens=arguments.prompt_tokens,
        new_tokens=arguments.new_tokens,
        repeats=arguments.repeats,
        **measuring(arguments),
        **running(arguments),
    )
    return carry_out("benchmark", workflow, arguments)
