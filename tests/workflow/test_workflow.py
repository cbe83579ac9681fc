"""The main job, end to end with real parts: fine-tune, merge, quantise and convert, measure, publish, answer."""

from __future__ import annotations

import json
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def finished(tmp_path_factory, pico_model):
    """A project in which the canonical workflow has run."""
    from workflow_project import Project, canonical

    project = Project(tmp_path_factory.mktemp("finished"), pico_model)
    project.write(canonical())
    project.done = project.olivine("run", "workflow.json")
    assert project.done.returncode == 0, project.done.stderr + project.done.stdout
    return project


def test_the_output_folder_holds_a_genai_model_and_its_papers(finished) -> None:
    models = finished.folder / "models"
    names = {path.name for path in models.iterdir()}
    assert {"genai_config.json", "model.onnx", "model_card.md", "workflow.yaml", "status.json", "metrics.json"} <= names
    metrics = json.loads((models / "metrics.json").read_text())
    assert 0 <= metrics["final"]["accuracy"]["accuracy"] <= 1
    assert 0 <= metrics["input"]["accuracy"]["accuracy"] <= 1


def test_the_terminal_shows_no_library_noise(finished) -> None:
    said = finished.done.stdout + finished.done.stderr
    for noise in ("Warning", "it/s]", "Saving", "GroupQueryAttention", "%|"):
        assert noise not in said


def test_again_all_is_cached_and_the_summary_is_the_same(finished) -> None:
    again = finished.olivine("run", "workflow.json")
    assert again.returncode == 0

    def summary(text: str) -> list[str]:
        return [line for line in text.partition("\n\n")[2].splitlines() if not line.startswith("time")]

    assert summary(again.stdout) == summary(finished.done.stdout)
    assert again.stdout.count("in the cache") == 5


def test_the_model_answers(finished) -> None:
    answer = finished.olivine("generate", "models", "--prompt", "### Text: the cat sat\n### The tone is:\n")
    assert answer.returncode == 0, answer.stderr
    assert answer.stderr == ""


def test_editing_a_training_row_trains_again(finished, tmp_path: Path) -> None:
    plan = finished.olivine("plan", "workflow.json", "--json")
    before = {step["name"]: step for step in json.loads(plan.stdout)["steps"]}
    assert all(step["cached"] for step in before.values())
    rows = (finished.folder / "train.jsonl").read_text()
    try:
        (finished.folder / "train.jsonl").write_text(rows.replace("horse", "mouse", 1))
        plan = finished.olivine("plan", "workflow.json", "--json")
    finally:
        (finished.folder / "train.jsonl").write_text(rows)
    after = {step["name"]: step for step in json.loads(plan.stdout)["steps"]}
    assert not after["lora"]["cached"]
    assert not after["builder"]["cached"]
    assert after["evaluate input model"]["cached"]


def test_show_data_prints_the_tokens_that_will_be_trained_on(finished) -> None:
    shown = finished.olivine("plan", "workflow.json", "--show-data", "1")
    assert shown.returncode == 0, shown.stderr
    assert "in the loss" in shown.stdout
    assert "the" in shown.stdout
    assert "None" not in shown.stdout


def test_the_dialect_of_olive_0_6_runs_as_it_is(project) -> None:
    from workflow_project import olive_06

    project.write(olive_06(), "olive-config.json")
    done = project.olivine("run", "--config", "olive-config.json")
    assert done.returncode == 0, done.stderr
    assert (project.folder / "models" / "genai_config.json").is_file()
    assert "0.6" in done.stdout


def test_python_runs_the_same(finished) -> None:
    import olivine

    kinds = []
    result = olivine.run(finished.folder / "workflow.json", on_event=lambda event: kinds.append(event.event))
    assert result.output_dir == finished.folder / "models"
    assert all(step.cached for step in result.steps)
    assert kinds[-1] == "run-done"


def test_qlora_on_a_cpu_becomes_an_int4_model_of_the_16_bit_base(project, changed) -> None:
    config = changed("passes.lora.type", "QLoRA")
    config["passes"]["lora"]["training_args"] |= {"max_steps": 1, "optim": "paged_adamw_32bit"}
    config["engine"].pop("evaluator")
    project.write(config)
    done = project.olivine("run", "workflow.json")
    assert done.returncode == 0, done.stderr
    assert "paged_adamw_32bit needs a GPU: adamw_torch is used" in done.stdout
    assert (project.folder / "models" / "genai_config.json").is_file()
    card = (project.folder / "models" / "model_card.md").read_text()
    assert "QLoRA" in card
    assert "int4" in card
