"""`olivine report` and `olivine compare`: from an output, from a run's folder, by a run's name."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from finished_run import HOSTILE, olivine

from olivine.errors import ConfigError
from olivine.report.page import ASSETS, report_page
from olivine.report.reading import read_record


def test_every_run_leaves_a_record_and_an_output_leaves_the_same_in_its_report(finished: Path) -> None:
    runs = list((finished / "cache" / "runs").iterdir())
    of_run, of_output = read_record(runs[0]), read_record(finished / "out")
    assert of_run == of_output
    assert of_run["state"] == "succeeded"
    assert [step["name"] for step in of_run["steps"]][1:4] == ["lora", "merge", "builder"]
    lora = of_run["steps"][1]
    assert lora["history"][-1]["eval_loss"] > 0
    assert lora["peak_memory_bytes"] > 0
    assert {model["role"] for model in of_run["models"]} == {"input", "final"}


def test_the_page_is_made_again_from_the_folder_or_by_the_runs_name(finished: Path, tmp_path: Path) -> None:
    name = next((finished / "cache" / "runs").iterdir()).name
    made = olivine(finished, "report", name, "--cache", "cache", "--output", str(tmp_path / "again.html"))
    assert made.returncode == 0, made.stderr
    assert (tmp_path / "again.html").read_text() == (finished / "out" / "report.html").read_text()


def test_two_runs_stand_beside_each_other_with_what_differs(finished: Path, tmp_path: Path, opened) -> None:
    record = read_record(finished / "out")
    record["workflow_id"] = "other"
    record["workflow"] = record["workflow"].replace("r: 4", "r: 8")
    for model in record["models"]:
        model["values"]["accuracy"] = 0.75
    (tmp_path / "other.json").write_text(json.dumps(record))
    shown = olivine(finished, "compare", "out", str(tmp_path / "other.json"))
    assert shown.returncode == 0, shown.stderr
    row = next(line for line in shown.stdout.splitlines() if line.startswith("accuracy "))
    assert row.split()[-1] == "0.75"
    assert "-    r: 4" in shown.stdout
    assert "+    r: 8" in shown.stdout
    made = olivine(finished, "compare", "out", str(tmp_path / "other.json"), "--html", str(tmp_path / "both.html"))
    assert made.returncode == 0, made.stderr
    page = opened(tmp_path / "both.html")
    assert page.evaluate("Chart.getChart('chart-training').data.datasets.length") == 4
    assert page.locator("table").first.locator("thead th").count() == 3
    assert HOSTILE in page.inner_text("h1")
    assert page.evaluate("window.hurt") is None


def test_what_is_no_run_is_refused_with_the_way_out(tmp_path: Path, finished: Path) -> None:
    with pytest.raises(ConfigError, match="there is no record"):
        read_record(tmp_path)
    (tmp_path / "report.html").write_text("<p>another page")
    with pytest.raises(ConfigError, match="not a report"):
        read_record(tmp_path)
    (tmp_path / "record.json").write_text('{"record": 99}')
    with pytest.raises(ConfigError, match="no record that this release reads"):
        read_record(tmp_path)
    assert olivine(finished, "compare", "out").returncode == 2


def test_the_chart_library_is_the_published_one_and_carries_its_licence(finished: Path) -> None:
    digest = hashlib.sha256((ASSETS / "chart.umd.min.js").read_bytes()).hexdigest()
    assert digest in (ASSETS / "README.md").read_text()
    assert "Permission is hereby granted" in (finished / "out" / "report.html").read_text()


def test_no_text_of_a_record_is_markup_wherever_it_stands(finished: Path) -> None:
    from html.parser import HTMLParser

    evil = "'\"><img src=x onerror=hurt()><script>hurt()</script><a href='javascript:hurt()'>&lt;b&gt;"

    def spoilt(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: spoilt(item) for key, item in value.items()}
        if isinstance(value, list):
            return [spoilt(item) for item in value]
        return value + evil if isinstance(value, str) else value

    class Reader(HTMLParser):
        def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
            assert tag != "img"
            assert [name for name, _ in attributes if name.startswith("on")] == []
            assert not any((value or "").startswith("javascript:") for _, value in attributes)
            scripts.extend([tag] if tag == "script" else [])

    scripts: list[str] = []
    record = read_record(finished / "out")
    page = report_page(spoilt(record))
    assert page.count("onerror=hurt") > 20
    Reader().feed(page)
    assert len(scripts) == 4
