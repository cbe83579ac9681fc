"""A model that nobody has read yet: its first Step begins at once, and the files are read beside it."""

from __future__ import annotations

import json
import shutil
import struct
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import olivine
from olivine.errors import StoreError
from olivine.events import Event
from olivine.planning import ground
from olivine.store import Store, digests

QUANTIZE = {"q": {"type": "Quantize", "bits": 4, "group_size": 32}}


@pytest.fixture(autouse=True)
def all_is_much(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ground, "READ_AT_ONCE", 0)
    monkeypatch.setattr(digests, "RACY_NS", 0)  # the tests' files are new, and are to be known again


@pytest.fixture
def model(pico_model: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(pico_model, tmp_path / "model"))


def workflow(model: Path, folder: Path, **engine: Any) -> dict[str, Any]:
    folders = {"cache_dir": str(folder / "cache"), "output_dir": str(folder / "out")}
    return {
        "version": 1,
        "input_model": {"model_path": str(model)},
        "passes": QUANTIZE,
        "engine": folders | engine,
    }


class Gate:
    """Holds the reading of files until it is opened."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.opened = threading.Event()
        read = Store.digest_files

        def held(store: Store, paths: list[Path]) -> list[str]:
            if threading.current_thread() is not threading.main_thread():
                assert self.opened.wait(60)
            return read(store, paths)

        monkeypatch.setattr(Store, "digest_files", held)


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    made = Gate(monkeypatch)
    yield made
    made.opened.set()


def checkpoints(folder: Path) -> list[str]:
    return sorted(each.name for each in (folder / "cache" / "checkpoints").glob("*"))


def test_the_result_is_that_of_a_run_that_reads_first(
    model: Path, tmp_path: Path, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[str] = []

    def listen(event: Event) -> None:
        if event.event == "progress" and not gate.opened.is_set():
            begun.extend(checkpoints(tmp_path))
            gate.opened.set()

    beside = olivine.run(workflow(model, tmp_path), on_event=listen)
    assert begun  # it worked before anything was read
    assert begun != [beside.steps[0].digest]
    assert checkpoints(tmp_path) == []
    with monkeypatch.context() as patched:
        patched.setattr(ground, "READ_AT_ONCE", 1 << 40)
        first = olivine.run(workflow(model, tmp_path / "first"))
    assert beside.steps[0].digest == first.steps[0].digest
    assert not beside.steps[0].cached
    name = "model.safetensors"
    assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "first" / "out" / name).read_bytes()
    record = json.loads((tmp_path / "out" / "status.json").read_text())
    assert [step["digest"] for step in record["steps"]] == [beside.steps[0].digest]
    assert olivine.run(workflow(model, tmp_path)).steps[0].cached


def test_a_result_that_is_there_already_is_taken(model: Path, tmp_path: Path, gate: Gate) -> None:
    gate.opened.set()
    made = olivine.run(workflow(model, tmp_path))
    shutil.rmtree(tmp_path / "cache" / "digests")  # as if the model had been copied to another place
    gate.opened.clear()
    kinds: list[str] = []

    def listen(event: Event) -> None:
        kinds.append(event.event)
        if event.event == "step-started":
            gate.opened.set()

    again = olivine.run(workflow(model, tmp_path), on_event=listen)
    assert again.steps[0].cached
    assert again.steps[0].digest == made.steps[0].digest
    assert "step-cached" in kinds
    assert "step-done" not in kinds
    assert list((tmp_path / "cache" / "staging").iterdir()) == []
    assert checkpoints(tmp_path) == []


def test_a_run_that_is_stopped_goes_on_where_it_was(model: Path, tmp_path: Path, gate: Gate) -> None:
    def stop(event: Event) -> None:
        if event.event == "progress":
            gate.opened.set()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        olivine.run(workflow(model, tmp_path), on_event=stop)
    (left,) = checkpoints(tmp_path)
    seen: list[str] = []

    def listen(event: Event) -> None:
        if event.event == "progress":
            seen.extend(checkpoints(tmp_path))

    olivine.run(workflow(model, tmp_path), on_event=listen)
    assert set(seen) == {left}
    assert checkpoints(tmp_path) == []


def test_a_file_that_cannot_be_read_fails_the_run_and_leaves_nothing(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(store: Store, paths: list[Path]) -> list[str]:
        raise StoreError(f"{paths[0]} keeps changing while it is read")

    monkeypatch.setattr(Store, "digest_files", fail)
    with pytest.raises(StoreError, match="keeps changing"):
        olivine.run(workflow(model, tmp_path))
    assert not (tmp_path / "cache" / "artifacts").exists()
    assert not (tmp_path / "out").exists()


def test_a_file_that_changes_while_it_is_used_fails_the_run(model: Path, tmp_path: Path, gate: Gate) -> None:
    def rewrite(event: Event) -> None:
        if event.event == "progress" and not gate.opened.is_set():
            file = model / "model.safetensors"
            content = file.read_bytes()
            with open(file, "r+b") as stream:  # in place: to a reader beside it the file is never short
                stream.write(content)
            gate.opened.set()

    with pytest.raises(StoreError, match="changed while it was used"):
        olivine.run(workflow(model, tmp_path), on_event=rewrite)
    assert not (tmp_path / "cache" / "artifacts").exists()
    again = olivine.run(workflow(model, tmp_path))
    assert not again.steps[0].cached


def test_a_measurement_that_comes_first_waits_for_the_reading(model: Path, tmp_path: Path) -> None:
    config = workflow(model, tmp_path, evaluator="size", evaluate_input_model=True)
    config["evaluators"] = {"size": {"metrics": [{"type": "size"}]}}
    result = olivine.run(config)
    assert [step.type for step in result.steps] == ["evaluate", "Quantize", "evaluate"]
    assert Store(tmp_path / "cache").find(result.steps[0].digest) is not None


def test_of_two_runs_one_makes_it_and_the_other_takes_it(project, tmp_path: Path) -> None:
    large = tmp_path / "large"
    shutil.copytree(project.model, large)
    _with_a_tensor_of(large / "model.safetensors", 200 << 20)
    project.model = large
    project.write(first={"behave": "slow"})
    runs = [project.start("run", "workflow.json", "--json", COPY_SECONDS="3") for _ in range(2)]
    told = [run.communicate(timeout=120)[0] for run in runs]
    assert [run.returncode for run in runs] == [0, 0]
    assert project.times_run() == 1
    assert sorted(kind for text in told for kind in ("step-done", "step-cached") if f'"{kind}"' in text) == [
        "step-cached",
        "step-done",
    ]


def _with_a_tensor_of(file: Path, size: int) -> None:
    """Put a tensor of zeros, which takes no disk, at the end of a safetensors file."""
    content = file.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    head = json.loads(content[8 : 8 + length])
    end = max(entry["data_offsets"][1] for name, entry in head.items() if name != "__metadata__")
    head["zeros"] = {"dtype": "U8", "shape": [size], "data_offsets": [end, end + size]}
    text = json.dumps(head).encode()
    with open(file, "wb") as stream:
        stream.write(struct.pack("<Q", len(text)) + text + content[8 + length :])
        stream.truncate(8 + len(text) + end + size)
