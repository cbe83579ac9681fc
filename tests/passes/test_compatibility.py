"""docs/olive-compatibility.md says what the table says."""

from __future__ import annotations

from pathlib import Path

from olivine.passes import known
from olivine.passes.compatibility import compatibility_markdown

DOCUMENT = Path(__file__).parents[2] / "docs" / "olive-compatibility.md"


def test_the_document_is_up_to_date() -> None:
    assert DOCUMENT.read_text(encoding="utf-8") == compatibility_markdown()


def test_every_pass_has_one_row() -> None:
    rows = [line for line in compatibility_markdown().splitlines() if line.startswith("| `")]
    for name in known.names():
        assert sum(line.startswith(f"| `{name}` |") for line in rows) == 1, name
