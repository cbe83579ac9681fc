"""``s3://``, ``gs://`` and ``hf://`` through the libraries that users have, against servers that speak the protocol."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from breaking_proxy import Way, way_to
from loopback_hub import hub_with

SOURCES = Path(__file__).parents[2] / "src"
TOKEN = "hf_loopbackloopbackloopbackloop"
ROWS = b'{"text": "a"}\n{"text": "b"}\n'
FETCH = """
import json, sys
from pathlib import Path
from olivine.hardware.peak import peak_memory
from olivine.storage.fetching import Fetcher
from olivine.store import Store

cache, small, address = sys.argv[1:]
fetcher = Fetcher(Store(Path(cache)), tell=lambda text: None)
fetcher.fetch(small)  # what the library takes by itself is the baseline
before = peak_memory()
found = fetcher.fetch(address)
attributes = fetcher.store.find(found.digest).manifest.attributes["origin"]
print(json.dumps({"names": found.names, "sha256": dict(found.sha256), "kilobytes": (peak_memory() - before) // 1000,
                  "compared": {name: each["compared"] for name, each in attributes.items()}}))
"""


@dataclass
class Bucket:
    """A place with files.

    Attributes:
        url: of the folder with ``small.jsonl``, ``large.bin`` and ``more/a.jsonl``.
        environment: with which its library finds the server and may read.
        way: to the server.
        digest: by what a file is compared there.
    """

    url: str
    environment: dict[str, str]
    way: Way
    digest: str


def files_with(large: bytes) -> dict[str, bytes]:
    return {"data/small.jsonl": ROWS, "data/large.bin": large, "data/more/a.jsonl": ROWS * 2}


@contextmanager
def s3(large: bytes) -> Iterator[Bucket]:
    """Moto's server: the routes of S3, with its checks of names, ranges and conditions."""
    pytest.importorskip("s3fs", reason="needs the extra: pip install 'olivine[s3]'")
    server = pytest.importorskip("moto.server", reason="needs moto, of the extra `dev`")
    import boto3

    running = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    try:
        port = running._server.server_address[1]
        who = {
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret-of-the-key",
            "AWS_DEFAULT_REGION": "us-east-1",
        }
        client = boto3.client(
            "s3",
            endpoint_url=f"http://127.0.0.1:{port}",
            aws_access_key_id=who["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=who["AWS_SECRET_ACCESS_KEY"],
            region_name="us-east-1",
        )
        client.create_bucket(Bucket="phrases")
        for name, content in files_with(large).items():
            client.put_object(Bucket="phrases", Key=name, Body=content)
        with way_to(port) as way:
            yield Bucket("s3://phrases/data", who | {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{way.port}"}, way, "md5")
    finally:
        running.stop()


@contextmanager
def gs(large: bytes) -> Iterator[Bucket]:
    """The emulator of Google's storage that its own library is tried with."""
    pytest.importorskip("gcsfs", reason="needs the extra: pip install 'olivine[gs]'")
    emulator = pytest.importorskip("gcp_storage_emulator.server", reason="needs gcp-storage-emulator, of `dev`")
    running = emulator.create_server("127.0.0.1", 0, in_memory=True, default_bucket="phrases")
    running.start()
    try:
        port = running._api._httpd.socket.getsockname()[1]
        for name, content in files_with(large).items():
            request = urllib.request.Request(
                f"http://127.0.0.1:{port}/upload/storage/v1/b/phrases/o?uploadType=media&name={quote(name, safe='')}",
                data=content,
                headers={"Content-Type": "application/octet-stream"},
            )
            urllib.request.urlopen(request, timeout=60).close()
        with way_to(port) as way:
            environment = {
                "STORAGE_EMULATOR_HOST": f"http://127.0.0.1:{way.port}",
                "FSSPEC_GS_TOKEN": "anon",
                "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",  # it asks for kinds of buckets that the emulator has not
            }
            yield Bucket("gs://phrases/data", environment, way, "md5")
    finally:
        running.stop()


@contextmanager
def hf(large: bytes) -> Iterator[Bucket]:
    """A hub on loopback; the data set is private."""
    with hub_with("org/phrases", files_with(large), TOKEN) as port, way_to(port) as way:
        environment = {"HF_ENDPOINT": f"http://127.0.0.1:{way.port}", "HF_TOKEN": TOKEN, "HF_HUB_OFFLINE": "0"}
        yield Bucket("hf://datasets/org/phrases/data", environment, way, "sha256")


KINDS: dict[str, Callable[[bytes], Any]] = {"s3": s3, "gs": gs, "hf": hf}


@pytest.fixture(scope="module", params=list(KINDS))
def bucket(request: pytest.FixtureRequest) -> Iterator[tuple[Bucket, bytes]]:
    """Each kind with a large file, of as many megabytes as OLIVINE_BUCKET_MB says."""
    large = os.urandom(1 << 20) * int(os.environ.get("OLIVINE_BUCKET_MB", "32")) + b"end"
    with ExitStack() as stack:
        yield stack.enter_context(KINDS[request.param](large)), large


def fetched(bucket: Bucket, folder: Path, path: str, *, ok: bool = True, **changes: str) -> dict[str, Any]:
    """Fetch in a process of its own, as its library reads its variables once."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "GOOGLE_", "HF_"))}
    environment = kept | {"PYTHONPATH": str(SOURCES), "HF_HOME": str(folder / "hf")} | bucket.environment | changes
    done = subprocess.run(
        [sys.executable, "-c", FETCH, str(folder / "cache"), f"{bucket.url}/small.jsonl", f"{bucket.url}{path}"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    if not ok:
        assert done.returncode != 0, done.stdout
        return {"said": done.stderr}
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_a_large_file_comes_whole_over_a_connection_that_breaks_with_little_memory(
    bucket: tuple[Bucket, bytes], tmp_path: Path
) -> None:
    place, large = bucket
    place.way.came, place.way.broken, place.way.breaks = 0, 0, [len(large) // 4 * 3, len(large) // 8 * 7]
    found = fetched(place, tmp_path, "/large.bin")
    assert found["sha256"] == {"large.bin": hashlib.sha256(large).hexdigest()}
    assert place.way.broken == 2
    assert place.way.came < len(large) * 3 // 2, "it does not begin anew"
    assert found["compared"] == {"large.bin": place.digest}
    assert found["kilobytes"] < 40_000


def test_folders_and_patterns(bucket: tuple[Bucket, bytes], tmp_path: Path) -> None:
    place, _ = bucket
    place.way.breaks = []
    assert fetched(place, tmp_path, "/**/*.jsonl")["names"] == ["more/a.jsonl", "small.jsonl"]
    assert fetched(place, tmp_path, "/more")["names"] == ["a.jsonl"]
    said = fetched(place, tmp_path, "/absent.jsonl", ok=False)["said"]
    assert "DataError" in said, said
