"""What a stranger wrote is shown on a terminal as it is spelt; the terminal does not act on it."""

from __future__ import annotations

import json
import os
import pty
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from olivine.redaction import visible

EVIL = "\x1b]0;owned\x07\x1b[2J\x9b31m\u202egnp.[/][bold]x"
"""Sets the window's title, clears the screen, colours (in one byte), turns the order of letters round, and is no
markup of Rich's."""
ACTED_ON = (b"\x1b]0;", b"\x1b[2J", b"\xc2\x9b", "\u202e".encode(), b"\x07")


def on_a_terminal(folder: Path, *arguments: str) -> bytes:
    """Run the command line on a terminal of its own and return what it wrote there."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "olivine", *arguments],
        cwd=folder,
        env=os.environ | {"TERM": "xterm-256color", "COLUMNS": "200"},
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    written = bytearray()
    while True:
        try:
            block = os.read(ours, 65536)
        except OSError:  # Linux: the other side has been closed
            break
        if not block:
            break
        written += block
    os.close(ours)
    process.wait(timeout=60)
    return bytes(written)


@pytest.fixture
def folder(tmp_path: Path, pico_model: Path) -> Path:
    shutil.copytree(pico_model, tmp_path / f"model{EVIL.replace('/', '')}")
    (tmp_path / "rows.jsonl").write_text(json.dumps({"text": f"a text {EVIL}", EVIL: "x"}) + "\n")
    workflow = {
        "workflow_id": EVIL,
        "input_model": {"model_path": f"model{EVIL.replace('/', '')}"},
        "data_configs": [{"name": "rows", "data_files": "rows.jsonl", "text_cols": ["text"], "max_seq_len": 64}],
        "passes": {
            "lora": {"type": "LoRA", "target_modules": ["o_proj"], "train_data_config": "rows"},
            "merge": {"type": "MergeAdapterWeights"},
        },
    }
    (tmp_path / "workflow.json").write_text(json.dumps(workflow))
    wrong = workflow | {EVIL: 1, "passes": {"b": {"type": EVIL, EVIL: 2}}}
    (tmp_path / "wrong.json").write_text(json.dumps(wrong))
    wrong_data = json.loads(json.dumps(workflow))
    wrong_data["data_configs"][0]["text_cols"] = ["txt"]
    (tmp_path / "wrong-data.json").write_text(json.dumps(wrong_data))
    return tmp_path


@pytest.mark.parametrize(
    "arguments",
    [
        ("plan", "workflow.json"),
        ("plan", "workflow.json", "--show-data", "1"),
        ("plan", "wrong.json"),
        ("plan", "wrong-data.json"),
    ],
    ids=" ".join,
)
def test_a_terminal_does_not_act_on_what_names_and_rows_hold(folder: Path, arguments: tuple[str, ...]) -> None:
    written = on_a_terminal(folder, *arguments)
    assert [each for each in ACTED_ON if each in written] == []
    assert b"\\x1b" in written
    assert b"Traceback" not in written
    assert b"internal error" not in written


def test_the_live_view_and_tables_show_names_as_they_are_spelt(folder: Path) -> None:
    from io import StringIO

    from rich.table import Table
    from rich.text import Text

    from olivine.cli.terminal import SafeConsole

    file = StringIO()
    console = SafeConsole(file=file, force_terminal=True, width=200)
    table = Table()
    table.add_column(Text(EVIL))
    table.add_row(Text(EVIL), style="bold")
    console.print(table)
    said = file.getvalue().encode()
    assert [each for each in ACTED_ON if each in said] == []
    assert b"\x1b[1m" in said, "what Rich draws stays"


def test_what_is_written_out_is_only_what_a_terminal_acts_on() -> None:
    assert visible("tab\t, line\n, غمگین, é, 日本, 👩‍🚀") == "tab\t, line\n, غمگین, é, 日本, 👩‍🚀"
    assert visible("\x1b[1m\r\x9b\u202e") == "\\x1b[1m\\r\\x9b\\u202e"
