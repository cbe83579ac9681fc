"""Show runs beside each other: measurements, time and memory of each step, and where their configurations differ.

olivine compare models-r16 models-r64
olivine compare models-r16 models-r64 --html comparison.html --open
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from olivine.cli.cache_option import add_cache_argument
from olivine.cli.report import write_page


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `olivine compare`."""
    parser.add_argument(
        "runs", nargs="+", metavar="RUN", help="output folders, run folders, or names of runs in the cache; two or more"
    )
    parser.add_argument("--html", metavar="FILE", help="write a page with charts")
    parser.add_argument("--open", action="store_true", help="with --html: show it in the browser")
    parser.add_argument("--json", action="store_true", help="print the records as JSON")
    add_cache_argument(parser, "where a run's name is looked up")


def run(arguments: argparse.Namespace) -> int:
    """Find the records, print the table or write the page."""
    from olivine.errors import ConfigError
    from olivine.report.comparing import comparison_page, difference, names_of, rows_of
    from olivine.report.reading import read_record

    if len(arguments.runs) < 2:
        raise ConfigError("one run has nothing to be compared with", remedy="give two or more: olivine compare RUN RUN")
    records = [read_record(Path(each), Path(arguments.cache_dir)) for each in arguments.runs]
    if arguments.json:
        print(json.dumps(records, ensure_ascii=False, indent=2))
    elif not arguments.html:
        names = names_of(records)
        show(names, rows_of(records))
        for name, record in list(zip(names, records, strict=True))[1:]:
            lines = difference(records[0], record, [names[0], name])
            print("\n" + ("\n".join(lines) or "The configurations are the same."))
    if arguments.html:
        write_page(Path(arguments.html), comparison_page(records), show=arguments.open)
    return 0


def show(names: list[str], rows: list[tuple[str, list[str]]]) -> None:
    """Print one row a value and one column a run."""
    if sys.stdout.isatty():
        from rich.table import Table
        from rich.text import Text

        from olivine.cli.terminal import console

        table = Table("")
        for name in names:
            table.add_column(Text(name), justify="right")
        for name, cells in rows:
            table.add_row(Text(name), *(Text(cell) for cell in cells))
        console().print(table)
        return
    lines = [["", *names], *([name, *cells] for name, cells in rows)]
    widths = [max(len(line[place]) for line in lines) for place in range(len(names) + 1)]
    for line in lines:
        cells = [
            line[0].ljust(widths[0]),
            *(cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True)),
        ]
        print("  ".join(cells).rstrip())
