"""What an address leads to is in the Store after it was fetched once, and nobody is asked again."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest
from faulty_server import Fault, Server

from olivine.errors import DataError, ModelError, StoreError, UnavailableError
from olivine.storage.fetching import Fetcher
from olivine.storage.selection import adapter_files, model_files, model_files_with_code
from olivine.storage.transfer import Patience
from olivine.store import Store

ROWS = b'{"text": "a"}\n{"text": "b"}\n'


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "cache")


@pytest.fixture
def memory() -> Iterator[fsspec.AbstractFileSystem]:
    """The file system of fsspec that is in this process's memory, as good as one of a cloud."""
    found = fsspec.filesystem("memory")
    found.store.clear()
    yield found
    found.store.clear()


def put(memory: fsspec.AbstractFileSystem, files: dict[str, bytes]) -> None:
    for name, content in files.items():
        memory.pipe_file(name, content)


def hurried() -> Patience:
    return Patience(10.0, sleep=lambda seconds: None)


def test_the_second_time_nobody_is_asked(server: Server, store: Store) -> None:
    url = server.put("/rows.jsonl", ROWS)
    first = Fetcher(store).fetch(url)
    assert (first.path / "rows.jsonl").read_bytes() == ROWS
    assert not first.before
    asked = len(server.requests)
    server.files.clear()
    again = Fetcher(Store(store.root)).fetch(url)
    assert again.before
    assert again.path == first.path
    assert again.names == ("rows.jsonl",)
    assert len(server.requests) == asked
    assert "--refresh" in str(again)


def test_refreshing_asks_and_fetches_only_what_has_changed(server: Server, store: Store) -> None:
    url = server.put("/rows.jsonl", ROWS)
    first = Fetcher(store).fetch(url)
    sent = server.sent
    same = Fetcher(store, refresh=True).fetch(url)
    assert same.digest == first.digest
    assert "has not changed" in str(same)
    assert server.sent - sent <= 1
    server.put("/rows.jsonl", ROWS * 2)
    new = Fetcher(store, refresh=True).fetch(url)
    assert (new.path / "rows.jsonl").read_bytes() == ROWS * 2
    assert Fetcher(store).fetch(url).digest == new.digest


def test_what_is_overwritten_while_it_is_fetched_is_the_new_one_and_whole(
    server: Server, store: Store, content: bytes
) -> None:
    url = server.put("/x.bin", content, x_ms_meta_sha256=hashlib.sha256(content).hexdigest())
    server.faults = [Fault("truncate", 1 << 20), Fault("replace")]
    server.replacement = content[::-1]

    class Renamed(Patience):
        def wait(self, name, error):  # type: ignore[no-untyped-def]
            server.headers["/x.bin"] = {"x-ms-meta-sha256": hashlib.sha256(content[::-1]).hexdigest()}

    found = Fetcher(store, patience=Renamed).fetch(url)
    assert (found.path / "x.bin").read_bytes() == content[::-1]


def test_another_signature_is_the_same_file(server: Server, store: Store) -> None:
    url = server.put("/rows.jsonl", ROWS)
    signed = [f"{url}?sv=1&se=2&sig=c2lnbmF0dXJlLW51bWJlci0{each}" for each in ("one", "two")]
    first = Fetcher(store).fetch(signed[0])
    assert Fetcher(store).fetch(signed[1]).before
    kept = "".join(path.read_text() for path in store.root.rglob("*.json"))
    assert "c2lnbmF0dXJl" not in kept + str(first)


def test_an_interrupted_fetch_is_gone_on_with(server: Server, store: Store, content: bytes) -> None:
    url = server.put("/rows.bin", content)
    server.faults = [Fault("truncate", 3 << 20), *(Fault(503) for _ in range(30))]
    with pytest.raises(UnavailableError):
        Fetcher(store, patience=hurried).fetch(url)
    server.faults, server.sent = [], 0
    assert (Fetcher(Store(store.root)).fetch(url).path / "rows.bin").read_bytes() == content
    assert server.sent < len(content) - (2 << 20)


def test_what_was_fetched_can_be_verified_and_is_fetched_again_if_it_is_damaged(server: Server, store: Store) -> None:
    url = server.put("/rows.jsonl", ROWS)
    found = Fetcher(store).fetch(url)
    assert store.verify() == []
    os.chmod(found.path / "rows.jsonl", 0o644)
    (found.path / "rows.jsonl").write_bytes(ROWS[::-1] + b"longer")
    again = Fetcher(Store(store.root)).fetch(url)
    assert (again.path / "rows.jsonl").read_bytes() == ROWS


def test_what_was_collected_is_fetched_again(server: Server, store: Store) -> None:
    url = server.put("/rows.jsonl", ROWS)
    digest = Fetcher(store).fetch(url).digest
    store.release()
    assert store.remove(digest)
    assert not Fetcher(Store(store.root)).fetch(url).before


def test_a_folder_and_a_pattern_of_any_file_system(memory: fsspec.AbstractFileSystem, store: Store) -> None:
    put(memory, {"/data/a.jsonl": ROWS, "/data/b.jsonl": ROWS, "/data/more/c.jsonl": ROWS, "/data/readme.md": b"x"})
    fetcher = Fetcher(store)
    assert fetcher.fetch("memory://data/*.jsonl").names == ("a.jsonl", "b.jsonl")
    assert fetcher.fetch("memory://data/**/*.jsonl").names == ("a.jsonl", "b.jsonl", "more/c.jsonl")
    assert fetcher.fetch("memory://data").names == ("a.jsonl", "b.jsonl", "more/c.jsonl", "readme.md")
    assert fetcher.fetch("memory://data/a.jsonl").names == ("a.jsonl",)
    with pytest.raises(DataError, match="matches"):
        fetcher.fetch("memory://data/*.csv")


def test_a_file_changed_on_a_file_system_without_if_match(memory: fsspec.AbstractFileSystem, store: Store) -> None:
    put(memory, {"/data/a.jsonl": ROWS})
    entries = Fetcher(store).look("memory://data/a.jsonl")
    put(memory, {"/data/a.jsonl": ROWS * 3})
    from olivine.storage.transfer import download

    got = download(entries[0].file, store.root / "a", facts=entries[0].facts, patience=hurried())
    assert got.size == 3 * len(ROWS)


CHECKPOINT = {
    "config.json": b"{}",
    "model.safetensors": b"weights",
    "tokenizer.json": b"{}",
    "modeling_own.py": b"import os",
    "pytorch_model.bin": b"pickle",
    "README.md": b"#",
}


def test_of_a_checkpoint_only_what_is_needed_comes(memory: fsspec.AbstractFileSystem, store: Store) -> None:
    put(memory, {f"/m/tiny/{name}": content for name, content in CHECKPOINT.items()})
    taken = Fetcher(store).fetch("memory://m", model_files)
    assert taken.names == ("config.json", "model.safetensors", "tokenizer.json")
    assert "modeling_own.py" in Fetcher(store).fetch("memory://m", model_files_with_code).names


def test_a_pickle_is_refused_before_a_byte_of_it_comes(memory: fsspec.AbstractFileSystem, store: Store) -> None:
    put(memory, {f"/m/{name}": content for name, content in CHECKPOINT.items() if name != "model.safetensors"})
    with pytest.raises(ModelError, match=r"pytorch_model.bin only.*save_pretrained"):
        Fetcher(store).fetch("memory://m", model_files)
    assert not (store.root / "artifacts").exists()


def test_several_models_below_one_address_are_named(memory: fsspec.AbstractFileSystem, store: Store) -> None:
    put(memory, {"/m/a/config.json": b"{}", "/m/b/config.json": b"{}"})
    with pytest.raises(ModelError, match=r"several models.*a, b"):
        Fetcher(store).fetch("memory://m", model_files)
    with pytest.raises(ModelError, match="no adapter"):
        Fetcher(store).fetch("memory://m", adapter_files)


MLMODEL = b"""
flavors:
  hftransformersv2: {model_data: data, huggingface_id: org/tiny, task_type: text-generation, code: null}
"""


def test_an_mlflow_model_comes_as_the_checkpoint_that_it_holds(memory: fsspec.AbstractFileSystem, store: Store) -> None:
    put(
        memory,
        {
            "/reg/mlflow_model_folder/MLmodel": MLMODEL,
            "/reg/mlflow_model_folder/data/model/config.json": b"{}",
            "/reg/mlflow_model_folder/data/model/model.safetensors": b"weights",
            "/reg/mlflow_model_folder/data/model/own.py": b"import os",
            "/reg/mlflow_model_folder/data/tokenizer/tokenizer.json": b"{}",
            "/reg/mlflow_model_folder/data/config/config.json": b'{"right": 1}',
        },
    )
    found = Fetcher(store).fetch("memory://reg", model_files)
    assert found.names == ("config.json", "model.safetensors", "tokenizer.json")
    assert json.loads((found.path / "config.json").read_text()) == {"right": 1}


def test_a_name_that_leads_out_is_not_taken(memory: fsspec.AbstractFileSystem, store: Store) -> None:
    from olivine.storage.addresses import UrlAddress
    from olivine.storage.fetching import _check_names
    from olivine.storage.filesystems import SystemFile
    from olivine.storage.remote import Entry
    from olivine.storage.transfer import Facts

    file = SystemFile(memory, "/x", UrlAddress("memory://x", "memory"))
    with pytest.raises(DataError, match="not taken"):
        _check_names([Entry("../../x", file, Facts(1))], "memory://data")


def test_what_does_not_fit_the_disk_is_said_before_it_is_fetched(
    server: Server, tiny_disk: Path, content: bytes
) -> None:
    url = server.put("/large.bin", content)
    with pytest.raises(StoreError, match="does not fit the disk"):
        Fetcher(Store(tiny_disk / "cache")).fetch(url)
    assert server.sent <= 1


def test_one_file_that_a_killed_process_had_whole_is_not_fetched_again(
    memory: fsspec.AbstractFileSystem, store: Store
) -> None:
    put(memory, {"/data/a.jsonl": ROWS, "/data/b.jsonl": ROWS})

    class Stopped(Exception):
        pass

    def stop() -> Patience:
        if list(store.root.rglob("a.jsonl")):
            raise Stopped
        return Patience()

    with pytest.raises(Stopped):
        Fetcher(store, patience=stop).fetch("memory://data")
    [kept] = store.root.rglob("a.jsonl")
    before = kept.stat().st_mtime_ns
    found = Fetcher(store).fetch("memory://data")
    assert (found.path / "a.jsonl").stat().st_mtime_ns == before
    shutil.rmtree(store.root, ignore_errors=True)
