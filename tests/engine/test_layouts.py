"""The output folders of Olive's releases: the model where their scripts look for it."""

from __future__ import annotations

import json

import pytest

from olivine.engine.layouts import LAYOUTS, accelerator_name, named
from olivine.errors import ConfigError
from olivine.passes.base import Accelerator

MODEL = {
    "olive-0.6": "first-second/cpu-cpu_model",
    "olive-0.7": "output_model/model",
    "olive-0.8": "model",
    "olive-0.10": "",
}
PAPERS = {
    "olive-0.6": ["first-second/cpu-cpu_model.json", "cpu-cpu_footprints.json", "run_history_cpu-cpu.txt"],
    "olive-0.7": ["output_model/model_config.json", "footprints.json", "output_footprints.json", "run_history.txt"],
    "olive-0.8": ["model_config.json", "footprints.json", "output_footprints.json", "run_history.txt"],
    "olive-0.10": ["model_config.json", "footprint.json", "output_footprint.json", "run_history.txt"],
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_model_lies_where_the_release_put_it(project, layout: str) -> None:
    project.write(first={"mark": "a"}, second={"mark": "b"})
    done = project.olivine("run", "workflow.json", "--layout", layout)
    assert done.returncode == 0, done.stderr
    folder = project.output / MODEL[layout]
    assert (folder / "mark.txt").read_text() == "b"
    assert (folder / "model.safetensors").is_file()
    assert str(folder) in done.stdout
    for name in PAPERS[layout]:
        assert (project.output / name).is_file(), name
    model = next(project.output.glob(name) for name in PAPERS[layout] if "model" in name)
    config = json.loads(next(model).read_text())["config"]
    assert config["model_path"] == str(folder)
    assert json.loads((project.output / "status.json").read_text())["layout"] == layout
    again = project.olivine("run", "workflow.json", "--layout", layout, "--json")
    assert '"changed": false' in again.stdout


def test_a_change_of_layout_leaves_nothing_of_the_old_one(project) -> None:
    project.write(first={"mark": "a"})
    assert project.olivine("run", "workflow.json", "--layout", "olive-0.6").returncode == 0
    assert project.olivine("run", "workflow.json").returncode == 0
    assert (project.output / "model.safetensors").is_file()
    assert not (project.output / "first").exists()
    assert not (project.output / "cpu-cpu_footprints.json").exists()
    assert project.times_run() == 1


def test_the_name_of_the_output_goes_before_the_device(project) -> None:
    project.write(first={"mark": "a"})
    done = project.olivine("run", "workflow.json", "--layout", "olive-0.6", "--set", "engine.output_name=tuned")
    assert done.returncode == 0, done.stderr
    for name in ("tuned_cpu-cpu_model/mark.txt", "tuned_cpu-cpu_model.json"):
        assert (project.output / "first" / name).is_file(), name
    assert (project.output / "tuned_cpu-cpu_footprints.json").is_file()


@pytest.mark.parametrize(
    ("given", "meant"),
    [("olive-0.6.2", "olive-0.6"), ("0.7.1", "olive-0.7"), ("olive-0.9.1", "olive-0.8"), ("0.13.0", "olive-0.10")],
)
def test_any_release_names_its_layout(given: str, meant: str) -> None:
    assert named(given) == meant


def test_a_layout_that_is_none_is_refused_before_anything_runs(project) -> None:
    project.write(first={})
    done = project.olivine("run", "workflow.json", "--layout", "olive-6")
    assert done.returncode == 2
    assert "olive-0.6" in done.stderr
    with pytest.raises(ConfigError):
        named("flat")


def test_accelerators_have_olives_names() -> None:
    assert accelerator_name(Accelerator("gpu", "CUDAExecutionProvider")) == "gpu-cuda"
    assert accelerator_name(Accelerator("npu", "QNNExecutionProvider")) == "npu-qnn"


@pytest.mark.parametrize("names", [{"passes": "../../../x"}, {"output_name": "../../x"}])
def test_names_that_lead_out_of_the_output_folder_are_refused_before_anything_runs(project, names) -> None:
    project.write(**{names.get("passes", "first"): {"mark": "a"}})
    given = ("--set", f"engine.output_name={names['output_name']}") if "output_name" in names else ()
    refused = project.olivine("run", "workflow.json", "--layout", "olive-0.6", *given)
    assert refused.returncode == 2
    assert "no folder in the output folder" in " ".join(refused.stderr.split())
    assert project.times_run() == 0
