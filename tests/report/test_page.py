"""The page of a run, in a real browser: nothing on the console, plots that are drawn and answer, nothing that hurts."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from finished_run import HOSTILE, PERSIAN

from olivine.evaluate.goals import Verdict
from olivine.report.charts import layer_map
from olivine.report.page import report_page
from olivine.report.reading import read_record
from olivine.search.trial import Trial

INK = """name => {
  const canvas = document.getElementById(name), context = canvas.getContext("2d");
  const data = context.getImageData(0, 0, canvas.width, canvas.height).data;
  const wanted = Chart.getChart(canvas).data.datasets[0].borderColor;
  const [r, g, b] = [1, 3, 5].map(at => parseInt(wanted.slice(at, at + 2), 16));
  let found = 0;
  for (let at = 0; at < data.length; at += 4)
    if (Math.abs(data[at] - r) + Math.abs(data[at + 1] - g) + Math.abs(data[at + 2] - b) < 12) found++;
  return found;
}"""
"""Counts the pixels in the colour of a chart's first series."""
PLACE = """([name, set, index]) => {
  const chart = Chart.getChart(name), point = chart.getDatasetMeta(set).data[index];
  const box = chart.canvas.getBoundingClientRect();
  return [box.x + point.x, box.y + point.y];
}"""
TOOLTIP = (
    "name => { const t = Chart.getChart(name).tooltip; return t.opacity ? t.body.flatMap(b => b.lines).join() : '' }"
)


@pytest.fixture
def report(finished: Path) -> Path:
    return finished / "out" / "report.html"


@pytest.mark.parametrize(("width", "scheme"), [(1100, "light"), (1100, "dark"), (390, "light")])
def test_plots_are_drawn_and_nothing_runs_over_the_edge(opened, report: Path, width: int, scheme: str) -> None:
    page = opened(report, width=width, scheme=scheme)
    for name in ("chart-models", "chart-training"):
        assert page.evaluate(INK, name) > 50
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (max(map(int, re.findall(r"\d+", paper)[:3])) < 80) is (scheme == "dark")


def test_hovering_over_a_point_shows_its_values(opened, report: Path) -> None:
    page = opened(report)
    record = read_record(report)
    page.locator("#chart-models").scroll_into_view_if_needed()
    page.mouse.move(*page.evaluate(PLACE, ["chart-models", 1, 0]))
    page.wait_for_function("Chart.getChart('chart-models').tooltip.opacity === 1")
    shown = page.evaluate(TOOLTIP, "chart-models")
    assert "final model" in shown
    assert f"{record['size_bytes']:,}" in shown


def test_choosing_an_axis_moves_the_points(opened, report: Path) -> None:
    page = opened(report)
    before = page.evaluate(PLACE, ["chart-models", 0, 0])
    page.get_by_label("across").select_option("accuracy.macro_f1")
    assert page.evaluate("Chart.getChart('chart-models').options.scales.x.title.text").startswith("accuracy.macro_f1")
    assert page.evaluate(PLACE, ["chart-models", 0, 0]) != before
    models = {model["role"]: model["values"] for model in read_record(report)["models"]}
    data = page.evaluate("Chart.getChart('chart-models').data.datasets.slice(0, 2).map(d => d.data[0].x)")
    assert data == [models[role]["accuracy.macro_f1"] for role in ("input", "final")]
    page.get_by_label("show").select_option(label="learning rate")
    assert "learning rate" in page.evaluate("Chart.getChart('chart-training').data.datasets[0].label")


def test_the_keyboard_reaches_everything_and_walks_through_the_points(opened, report: Path) -> None:
    page = opened(report)
    reached = set()
    for _ in range(60):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.id || document.activeElement.tagName"))
    wanted = {"theme", "chart-models", "chart-models-x", "chart-models-y", "chart-training", "chart-training-y"}
    assert wanted <= reached
    assert {"SUMMARY", "A"} <= reached
    page.focus("#chart-training")
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    assert "step 2" in page.inner_text("#chart-training-said")
    assert "step 2" in page.evaluate(TOOLTIP, "chart-training")
    page.keyboard.press("Escape")
    assert page.inner_text("#chart-training-said") == ""
    assert outline != "none"


def test_the_button_switches_between_light_and_dark(opened, report: Path) -> None:
    page = opened(report)
    colour = (
        "getComputedStyle(document.body).backgroundColor + Chart.getChart('chart-models').data.datasets[0].borderColor"
    )
    before = page.evaluate(colour)
    page.click("#theme")
    assert page.evaluate(colour) != before
    page.click("#theme")
    assert page.evaluate(colour) == before


def test_markup_in_the_data_is_shown_as_text_and_does_not_run(opened, report: Path) -> None:
    page = opened(report)
    assert page.evaluate("window.hurt") is None
    assert HOSTILE in page.inner_text("h1")
    for summary in page.locator("summary").all():
        summary.click()
    assert page.get_by_text(HOSTILE, exact=True).count() >= 3
    assert page.evaluate("document.scripts.length") == 4
    # Even markup that came in unescaped could not run: the policy names the page's own scripts by their digests.
    page.evaluate(
        "const s = document.createElement('script'); s.textContent = 'window.hurt = 2'; document.body.append(s)"
    )
    assert page.evaluate("window.hurt") is None
    page.wait_for_timeout(50)
    assert len(opened.said) == 1
    assert "Content Security Policy" in opened.said.pop()


def test_right_to_left_text_keeps_its_direction_and_order(opened, report: Path) -> None:
    page = opened(report)
    page.get_by_text("accuracy: labels, final model").click()
    label = page.locator("details[open] bdi", has_text=PERSIAN).first
    label.scroll_into_view_if_needed()
    assert label.evaluate("node => getComputedStyle(node).direction") == "rtl"
    boxes = label.evaluate(
        """node => [0, node.firstChild.length - 1].map(at => {
          const range = document.createRange();
          range.setStart(node.firstChild, at); range.setEnd(node.firstChild, at + 1);
          return range.getBoundingClientRect().x;
        })"""
    )
    assert boxes[0] > boxes[1]


def test_layers_candidates_and_goals_are_shown_where_a_run_has_them(opened, report: Path, tmp_path: Path) -> None:
    record = read_record(report)
    layers = {
        f"model.layers.{n}.mlp": {
            "bits": bits,
            "group_size": 32,
            "symmetric": True,
            "loss": 0.1 / (n + 1),
            "bytes": 800,
        }
        for n, bits in enumerate((8, 4, 4, 2))
    }
    record["steps"][-2]["attributes"]["layers"] = layers
    trials = [
        Trial(
            number=n,
            key=str(n),
            point={"passes.lora.r": HOSTILE},
            state="failed" if n == 4 else "complete",
            metrics={"accuracy": {"accuracy": 0.1 * n}, "size": {"size_bytes": 200_000 + 9_000 * n}} if n < 4 else {},
        )
        for n in range(5)
    ]
    record["search"] = {
        "trials": [each.as_json() for each in trials],
        "pareto_front": [2, 3],
        "pick": 3,
        "why": "it is",
    }
    record["goals"] = [
        Verdict("accuracy", "at least 0.9", 0.14, 0.9, None, False, 0.76, True).as_json(),
        Verdict("size.size_bytes", "at most 200000", 185232.0, 200000.0, None, True, 0.0, False).as_json(),
    ]
    file = tmp_path / "report.html"
    file.write_text(report_page(record), encoding="utf-8")
    page = opened(file)
    assert page.evaluate(INK, "chart-layers") > 50
    assert page.evaluate("Chart.getChart('chart-layers').data.datasets[0].data.map(p => p.y)") == [8, 4, 4, 2]
    page.get_by_label("show").last.select_option(label="loss")
    assert page.evaluate("Chart.getChart('chart-layers').data.datasets[0].data[1].y") == pytest.approx(0.05)
    assert "missed by 0.76" in page.inner_text("#goals")
    front = page.evaluate("Chart.getChart('chart-models').data.datasets.find(d => d.dashed).data.map(p => p.name)")
    assert front == ["final model", "trial 2", "trial 3"]
    assert "the pick" in page.text_content("#metrics")
    assert page.evaluate("window.hurt") is None


def test_numbers_that_are_none_do_not_break_the_page(opened, report: Path, tmp_path: Path) -> None:
    record: dict[str, Any] = read_record(report)
    lora = next(step for step in record["steps"] if step["history"])
    lora["history"] = [{"step": 1, "loss": float("nan")}, {"step": 2, "loss": 1.5}, {"step": 3, "loss": float("inf")}]
    record["models"] = []
    file = tmp_path / "report.html"
    file.write_text(report_page(record), encoding="utf-8")
    page = opened(file)
    assert page.evaluate("Chart.getChart('chart-training').data.datasets[0].data.length") == 1
    assert json.loads(page.inner_text("#record"))["models"] == []


def test_modules_that_are_exceptions_stand_beside_all_others() -> None:
    head = {"bits": 8, "group_size": 32, "symmetric": True}
    attributes = {"method": "rtn", "bits": 4, "group_size": 32, "symmetric": True, "overrides": {"lm_head": head}}
    assert layer_map(attributes) == {
        "all others": {"bits": 4, "group_size": 32, "symmetric": True}, "lm_head": head,
    }  # fmt: skip
    assert layer_map({"bits": 4, "overrides": {}}) == {}


def test_no_column_of_the_steps_is_out_of_sight_on_a_phone(opened, report: Path) -> None:
    page = opened(report, width=390)
    assert page.evaluate("""() => [...document.querySelectorAll("#lineage > .scroll")].every(
        each => each.scrollWidth <= each.clientWidth)""")
