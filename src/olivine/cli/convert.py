"""Make an ONNX Runtime GenAI model that computes what a checkpoint computes.

olivine convert microsoft/Phi-3-mini-4k-instruct --target cuda
"""

from __future__ import annotations

import argparse

from olivine.cli.recipe import add_model_argument, add_running_arguments, add_target_arguments, carry_out, running


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `olivine convert`."""
    add_model_argument(parser)
    add_target_arguments(parser)
    add_running_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Choose the passes, show the configuration, run it."""
    from olivine.recipes import convert

    workflow = convert(arguments.model, target=arguments.target, precision=arguments.precision, **running(arguments))
    return carry_out("convert", workflow, arguments)
