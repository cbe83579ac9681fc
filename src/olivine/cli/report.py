"""Make the page that shows a run: of its output folder, of a folder in the cache's runs (also of a run that failed).

olivine report models --open
olivine report 20261124-165802-15182
"""

from __future__ import annotations

import argparse
from pathlib import Path

from olivine.cli.cache_option import add_cache_argument


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `olivine report`."""
    parser.add_argument("run", metavar="RUN", help="output folder, run folder, or name of a run in the cache")
    parser.add_argument("--output", metavar="FILE", help="write the page here (default: report.html in the folder)")
    parser.add_argument("--open", action="store_true", help="show it in the browser")
    add_cache_argument(parser, "where a run's name is looked up")


def run(arguments: argparse.Namespace) -> int:
    """Find the record, write the page."""
    from olivine.report.page import report_page
    from olivine.report.reading import REPORT, read_record

    given, cache = Path(arguments.run), Path(arguments.cache_dir)
    record = read_record(given, cache)
    folder = given if given.exists() else cache / "runs" / given
    place = (
        Path(arguments.output) if arguments.output else folder / REPORT if folder.is_dir() else folder.with_name(REPORT)
    )
    write_page(place, report_page(record), show=arguments.open)
    return 0


def write_page(file: Path, page: str, *, show: bool) -> None:
    """Write a page and say where; open it in the browser if asked to.

    Raises:
        ConfigError: it cannot be written.
    """
    from olivine.errors import ConfigError

    partial = file.with_name(f".{file.name}.part")
    try:
        partial.write_text(page, encoding="utf-8")
        partial.replace(file)
    except OSError as error:
        raise ConfigError(f"{file} cannot be written: {error.strerror}", remedy="name another place") from None
    print(file)
    if show:
        import webbrowser

        if not webbrowser.open(file.absolute().as_uri()):
            print("no browser was found here; open the file yourself")
