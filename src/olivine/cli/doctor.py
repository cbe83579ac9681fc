"""Look for what may keep Olivine from working here, and say what to do about it.

Looks at Python and packages, the processor, GPUs, memory, how fast they are, disk, the execution providers (a tiny
model runs on each), the hub's login and the cache. Nothing is downloaded or sent.

Exit status: 0 if nothing is wrong, 3 if something is broken.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from olivine.cli.cache_option import add_cache_argument

if TYPE_CHECKING:
    from olivine.doctor import Finding

MARKS = {"ok": ("✓", "green"), "absent": ("-", "dim"), "warning": ("!", "yellow"), "problem": ("✗", "red")}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `olivine doctor`."""
    add_cache_argument(parser, "the cache to look at")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: argparse.Namespace) -> int:
    """Examine and print."""
    from dataclasses import asdict

    from olivine import __version__
    from olivine.doctor import State, examine
    from olivine.errors import EXIT_OK, EXIT_UNAVAILABLE

    findings = examine(Path(arguments.cache_dir))
    broken = any(each.state is State.PROBLEM for each in findings)
    if arguments.json:
        print(
            json.dumps(
                {"olivine": __version__, "sound": not broken, "findings": [asdict(each) for each in findings]}, indent=2
            )
        )
    else:
        _show(findings, f"olivine {__version__}")
    return EXIT_UNAVAILABLE if broken else EXIT_OK


def _show(findings: Sequence[Finding], title: str) -> None:
    """Print one line per finding, with its remedy below."""
    from rich.text import Text

    from olivine.cli.terminal import console as safe_console
    from olivine.doctor import State

    console = safe_console(highlight=False, soft_wrap=True)
    console.print(title, style="bold")
    width = max(len(each.subject) for each in findings if len(each.subject) < 30)
    section = ""
    for each in findings:
        if each.section != section:
            section = each.section
            console.print(f"\n{section}", style="bold")
        mark, style = MARKS[each.state]
        line = Text(f"  {mark} ", style=style)
        line.append(f"{each.subject:<{width}}  ", style="default")
        line.append(each.text, style="default" if each.state is not State.ABSENT else "dim")
        console.print(line)
        if each.remedy:
            console.print(Text(f"    {'':<{width}}  -> {each.remedy}", style=style))
    counts = {state: sum(each.state is state for each in findings) for state in (State.PROBLEM, State.WARNING)}
    told = [f"{count} {state}{'s' if count != 1 else ''}" for state, count in counts.items() if count]
    console.print(f"\n{', '.join(told) or 'nothing is wrong'}", style="bold")
