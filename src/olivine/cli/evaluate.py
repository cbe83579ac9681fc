"""Measure models side by side: accuracy, perplexity, speed, size. Each model in a fresh process.

  olivine evaluate models base --data eval.jsonl --label-col tone \\
      --prompt-template '### Text: {phrase}\\n### The tone is:\\n'

Without --metrics everything is measured for which the options say enough.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from olivine.cli.generate import folder_of, target_of, unescape

if TYPE_CHECKING:
    from olivine.config.schema import DataConfig
    from olivine.passes.base import Accelerator

METRICS = ("accuracy", "exact_match", "perplexity", "divergence", "speed", "latency", "throughput", "size")
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
    data.add_argument(
        "--data", action="append", metavar="FILE", help="JSON, JSONL, CSV, Parquet or text; a glob; repeatable"
    )
    data.add_argument("--max-rows", type=int, metavar="N", help="use the first N rows")
    labels = parser.add_argument_group("accuracy")
    labels.add_argument(
        "--prompt-template",
        metavar="TEMPLATE",
        help=r"prompt over the columns, e.g. '### Text: {phrase}\n### The tone is:\n'",
    )
    labels.add_argument("--label-col", metavar="COLUMN", help="column with the right answer")
    labels.add_argument("--labels", metavar="LIST", help="comma-separated; default: those in the data")
    labels.add_argument(
        "--max-new-tokens", type=int, default=8, metavar="N", help="longest answer (default: %(default)s)"
    )
    labels.add_argument("--chat", action="store_true", help="put the prompt into the model's chat template")
    texts = parser.add_argument_group("perplexity")
    texts.add_argument("--text-template", metavar="TEMPLATE", help="text over the columns")
    texts.add_argument("--text-cols", metavar="LIST", help="comma-separated columns of the text (default: text)")
    texts.add_argument(
        "--max-seq-len", type=int, default=1024, metavar="N", help="window in tokens (default: %(default)s)"
    )
    parser.add_argument_group("divergence").add_argument(
        "--reference", metavar="MODEL", help="the model before it was quantised, to compare predictions with"
    )
    speed = parser.add_argument_group("speed")
    speed.add_argument("--prompt-tokens", type=int, default=64, metavar="N", help="default: %(default)s")
    speed.add_argument("--new-tokens", type=int, default=64, metavar="N", help="default: %(default)s")
    speed.add_argument("--repeats", type=int, default=5, metavar="N", help="default: %(default)s")
    parser.add_argument("--execution-provider", default=None, metavar="NAME", help="default: CPUExecutionProvider")
    parser.add_argument(
        "--trust-remote-code", action="store_true", help="let Python code that comes with the models run"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object with every value")


def run(arguments: argparse.Namespace) -> int:
    """Measure each model, then print the table or the JSON."""
    from olivine.errors import EXIT_OK
    from olivine.evaluate.process import measure_in_fresh_process
    from olivine.models.checkpoint import detect_format

    folders = {name: folder_of(name) for name in arguments.models}
    formats = {name: detect_format(folder) for name, folder in folders.items()}
    metrics, data = requested(arguments, graphs_only="onnx" in formats.values())
    reference = None
    if arguments.reference:
        folder = folder_of(arguments.reference)
        reference = (folder, detect_format(folder))
    if data:
        check_data(data)
    target = target_of(arguments.execution_provider)
    results: dict[str, dict[str, Any]] = {}
    for name, folder in folders.items():
        if sys.stderr.isatty():
            print(f"measuring {name} ...", file=sys.stderr)
        results[name] = measure_in_fresh_process(
            folder,
            formats[name],
            metrics,
            data,
            target,
            trust_remote_code=arguments.trust_remote_code,
            reference=reference,
        )
    if arguments.json:
        print(json.dumps(results, ensure_ascii=False, indent=2))
    else:
        show(results, target)
    return EXIT_OK


def requested(
    arguments: argparse.Namespace, *, graphs_only: bool = False
) -> tuple[list[dict[str, Any]], dict[str, DataConfig]]:
    """Return the metrics with their parameters, and the data configs by ``"{index}.data_config"``.

    Args:
        graphs_only: a model is a plain ONNX graph, which cannot be asked for text.

    Raises:
        ConfigError: an unknown metric, or one for which the options say too little.
    """
    from pydantic import ValidationError

    from olivine.config.schema import DataConfig
    from olivine.errors import ConfigError
    from olivine.evaluate import registry

    names = _metric_names(arguments, graphs_only)
    params: dict[str, dict[str, Any]] = {
        "accuracy": {
            "prompt_template": unescape(arguments.prompt_template or ""),
            "label_col": arguments.label_col,
            "labels": _split(arguments.labels),
            "max_new_tokens": arguments.max_new_tokens,
            "chat_template": arguments.chat,
            "max_rows": arguments.max_rows,
        },
        "exact_match": {
            "prompt_template": unescape(arguments.prompt_template or ""),
            "answer_col": arguments.label_col,
            "max_new_tokens": arguments.max_new_tokens,
            "chat_template": arguments.chat,
            "max_rows": arguments.max_rows,
        },
        "perplexity": {"max_seq_len": arguments.max_seq_len, "max_rows": arguments.max_rows},
        "divergence": {"max_seq_len": arguments.max_seq_len, "max_rows": arguments.max_rows},
        "latency": {"repeats": arguments.repeats},
        "throughput": {"repeats": arguments.repeats},
        "speed": {
            "prompt_tokens": arguments.prompt_tokens,
            "new_tokens": arguments.new_tokens,
            "repeats": arguments.repeats,
        },
        "size": {},
    }
    metrics, data = [], {}
    for index, name in enumerate(names):
        metric_type = registry.find(name)
        assert metric_type is not None
        values = params[name]
        if name not in ("latency", "throughput") and "data_config" in metric_type.params_type.model_fields:
            data[f"{index}.data_config"] = DataConfig(
                name="data",
                data_files=[str(Path(each).expanduser().absolute()) for each in arguments.data],
                text_template=unescape(arguments.text_template) if arguments.text_template else None,
                text_cols=_split(arguments.text_cols),
            )
        try:
            metric_type.params_type.model_validate(
                values | ({"data_config": "data"} if f"{index}.data_config" in data else {})
            )
        except ValidationError as error:
            first = error.errors()[0]
            option = "--" + "-".join(str(part) for part in first["loc"]).replace("_", "-")
            raise ConfigError(f"{option}: {first['msg']}", remedy="`olivine evaluate --help` explains it") from None
        metrics.append({"index": index, "name": name, "type": name, "params": values})
    return metrics, data


def _metric_names(arguments: argparse.Namespace, graphs_only: bool) -> list[str]:
    """Return the metrics that were asked for, or all for which the options say enough."""
    import difflib

    from olivine.errors import ConfigError

    can_label = bool(arguments.data and arguments.prompt_template and arguments.label_col)
    can_read = bool(arguments.data and (arguments.text_template or arguments.text_cols))
    if arguments.metrics is None:
        partly = [arguments.prompt_template, arguments.label_col]
        if any(partly) and not can_label:
            raise ConfigError(
                "accuracy needs --data, --prompt-template and --label-col",
                remedy="give all three, or choose others with --metrics",
            )
        if graphs_only:
            return ["latency", "size"]
        chosen = {
            "accuracy": can_label,
            "perplexity": can_read,
            "divergence": can_read and bool(arguments.reference),
            "speed": True,
            "size": True,
        }
        return [name for name in METRICS if chosen.get(name)]
    names = list(dict.fromkeys(_split(arguments.metrics) or []))
    for name in names:
        if name not in METRICS:
            near = difflib.get_close_matches(name, METRICS, n=1)
            raise ConfigError(
                f"there is no metric {name!r}" + (f"; the nearest is {near[0]}" if near else ""),
                remedy=f"choose among {', '.join(METRICS)}",
            )
    if not names:
        raise ConfigError("--metrics names none", remedy=f"choose among {', '.join(METRICS)}")
    for name in ("accuracy", "exact_match"):
        if name in names and not can_label:
            raise ConfigError(f"{name} needs --data, --prompt-template and --label-col", remedy="give all three")
    if "divergence" in names and not arguments.reference:
        raise ConfigError("divergence needs --reference", remedy="give the checkpoint before it was quantised")
    for name in ("perplexity", "divergence"):
        if name not in names or arguments.data:
            continue
        raise ConfigError(f"{name} needs --data", remedy="give a file of texts, and --text-template or --text-cols")
    return names


def _split(text: str | None) -> list[str] | None:
    return [each.strip() for each in text.split(",") if each.strip()] if text else None


def check_data(data: dict[str, DataConfig]) -> None:
    """Say which files are missing before any model is loaded.

    Raises:
        DataError: a file is missing.
    """
    from olivine.data.sources import data_files

    for config in data.values():
        data_files(config)


def show(results: dict[str, dict[str, Any]], target: Accelerator) -> None:
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
        from rich.console import Console
        from rich.table import Table

        table = Table(*heads, title=f"on {target.execution_provider}", title_justify="left")
        for column in table.columns[1:]:
            column.justify = "right"
        for row in rows:
            table.add_row(*row)
        Console().print(table)
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
