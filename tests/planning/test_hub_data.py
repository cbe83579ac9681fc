"""Data sets of the hub: fetched once, at a commit that is recorded, compared with the hub's digests, then offline."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.append(str(Path(__file__).parents[1] / "reliability"))

from faulty_hub import COMMIT, MODEL, FaultyHub

README = """---
configs:
- config_name: default
  data_files:
  - split: train
    path: train.jsonl
  - split: test
    path: test.jsonl
---
# Tones
"""
NEXT = "decade" * 6 + "deca"


class Project:
    """A workflow whose data is ``org/pico`` on the hub, and the command line run on it."""

    def __init__(self, folder: Path, model: Path) -> None:
        self.folder = folder
        self.hub = folder / "hub"
        self.hub.mkdir()
        (self.hub / "README.md").write_text(README)
        self.rows("train.jsonl", 6)
        self.rows("test.jsonl", 3)
        self.config: dict[str, Any] = {
            "input_model": {"model_path": str(model)},
            "data_configs": [{"name": "d", "data_name": MODEL, "text_cols": ["text"], "max_seq_len": 64}],
            "passes": {
                "lora": {
                    "type": "LoRA",
                    "r": 2,
                    "target_modules": ["o_proj"],
                    "train_data_config": "d",
                    "training_args": {"max_steps": 1},
                }
            },
            "engine": {"cache_dir": "cache", "output_dir": "out"},
        }

    def rows(self, name: str, count: int, text: str = "row") -> None:
        """Write a file of the data set."""
        (self.hub / name).write_text("".join(json.dumps({"text": f"{text} {n}"}) + "\n" for n in range(count)))

    def olivine(self, verb: str, *arguments: str, endpoint: str = "") -> subprocess.CompletedProcess[str]:
        """Run a verb; without an endpoint the hub is switched off."""
        (self.folder / "w.json").write_text(json.dumps(self.config))
        environment = {
            "HF_HOME": str(self.folder / "home"),
            "HF_ENDPOINT": endpoint or "http://127.0.0.1:9",
            "HF_HUB_OFFLINE": "0" if endpoint else "1",
        }
        return subprocess.run(
            [sys.executable, "-m", "olivine", verb, "w.json", *arguments],
            cwd=self.folder,
            env=os.environ | environment,
            capture_output=True,
            text=True,
            timeout=300,
        )

    def plan(self, *arguments: str, endpoint: str = "") -> dict[str, Any]:
        """Return the plan."""
        done = self.olivine("plan", "--json", *arguments, endpoint=endpoint)
        assert done.returncode == 0, done.stderr
        return dict(json.loads(done.stdout))


@pytest.fixture
def project(tmp_path: Path, pico_model: Path) -> Project:
    pytest.importorskip("datasets")
    return Project(tmp_path, pico_model)


def test_a_run_records_the_commit_of_its_data_and_needs_no_network_afterwards(project: Project) -> None:
    with FaultyHub(project.hub, kind="datasets").serving() as address:
        done = project.olivine("run", endpoint=address)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{MODEL} (train) of the hub, commit {COMMIT[:12]}: fetched" in " ".join(done.stdout.split())
    assert f"revision: {COMMIT}" in (project.folder / "out" / "workflow.yaml").read_text()
    planned = project.plan()
    assert [step["cached"] for step in planned["steps"]] == [True]
    assert any("is used as it was fetched on" in note for note in planned["notes"])
    # The rows lie in the Store, so a plan can look at them, and slices of the same split are not fetched again.
    project.config["data_configs"][0]["split"] = "train[2:4]"
    assert project.plan()["steps"][0]["data"]["d"]["rows"] == 2
    project.config["data_configs"][0]["text_cols"] = ["txt"]
    wrong = project.olivine("plan")
    assert wrong.returncode == 2
    assert "did you mean 'text'?" in " ".join(wrong.stderr.split()).lower()


def test_the_kept_workflow_gives_the_same_when_the_data_set_has_moved_on(project: Project) -> None:
    hub = FaultyHub(project.hub, kind="datasets")
    with hub.serving() as address:
        assert project.olivine("run", endpoint=address).returncode == 0
    project.rows("train.jsonl", 6, text="another")
    moved = FaultyHub(project.hub, kind="datasets")
    moved.commit = NEXT
    with moved.serving() as address:
        kept = project.plan(endpoint=address)
        assert [step["cached"] for step in kept["steps"]] == [True]
        assert moved.asked == [], "what is in the Store is not asked for"
        refreshed = project.olivine("run", "--refresh", endpoint=address)
        assert refreshed.returncode == 0, refreshed.stderr
    assert f"revision: {NEXT}" in (project.folder / "out" / "workflow.yaml").read_text()
    project.config["data_configs"][0]["revision"] = COMMIT
    assert [step["cached"] for step in project.plan()["steps"]] == [True]


def test_data_that_comes_damaged_is_not_used(project: Project) -> None:
    hub = FaultyHub(project.hub, kind="datasets", faults=("altered",), rate=1.0)
    with hub.serving() as address:
        done = project.olivine("run", endpoint=address)
    assert done.returncode == 3, done.stdout + done.stderr
    assert "came damaged from the hub" in " ".join(done.stderr.split())
    assert not list((project.folder / "cache").glob("artifacts/*/*/files/train/*.arrow"))


def test_data_comes_whole_from_a_hub_that_fails_now_and_then(project: Project) -> None:
    hub = FaultyHub(project.hub, kind="datasets", faults=("busy", "cut", "reset"), rate=0.2, seed=3)
    with hub.serving() as address:
        done = project.olivine("run", endpoint=address)
    assert done.returncode == 0, done.stdout + done.stderr
    assert sum(hub.seen.values()) > hub.seen["whole"]


@pytest.mark.parametrize("path", ["/etc/hostname", "https://example.org/x.jsonl", "../../x.jsonl"])
def test_a_data_set_cannot_name_files_of_this_machine_or_of_elsewhere(
    project: Project, path: str, tmp_path: Path
) -> None:
    secret = tmp_path / "secret.jsonl"
    secret.write_text(json.dumps({"text": "a secret of this machine"}) + "\n")
    (project.hub / "README.md").write_text(README.replace("train.jsonl", str(secret) if path[0] == "/" else path))
    with FaultyHub(project.hub, kind="datasets").serving() as address:
        done = project.olivine("run", endpoint=address)
    assert done.returncode in (2, 3), done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert not any(b"a secret of" in file.read_bytes() for file in (tmp_path / "cache").rglob("*") if file.is_file())
    if path[0] == "/":
        said = " ".join(done.stderr.split())
        assert "takes its rows from elsewhere" in said or "relative paths to the dataset repository" in said


def test_two_data_configs_that_differ_in_files_or_split_are_two(project: Project) -> None:
    from olivine.config.schema import DataConfig
    from olivine.data.identity import identity

    def of(**keys: Any) -> Any:
        return identity(DataConfig(name="d", data_name=MODEL, **keys), lambda _: "", lambda _: "")

    assert of(data_files="a.jsonl") != of(data_files="b.jsonl")
    assert of(split="train") != of(split="test")


@pytest.mark.parametrize(
    ("keys", "what"),
    [({"split": "dev"}, "dev"), ({"subset": "nope"}, "nope"), ({"data_files": "nope.jsonl"}, "nope.jsonl")],
)
def test_what_the_data_set_lacks_is_an_error_of_the_configuration(
    project: Project, keys: dict[str, str], what: str
) -> None:
    project.config["data_configs"][0] |= keys
    with FaultyHub(project.hub, kind="datasets").serving() as address:
        done = project.olivine("run", endpoint=address)
    said = " ".join(done.stderr.split())
    assert done.returncode in (2, 3), said
    assert what in said
    assert "data_configs" in said
    assert "Traceback" not in said
