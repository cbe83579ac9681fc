"""A file comes whole and right, or it is said why not: whatever the connection, the server or this process does."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from faulty_server import Fault, Server, tag

from olivine.errors import DataError, StoreError, UnavailableError
from olivine.storage.transfer import Patience, Received, download
from olivine.storage.web import WebFile

SOURCES = Path(__file__).parents[2] / "src"


def hurried(limit_s: float = 600.0) -> Patience:
    """Return patience whose waiting takes no time."""
    return Patience(limit_s, sleep=lambda seconds: None)


def fetch(url: str, target: Path, **options: object) -> Received:
    file = WebFile(url, stall_s=1.0)
    return download(file, target, patience=hurried(), **options)  # type: ignore[arg-type]


def test_a_file_comes_whole_with_its_digest(server: Server, content: bytes, tmp_path: Path) -> None:
    got = fetch(server.put("/x", content), tmp_path / "x")
    assert (tmp_path / "x").read_bytes() == content
    assert (got.size, got.sha256, got.version) == (len(content), hashlib.sha256(content).hexdigest(), tag(content))
    assert os.listdir(tmp_path) == ["x"]


def test_an_empty_file_comes_too(server: Server, tmp_path: Path) -> None:
    assert fetch(server.put("/x", b""), tmp_path / "x").size == 0
    assert (tmp_path / "x").read_bytes() == b""


@pytest.mark.parametrize("kind", ["reset", "truncate", "stall"])
def test_a_connection_that_breaks_is_taken_up_where_it_was(
    kind: str, server: Server, content: bytes, tmp_path: Path
) -> None:
    server.faults = [Fault(kind, 2 << 20, 3.0), Fault(kind, 1 << 20, 3.0)]
    fetch(server.put("/x", content), tmp_path / "x")
    assert (tmp_path / "x").read_bytes() == content
    # A reset also takes away what had been sent and was not read yet.
    if kind != "reset":
        assert server.sent < 1.5 * len(content)
        assert server.requests[-1][2].startswith("bytes=")


def test_a_busy_server_is_asked_again_when_it_says(server: Server, content: bytes, tmp_path: Path) -> None:
    waited: list[float] = []
    server.faults = [Fault(503, seconds=7), Fault(429), Fault(500)]
    patience = Patience(600.0, sleep=waited.append)
    download(WebFile(server.put("/x", content)), tmp_path / "x", patience=patience)
    assert (tmp_path / "x").read_bytes() == content
    assert waited[0] == 7
    assert len(waited) == 3


def test_a_server_that_is_down_for_a_minute_is_waited_for(server: Server, content: bytes, tmp_path: Path) -> None:
    server.faults = [Fault("reset", 1 << 20)]
    file = WebFile(server.put("/x", content), stall_s=1.0)
    down = 1.5
    server.down_until = 0.0
    waits: list[float] = []

    def sleep(seconds: float) -> None:
        if not waits:
            server.down_until = time.monotonic() + down
        waits.append(seconds)
        time.sleep(seconds / 4)

    download(file, tmp_path / "x", patience=Patience(600.0, sleep=sleep))
    assert (tmp_path / "x").read_bytes() == content
    assert len(waits) > 2


def test_waiting_has_an_end_and_what_came_is_kept(server: Server, content: bytes, tmp_path: Path) -> None:
    url = server.put("/x", content)
    server.faults = [Fault("reset", 3 << 20), *(Fault(503) for _ in range(40))]
    with pytest.raises(UnavailableError, match=r"cannot be fetched.*503.*goes on where it was"):
        download(WebFile(url), tmp_path / "x", patience=hurried(10.0))
    assert not (tmp_path / "x").exists()
    here = os.path.getsize(tmp_path / "x.part")
    assert here > 0
    server.faults, server.sent = [], 0
    fetch(url, tmp_path / "x")
    assert (tmp_path / "x").read_bytes() == content
    assert server.sent <= len(content) - here + (1 << 16)


def test_a_flipped_byte_is_found_by_the_digest_and_fetched_again(
    server: Server, content: bytes, tmp_path: Path
) -> None:
    server.faults = [Fault("flip", 3 << 20)]
    got = fetch(server.put("/x", content, x_ms_meta_sha256=hashlib.sha256(content).hexdigest()), tmp_path / "x")
    assert (tmp_path / "x").read_bytes() == content
    assert got.compared == "sha256"


def test_a_flipped_byte_is_found_by_the_md5_where_there_is_no_other(
    server: Server, content: bytes, tmp_path: Path
) -> None:
    server.faults = [Fault("flip", 3 << 20)]
    md5 = base64.b64encode(hashlib.md5(content).digest()).decode()
    got = fetch(server.put("/x", content, x_ms_blob_content_md5=md5), tmp_path / "x")
    assert (tmp_path / "x").read_bytes() == content
    assert got.compared == "md5"


def test_a_manifest_of_our_own_goes_before_what_the_server_says(server: Server, content: bytes, tmp_path: Path) -> None:
    url = server.put("/x", content, x_ms_meta_sha256=hashlib.sha256(content).hexdigest())
    with pytest.raises(UnavailableError, match=r"does not arrive as it should: its SHA-256 is"):
        fetch(url, tmp_path / "x", sha256="0" * 64)
    assert not (tmp_path / "x").exists()


def test_a_file_that_is_replaced_meanwhile_is_begun_anew(server: Server, content: bytes, tmp_path: Path) -> None:
    server.replacement = content[::-1]
    server.faults = [Fault("reset", 2 << 20), Fault("replace")]
    got = fetch(server.put("/x", content), tmp_path / "x")
    assert (tmp_path / "x").read_bytes() == content[::-1]
    assert got.version == tag(content[::-1])


def test_a_server_that_does_not_heed_if_match_is_not_believed(server: Server, content: bytes, tmp_path: Path) -> None:
    server.checks = False
    server.replacement = content[::-1]
    server.faults = [Fault("reset", 2 << 20), Fault("replace")]
    fetch(server.put("/x", content), tmp_path / "x")
    assert (tmp_path / "x").read_bytes() == content[::-1]


def test_a_file_that_changes_without_end_is_given_up(server: Server, content: bytes, tmp_path: Path) -> None:
    url = server.put("/x", content)

    class Restless(WebFile):
        def read(self, start, facts):  # type: ignore[no-untyped-def]
            server.files["/x"] = server.files["/x"] + b"more"
            return super().read(start, facts)

    with pytest.raises(UnavailableError, match="was changed 3 times"):
        download(Restless(url), tmp_path / "x", patience=hurried())


@pytest.mark.parametrize(("ranges", "tags"), [(False, True), (True, False), (False, False)])
def test_servers_that_know_less_are_good_enough(
    ranges: bool, tags: bool, server: Server, content: bytes, tmp_path: Path
) -> None:
    server.ranges, server.tags = ranges, tags
    server.faults = [Fault("reset", 2 << 20)]
    # Without ranges the first request is for the whole file, and is the one that breaks.
    fetch(server.put("/x", content), tmp_path / "x")
    assert (tmp_path / "x").read_bytes() == content


def test_what_is_not_there_is_said_at_once(server: Server, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"there is no http://127.*404"):
        fetch(server.url + "/absent", tmp_path / "x")
    assert len(server.requests) == 1


def test_who_may_not_read_is_told_so(server: Server, content: bytes, tmp_path: Path) -> None:
    url = server.put("/x", content)
    server.need = "Basic " + base64.b64encode(b"me:pass word").decode()
    with pytest.raises(UnavailableError, match=r"is not given to who asks.*401"):
        fetch(url, tmp_path / "x")
    fetch(url.replace("://", "://me:pass%20word@"), tmp_path / "x")
    assert (tmp_path / "x").read_bytes() == content


def test_a_host_that_is_not_there_is_given_up_soon(tmp_path: Path) -> None:
    with pytest.raises(UnavailableError, match="cannot be fetched"):
        fetch("http://127.0.0.1:9/x", tmp_path / "x")


def test_a_full_disk_is_no_broken_connection(server: Server, content: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.part").symlink_to("/dev/full")
    with pytest.raises(StoreError, match="the disk is full"):
        fetch(server.put("/x", content), tmp_path / "x")


KILLED = """
import sys
from pathlib import Path
from olivine.storage.transfer import download
from olivine.storage.web import WebFile
download(WebFile(sys.argv[1]), Path(sys.argv[2]))
"""


def test_another_process_goes_on_where_one_was_killed(server: Server, content: bytes, tmp_path: Path) -> None:
    url = server.put("/x", content)
    server.faults = [Fault("stall", 3 << 20, 30.0)]
    command = [sys.executable, "-c", KILLED, url, str(tmp_path / "x")]
    process = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(SOURCES)})
    until = time.monotonic() + 60
    while not (tmp_path / "x.part").exists() or os.path.getsize(tmp_path / "x.part") < (2 << 20):
        assert time.monotonic() < until
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    here = os.path.getsize(tmp_path / "x.part")
    assert json.loads((tmp_path / "x.part.json").read_text()) == {"version": tag(content), "size": len(content)}
    server.sent = 0
    got = fetch(url, tmp_path / "x")
    assert got.sha256 == hashlib.sha256(content).hexdigest()
    assert server.sent <= len(content) - here + (1 << 16)


MEASURED = """
import sys
from pathlib import Path
from olivine.storage.transfer import download
from olivine.storage.web import WebFile
def memory(key):
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(key))
download(WebFile(sys.argv[1] + "/small"), Path(sys.argv[2]) / "small")
open("/proc/self/clear_refs", "w").write("5")  # the peak is counted from now on
before = memory("VmRSS")
got = download(WebFile(sys.argv[1] + "/large"), Path(sys.argv[2]) / "large")
print(got.size, memory("VmHWM") - before)
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/clear_refs"), reason="only Linux counts a peak anew")
def test_memory_does_not_grow_with_the_file(server: Server, tmp_path: Path) -> None:
    server.put("/small", bytes(1000))
    server.put("/large", bytes(300_000_000))
    command = [sys.executable, "-c", MEASURED, server.url, str(tmp_path)]
    said = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": str(SOURCES)}, capture_output=True, text=True, timeout=300, check=True
    ).stdout
    size, grown_kb = map(int, said.split())
    assert size == 300_000_000
    assert grown_kb < 40_000
