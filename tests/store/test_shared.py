"""A Store elsewhere: asked for what the local one lacks, believed only where its digests agree."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import threading
from collections.abc import Callable, Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from store_making import DIGEST, put_into

from olivine.store import Store
from olivine.store.shared import SharedStore

FILES = {"model.onnx": b"weights" * 100, "sub/config.json": b"{}"}


@pytest.fixture
def team(tmp_path: Path) -> Store:
    """The Store of somebody else, with one artifact."""
    made = Store(tmp_path / "team")
    put_into(made, files=FILES, metrics={"loss": 1.5})
    made.release()
    return made


@pytest.fixture(params=["folder", "file", "memory", "http"])
def address(request: pytest.FixtureRequest, team: Store) -> Iterator[Callable[[], str]]:
    """Where the team's Store is to be found, as it is when asked for."""
    if request.param == "folder":
        yield lambda: str(team.root)
    elif request.param == "file":
        yield lambda: f"file://{team.root}"
    elif request.param == "memory":
        import fsspec

        system = fsspec.filesystem("memory")

        def upload() -> str:
            for file in team.root.rglob("*"):
                if file.is_file():
                    system.pipe_file(f"/team/{file.relative_to(team.root)}", file.read_bytes())
            return "memory://team"

        yield upload
        system.rm("/team", recursive=True)
    else:
        handler = functools.partial(_Quiet, directory=str(team.root))
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        yield lambda: f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        server.server_close()
        thread.join()


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Say nothing."""


def test_an_artifact_is_taken_over_with_its_manifest(address, team: Store, store: Store) -> None:
    shared = SharedStore(address())
    artifact = shared.fetch(DIGEST, store)
    assert artifact is not None
    assert shared.warnings == []
    assert {name: (artifact.path / name).read_bytes() for name in FILES} == FILES
    original = team.find(DIGEST)
    assert original is not None
    found = Store(store.root).find(DIGEST)
    assert found is not None
    assert found.manifest == original.manifest
    assert store.verify() == []
    assert os.listdir(store.root / "staging") == []


def test_what_is_not_there_is_a_miss_and_nothing_is_said(address, store: Store) -> None:
    shared = SharedStore(address())
    assert shared.fetch("ab" * 16, store) is None
    assert shared.warnings == []


def _rewrite_manifest(folder: Path, change: Callable[[dict], None]) -> None:
    """Change a manifest and the digest beside it, as somebody who may write there could."""
    content = json.loads((folder / "manifest.json").read_text())
    change(content)
    text = json.dumps(content).encode()
    (folder / "manifest.json").write_bytes(text)
    (folder / "manifest.sha256").write_text(hashlib.sha256(text).hexdigest())


def _overwrite(file: Path, content: bytes) -> None:
    file.chmod(0o644)
    file.write_bytes(content)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "altered": lambda folder: _overwrite(folder / "files/model.onnx", b"Weights" * 100),
    "cut": lambda folder: os.truncate(folder / "files/model.onnx", 5),
    "lengthened": lambda folder: _overwrite(folder / "files/model.onnx", b"weights" * 101),
    "missing file": lambda folder: (folder / "files/sub/config.json").unlink(),
    "missing digest": lambda folder: (folder / "manifest.sha256").unlink(),
    "altered manifest": lambda folder: (folder / "manifest.json").write_text("{}"),
    "another's manifest": lambda folder: _rewrite_manifest(folder, lambda content: content.update(digest="ab" * 16)),
    "leads out": lambda folder: _rewrite_manifest(
        folder,
        lambda content: content["files"].append(["../../../../escaped", 2, hashlib.sha256(b"{}").hexdigest(), 0]),
    ),
    "odd entry": lambda folder: _rewrite_manifest(folder, lambda content: content["files"].append([[], "x", 1, -5])),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_does_not_match_its_digests_is_told_and_not_used(address, team: Store, store: Store, damage: str) -> None:
    DAMAGES[damage](team.root / "artifacts" / DIGEST[:2] / DIGEST)
    shared = SharedStore(address())
    assert shared.fetch(DIGEST, store) is None
    assert len(shared.warnings) == 1
    assert "damaged" in shared.warnings[0]
    assert store.find(DIGEST) is None
    assert not list(store.root.parent.rglob("escaped"))
    assert not (store.root / "staging").exists() or os.listdir(store.root / "staging") == []


def test_a_store_that_does_not_answer_is_left_alone(store: Store) -> None:
    shared = SharedStore("http://127.0.0.1:9/store?sig=" + "s" * 30)
    assert shared.fetch(DIGEST, store) is None
    assert "does not answer" in shared.warnings[0]
    assert "s" * 30 not in shared.warnings[0]
    shared.warnings.clear()
    assert shared.fetch(DIGEST, store) is None
    assert shared.warnings == []


def test_nothing_is_written_there_unless_that_is_allowed(team: Store, store: Store, put) -> None:
    artifact = put("ab" * 16)
    assert not SharedStore(str(team.root)).put(artifact)
    assert team.find("ab" * 16) is None
    assert SharedStore(str(team.root), writable=True).put(artifact)
    assert team.find("ab" * 16) is not None
    assert team.verify() == []


def test_what_is_there_is_replaced_only_if_it_was_found_damaged(team: Store, store: Store, put) -> None:
    mine = put(files={"model.onnx": b"mine"})
    theirs = team.root / "artifacts" / DIGEST[:2] / DIGEST / "files" / "model.onnx"
    shared = SharedStore(str(team.root), writable=True)
    assert not shared.put(mine)
    assert theirs.read_bytes() == FILES["model.onnx"]
    _overwrite(theirs, b"Weights" * 100)
    assert shared.fetch(DIGEST, Store(store.root.parent / "third")) is None
    assert shared.put(mine)
    third = shared.fetch(DIGEST, Store(store.root.parent / "third"))
    assert third is not None
    assert (third.path / "model.onnx").read_bytes() == b"mine"
