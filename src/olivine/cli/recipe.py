"""What the verbs without a configuration share: options, and showing, writing and running what they stand for."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

from olivine.cli.cache_option import add_cache_argument
from olivine.cli.generate import unescape
from olivine.recipes.table import TARGETS

ORDER = ("version", "input_model", "data_configs", "systems", "passes", "evaluators", "engine")
"""Sections as they are shown."""


def add_model_argument(parser: argparse.ArgumentParser) -> None:
    """Add the model."""
    parser.add_argument("model", metavar="MODEL", help="model folder, or id on the Hugging Face hub (org/name)")


def add_target_arguments(parser: argparse.ArgumentParser, *, default: str | None = "cpu") -> None:
    """Add where the model ships to."""
    said = "default: cpu" if default else "default: no such model is built"
    parser.add_argument(
        "--target",
        default=default,
        metavar="NAME",
        help=f"where the model ships to: {', '.join(TARGETS)}, or with its memory: cpu-4gb, cuda-24gb ({said})",
    )
    parser.add_argument(
        "--precision",
        choices=("fp32", "fp16", "bf16", "int8", "int4"),
        help="format of the weights (default: what fits the target)",
    )


def add_measuring_arguments(parser: argparse.ArgumentParser, *, labels: bool = True) -> None:
    """Add what is measured on which data."""
    group = parser.add_argument_group("measuring")
    add_data_argument(group)
    add_text_arguments(group, "text of a row, for perplexity, e.g. 'Q: {question}\\nA: {answer}'")
    if labels:
        add_label_arguments(group)
        group.add_argument(
            "--prompt-template",
            metavar="TEMPLATE",
            help="prompt for accuracy; default: --text-template up to its last column",
        )
    add_rows_argument(group)


def add_data_argument(group: argparse._ArgumentGroup) -> None:
    """Add the files that are measured on."""
    group.add_argument(
        "--data", action="append", metavar="FILE", help="JSON, JSONL, CSV, Parquet or text; a glob; repeatable"
    )


def add_text_arguments(group: argparse._ArgumentGroup, said: str) -> None:
    """Add how rows become texts."""
    group.add_argument("--text-template", metavar="TEMPLATE", help=said)
    group.add_argument("--text-cols", metavar="LIST", help="comma-separated columns of the text, instead")


def add_label_arguments(group: argparse._ArgumentGroup) -> None:
    """Add what accuracy needs."""
    group.add_argument("--label-col", metavar="COLUMN", help="column with the right answer, for accuracy")
    group.add_argument("--labels", metavar="LIST", help="comma-separated; default: those in the data")


def add_rows_argument(group: argparse._ArgumentGroup) -> None:
    """Add how much is measured on."""
    group.add_argument("--max-rows", type=int, metavar="N", help="measure on the first N rows")


def add_speed_arguments(group: argparse._ArgumentGroup) -> None:
    """Add how speed is measured."""
    group.add_argument("--prompt-tokens", type=int, metavar="N", help="tokens of the prompt (default: 64)")
    group.add_argument("--new-tokens", type=int, metavar="N", help="tokens that are generated (default: 64)")
    group.add_argument("--repeats", type=int, metavar="N", help="how often (default: 5, latency: 20)")


def add_running_arguments(parser: argparse.ArgumentParser, *, output: str = "models") -> None:
    """Add where results go and what is shown."""
    parser.add_argument(
        "--output", default=output, metavar="FOLDER", help="where the result goes (default: %(default)s)"
    )
    add_cache_argument(parser, "where results are kept and found again")
    add_writing_argument(parser)
    parser.add_argument("--dry-run", action="store_true", help="show configuration and plan, and run nothing")
    parser.add_argument(
        "--set",
        dest="overrides",
        action="append",
        default=[],
        metavar="PATH=VALUE",
        help="change one value of the configuration, e.g. --set passes.build.int4_block_size=128 (repeatable)",
    )
    parser.add_argument(
        "--trust-remote-code", action="store_true", help="let Python code that comes with the model run, for this run"
    )
    parser.add_argument(
        "--force", action="store_true", help="go on where memory or disk seem too small, or the model for its target"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object a line for machines")


def add_writing_argument(parser: argparse.ArgumentParser) -> None:
    """Add where the configuration goes that a verb stands for."""
    parser.add_argument("--write-config", metavar="FILE", help="write the configuration that this stands for")


def measuring(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the options on measuring as arguments of a recipe."""
    found = {
        "data": arguments.data,
        "text_template": unescaped(arguments.text_template),
        "text_cols": listed(arguments.text_cols),
        "max_rows": arguments.max_rows,
    }
    if hasattr(arguments, "label_col"):
        found |= {
            "label_col": arguments.label_col,
            "labels": listed(arguments.labels),
            "prompt_template": unescaped(arguments.prompt_template),
        }
    return found


def running(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return where results go as arguments of a recipe."""
    return {"output": arguments.output, "cache": arguments.cache_dir}


def unescaped(text: str | None) -> str | None:
    """Return a template in which ``\\n`` is a line break."""
    return unescape(text) if text is not None else None


def listed(text: str | None) -> list[str] | None:
    """Return the parts of a comma-separated list."""
    return [each.strip() for each in text.split(",") if each.strip()] if text else None


def carry_out(verb: str, workflow: dict[str, Any], arguments: argparse.Namespace) -> int:
    """Show the configuration, write it if asked to, and run it."""
    from olivine.api import execute, prepare
    from olivine.cli.run import tell
    from olivine.cli.view import make_view
    from olivine.config.overrides import apply_overrides

    apply_overrides(workflow, arguments.overrides)
    if not arguments.json:
        shown(verb, workflow)
    plan, store = prepare(
        workflow,
        trust_remote_code=arguments.trust_remote_code,
        force=arguments.force,
        read_weights=not arguments.dry_run,
        beside=not arguments.dry_run,
        fetch_models=not arguments.dry_run,
        tell=tell,
    )
    write_config(verb, workflow, arguments.write_config)
    if arguments.dry_run:
        from olivine.cli.plan import show

        show(plan, as_json=arguments.json)
        return 0
    with make_view(plan, as_json=arguments.json, stream=sys.stdout) as view:
        result = execute(plan, store, view)
    return result.exit_code


def shown(verb: str, workflow: dict[str, Any], also: str = "") -> None:
    """Print the configuration that a verb stands for."""
    from olivine.config.writing import to_yaml

    print(f"# olivine {verb} stands for this configuration{also}:\n{to_yaml(_in_order(workflow))}", flush=True)


def write_config(verb: str, workflow: dict[str, Any], to: str | None) -> None:
    """Write the configuration that a verb stands for, if it is asked for.

    Raises:
        ConfigError: there is another file, or it cannot be written.
    """
    from olivine.config.writing import SCHEMA_URL, to_yaml

    if to is not None:
        file = Path(to)
        head = f"# yaml-language-server: $schema={SCHEMA_URL}\n# From: olivine {verb}\n"
        write(file, head + to_yaml(moved(_in_order(workflow), file.absolute().parent)))


def _in_order(workflow: dict[str, Any]) -> dict[str, Any]:
    return dict(sorted(workflow.items(), key=lambda item: ORDER.index(item[0])))


def write(file: Path, text: str) -> None:
    """Write a configuration; one that says something else is not overwritten.

    Raises:
        ConfigError: it is there and says something else, or cannot be written.
    """
    from olivine.errors import ConfigError

    try:
        if file.exists() and file.read_text(encoding="utf-8") != text:
            raise ConfigError(f"--write-config: {file} exists and says something else", remedy="name another file")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"--write-config: {file} cannot be written: {error.strerror}") from None


def moved(workflow: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Return the workflow with its relative paths made relative to ``folder``, where its file will lie."""

    def path(text: str) -> str:
        if os.path.isabs(text) or text.startswith("~"):
            return text
        return Path(os.path.relpath(Path.cwd() / text, folder)).as_posix()

    found = dict(workflow)
    found["input_model"] = {
        key: path(value) if key.endswith("_path") and Path(value).exists() else value
        for key, value in workflow["input_model"].items()
    }
    evaluators = {
        name: each
        | {
            "metrics": [
                metric
                | {key: path(value) for key, value in metric.items() if key == "reference" and Path(value).exists()}
                for metric in each["metrics"]
            ]
        }
        for name, each in workflow.get("evaluators", {}).items()
    }
    if evaluators:
        found["evaluators"] = evaluators
    found["engine"] = {key: path(value) if key.endswith("_dir") else value for key, value in workflow["engine"].items()}
    if "data_configs" in workflow:
        found["data_configs"] = [
            config
            | {
                "data_files": path(config["data_files"])
                if isinstance(config["data_files"], str)
                else [path(each) for each in config["data_files"]]
            }
            for config in workflow["data_configs"]
        ]
    return found
