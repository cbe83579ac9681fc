"""A model is found on this machine without a network, and its absence is said plainly."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from olivine.errors import EXIT_UNAVAILABLE, ModelError, UnavailableError
from olivine.models.hub import locate

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def hub_cache(pico_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Hugging Face cache that holds org/pico at ``main``."""
    repository = tmp_path / "hub" / "models--org--pico"
    shutil.copytree(pico_model, repository / "snapshots" / COMMIT)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    return repository


def test_folder_that_exists_wins(pico_model: Path) -> None:
    found = locate(str(pico_model), "main")
    assert (found.path, found.revision) == (pico_model, None)


def test_cached_model_is_found_offline_at_its_commit(hub_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for revision in (None, "main", COMMIT):
        found = locate("org/pico", revision)
        assert (found.path, found.revision) == (hub_cache / "snapshots" / COMMIT, COMMIT)


def test_interrupted_download_is_not_taken_for_the_model(hub_cache: Path) -> None:
    (hub_cache / "snapshots" / COMMIT / "model.safetensors").unlink()
    assert locate("org/pico").path is None


def test_download_that_lacks_a_file_of_the_listing_is_not_taken_for_the_model(hub_cache: Path) -> None:
    files = [file.name for file in (hub_cache / "snapshots" / COMMIT).iterdir()]
    (hub_cache / "trees").mkdir()
    listing = hub_cache / "trees" / f"{COMMIT}.json"
    listing.write_text(
        json.dumps({"format_version": 1, "files": {name: {} for name in [*files, "README.md", "x.bin"]}})
    )
    assert locate("org/pico").path is not None
    (hub_cache / "snapshots" / COMMIT / "tokenizer.json").unlink()
    assert locate("org/pico").path is None


def test_model_that_is_not_here_is_to_be_downloaded(hub_cache: Path) -> None:
    found = locate("org/other", "v1")
    assert (found.path, found.revision) == (None, "v1")


def test_model_that_is_not_here_with_the_hub_switched_off(hub_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(UnavailableError, match="Unset HF_HUB_OFFLINE") as error:
        locate("org/other")
    assert error.value.exit_code == EXIT_UNAVAILABLE


@pytest.mark.parametrize("path", ["/nowhere/model", "./model", "a/b/c", "~/nowhere"])
def test_path_that_is_no_folder_is_no_hub_id(path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match="there is no model folder"):
        locate(path)


def test_unreachable_hub_says_what_to_do(tmp_path: Path) -> None:
    code = (
        "from olivine.models.hub import fetch\n"
        "from olivine.errors import UnavailableError\n"
        "try:\n    fetch('org/model')\nexcept UnavailableError as error:\n    print(error)\n"
    )
    environment = {key: value for key, value in os.environ.items() if key not in ("HF_HUB_OFFLINE", "HF_HUB_CACHE")}
    # Port 9 of this machine: nothing answers there.
    environment |= {"HF_HOME": str(tmp_path), "HF_ENDPOINT": "http://127.0.0.1:9"}
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True, timeout=60
    ).stdout
    assert "org/model is not on this machine, and the hub cannot be reached" in out
    assert "check the network" in out.lower()
    assert "hf download org/model" in out
