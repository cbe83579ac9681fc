"""Several processes on one Store, and processes that are killed."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

import pytest
from store_making import DIGEST, killed_before_each_change, put_into

from olivine.store import Store

MAKE_UNDER_LOCK = """
    import os, sys, time
    from olivine.store import Store
    store, journal, start, digest = Store(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4]
    print("ready", flush=True)
    while not os.path.exists(start):
        time.sleep(0.001)
    waited = []
    with store.lock(digest, waited.append):
        artifact = store.find(digest)
        if artifact is None:
            with open(journal, "a") as file:
                file.write("made\\n")
            time.sleep(0.3)
            with store.stage(digest) as staging:
                (staging.path / "who").write_text(str(os.getpid()))
                artifact = staging.commit(format="hf", step={}, inputs={})
    print(artifact.manifest.content_digest, waited, flush=True)
"""

COMMIT_WITHOUT_LOCK = """
    import os, sys, time
    from olivine.store import Store
    store, start, digest = Store(sys.argv[1]), sys.argv[2], sys.argv[3]
    with store.stage(digest) as staging:
        for number in range(10):
            (staging.path / f"file-{number}").write_text(f"{os.getpid()} {number}")
        print("ready", flush=True)
        while not os.path.exists(start):
            time.sleep(0.001)
        artifact = staging.commit(format="hf", step={}, inputs={})
    print({file.read_text().split()[0] for file in artifact.path.iterdir()}, flush=True)
"""

COMMIT_IN_A_LOOP = """
    import os, random, sys
    from olivine.store import Store
    store = Store(sys.argv[1])
    random.seed(int(sys.argv[2]))
    print("ready", flush=True)
    while True:
        digest = f"{random.randrange(6):032x}"
        with store.lock(digest):
            if store.find(digest) is None:
                checkpoint = store.checkpoint_dir(digest)
                (checkpoint / "state").write_bytes(os.urandom(1000))
                with store.stage(digest) as staging:
                    for number in range(3):
                        (staging.path / f"file-{number}").write_bytes(os.urandom(100_000))
                    staging.commit(format="hf", step={"type": "LoRA"}, inputs={})
        if random.random() < 0.3:
            store.release()
            store.collect(max_bytes=600_000)
"""

USE_IN_A_LOOP = """
    import os, sys, time
    from olivine.store import Store
    store, digest, end = Store(sys.argv[1]), sys.argv[2], time.monotonic() + 2
    made = used = 0
    while time.monotonic() < end:
        artifact = store.find(digest)
        if artifact is None:
            made += 1
            with store.stage(digest) as staging:
                for number in range(5):
                    (staging.path / f"file-{number}").write_bytes(b"x" * 1000)
                artifact = staging.commit(format="hf", step={}, inputs={})
        for number in range(5):
            assert len((artifact.path / f"file-{number}").read_bytes()) == 1000
        used += 1
        store.release()
    assert store.warnings == [], store.warnings
    print(made, used)
"""

COLLECT_IN_A_LOOP = """
    import sys, time
    from olivine.store import Store
    end = time.monotonic() + 2
    removed = 0
    while time.monotonic() < end:
        removed += len(Store(sys.argv[1]).collect(older_than_s=0).removed)
    print(removed)
"""


def result_of(process) -> str:
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    return out


def start_all(processes, start: Path) -> None:
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    start.touch()


@pytest.mark.parametrize("count", [2, 8])
def test_processes_that_want_the_same_artifact_make_it_once(store, spawn, tmp_path: Path, count: int) -> None:
    journal, start = tmp_path / "journal", tmp_path / "start"
    processes = [spawn(MAKE_UNDER_LOCK, store.root, journal, start, DIGEST) for _ in range(count)]
    start_all(processes, start)
    said = [result_of(process).split(" ", 1) for process in processes]
    assert journal.read_text() == "made\n"
    assert len({content for content, _ in said}) == 1
    waited = [text for _, text in said if text.strip() != "[]"]
    assert waited
    named = {f"[{process.pid}]" for process in processes} | {"[None]"}  # the holder may not have come to write its name
    assert all(text.strip() in named for text in waited)


def test_of_eight_commits_at_once_one_wins_whole(store, spawn, tmp_path: Path) -> None:
    start = tmp_path / "start"
    processes = [spawn(COMMIT_WITHOUT_LOCK, store.root, start, DIGEST) for _ in range(8)]
    start_all(processes, start)
    said = {result_of(process) for process in processes}
    assert len(said) == 1
    assert len(eval(said.pop())) == 1
    assert store.verify() == []
    assert os.listdir(store.root / "staging") == []


def test_a_kill_at_any_moment_leaves_a_sound_store_and_nothing_to_clean_by_hand(store, spawn) -> None:
    chance = random.Random(7)
    for number in range(30):
        process = spawn(COMMIT_IN_A_LOOP, store.root, number)
        assert process.stdout.readline() == "ready\n"
        time.sleep(chance.uniform(0, 0.1))
        process.kill()
        process.wait()
        assert store.verify() == []
    for number in range(6):
        digest = f"{number:032x}"
        with store.lock(digest, lambda pid: pytest.fail("a killed process holds a lock")):
            if store.find(digest) is None:
                put_into(store, digest)
    assert store.warnings == []
    store.collect()
    assert os.listdir(store.root / "staging") == []
    assert os.listdir(store.root / "checkpoints") == []
    assert [name for name in os.listdir(store.root / "leases") if not name.startswith(f"{os.getpid()}-")] == []
    assert store.verify() == []


def test_a_kill_before_any_change_of_a_commit_leaves_the_artifact_whole_or_absent(store) -> None:
    def make() -> None:
        mine = Store(store.root)
        with mine.lock(DIGEST):
            (mine.checkpoint_dir(DIGEST) / "state").write_bytes(b"x")
            put_into(mine)

    absent = whole = 0
    for _ in killed_before_each_change(make):
        assert store.verify() == []
        found = store.find(DIGEST)
        whole += found is not None
        absent += found is None
        store.release()
        store.collect(older_than_s=0)
        assert store.digests() == []
        assert not (store.root / "staging").exists() or os.listdir(store.root / "staging") == []
    assert absent > 10
    assert whole > 1
    assert store.warnings == []


def test_a_kill_before_any_change_of_a_collection_leaves_a_sound_store(store) -> None:
    digests = [f"{number:032x}" for number in range(3)]

    def refill() -> None:
        for digest in digests:
            if store.find(digest) is None:
                put_into(store, digest)
        store.release()

    refill()
    for _ in killed_before_each_change(lambda: Store(store.root).collect(older_than_s=0)):
        assert store.verify() == []
        refill()
        assert os.listdir(store.root / "staging") == []
    assert store.digests() == []
    assert store.warnings == []


def test_a_kill_before_any_change_while_a_damaged_artifact_is_replaced_loses_nothing(store) -> None:
    def remake() -> None:
        mine = Store(store.root)
        with mine.lock(DIGEST):
            if mine.find(DIGEST) is None:
                put_into(mine)

    put_into(store)
    for _ in killed_before_each_change(remake):
        damaged = store.root / "artifacts" / DIGEST[:2] / DIGEST / "files" / "model.onnx"
        remake()
        assert store.verify() == []
        os.truncate(damaged, 3)
    assert store.verify() == []


def test_what_a_killed_process_staged_goes_when_the_next_one_stages(store, spawn) -> None:
    process = spawn(
        """
        import sys, time
        from olivine.store import Store
        with Store(sys.argv[1]).stage("ab" * 16) as staging:
            (staging.path / "half").write_bytes(b"x" * 1000)
            print("ready", flush=True)
            time.sleep(60)
        """,
        store.root,
    )
    assert process.stdout.readline() == "ready\n"
    put_into(store)
    assert len(os.listdir(store.root / "staging")) == 1
    process.kill()
    process.wait()
    put_into(store, "cd" * 16)
    assert os.listdir(store.root / "staging") == []


def test_a_killed_process_that_nobody_waited_for_counts_as_gone(store) -> None:
    child = os.fork()
    if child == 0:
        with Store(store.root).stage("ab" * 16):
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
    assert len(os.listdir(store.root / "staging")) == 1
    put_into(store)
    assert os.listdir(store.root / "staging") == []
    os.waitpid(child, 0)


def test_a_lock_is_free_when_its_holder_was_killed(store, spawn) -> None:
    process = spawn(
        """
        import sys, time
        from olivine.store import Store
        with Store(sys.argv[1]).lock("d1" * 16):
            print("ready", flush=True)
            time.sleep(60)
        """,
        store.root,
    )
    assert process.stdout.readline() == "ready\n"
    process.kill()
    process.wait()
    with store.lock(DIGEST, lambda pid: pytest.fail("it waits")):
        pass


def test_waiting_for_a_lock_names_the_holder_and_ends_with_ctrl_c(store, spawn) -> None:
    with store.lock(DIGEST):
        process = spawn(
            """
            import sys
            from olivine.store import Store
            try:
                with Store(sys.argv[1]).lock("d1" * 16, lambda pid: print(pid, flush=True)):
                    print("got it")
            except KeyboardInterrupt:
                print("stopped")
            """,
            store.root,
        )
        assert process.stdout.readline() == f"{os.getpid()}\n"
        process.send_signal(signal.SIGINT)
        assert result_of(process) == "stopped\n"


def test_an_artifact_that_was_found_is_there_until_its_user_is_done(store, spawn) -> None:
    users = [spawn(USE_IN_A_LOOP, store.root, DIGEST) for _ in range(2)]
    collector = spawn(COLLECT_IN_A_LOOP, store.root)
    made = sum(int(result_of(user).split()[0]) for user in users)
    removed = int(result_of(collector))
    assert made > 1
    assert removed > 1
    assert store.verify() == []


def test_a_collection_leaves_what_a_live_process_found(store, spawn) -> None:
    put_into(store)
    store.release()
    process = spawn(
        """
        import sys, time
        from olivine.store import Store
        assert Store(sys.argv[1]).find("d1" * 16)
        print("ready", flush=True)
        time.sleep(60)
        """,
        store.root,
    )
    assert process.stdout.readline() == "ready\n"
    report = store.collect(older_than_s=0)
    assert (report.removed, report.in_use) == ([], [DIGEST])
    process.kill()
    process.wait()
    assert store.collect(older_than_s=0).removed == [DIGEST]
    assert Store(store.root).find(DIGEST) is None


def test_a_collection_leaves_what_is_being_made(store, spawn) -> None:
    process = spawn(
        """
        import sys, time
        from olivine.store import Store
        store = Store(sys.argv[1])
        with store.lock("d1" * 16), store.stage("d1" * 16) as staging:
            (store.checkpoint_dir("d1" * 16) / "state").write_bytes(b"x")
            (staging.path / "half").write_bytes(b"x")
            print("ready", flush=True)
            time.sleep(60)
        """,
        store.root,
    )
    assert process.stdout.readline() == "ready\n"
    report = store.collect(older_than_s=0, max_bytes=0)
    assert report.leftovers == []
    assert (store.root / "checkpoints" / DIGEST / "state").exists()
    assert len(os.listdir(store.root / "staging")) == 1
