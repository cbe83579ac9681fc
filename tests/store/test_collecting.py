"""What a collection takes and what it leaves."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from olivine.store import Store

DAY = 86400.0


@pytest.fixture
def three(store, put) -> list[str]:
    """Three artifacts of 10 kB, used 30, 20 and 10 days ago."""
    digests = []
    for days, digest in ((30, "aa" * 16), (20, "bb" * 16), (10, "cc" * 16)):
        artifact = put(digest, {"file": b"x" * 10_000})
        os.utime(artifact.path.parent / "used", (time.time() - days * DAY,) * 2)
        digests.append(digest)
    store.release()
    return digests


def test_artifacts_stay_unless_asked_for(store, three) -> None:
    report = store.collect()
    assert report.removed == []
    assert report.kept == 3


def test_what_was_not_used_for_long_goes(store, three) -> None:
    report = store.collect(older_than_s=15 * DAY)
    assert report.removed == three[:2]
    assert report.freed_bytes > 20_000
    assert store.digests() == three[2:]
    assert os.listdir(store.root / "staging") == []


def test_the_least_recently_used_go_until_it_fits(store, three) -> None:
    store.record_use([three[0]])
    size = sum(file.stat().st_size for file in store.root.glob("artifacts/*/*/**/*") if file.is_file())
    report = store.collect(max_bytes=size - 1)
    assert report.removed == [three[1]]


def test_what_is_to_be_kept_stays(store, three) -> None:
    assert store.collect({three[0]}, older_than_s=0).removed == three[1:]
    assert store.find(three[0]) is not None


def test_an_artifact_in_use_cannot_be_removed(store, three) -> None:
    assert store.find(three[0]) is not None
    assert not Store(store.root).remove(three[0])
    assert store.find(three[0]) is not None
    store.release()
    assert store.remove(three[0])
    assert store.find(three[0]) is None


def test_what_is_being_made_again_cannot_be_removed(store, three) -> None:
    with store.lock(three[0]):
        assert not Store(store.root).remove(three[0])


def test_a_dry_run_only_reports(store, three) -> None:
    report = store.collect(older_than_s=0, dry_run=True)
    assert report.removed == three
    assert store.digests() == three


def test_a_file_that_was_published_gives_nothing_back(store, three, tmp_path: Path) -> None:
    os.link(store.find(three[0]).path / "file", tmp_path / "published")
    store.release()
    assert store.collect(older_than_s=25 * DAY, dry_run=True).freed_bytes < 10_000
    assert store.collect({three[0]}, older_than_s=15 * DAY, dry_run=True).freed_bytes > 10_000


def test_a_damaged_artifact_is_collected_too(store, three) -> None:
    (store.root / "artifacts/aa" / three[0] / "manifest.json").unlink()
    assert three[0] in store.collect(older_than_s=0).removed


def test_checkpoints_of_unfinished_steps_stay_for_two_weeks(store) -> None:
    fresh, stale = store.checkpoint_dir("aa" * 16), store.checkpoint_dir("bb" * 16)
    (fresh / "state").write_bytes(b"x")
    os.utime(stale, (time.time() - 15 * DAY,) * 2)
    store.collect()
    assert (fresh / "state").exists()
    assert not stale.exists()


def test_checkpoints_of_a_finished_step_go(store, put) -> None:
    put("aa" * 16)
    # As a kill between the commit and the removal leaves it.
    folder = store.checkpoint_dir("aa" * 16)
    (folder / "state").write_bytes(b"x")
    assert store.collect().leftovers == [str(folder)]
    assert not folder.exists()


def test_the_quarantine_is_emptied_after_a_week(store, put) -> None:
    os.truncate(put("aa" * 16).path / "model.onnx", 1)
    assert store.find("aa" * 16) is None
    (aside,) = (store.root / "quarantine").iterdir()
    assert store.collect().leftovers == []
    os.utime(aside, (time.time() - 8 * DAY,) * 2)
    assert store.collect().leftovers == [str(aside)]
    assert not aside.exists()


def test_what_another_machine_is_staging_stays_for_a_week(store, put) -> None:
    put()
    foreign = store.root / "staging" / "77-123-0badcafe-0badcafe-1.abcd"
    foreign.mkdir()
    assert store.collect().leftovers == []
    os.utime(foreign, (time.time() - 8 * DAY,) * 2)
    assert store.collect().leftovers == [str(foreign)]


def test_old_lock_files_go_and_locking_goes_on(store) -> None:
    with store.lock("aa" * 16):
        pass
    (lock,) = (store.root / "locks").iterdir()
    os.utime(lock, (time.time() - 2 * DAY,) * 2)
    store.collect()
    assert not lock.exists()
    with store.lock("aa" * 16):
        assert lock.exists()


def test_logs_of_old_runs_go_with_old_artifacts(store, put) -> None:
    put()
    for name, days in (("old", 40), ("new", 1)):
        (store.root / "runs" / name).mkdir(parents=True)
        (store.root / "runs" / name / "log.txt").write_text("x")
        for path in (store.root / "runs" / name / "log.txt", store.root / "runs" / name):
            os.utime(path, (time.time() - days * DAY,) * 2)
    store.collect()
    assert sorted(os.listdir(store.root / "runs")) == ["new", "old"]
    store.collect(older_than_s=30 * DAY)
    assert os.listdir(store.root / "runs") == ["new"]


def test_collecting_a_store_that_is_not_there_does_nothing(tmp_path: Path) -> None:
    report = Store(tmp_path / "cache").collect(older_than_s=0)
    assert report.removed == []
    assert not (tmp_path / "cache").exists()
