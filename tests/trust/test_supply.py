"""What Olivine ships and stands on is written down, and what is written down is so."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def packages() -> ModuleType:
    spec = importlib.util.spec_from_file_location("packages", ROOT / ".ci" / "packages.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_bill_of_materials_is_up_to_date_and_goes_into_the_wheel(packages: ModuleType) -> None:
    file = ROOT / "sbom" / "olivine.cdx.json"
    assert file.read_text() == packages.sbom(), "run: python .ci/packages.py sbom > sbom/olivine.cdx.json"
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert wheel["sbom-files"] == ["sbom/olivine.cdx.json"]


def test_the_bill_of_materials_names_what_is_shipped_and_what_is_asked_for(packages: ModuleType) -> None:
    content = json.loads(packages.sbom())
    shipped = content["metadata"]["component"]["components"]
    assert [each["hashes"][0]["content"] for each in shipped] == [
        hashlib.sha256(packages.CHART.read_bytes()).hexdigest()
    ]
    asked = {each["name"]: each for each in content["components"]}
    assert asked["pydantic"]["scope"] == "required"
    assert asked["torch"]["scope"] == "optional"
    references = [each["bom-ref"] for each in (content["metadata"]["component"], *shipped, *content["components"])]
    assert len(references) == len(set(references))
    assert set(content["dependencies"][0]["dependsOn"]) == set(references) - {"olivine"}


def test_the_licences_name_every_package_that_an_extra_asks_for(packages: ModuleType) -> None:
    text = (ROOT / "docs" / "licences.md").read_text()
    for extra in set(packages.PROJECT["optional-dependencies"]) - packages.LEFT_OUT | {None}:
        for requirement in packages.direct(extra):
            name = packages.canonicalize_name(requirement.name)
            assert f"| {name} |" in text or f"{name} (" in text, f"run: python .ci/packages.py licences ({name})"
