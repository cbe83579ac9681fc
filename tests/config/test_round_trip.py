"""A configuration of any release, upgraded, means the same and has nothing more to say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from configurations import near, ours
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rendering import RELEASES, SPECS, render

from olivine.config import load
from olivine.config.availability import unavailable
from olivine.config.writing import upgraded
from olivine.errors import ConfigError, UnavailableError
from olivine.planning.making import make_plan
from olivine.store import Store


def round_trip(file: Path, folder: Path, **options: Any) -> None:
    """Check that a file's upgrade, put into another folder, is clean and means the same."""
    before = load(file, **options)
    text = upgraded(before, folder)
    (folder / "upgraded.yaml").write_text(text)
    after = load(folder / "upgraded.yaml")
    assert after.workflow == before.workflow, text
    assert after.notes == (), text
    assert after.dialect == "olivine-1"
    assert unavailable(after.workflow) == unavailable(before.workflow)
    assert upgraded(after, folder).partition("version:")[2] == after_comments(text)


def after_comments(text: str) -> str:
    """Return the upgraded text without its comments; they are not written twice."""
    lines = text.partition("version:")[2].splitlines()
    kept = [line for line in lines if not line.lstrip().startswith("# ")]
    return "".join(f"{line.partition('  # default of ')[0].rstrip()}\n" for line in kept)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model, data, and a folder in it for what is upgraded."""
    made = tmp_path_factory.mktemp("round-trip")
    for each in ("base", "elsewhere"):
        (made / each).mkdir()
    (made / "train.jsonl").write_text('{"a": "x", "b": "y"}\n')
    return made


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(spec=SPECS, release=st.sampled_from(RELEASES), told=st.booleans())
def test_a_workflow_of_any_release_survives_its_upgrade(
    spec: dict[str, Any], release: str, told: bool, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    file = folder / "written.json"
    file.write_text(json.dumps(render(spec, release)))
    round_trip(file, folder / "elsewhere", **({"dialect": release} if told else {}))


@pytest.mark.parametrize("file", ours(), ids=lambda file: file.stem)
def test_our_own_configurations_survive_their_upgrade(file: Path, tmp_path: Path) -> None:
    round_trip(file, tmp_path)


def test_configurations_near_by_survive_their_upgrade(tmp_path: Path) -> None:
    for file in near():
        try:
            load(file)
        except (ConfigError, UnavailableError):
            continue  # whether all are understood is asked elsewhere
        round_trip(file, tmp_path)


@pytest.mark.parametrize("release", RELEASES)
def test_a_configuration_and_its_upgrade_plan_to_the_same_steps(
    release: str, pico_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "base").symlink_to(pico_model)
    (tmp_path / "train.jsonl").write_text('{"a": "one", "b": "two"}\n' * 40)
    (tmp_path / "elsewhere").mkdir()
    spec = PLANNED | {"device": "cpu", "model": "base"}
    (tmp_path / "written.json").write_text(json.dumps(render(spec, release)))
    before = load(tmp_path / "written.json")
    (tmp_path / "elsewhere" / "upgraded.yaml").write_text(upgraded(before, tmp_path / "elsewhere"))
    after = load(tmp_path / "elsewhere" / "upgraded.yaml")
    plans = [make_plan(each, Store(tmp_path / "store")) for each in (before, after)]
    assert len(plans[0].steps) >= 1
    assert [step.digest for step in plans[0].steps] == [step.digest for step in plans[1].steps]


PLANNED: dict[str, Any] = {
    "task": "text-generation", "trust": None, "precision": "int4", "hosted": True, "gathered": False,
    "unsearched": False, "in_components": True, "onnx": [], "measured": None, "goal": None, "searched": None,
    "flows": "one", "packaged": None, "cloud": False, "rooted": False, "engine": {"cache_dir": "cache"},
    "data": {"name": "train", "split": "train", "files": "train.jsonl", "source": {"text_template": "{a}: {b}"},
             "strategy": "join", "length": 16},
    "lora": {"type": "LoRA", "r": 4, "targets": ["o_proj"], "arguments": {"max_steps": 3}},
}  # fmt: skip
"""A workflow that can be planned with a model of a few kilobytes."""
