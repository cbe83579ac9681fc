"""Measure models side by side: accuracy, perplexity, speed, size. Each model in a fresh process.

  olivine evaluate models base --data eval.jsonl --label-col tone \\
      --prompt-template '### Text: {phrase}\\n### The tone is:\\n'

Without --metrics everything is measured for which the options say enough. Nothing is kept; `olivine benchmark` measures
one model and keeps a report.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from olivine.cli.generate import folder_of
from olivine.cli.recipe import (
    add_data_argument,
    add_label_arguments,
    add_rows_argument,
    add_speed_arguments,
    add_text_arguments,
    add_writing_argument,
    listed,
    shown,
    unescaped,
    write_config,
)
from olivine.recipes.evaluation import METRICS

if TYPE_CHECKING:
    from olivine.engine.result import Result
    from olivine.events import Event

SHOWN = {
    "accuracy": ("accuracy", "count", "unanswered", "majority", "macro_f1"),
    "exact_match": ("exact_match", "word_f1"),
    "perplexity": ("perplexity", "tokens"),
    "divergence": ("kl", "kl_p99", "top_agreement"),
    "speed": ("decode_tokens_per_s", "prefill_tokens_per_s", "ttft_ms", "load_s"),
    "latency": ("avg", "p50", "p95"),
    "throughput": ("avg",),
    "size": ("size_bytes",),
}
"""Values that the table shows; ``--json`` has them all."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `olivine evaluate`."""
    parser.add_argument(
        "models", nargs="+", metavar="MODEL", help="model folders, or ids of hub models on this machine"
    )
    parser.add_argument(
        "--metrics", metavar="LIST", help=f"comma-separated: {','.join(METRICS)} (default: what the options allow)"
    )
    data = parser.add_argument_group("data")
    add_data_argument(data)
    add_rows_argument(data)
    labels = parser.add_argument_group("accuracy")
    labels.add_argument(
        "--prompt-template",
        metavar="TEMPLATE",
        help=r"prompt over the columns, e.g. '### Text: {phrase}\n### The tone is:\n'",
    )
    add_label_arguments(labels)
    labels.add_argument(
        "--max-new-tokens", type=int, metavar="N", help="longest answer, in tokens (default: 8, exact_match: 32)"
    )
    labels.add_argument("--chat", action="store_true", help="put the prompt into the model's chat template")
    texts = parser.add_argument_group("perplexity")
    add_text_arguments(texts, "text of a row over its columns")
    texts.add_argument("--max-seq-len", type=int, metavar="N", help="window in tokens (default: 1024, divergence: 512)")
    parser.add_argument_group("divergence").add_argument(
        "--reference", metavar="MODEL", help="the model before it was quantised, to compare predictions with"
    )
    add_speed_arguments(parser.add_argument_group("speed"))
    parser.add_argument("--execution-provider", default=None, metavar="NAME", help="default: CPUExecutionProvider")
    parser.add_argument(
        "--trust-remote-code", action="store_true", help="let Python code that comes with the models run"
    )
    add_writing_argument(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object with every value")


def run(arguments: argparse.Namespace) -> int:
    """Show the configuration, measure each model, then print the table or the JSON."""
    from olivine.errors import EXIT_OK
    from olivine.recipes import evaluate

    for name in arguments.models:
        folder_of(name)
    options = {
        "metrics": listed(arguments.metrics) if arguments.metrics is not None else None,
        "data": arguments.data,
        "text_template": unescaped(arguments.text_template),
        "text_cols": listed(arguments.text_cols),
        "prompt_template": unescaped(arguments.prompt_template),
        "label_col": arguments.label_col,
        "labels": listed(arguments.labels),
        "chat": arguments.chat,
        "max_rows": arguments.max_rows,
        "max_new_tokens": arguments.max_new_tokens,
        "max_seq_len": arguments.max_seq_len,
        "reference": arguments.reference,
        "prompt_tokens": arguments.prompt_tokens,
        "new_tokens": arguments.new_tokens,
        "repeats": arguments.repeats,
        "execution_provider": arguments.execution_provider or "CPUExecutionProvider",
    }
    workflows = {name: evaluate(name, **options) for name in dict.fromkeys(arguments.models)}
    first, *others = workflows
    if not arguments.json:
        also = f", and the same for {', '.join(others)}" if others else ""
        shown("evaluate", workflows[first], also)
    write_config("evaluate", workflows[first], arguments.write_config)
    results: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory(prefix="olivine-evaluate-") as scratch:
        for name, workflow in workflows.items():
            if sys.stderr.isatty():
                print(f"measuring {name} ...", file=sys.stderr)
            results[name] = _measured(workflow, Path(scratch), arguments.trust_remote_code)
    if arguments.json:
        print(json.dumps(results, ensure_ascii=False, indent=2))
    else:
        show(results, options["execution_provider"])
    return EXIT_OK


def _measured(workflow: dict[str, Any], scratch: Path, trust_remote_code: bool) -> dict[str, Any]:
    """Run a workflow whose cache and output are gone in the end; return the values by metric, and what it took.

    One cache for all models: what the reference predicts is recorded once.
    """
    from olivine.api import execute, prepare

    folders = {"cache_dir": str(scratch / "cache"), "output_dir": str(scratch / "output")}
    plan, store = prepare(
        workflow | {"engine": workflow["engine"] | folders}, trust_remote_code=trust_remote_code
    )  # fmt: skip
    result: Result = execute(plan, store, _told)
    step = next(each for each in result.steps if each.type == "evaluate")
    return {**result.metrics["input"], "peak_memory_bytes": step.peak_memory, "seconds": step.seconds}


def _told(event: Event) -> None:
    """Pass on what is worth knowing."""
    if event.event == "note":
        print(event.data["text"], file=sys.stderr)


def show(results: dict[str, dict[str, Any]], provider: str) -> None:
    """Print one row per value and one column per model."""
    from olivine.engine.words import memory, number, size

    rows: list[list[str]] = []
    for metric, keys in SHOWN.items():
        for key in keys:
            values = [result.get(metric, {}).get(key) for result in results.values()]
            if all(value is None for value in values):
                continue
            written = [
                size(value) if key == "size_bytes" and value is not None else _cell(value, number) for value in values
            ]
            rows.append([LABELS.get(key, key), *written])
    rows.append(["peak memory", *(memory(result["peak_memory_bytes"]) for result in results.values())])
    heads = ["", *_short_names(list(results))]
    if sys.stdout.isatty():
        from rich.table import Table
        from rich.text import Text

        from olivine.cli.terminal import console

        table = Table(title=Text(f"on {provider}"), title_justify="left")
        for head in heads:
            table.add_column(Text(head))
        for column in table.columns[1:]:
            column.justify = "right"
        for row in rows:
            table.add_row(*map(Text, row))
        console().print(table)
        return
    widths = [max(len(line[place]) for line in [heads, *rows]) for place in range(len(heads))]
    for line in [heads, *rows]:
        cells = [
            line[0].ljust(widths[0]),
            *(cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True)),
        ]
        print("  ".join(cells).rstrip())


LABELS = {
    "count": "rows",
    "unanswered": "unanswered (share)",
    "majority": "always the most frequent",
    "macro_f1": "macro F1",
    "tokens": "tokens scored",
    "decode_tokens_per_s": "decode, tokens/s",
    "prefill_tokens_per_s": "prefill, tokens/s",
    "ttft_ms": "first token, ms",
    "load_s": "load, s",
    "kl": "KL to the reference, nats/token",
    "kl_p99": "KL, 99th percentile",
    "top_agreement": "same likeliest token (share)",
    "exact_match": "exact match",
    "word_f1": "F1 of words",
    "avg": "mean, ms (latency) or rows/s",
    "p50": "median, ms",
    "p95": "95th percentile, ms",
    "size_bytes": "size",
}


def _cell(value: Any, number: Any) -> str:
    return "" if value is None else number(value)


def _short_names(names: list[str]) -> list[str]:
    """Return the last part of each path where those tell them apart, else the paths."""
    last = [Path(name).name or name for name in names]
    return last if len(set(last)) == len(names) else names
