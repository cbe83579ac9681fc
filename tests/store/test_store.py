"""One process and its Store."""

from __future__ import annotations

import json
import os
import resource
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
from store_making import DIGEST, STEP, put_into

from olivine.errors import StoreError
from olivine.store import Store, digest_file
from olivine.store.artifact import Damaged, FileEntry


def flip_a_byte(path: Path, *, keep_time: bool) -> None:
    status = path.stat()
    content = bytearray(path.read_bytes())
    content[0] ^= 1
    path.chmod(0o644)
    path.write_bytes(content)
    if keep_time:
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    else:
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 10**9))


def test_a_store_is_not_made_by_looking(tmp_path: Path) -> None:
    store = Store(tmp_path / "cache")
    assert store.find(DIGEST) is None
    assert list(store.artifacts()) == []
    assert store.verify() == []
    assert not store.root.exists()


def test_what_was_committed_is_found_with_its_manifest(store, put) -> None:
    put(metrics={"loss": 1.5}, attributes={"precision": "int4"}, history=[{"step": 1}], seconds=2.0, peak_memory=9)
    found = Store(store.root).find(DIGEST)
    assert found is not None
    manifest = found.manifest
    assert (found.path / "model.onnx").read_bytes() == b"weights" * 100
    assert [entry.path for entry in manifest.files] == ["model.onnx", "sub/config.json"]
    assert manifest.files[0].sha256 == digest_file(found.path / "model.onnx")
    assert manifest.metrics == {"loss": 1.5}
    assert manifest.attributes == {"precision": "int4"}
    assert list(manifest.history) == [{"step": 1}]
    assert (manifest.peak_memory_bytes, manifest.format) == (9, "hf")
    assert 2.0 < manifest.seconds < 60.0  # what the Step took, and putting its files away
    assert manifest.step == STEP
    assert found.size == 702


def test_files_in_the_store_are_read_only(put) -> None:
    artifact = put()
    assert stat.S_IMODE((artifact.path / "model.onnx").stat().st_mode) == 0o444


def test_the_content_digest_depends_on_the_files_alone(put) -> None:
    same, other = {"a": b"1"}, {"a": b"2"}
    first, second, third = put("aa" * 8, same), put("bb" * 8, same, seconds=3.0), put("cc" * 8, other)
    assert first.manifest.content_digest == second.manifest.content_digest != third.manifest.content_digest


def test_a_staging_that_is_not_committed_leaves_nothing(store) -> None:
    with store.stage(DIGEST) as staging:
        (staging.path / "half").write_bytes(b"x")
    assert store.find(DIGEST) is None
    assert os.listdir(store.root / "staging") == []


def test_an_artifact_that_is_already_there_wins(store) -> None:
    with store.stage(DIGEST) as late:
        (late.path / "a").write_bytes(b"late")
        put_into(Store(store.root), files={"a": b"early"})
        artifact = late.commit(format="hf", step={}, inputs={})
    assert (artifact.path / "a").read_bytes() == b"early"
    assert os.listdir(store.root / "staging") == []


def test_a_link_is_replaced_by_what_it_leads_to(store, tmp_path: Path) -> None:
    outside = tmp_path / "outside.bin"
    outside.write_bytes(b"content")
    with store.stage(DIGEST) as staging:
        (staging.path / "linked").symlink_to(outside)
        os.link(outside, staging.path / "hard")
        artifact = staging.commit(format="hf", step={}, inputs={})
    outside.write_bytes(b"changed")
    assert not (artifact.path / "linked").is_symlink()
    assert (artifact.path / "linked").read_bytes() == b"content"
    assert (artifact.path / "hard").read_bytes() == b"content"
    assert stat.S_IMODE(outside.stat().st_mode) & 0o200
    assert store.verify() == []


def test_a_broken_link_cannot_be_committed(store) -> None:
    with store.stage(DIGEST) as staging:
        (staging.path / "gone").symlink_to("nowhere")
        with pytest.raises(StoreError, match="gone"):
            staging.commit(format="hf", step={}, inputs={})
    assert store.find(DIGEST) is None


DAMAGES = {
    "truncated": lambda folder: os.truncate(folder / "files/model.onnx", 5),
    "altered": lambda folder: flip_a_byte(folder / "files/model.onnx", keep_time=False),
    "missing file": lambda folder: (folder / "files/sub/config.json").unlink(),
    "a link in the place of a file": lambda folder: (
        (folder / "files/model.onnx").unlink(),
        (folder / "files/model.onnx").symlink_to("/etc/passwd"),
    ),
    "missing manifest": lambda folder: (folder / "manifest.json").unlink(),
    "altered manifest": lambda folder: (folder / "manifest.json").write_text(
        (folder / "manifest.json").read_text().replace('"r": 8', '"r": 9')
    ),
    "empty manifest": lambda folder: (folder / "manifest.json").write_bytes(b""),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_artifact_is_moved_aside_reported_and_made_again(store, put, damage: str) -> None:
    folder = put().path.parent
    DAMAGES[damage](folder)
    assert store.find(DIGEST) is None
    assert len(store.warnings) == 1
    assert DIGEST in store.warnings[0]
    assert not folder.exists()
    assert len(os.listdir(store.root / "quarantine")) == 1
    put()
    assert store.find(DIGEST) is not None
    assert store.verify() == []


def test_a_damaged_artifact_is_moved_aside_by_the_holder_of_its_lock(store, put) -> None:
    os.truncate(put().path / "model.onnx", 5)
    with store.lock(DIGEST):
        assert store.find(DIGEST) is None
        assert (put().path / "model.onnx").stat().st_size == 700


def test_a_commit_replaces_a_damaged_artifact(store, put) -> None:
    os.truncate(put().path / "model.onnx", 5)
    assert (put().path / "model.onnx").stat().st_size == 700


def test_verify_finds_an_altered_byte_whose_size_and_time_are_as_before(store, put) -> None:
    artifact = put()
    flip_a_byte(artifact.path / "model.onnx", keep_time=True)
    assert [problem for problem in store.verify() if "model.onnx" in problem]
    assert store.verify(DIGEST) == store.verify()


def test_verify_finds_a_file_that_does_not_belong(store, put) -> None:
    (put().path / "extra").write_bytes(b"x")
    assert [problem for problem in store.verify() if "extra" in problem]


def test_a_copied_store_is_sound_and_hashed_once(store, put, tmp_path: Path) -> None:
    artifact = put()
    expected = artifact.manifest.files[0].mtime_ns
    os.utime(artifact.path / "model.onnx")
    assert store.find(DIGEST) is not None
    assert (artifact.path / "model.onnx").stat().st_mtime_ns == expected


def test_a_manifest_cannot_point_out_of_its_artifact(store, put) -> None:
    import hashlib

    folder = put().path.parent
    content = (folder / "manifest.json").read_text().replace('"model.onnx"', '"../../x"').encode()
    (folder / "manifest.json").write_bytes(content)
    (folder / "manifest.sha256").write_text(f"{hashlib.sha256(content).hexdigest()}  manifest.json\n")
    assert store.find(DIGEST) is None
    assert "outside" in store.warnings[0]


@pytest.mark.parametrize("name", ["../../../etc", "", "ABCDEF0123456789", "a" * 7, "a/b" * 4])
def test_only_digests_name_artifacts(store, name: str) -> None:
    with pytest.raises(ValueError, match="digest"):
        store.find(name)


def test_checkpoints_last_until_the_commit(store, put) -> None:
    folder = store.checkpoint_dir(DIGEST)
    (folder / "step-10").write_bytes(b"x")
    assert (Store(store.root).checkpoint_dir(DIGEST) / "step-10").exists()
    put()
    assert not folder.exists()


def test_use_is_recorded(store, put) -> None:
    used = put().path.parent / "used"
    os.utime(used, (1000, 1000))
    assert store.last_used(DIGEST) == 1000
    store.record_use([DIGEST, "ee" * 16])
    assert time.time() - store.last_used(DIGEST) < 10
    assert store.last_used("ee" * 16) == 0


def test_a_store_of_a_newer_olivine_is_refused(store, put) -> None:
    put()
    (store.root / "store.json").write_text(json.dumps({"layout": 99}))
    with pytest.raises(StoreError, match="layout 99"):
        Store(store.root).find(DIGEST)


def test_the_store_tells_backups_and_git_to_leave_it_out(store, put) -> None:
    put()
    assert (store.root / "CACHEDIR.TAG").read_bytes().startswith(b"Signature: 8a477f597d28d172789f06886806bc55")
    assert (store.root / ".gitignore").read_text() == "*\n"


def test_a_hit_on_twenty_files_is_cheap(store, put) -> None:
    put(files={f"file-{number}": b"x" * 100 for number in range(20)})
    store.find(DIGEST)
    times = []
    for _ in range(20):
        started = time.perf_counter()
        assert store.find(DIGEST) is not None
        times.append(time.perf_counter() - started)
    assert min(times) < 0.002


def test_importing_the_store_is_cheap() -> None:
    code = (
        "import sys, olivine.store\n"
        "print([name for name in ('pydantic', 'psutil', 'filelock', 'rich', 'torch') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "[]"


# Disks that do not take it -------------------------------------------------------------------------------------------


def test_a_full_disk_in_a_commit_leaves_nothing_visible(tiny_disk: Path) -> None:
    store = Store(tiny_disk / "cache")
    put_into(store, "aa" * 16, {"small": b"x"})
    with pytest.raises(StoreError, match="disk is full") as caught:
        put_into(store, "bb" * 16, {"large": b"x" * 2**21})
    assert "cache gc" in caught.value.problems[0].remedy
    assert "bytes are free" in caught.value.problems[0].why
    assert store.digests() == ["aa" * 16]
    assert os.listdir(store.root / "staging") == []
    assert store.verify() == []
    put_into(store, "bb" * 16, {"large": b"x" * 2**17})
    assert store.find("bb" * 16) is not None


def test_a_limit_on_file_size_in_a_commit_is_a_full_disk(store) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    put_into(store, "aa" * 16)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (200, hard))
        with pytest.raises(StoreError, match="disk is full"):
            put_into(store, DIGEST, {"model": b"x" * 100})  # its manifest is larger than the limit
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert store.find(DIGEST) is None
    assert store.digests() == ["aa" * 16]


def test_a_store_under_a_file_is_an_error_with_a_remedy(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    store = Store(tmp_path / "file" / "cache")
    assert store.find(DIGEST) is None
    for use in (lambda: store.checkpoint_dir(DIGEST), lambda: put_into(store), lambda: store.lock(DIGEST).__enter__()):
        with pytest.raises(StoreError, match=r"engine\.cache_dir"):
            use()


def test_a_read_only_store_answers_but_takes_nothing(store, put, read_only, tmp_path: Path) -> None:
    put()
    data = tmp_path / "data.txt"
    data.write_bytes(b"text")
    read_only(store.root)
    reader = Store(store.root)
    assert reader.find(DIGEST) is not None
    assert reader.digest_file(data) == digest_file(data)
    reader.record_use([DIGEST])
    with pytest.raises(StoreError, match="cannot be written"):
        put_into(reader, "ee" * 16)


def test_a_damaged_artifact_in_a_read_only_store_is_reported_and_not_used(store, put, read_only) -> None:
    os.truncate(put().path / "model.onnx", 5)
    read_only(store.root)
    reader = Store(store.root)
    assert reader.find(DIGEST) is None
    assert "is not used" in reader.warnings[0]


AWAY = "azureml://datastores/store/paths/steps/x/files/"


def test_an_artifact_whose_files_are_elsewhere_is_found_until_it_is_forgotten_or_they_come(store, tmp_path) -> None:
    content = b"weights" * 100
    (tmp_path / "copy").write_bytes(content)
    entry = FileEntry("model.onnx", len(content), digest_file(tmp_path / "copy"), 0)
    with store.stage(DIGEST) as staging:
        staging.commit(format="hf", step=STEP, inputs={}, away=AWAY, files=[entry])
    found = Store(store.root).find(DIGEST)
    assert found is not None
    assert (found.away, found.size, list(found.path.iterdir())) == (AWAY, len(content), [])
    assert store.verify() == []
    with store.stage(DIGEST) as staging:
        (staging.path / "model.onnx").write_bytes(content[::-1])
        with pytest.raises(Damaged, match="content"):
            staging.adopt(found.manifest)
    assert store.find(DIGEST).away == AWAY
    with store.stage(DIGEST) as staging:
        (staging.path / "model.onnx").write_bytes(content)
        staging.adopt(found.manifest)
    came = store.find(DIGEST)
    assert (came.away, (came.path / "model.onnx").read_bytes()) == ("", content)
    assert came.manifest.content_digest == found.manifest.content_digest
    store.forget_away(DIGEST)
    assert store.find(DIGEST) is not None, "its files are here"
    with store.stage("ab" * 16) as staging:
        staging.commit(format="hf", step=STEP, inputs={}, away=AWAY, files=[entry])
    store.forget_away("ab" * 16)
    assert store.find("ab" * 16) is None


@pytest.mark.parametrize("added", ["\0", "x", "\n"])
def test_what_was_added_behind_a_manifest_s_digest_is_told(store, put, added: str) -> None:
    file = put().path.parent / "manifest.sha256"
    file.chmod(0o644)
    file.write_text(file.read_text() + added)
    assert any("manifest.sha256 was altered" in problem for problem in store.verify())
    assert store.find(DIGEST) is None
