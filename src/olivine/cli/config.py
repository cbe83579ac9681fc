"""Configurations themselves: print their JSON Schema."""

from __future__ import annotations

import argparse
import json
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the actions of `olivine config`."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    schema = actions.add_parser("schema", help="print the JSON Schema of a configuration, for editors")
    schema.add_argument("-o", "--output", type=Path, metavar="FILE", help="write it to a file instead")


def run(arguments: argparse.Namespace) -> int:
    """Print or write the schema."""
    from olivine.config.json_schema import json_schema

    text = json.dumps(json_schema(), indent=2, ensure_ascii=False)
    if arguments.output is None:
        print(text)
    else:
        arguments.output.write_text(text + "\n", encoding="utf-8")
    return 0
