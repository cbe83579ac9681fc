"""A model that is not on this machine is known by what the hub says of it, and by no more bytes than that takes."""

from __future__ import annotations

import http.server
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest

from olivine.api import plan
from olivine.models import hub_facts
from olivine.models.checkpoint import read_checkpoint
from olivine.models.hub_facts import Unknown, ask_hub

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(http.server.BaseHTTPRequestHandler):
    """Serves the files of one folder as the hub does: at a revision, in ranges, with the commit."""

    folder: ClassVar[Path]
    ranges: ClassVar[bool] = True
    status: ClassVar[int] = 200
    sent: ClassVar[int] = 0

    def do_GET(self) -> None:
        owner, name, _, revision, file = self.path.lstrip("/").split("/")
        content = self.folder / file
        if (owner, name) != ("org", "pico") or not content.is_file() or self.status != 200:
            self.send_response(self.status if self.status != 200 else 404)
            self.send_header("x-error-code", "EntryNotFound" if (owner, name) == ("org", "pico") else "RepoNotFound")
            self.send_header("content-length", "0")
            self.end_headers()
            return
        assert revision == "main"
        body, asked = content.read_bytes(), self.headers.get("range")
        if asked and self.ranges:
            first, last = (int(each) for each in asked.removeprefix("bytes=").split("-"))
            body = body[first : last + 1]
        self.send_response(206 if asked and self.ranges else 200)
        self.send_header("x-repo-commit", COMMIT)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        try:
            self.wfile.write(body)
            type(self).sent += len(body)
        except OSError:
            pass  # the other side has read what it wanted

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture
def hub(pico_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Hub]]:
    """Serve the pico model as ``org/pico``."""
    from huggingface_hub import constants

    class ThisHub(Hub):
        folder = tmp_path / "hub-files"

    shutil.copytree(pico_model, ThisHub.folder)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), ThisHub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    yield ThisHub
    server.shutdown()
    server.server_close()


def test_configuration_and_headers_are_all_that_is_asked_for(
    hub: type[Hub], pico_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_facts, "FIRST", 300)  # shorter than the header, so that the rest is asked for
    found, real = ask_hub("org/pico", "main"), read_checkpoint(pico_model)
    assert found.config == real.config
    assert found.modules == real.modules
    assert (found.parameters, found.commit) == (real.parameters, COMMIT)
    assert hub.sent < 50_000 < (pico_model / "model.safetensors").stat().st_size


def test_a_server_that_knows_no_ranges_is_not_read_to_the_end(
    hub: type[Hub], pico_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_facts, "FIRST", 300)
    hub.ranges = False
    assert ask_hub("org/pico", "main").parameters == read_checkpoint(pico_model).parameters


def test_a_model_that_the_hub_does_not_have_is_unknown(hub: type[Hub]) -> None:
    with pytest.raises(Unknown, match="no such model"):
        ask_hub("org/other", "main")
    (hub.folder / "model.safetensors").unlink()
    with pytest.raises(Unknown, match="no safetensors"):
        ask_hub("org/pico", "main")
    (hub.folder / "model.safetensors").write_bytes(b"\xff" * 64)
    with pytest.raises(Unknown, match="no model"):
        ask_hub("org/pico", "main")
    hub.status = 503
    with pytest.raises(Unknown, match="did not answer"):
        ask_hub("org/pico", "main")


def workflow(tmp_path: Path) -> dict[str, Any]:
    return {
        "version": 1,
        "input_model": {"model_path": "org/pico"},
        "passes": {"b": {"type": "ModelBuilder", "precision": "int4"}},
        "engine": {"cache_dir": str(tmp_path / "store"), "output_dir": str(tmp_path / "out")},
    }


def test_a_plan_estimates_a_model_that_is_still_on_the_hub(hub: type[Hub], tmp_path: Path) -> None:
    made = plan(workflow(tmp_path))
    assert made.steps[0].estimate is not None
    assert made.steps[0].estimate.output > 0
    assert made.fit is not None
    assert any("will be downloaded, of the commit 0123456789ab" in note for note in made.notes)


def test_a_plan_goes_on_without_a_hub_that_does_not_answer(hub: type[Hub], tmp_path: Path) -> None:
    hub.status = 503
    made = plan(workflow(tmp_path))
    assert made.steps[0].estimate is None
    assert any("what it takes is not known before it is here" in note for note in made.notes)
