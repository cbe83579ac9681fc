"""What goes with a job: a wheel of the Olivine that runs, and the user's environment with what is missing in it."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from olivine.config.schema import System
from olivine.systems.azureml.environment import environment_of_job, problems_of, with_requirements
from olivine.systems.azureml.wheel import base_requirements, build_wheel


def test_a_wheel_is_the_same_from_sources_and_from_what_was_installed_of_it(tmp_path: Path) -> None:
    first = build_wheel(tmp_path)
    site = tmp_path / "site"
    with zipfile.ZipFile(first) as archive:
        assert archive.testzip() is None
        archive.extractall(site)
    (tmp_path / "again").mkdir()
    code = (
        "import sys, pathlib; from olivine.systems.azureml.wheel import build_wheel as b; b(pathlib.Path(sys.argv[1]))"
    )
    subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "again")], env=os.environ | {"PYTHONPATH": str(site)}, check=True
    )
    assert (tmp_path / "again" / first.name).read_bytes() == first.read_bytes()


def test_the_wheel_holds_no_caches_and_all_data(tmp_path: Path) -> None:
    with zipfile.ZipFile(build_wheel(tmp_path)) as archive:
        names = archive.namelist()
    assert not [name for name in names if "__pycache__" in name]
    assert "olivine/systems/azureml/start.py" in names
    assert [name for name in names if name.startswith("olivine/report/assets/")]
    assert any(name.endswith(".dist-info/RECORD") for name in names)


def test_packages_that_a_conda_file_names_are_left_as_they_are() -> None:
    given = {"dependencies": ["python=3.11", "conda-forge::pydantic=2.11", {"pip": ["Torch==2.7.0", "scipy"]}]}
    made = with_requirements(given, ["pydantic>=2.10", "torch>=2.6", "peft>=0.18"])
    assert made["dependencies"][:2] == given["dependencies"][:2]
    assert made["dependencies"][2]["pip"] == ["Torch==2.7.0", "scipy", "peft>=0.18"]
    assert given["dependencies"][2] == {"pip": ["Torch==2.7.0", "scipy"]}


@pytest.mark.parametrize(
    ("dependencies", "expected"),
    [
        (["python=3.8.13", "pip"], "Python 3.8.13"),
        (["python=3.11", {"pip": ["transformers==4.40.0"]}], "transformers==4.40.0"),
        (["python=3.11", {"pip": ["transformers", "git+https://example.org/x"]}], None),
        (["python=3.12.4"], None),
    ],
)
def test_a_pin_outside_of_what_was_tested_is_found_before_a_job(
    tmp_path: Path, dependencies: list[Any], expected: str | None
) -> None:
    import json

    conda = tmp_path / "conda.yaml"
    conda.write_text(json.dumps({"dependencies": dependencies}))
    system = System(type="AzureML", aml_docker_config={"base_image": "x", "conda_file_path": str(conda)})
    found = [str(each) for each in problems_of(system, ["transformers>=5.0,<6"])]
    assert ([each for each in found if expected in each] == found != []) if expected else found == []


def test_an_environment_that_exists_is_named_and_nothing_is_written(tmp_path: Path) -> None:
    system = System(type="AzureML", aml_environment_config={"name": "mine", "version": "3"})
    assert environment_of_job(system, "cpu", base_requirements(), tmp_path) == "azureml:mine:3"
    assert list(tmp_path.iterdir()) == []
