"""Make a quantised checkpoint that others load: vLLM, transformers, GPTQModel.

olivine quantize microsoft/Phi-3-mini-4k-instruct --bits 4 --form compressed-tensors
"""

from __future__ import annotations

import argparse

from olivine.cli.recipe import (
    add_measuring_arguments,
    add_model_argument,
    add_running_arguments,
    carry_out,
    measuring,
    running,
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `olivine quantize`."""
    add_model_argument(parser)
    parser.add_argument("--bits", type=int, choices=(2, 4, 8), default=4, help="width of a weight (default: 4)")
    parser.add_argument(
        "--group-size",
        type=int,
        default=32,
        metavar="N",
        help="weights that share a scale; -1: one per output feature (default: %(default)s)",
    )
    parser.add_argument("--asymmetric", action="store_true", help="store a zero point per group")
    parser.add_argument(
        "--method",
        choices=("search", "k_quant", "hqq", "rtn", "rtn_half"),
        default="search",
        help="how scales are found (default: %(default)s)",
    )
    parser.add_argument(
        "--form",
        choices=("olive", "gptq", "compressed-tensors"),
        default="olive",
        help="how the result is stored; docs/quantised-checkpoints.md says who reads it (default: %(default)s)",
    )
    add_measuring_arguments(parser, labels=False)
    add_running_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Choose the passes, show the configuration, run it."""
    from olivine.recipes import quantize

    workflow = quantize(
        arguments.model,
        bits=arguments.bits,
        group_size=arguments.group_size,
        symmetric=not arguments.asymmetric,
        method=arguments.method,
        form=arguments.form,
        **measuring(arguments),
        **running(arguments),
    )
    return carry_out("quantize", workflow, arguments)
