"""A Hugging Face hub on this machine that serves one model or data set, slowly, in parts, damaged, or not at all.

It speaks what ``huggingface_hub`` asks for: what a revision is (``/api/models/ID/revision/REV``) and holds
(``/api/models/ID/tree/COMMIT``, ``paths-info``), and its files (``/ID/resolve/COMMIT/FILE``) with their length, their
digest as ETag, and parts of them (``Range``).
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from random import Random
from urllib.parse import parse_qs

COMMIT = "c0ffee" * 6 + "c0ff"
MODEL = "org/pico"
FAULTS = ("busy", "slow", "cut", "reset", "altered", "missing")
"""503; a pause before the answer; the connection ends in the middle of a file; or before the answer; a byte of the
file is wrong; 404 for a file that the listing has."""


def is_large(name: str) -> bool:
    """Return whether the hub keeps a file outside of Git."""
    return name.endswith(".safetensors")


def git_blob(content: bytes) -> str:
    """Return the digest that Git gives a file."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def digest_of(name: str, content: bytes) -> str:
    """Return the digest that the hub gives a file: of a large one its SHA-256."""
    return hashlib.sha256(content).hexdigest() if is_large(name) else git_blob(content)


class FaultyHub:
    """The server.

    Args:
        model: folder that it serves as ``org/pico``.
        kind: ``models``, or ``datasets``.
        faults: what may go wrong.
        rate: how often, from 0 to 1, something does.
        seed: of the chance.

    Attributes:
        seen: how often each fault was made, and ``whole``, how often an answer was right.
        asked: the paths that were asked for.
    """

    def __init__(
        self,
        model: Path,
        *,
        kind: str = "models",
        faults: tuple[str, ...] = FAULTS,
        rate: float = 0.0,
        seed: int = 0,
    ) -> None:
        self.api = f"/api/{kind}/{MODEL}"
        self.resolve = f"/{MODEL}/resolve/" if kind == "models" else f"/{kind}/{MODEL}/resolve/"
        self.asked: list[str] = []
        self.files = {file.name: file.read_bytes() for file in sorted(model.iterdir()) if file.is_file()}
        self.faults = faults
        self.rate = rate
        self.seen: Counter[str] = Counter()
        self.commit = COMMIT
        self._random = Random(seed)
        self._lock = threading.Lock()

    @contextmanager
    def serving(self) -> Iterator[str]:
        """Serve on the loopback interface; give the address."""
        server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            server.server_close()
            thread.join()

    def fault(self, of_a_file: bool) -> str:
        """Choose what goes wrong with one answer; an empty text is nothing."""
        with self._lock:
            wrong = self._random.random() < self.rate
            chosen = self._random.choice(self.faults) if wrong else ""
            if chosen in ("cut", "altered", "missing") and not of_a_file:
                chosen = ""
            self.seen[chosen or "whole"] += 1
            return chosen

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_HEAD(self) -> None:
                self.answer(body=False)

            def do_GET(self) -> None:
                self.answer(body=True)

            def answer(self, *, body: bool) -> None:
                path = self.path.partition("?")[0]
                hub.asked.append(path)
                of_a_file = path.startswith(hub.resolve)
                fault = hub.fault(of_a_file and body)
                if fault == "slow":
                    time.sleep(1.5)
                if fault == "reset":
                    self.close_connection = True
                    self.connection.close()
                    return
                if fault == "busy":
                    self.say(503, b"busy", {}, body)
                elif path.startswith(f"{hub.api}/revision/") or path == hub.api:
                    self.say(200, hub.listing(), {"Content-Type": "application/json"}, body)
                elif path.startswith(f"{hub.api}/tree/"):
                    self.say(200, hub.tree(), {"Content-Type": "application/json"}, body)
                elif of_a_file and fault != "missing":
                    self.file(path.removeprefix(hub.resolve).split("/", 1)[1], fault, body)
                else:
                    self.say(404, b"", {"X-Error-Code": "EntryNotFound"}, body)

            def do_POST(self) -> None:
                hub.asked.append(self.path)
                asked = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
                fields = json.loads(asked) if asked.startswith("{") else parse_qs(asked)
                wanted = fields.get("paths", [])
                if not self.path.startswith(f"{hub.api}/paths-info/"):
                    self.say(404, b"", {"X-Error-Code": "EntryNotFound"}, body=True)
                    return
                entries = [each for each in json.loads(hub.tree()) if each["path"] in wanted]
                self.say(200, json.dumps(entries).encode(), {"Content-Type": "application/json"}, body=True)

            def file(self, name: str, fault: str, body: bool) -> None:
                content = hub.files.get(name)
                if content is None:
                    self.say(404, b"", {"X-Error-Code": "EntryNotFound"}, body)
                    return
                headers = {
                    "ETag": f'"{digest_of(name, content)}"',
                    "X-Repo-Commit": hub.commit,
                    "Accept-Ranges": "bytes",
                }
                if fault == "altered":
                    middle = len(content) // 2
                    content = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
                asked = self.headers.get("Range")
                status = 200
                if asked is not None and body:
                    start = int(asked.removeprefix("bytes=").partition("-")[0])
                    headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
                    content, status = content[start:], 206
                self.say(status, content, headers, body, cut=fault == "cut")

            def say(
                self, status: int, content: bytes, headers: dict[str, str], body: bool, *, cut: bool = False
            ) -> None:
                self.send_response(status)
                for key, value in headers.items():
                    self.send_header(key, value)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                if body:
                    self.wfile.write(content[: len(content) // 2] if cut else content)
                if cut:
                    self.close_connection = True

            def handle(self) -> None:
                try:
                    super().handle()
                except OSError:
                    self.close_connection = True  # the other side is gone, as it is in a test of breaking off

            log_message: Callable[..., None] = lambda *_: None

        return Handler

    def tree(self) -> bytes:
        """Return what the hub says of the revision's files."""
        entries = []
        for name, content in self.files.items():
            entry: dict[str, object] = {"type": "file", "path": name, "size": len(content), "oid": git_blob(content)}
            if is_large(name):
                entry["lfs"] = {"oid": digest_of(name, content), "size": len(content), "pointerSize": 134}
            entries.append(entry)
        return json.dumps(entries).encode()

    def listing(self) -> bytes:
        """Return what the hub says of the revision."""
        return json.dumps(
            {
                "_id": "0",
                "id": MODEL,
                "modelId": MODEL,
                "sha": self.commit,
                "private": False,
                "gated": False,
                "disabled": False,
                "tags": [],
                "downloads": 0,
                "likes": 0,
                "siblings": [{"rfilename": name} for name in self.files],
            }
        ).encode()
