"""The live view on a terminal: one line a Step, with a bar, the current values, the time left, and the peak memory."""

from __future__ import annotations

import time
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from olivine.cli.terminal import console as safe_console
from olivine.cli.view import Eta, View, another, closing, ending, opening, progress_text
from olivine.engine.words import duration
from olivine.events import Event
from olivine.planning import Plan

_MARKS = {"done": "[green]✓[/]", "cached": "[cyan]=[/]", "failed": "[red]✗[/]", "pending": "[dim]·[/]"}

NARROW = 90
"""Columns of a terminal below which types are left out, and bars are short, so that there is room for the figures."""


class LiveView(View):
    """Redraws a table of the Steps in place; notes scroll by above it."""

    def __init__(self, plan: Plan, console: Console | None = None) -> None:
        self._console = console or safe_console()
        self._steps: dict[str, dict[str, Any]] = {
            step.name: {"type": step.step.type, "state": "pending", "text": ""} for step in plan.steps
        }
        self._eta = Eta()
        self._live = Live(console=self._console, refresh_per_second=8, get_renderable=self._render, transient=False)
        self._spinner = Spinner("dots")

    def __enter__(self) -> LiveView:
        self._live.start()
        return self

    def close(self) -> None:
        """Draw the last state and give the terminal back."""
        self._live.stop()

    def __call__(self, event: Event) -> None:
        """Show one event."""
        step = self._steps.get(event.step, {})
        data = event.data
        if event.event == "run-started":
            for line in opening(data):
                self._console.print(escape(line), style=None if line == opening(data)[0] else "dim", highlight=False)
        elif event.event == "note":
            self._console.print(escape(f"  note: {data['text']}"), style="dim", highlight=False)
        elif event.event == "step-started":
            step.update(state="running", text="starting", started=time.monotonic(), done=0, total=None)
            self._eta = Eta()
        elif event.event == "step-waiting":
            step.update(
                state="running", text=f"waiting for {another(data)}, which makes it now", started=time.monotonic()
            )
        elif event.event == "progress":
            self._eta.update(data["done"], data["total"])
            step.update(done=data["done"], total=data["total"], text=progress_text(data, self._eta))
        elif event.event in ("step-done", "step-cached"):
            step.update(state=event.event.removeprefix("step-"), text=ending(event))
        elif event.event == "step-failed":
            step.update(state="failed", text="failed; the reason stands below")
        elif event.event == "run-failed":
            self._live.stop()
            self._console.print(escape(f"  log: {data['log']}"), style="dim", highlight=False)
        elif event.event == "run-done":
            self._live.refresh()
            self._live.stop()
            self._console.print()
            for line in closing(data):
                key, _, value = line.partition("  ")
                self._console.print(f"[bold]{escape(key)}[/]  {escape(value)}", highlight=False)

    def _render(self) -> Group:
        narrow = self._console.width < NARROW
        width = 8 if narrow else 18
        busy = any(step["state"] == "running" for step in self._steps.values())
        table = Table.grid(padding=(0, 1))
        table.add_column(width=2)
        table.add_column(style="bold")
        if not narrow:
            table.add_column(style="dim")
        if busy:
            table.add_column(width=width)
        table.add_column(overflow="fold")
        for name, step in self._steps.items():
            running = step["state"] == "running"
            bar: Any = ""
            if running and step.get("total"):
                bar = ProgressBar(total=step["total"], completed=step["done"], width=width)
            elif running:
                bar = Text(duration(time.monotonic() - step["started"]), style="dim")
            mark: Any = self._spinner if running else Text.from_markup(_MARKS[step["state"]])
            kind = step["type"] if step["type"] != "evaluate" else ""
            cells = [*([] if narrow else [Text(kind)]), *([bar] if busy else []), Text(step["text"])]
            table.add_row(mark, Text(name), *cells)
        return Group(table)
