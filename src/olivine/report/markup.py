"""Pieces of HTML. Every text that comes from outside goes through :func:`text` or :func:`plain`."""

from __future__ import annotations

import html
import json
import math
from collections.abc import Iterable, Sequence
from typing import Any


def plain(value: object) -> str:
    """Return a value as text that cannot be markup, for attributes and where no direction has to be found."""
    return html.escape(str(value), quote=True)


def text(value: object) -> str:
    """Return a value as text that cannot be markup and stands in its own direction, whatever is around it."""
    return f"<bdi>{plain(value)}</bdi>"


def embedded_json(value: Any) -> str:
    """Return JSON that can stand inside ``<script>``: no character in it can end the element or begin a comment."""
    written = json.dumps(finite(value), separators=(",", ":"), ensure_ascii=True)
    return written.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def finite(value: Any) -> Any:
    """Return plain values with ``None`` in place of numbers that JSON cannot hold."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return value


def section(name: str, title: str, body: str) -> str:
    """Return a section with a heading that can be linked to."""
    return f'<section id="{name}" aria-labelledby="{name}-title"><h2 id="{name}-title">{title}</h2>{body}</section>'


def table(heads: Sequence[str], rows: Iterable[Sequence[str]], *, label: str, numbers: bool = True) -> str:
    """Return a table that scrolls sideways on a narrow screen.

    Args:
        heads: markup of the column heads; the first column names the rows.
        rows: markup of the cells.
        label: what the table shows, for those who hear it.
        numbers: whether all columns but the first hold numbers.
    """
    kind = ' class="numbers"' if numbers else ""
    head = "".join(f'<th scope="col">{each}</th>' for each in heads)
    body = "".join(
        f'<tr><th scope="row">{row[0]}</th>' + "".join(f"<td>{cell}</td>" for cell in row[1:]) + "</tr>" for row in rows
    )
    return (
        f'<div class="scroll" role="region" tabindex="0" aria-label="{plain(label)}">'
        f"<table{kind}><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def bar(share: float, words: str) -> str:
    """Return a value with a bar of its share of the largest; the words say the same."""
    width = max(0.0, min(1.0, share)) * 100
    return (
        f'<span class="valued">{plain(words)}</span><svg class="bar" aria-hidden="true" focusable="false">'
        f'<rect class="rail" width="100%" height="100%" rx="3"></rect>'
        f'<rect class="fill" width="{width:.1f}%" height="100%" rx="3"></rect></svg>'
    )


def details(summary: str, body: str) -> str:
    """Return what is shown when it is asked for."""
    return f"<details><summary>{summary}</summary>{body}</details>"


def code(content: str, label: str) -> str:
    """Return a block of code; each line stands in its own direction."""
    return f'<pre tabindex="0" aria-label="{plain(label)}"><code>{plain(content)}</code></pre>'


def chart(name: str, label: str, choices: Sequence[tuple[str, str, Sequence[tuple[str, str]]]] = ()) -> str:
    """Return the place of a chart, with its choices.

    Args:
        name: the chart's name in the page's data.
        label: what it shows.
        choices: each a name (``x``), words before it, and values with their words.
    """
    selects = "".join(
        f'<label>{plain(words)} <select id="chart-{name}-{choice}">'
        + "".join(f'<option value="{plain(value)}">{plain(shown)}</option>' for value, shown in options)
        + "</select></label>"
        for choice, words, options in choices
    )
    return (
        f'<figure class="chart" data-chart="{name}" hidden>'
        + (f'<div class="choices">{selects}</div>' if selects else "")
        + f'<div class="canvas"><canvas id="chart-{name}" tabindex="0" role="application" aria-roledescription="chart" '
        f'aria-label="{plain(label)}. Arrow keys go from point to point."></canvas></div>'
        f'<p class="said" id="chart-{name}-said" role="status" aria-live="polite"></p></figure>'
    )
