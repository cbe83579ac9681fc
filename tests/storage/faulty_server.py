"""A web server on loopback that knows ranges and ETags, and fails as it is told."""

from __future__ import annotations

import hashlib
import http.server
import re
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Fault:
    """What happens to one request for the body of a file.

    Attributes:
        kind: ``reset``, ``truncate``, ``flip``, ``stall``, ``replace`` (the file becomes another one), or a status.
        after: bytes that are sent before it.
        seconds: how long a stall is, or what Retry-After says.
    """

    kind: str | int
    after: int = 0
    seconds: float | None = None


@dataclass
class Server:
    """The server, and what was asked of it.

    Attributes:
        files: content by path.
        faults: happen to the next requests, one each.
        requests: method, path and range of each.
        ranges: whether it knows ranges.
        tags: whether it sends ETags.
        checks: whether it heeds If-Match.
        headers: more of them, by path.
        down_until: refuses every connection until that time.
    """

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    requests: list[tuple[str, str, str]] = field(default_factory=list)
    ranges: bool = True
    tags: bool = True
    checks: bool = True
    headers: dict[str, dict[str, str]] = field(default_factory=dict)
    replacement: bytes = b""
    down_until: float = 0.0
    need: str = ""
    sent: int = 0

    def put(self, path: str, content: bytes, **headers: str) -> str:
        """Serve ``content``, and return its URL."""
        self.files[path] = content
        self.headers[path] = {key.replace("_", "-"): value for key, value in headers.items()}
        return self.url + path


def tag(content: bytes) -> str:
    """Return the ETag of a content."""
    return f'"{hashlib.sha1(content).hexdigest()}"'


@contextmanager
def serving() -> Iterator[Server]:
    """Serve until the block ends."""
    server = Server()

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None:
            pass

        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            server.requests.append(("GET", self.path, self.headers.get("Range", "")))
            if time.monotonic() < server.down_until:
                return self.break_off()
            if server.need and self.headers.get("Authorization") != server.need:
                return self.answer(401)
            asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "") if server.ranges else "")
            looking = asked is not None and asked[0] == "bytes=0-0"
            fault = server.faults.pop(0) if server.faults and not looking else None
            if fault is not None and isinstance(fault.kind, int):
                extra = {"Retry-After": f"{fault.seconds:g}"} if fault.seconds is not None else {}
                return self.answer(fault.kind, extra)
            if fault is not None and fault.kind == "replace":
                server.files[path] = server.replacement
            content = server.files.get(path)
            if content is None:
                return self.answer(404)
            if server.checks and self.headers.get("If-Match") not in (None, tag(content)):
                return self.answer(412)
            start, end = 0, len(content)
            if asked is not None:
                start, end = int(asked[1]), min(int(asked[2] or len(content)) + bool(asked[2]), len(content))
                if start >= len(content):
                    return self.answer(416, {"Content-Range": f"bytes */{len(content)}"} | self.tags(content))
            self.send_response(206 if asked is not None else 200)
            if asked is not None:
                self.send_header("Content-Range", f"bytes {start}-{end - 1}/{len(content)}")
            self.send_header("Content-Length", str(end - start))
            for key, value in (self.tags(content) | server.headers.get(path, {})).items():
                self.send_header(key, value)
            self.end_headers()
            self.body(content[start:end], fault)
            return None

        def body(self, content: bytes, fault: Fault | None) -> None:
            try:
                if fault is None:
                    self.send(content)
                elif fault.kind == "flip":
                    self.send(
                        content[: fault.after] + bytes([content[fault.after] ^ 0x40]) + content[fault.after + 1 :]
                    )
                else:
                    self.send(content[: fault.after])
                    if fault.kind == "stall":
                        time.sleep(fault.seconds or 5.0)
                    self.break_off(reset=fault.kind == "reset")
            except OSError:
                self.close_connection = True

        def send(self, content: bytes) -> None:
            for start in range(0, len(content), 1 << 16):
                self.wfile.write(content[start : start + (1 << 16)])
                server.sent += min(1 << 16, len(content) - start)

        def break_off(self, *, reset: bool = True) -> None:
            self.wfile.flush()
            if reset:
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            else:
                self.connection.shutdown(socket.SHUT_RDWR)
            self.connection.close()
            self.close_connection = True

        def tags(self, content: bytes) -> dict[str, str]:
            return {"ETag": tag(content)} if server.tags else {}

        def answer(self, status: int, extra: dict[str, str] | None = None) -> None:
            self.send_response(status)
            for key, value in ({"Content-Length": "0"} | (extra or {})).items():
                self.send_header(key, value)
            self.end_headers()

    class Quiet(http.server.ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: Any, client_address: Any) -> None:
            pass

    with Quiet(("127.0.0.1", 0), Handler) as listening:
        server.url = f"http://127.0.0.1:{listening.server_address[1]}"
        thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            listening.shutdown()
            thread.join()
