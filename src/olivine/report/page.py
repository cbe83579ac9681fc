"""One self-contained page: style, scripts and data are in it, and it may load nothing else.

A content security policy names the page's own scripts by their digests, so that markup that came in with the data
could not run even if it were not escaped.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from olivine.report.markup import embedded_json, plain
from olivine.report.sections import SECTIONS, header

ASSETS = Path(__file__).parent / "assets"


def report_page(record: Mapping[str, Any]) -> str:
    """Return the page of a run.

    Args:
        record: of the run (:mod:`olivine.engine.record`).
    """
    charts: dict[str, Any] = {}
    body = "".join(make(record, charts) for make in SECTIONS)
    name = record["workflow_id"] if record["workflow_id"] != "default_workflow" else record["model"]
    return document(f"{name}: report", header(record) + contents(body) + body, charts, record)


def contents(body: str) -> str:
    """Return links to the sections in ``body``."""
    found = re.findall(r'<h2 id="([a-z]+)-title">([^<]*)</h2>', body)
    links = "".join(f'<li><a href="#{name}">{title}</a></li>' for name, title in found)
    return f'<nav aria-label="Contents"><ul>{links}</ul></nav>'


def document(title: str, body: str, charts: Mapping[str, Any], data: Any) -> str:
    """Return a whole document.

    Args:
        title: plain text.
        body: markup.
        charts: what the charts show, by name.
        data: what the page was made from, so that it can be made again from the page itself.
    """
    style, library, script = _asset("page.css"), _library(), _asset("page.js")
    policy = (
        f"default-src 'none'; style-src {_digest(style)}; script-src {_digest(library)} {_digest(script)}; "
        "base-uri 'none'; form-action 'none'"
    )
    page = f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{plain(title)}</title>
<style>{style}</style>
</head>
<body>
<a class="skip" href="#main">Skip to the content</a>
<button id="theme" type="button" aria-label="Switch between light and dark" hidden>◐</button>
<main id="main">
{body}
</main>
<footer>Charts by Chart.js, © Chart.js Contributors, MIT licence.</footer>
<script type="application/json" id="record">{embedded_json(data)}</script>
<script type="application/json" id="charts">{embedded_json(charts)}</script>
<script>{library}</script>
<script>{script}</script>
</body>
</html>
"""
    # A file name may hold bytes that are no text; they cannot be shown.
    return page.encode("utf-8", "replace").decode("utf-8")


@cache
def _asset(name: str) -> str:
    return (ASSETS / name).read_text(encoding="utf-8").strip()


@cache
def _library() -> str:
    """Return Chart.js with its licence, without the address of a source map that is not there."""
    licence = (ASSETS / "chart.LICENSE.md").read_text(encoding="utf-8").strip()
    library = re.sub(r"\n//# sourceMappingURL=.*", "", _asset("chart.umd.min.js"))
    return f"/*!\n{licence}\n*/\n{library}"


def _digest(content: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"
