"""Fine-tune a model on your rows, merge the adapter, and build a model for a target if one is named.

  olivine finetune microsoft/Phi-3-mini-4k-instruct --data train.jsonl --target cpu \\
      --text-template '### Text: {phrase}\\n### The tone is:\\n{tone}' --eval-data eval.jsonl --label-col tone
"""

from __future__ import annotations

import argparse

from olivine.cli.recipe import (
    add_label_arguments,
    add_model_argument,
    add_rows_argument,
    add_running_arguments,
    add_target_arguments,
    add_text_arguments,
    carry_out,
    listed,
    running,
    unescaped,
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `olivine finetune`."""
    add_model_argument(parser)
    data = parser.add_argument_group("data")
    data.add_argument(
        "--data",
        action="append",
        required=True,
        metavar="FILE",
        help="rows to train on, all of them: JSON, JSONL, CSV, Parquet or text; a glob; repeatable",
    )
    add_text_arguments(data, "text of a row over its columns (default: `text`)")
    data.add_argument(
        "--prompt-template", metavar="TEMPLATE", help="with --completion-template: only completions are in the loss"
    )
    data.add_argument("--completion-template", metavar="TEMPLATE", help="the part after the prompt")
    data.add_argument("--chat", action="store_true", help="put the column `messages` into the model's chat template")
    data.add_argument("--max-seq-len", type=int, metavar="N", help="longest sequence in tokens (default: 1024)")
    training = parser.add_argument_group("training")
    training.add_argument(
        "--method", choices=("lora", "qlora", "dora", "loftq"), default="lora", help="default: %(default)s"
    )
    training.add_argument("--rank", type=int, default=16, metavar="N", help="of the adapter (default: %(default)s)")
    training.add_argument("--alpha", type=float, metavar="X", help="scale of the adapter (default: the rank)")
    training.add_argument(
        "--target-modules", metavar="LIST", help="comma-separated modules to adapt (default: attention and MLP)"
    )
    training.add_argument("--learning-rate", type=float, metavar="X", help="default: 2e-4")
    training.add_argument("--epochs", type=float, metavar="N", help="times through the rows (default: 3)")
    training.add_argument("--max-steps", type=int, metavar="N", help="optimiser steps, before --epochs")
    training.add_argument("--seed", type=int, metavar="N", help="of training (default: 42)")
    measured = parser.add_argument_group("measuring")
    measured.add_argument("--eval-data", action="append", metavar="FILE", help="rows to measure on, never trained on")
    add_label_arguments(measured)
    add_rows_argument(measured)
    parser.add_argument("--adapter-only", action="store_true", help="do not merge: the adapter is the result")
    add_target_arguments(parser, default=None)
    add_running_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Choose the passes, show the configuration, run it."""
    from olivine.recipes import finetune

    workflow = finetune(
        arguments.model,
        data=arguments.data,
        method=arguments.method,
        text_template=unescaped(arguments.text_template),
        text_cols=listed(arguments.text_cols),
        prompt_template=unescaped(arguments.prompt_template),
        completion_template=unescaped(arguments.completion_template),
        chat=arguments.chat,
        max_seq_len=arguments.max_seq_len,
        rank=arguments.rank,
        alpha=arguments.alpha,
        target_modules=listed(arguments.target_modules),
        learning_rate=arguments.learning_rate,
        epochs=arguments.epochs,
        max_steps=arguments.max_steps,
        seed=arguments.seed,
        eval_data=arguments.eval_data,
        label_col=arguments.label_col,
        labels=listed(arguments.labels),
        max_rows=arguments.max_rows,
        merge=not arguments.adapter_only,
        target=arguments.target,
        precision=arguments.precision,
        **running(arguments),
    )
    return carry_out("finetune", workflow, arguments)
