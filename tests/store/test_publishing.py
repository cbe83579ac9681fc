"""Putting a finished model into an output folder."""

from __future__ import annotations

import json
import os
import resource
import shutil
import stat
from pathlib import Path

import pytest
from store_making import killed_before_each_change, put_into

from olivine.errors import StoreError
from olivine.store.publishing import LINK_ABOVE, check_writable, publish

LARGE = b"w" * (LINK_ABOVE + 1)


@pytest.fixture
def model(store) -> Path:
    """The files of an artifact with a large and a small file."""
    return put_into(store, files={"model.onnx.data": LARGE, "genai_config.json": b"{}"}).path


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "models"


def of(model: Path) -> dict[str, Path | bytes]:
    return {
        "model.onnx.data": model / "model.onnx.data",
        "genai_config.json": model / "genai_config.json",
        "status.json": b'{"state": "succeeded"}',
    }


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder but Olivine's record."""
    return {
        str(file.relative_to(folder)): file.read_bytes()
        for file in sorted(folder.rglob("*"))
        if file.is_file() and file.name != ".olivine-files.json"
    }


def test_a_new_folder_holds_the_files_and_the_record_of_them(model: Path, output: Path) -> None:
    written = publish(of(model), output)
    assert written == ["genai_config.json", "model.onnx.data", "status.json"]
    assert sorted(os.listdir(output)) == [".olivine-files.json", *written]
    assert json.loads((output / ".olivine-files.json").read_text())["files"] == written
    assert sorted(os.listdir(output.parent)) == ["cache", "models"]


def test_missing_parents_are_made(output: Path) -> None:
    publish({"a": b"1"}, output / "deep" / "er")
    assert (output / "deep" / "er" / "a").read_bytes() == b"1"


def test_large_files_are_linked_and_small_ones_copied(model: Path, output: Path) -> None:
    publish(of(model), output)
    assert os.path.samefile(output / "model.onnx.data", model / "model.onnx.data")
    assert not os.path.samefile(output / "genai_config.json", model / "genai_config.json")


def test_editing_a_published_small_file_leaves_the_store_sound(store, model: Path, output: Path) -> None:
    publish(of(model), output)
    assert (output / "genai_config.json").stat().st_mode & stat.S_IWUSR
    (output / "genai_config.json").write_bytes(b'{"edited": true}')
    assert store.verify() == []


def test_a_file_that_may_be_written_is_never_linked(tmp_path: Path, output: Path) -> None:
    source = tmp_path / "mine.bin"
    source.write_bytes(LARGE)
    publish({"a": source}, output)
    source.write_bytes(b"changed")
    assert (output / "a").read_bytes() == LARGE


def test_another_file_system_gets_a_copy(model: Path, tiny_disk: Path) -> None:
    del tiny_disk  # only to know that file systems can be mounted here
    shared = Path("/dev/shm")
    if not shared.is_dir() or shared.stat().st_dev == model.stat().st_dev:
        pytest.skip("there is no other file system")
    output = shared / f"olivine-test-{os.getpid()}"
    try:
        publish(of(model), output)
        assert (output / "model.onnx.data").read_bytes() == LARGE
    finally:
        for file in output.iterdir():
            file.unlink()
        output.rmdir()


def test_publishing_the_same_again_writes_nothing(model: Path, output: Path) -> None:
    publish(of(model), output)
    before = {file.name: file.stat().st_mtime_ns for file in output.iterdir()}
    assert publish(of(model), output) == []
    assert {file.name: file.stat().st_mtime_ns for file in output.iterdir()} == before


def test_what_is_no_longer_produced_goes_and_the_users_files_stay(output: Path) -> None:
    publish({"old": b"1", "sub/old": b"1", "both": b"1", "status.json": b"1"}, output)
    (output / "notes.txt").write_bytes(b"mine")
    (output / "sub" / "mine").write_bytes(b"mine")
    assert publish({"both": b"2", "new/file": b"2", "status.json": b"2"}, output) == ["both", "new/file", "status.json"]
    assert contents(output) == {
        "both": b"2",
        "new/file": b"2",
        "notes.txt": b"mine",
        "status.json": b"2",
        "sub/mine": b"mine",
    }


def test_folders_that_became_empty_go(output: Path) -> None:
    publish({"a/b/c": b"1", "x": b"1"}, output)
    publish({"x": b"1"}, output)
    assert not (output / "a").exists()


def test_what_is_to_be_kept_stays_and_remains_ours(output: Path) -> None:
    publish({"report.html": b"1", "x": b"1"}, output)
    publish({"x": b"2"}, output, keep=["report.html"])
    assert contents(output) == {"report.html": b"1", "x": b"2"}
    publish({"x": b"3"}, output)
    assert contents(output) == {"x": b"3"}


def test_a_folder_of_the_users_is_filled_around_what_is_in_it(output: Path) -> None:
    output.mkdir()
    (output / "notes.txt").write_bytes(b"mine")
    publish({"a": b"1"}, output)
    assert contents(output) == {"a": b"1", "notes.txt": b"mine"}


@pytest.mark.parametrize("name", ["config.json", "sub/config.json"])
def test_a_file_of_the_users_is_never_overwritten(output: Path, name: str) -> None:
    publish({"a": b"1", "status.json": b"1"}, output)
    (output / name).parent.mkdir(exist_ok=True)
    (output / name).write_bytes(b"mine")
    before = contents(output)
    with pytest.raises(StoreError, match=name) as caught:
        publish({"a": b"2", name: b"2", "status.json": b"2"}, output)
    assert caught.value.exit_code != 0
    assert contents(output) == before


def test_a_folder_or_link_of_the_users_is_never_replaced(output: Path, tmp_path: Path) -> None:
    output.mkdir()
    (output / "model").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (output / "sub").symlink_to(tmp_path / "elsewhere")
    for name in ("model", "sub/file"):
        with pytest.raises(StoreError, match="would be overwritten"):
            publish({name: b"1"}, output)
    assert os.listdir(tmp_path / "elsewhere") == []


def test_our_file_may_become_a_folder_and_the_other_way_round(output: Path) -> None:
    publish({"model": b"1"}, output)
    publish({"model/weights": b"2"}, output)
    publish({"model": b"3"}, output)
    assert contents(output) == {"model": b"3"}


def test_an_output_folder_may_be_a_link_to_another_disk(output: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    output.symlink_to(tmp_path / "elsewhere")
    publish({"a": b"1"}, output)
    assert output.is_symlink()
    assert (tmp_path / "elsewhere" / "a").read_bytes() == b"1"


@pytest.mark.parametrize(
    "name", ["../a", "a/../../b", "/etc/a", "", "a//b", "./a", "C:/a", "a\\..\\b", ".olivine-files.json", "x/"]
)
def test_a_name_that_leads_elsewhere_is_refused(output: Path, name: str) -> None:
    with pytest.raises(StoreError, match="cannot be put"):
        publish({name: b"1"}, output)
    assert not output.exists()


def test_a_name_that_is_a_file_and_a_folder_is_refused(output: Path) -> None:
    with pytest.raises(StoreError, match="folder too"):
        publish({"a": b"1", "a/b": b"1"}, output)


def test_a_record_that_names_other_places_removes_nothing_there(output: Path, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"mine")
    publish({"a": b"1"}, output)
    (output / ".olivine-files.json").write_text(json.dumps({"files": ["a", "../victim", str(victim)]}))
    publish({"b": b"1"}, output)
    assert victim.read_bytes() == b"mine"
    assert contents(output) == {"b": b"1"}


def test_a_file_in_the_place_of_the_folder_is_an_error(output: Path) -> None:
    output.write_bytes(b"mine")
    with pytest.raises(StoreError, match="is a file"):
        publish({"a": b"1"}, output)
    assert output.read_bytes() == b"mine"


# Kills and races -----------------------------------------------------------------------------------------------------


def version(number: int) -> dict[str, Path | bytes]:
    text = str(number).encode()
    return {f"sub/{name}": text for name in "abc"} | {f"only-{number}": text, "status.json": text}


def test_a_kill_before_any_change_leaves_a_state_that_the_next_publishing_completes(output: Path) -> None:
    publish(version(0), output)
    partly = 0
    for moment in killed_before_each_change(lambda: publish(version(1), output)):
        found = {name: text for name, text in contents(output).items() if not name.startswith(".olivine")}
        if "status.json" in found:
            assert set(found.values()) == {found["status.json"]}, "a folder with a status is complete"
            assert len(found) == 5
        else:
            partly += 1
        publish(version(moment + 100), output)
        assert contents(output) == version(moment + 100)
        assert sorted(os.listdir(output)) == [".olivine-files.json", f"only-{moment + 100}", "status.json", "sub"]
    assert partly > 5


def test_a_kill_before_any_change_leaves_a_new_folder_whole_or_absent(output: Path, tmp_path: Path) -> None:
    absent = 0
    for _ in killed_before_each_change(lambda: publish(version(1), output)):
        if output.exists():
            assert contents(output) == version(1)
            shutil.rmtree(output)
        else:
            absent += 1
    assert absent > 5
    publish(version(2), output)
    assert os.listdir(tmp_path) == ["models"], "what killed processes left beside it is gone"


@pytest.mark.parametrize("exists", [False, True])
def test_two_that_publish_at_once_leave_one_whole_result(spawn, output: Path, exists: bool) -> None:
    if exists:
        publish({"old": b"1"}, output)
    script = """
        import sys
        from pathlib import Path
        from olivine.store.publishing import publish
        for number in range(10):
            publish({f"{n}/file": sys.argv[2].encode() for n in range(6)} | {"status.json": sys.argv[2].encode()},
                    Path(sys.argv[1]))
    """
    processes = [spawn(script, output, name) for name in ("one", "two", "six")]
    for process in processes:
        assert process.wait(timeout=60) == 0, process.stderr.read()
    assert len(set(contents(output).values())) == 1
    assert len(contents(output)) == 7


# Disks that do not take it -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("exists", [False, True])
def test_a_full_disk_changes_nothing(tiny_disk: Path, exists: bool) -> None:
    output = tiny_disk / "models"
    if exists:
        publish({"a": b"old", "status.json": b"old"}, output)
    with pytest.raises(StoreError, match="disk is full") as caught:
        publish({"a": b"new", "b": b"x" * 2**21, "status.json": b"new"}, output)
    assert f"{2**21} bytes are needed" in str(caught.value)
    assert "engine.output_dir" in str(caught.value)
    if exists:
        assert contents(output) == {"a": b"old", "status.json": b"old"}
        assert sorted(os.listdir(output)) == [".olivine-files.json", "a", "status.json"]
    else:
        assert os.listdir(tiny_disk) == []


def test_a_limit_on_file_size_changes_nothing(output: Path) -> None:
    publish({"a": b"old"}, output)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
        with pytest.raises(StoreError, match="disk is full"):
            publish({"a": b"x" * 8192}, output)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert contents(output) == {"a": b"old"}


def test_a_read_only_folder_is_an_error_that_names_the_setting(output: Path, read_only) -> None:
    publish({"a": b"old"}, output)
    read_only(output)
    with pytest.raises(StoreError, match=r"engine\.output_dir"):
        publish({"a": b"new"}, output)
    assert contents(output) == {"a": b"old"}


def test_a_folder_that_can_be_written_has_no_problem(output: Path) -> None:
    assert check_writable(output / "deep") is None
    assert os.listdir(output.parent) == []
    output.mkdir()
    assert check_writable(output) is None
    assert os.listdir(output) == []


def test_what_cannot_be_written_is_known_before(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    for path, reason in ((tmp_path / "file", "is a file"), (tmp_path / "file" / "models", "is a file")):
        problem = check_writable(path)
        assert problem is not None
        assert reason in problem.why
        assert problem.remedy


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="there is no /proc")
def test_a_place_where_nobody_can_make_folders_is_known_before() -> None:
    problem = check_writable(Path("/proc/olivine"))
    assert problem is not None
    assert "/proc" in problem.why


def test_a_read_only_file_system_is_known_before(output: Path, read_only) -> None:
    output.mkdir()
    read_only(output)
    assert check_writable(output) is not None
    assert check_writable(output / "new") is not None
