"""An HTTPS server on a free port of loopback that answers JSON, and goes wrong on demand."""

from __future__ import annotations

import contextlib
import http.server
import json
import os
import socket
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from standin.certificates import Certificates
from standin.faults import Fault, Faults


@dataclass(frozen=True)
class Request:
    """A request: ``segments`` are those of the path, each decoded, so that a name may have a slash in it."""

    method: str
    path: str
    segments: tuple[str, ...]
    query: dict[str, str]
    headers: Any
    body: bytes

    def json(self) -> Any:
        """Return the body, or an empty object."""
        return json.loads(self.body) if self.body else {}


@dataclass(frozen=True)
class Answer:
    """An answer; ``body`` is JSON, or bytes as they are."""

    status: int
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)


def error(status: int, code: str, message: str, **headers: str) -> Answer:
    """Return an error as the service words it."""
    return Answer(status, {"error": {"code": code, "message": message}}, dict(headers))


def reset(connection: socket.socket) -> None:
    """End a connection with a reset, as a crashed peer or a firewall does."""
    with contextlib.suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        os.close(connection.detach())


class Handler(http.server.BaseHTTPRequestHandler):
    """One connection. The server's class sets ``faults``, ``name`` and ``route``."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = 64 * 1024
    faults: Faults
    name: str
    route: Callable[[Request], Answer]
    seen: list[str]

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""

    def answer(self) -> None:
        """Serve one request."""
        parts = urlsplit(self.path)
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        what = f"{self.name} {self.command} {unquote(parts.path)}"
        if self.name != "identity" and self.faults.down:
            return self.hang_up()
        self.seen.append(what)
        fault = self.faults.take(what)
        if fault is not None and not self.before(fault):
            return None
        segments = tuple(unquote(each) for each in parts.path.split("/") if each)
        request = Request(self.command, unquote(parts.path), segments, dict(parse_qsl(parts.query)), self.headers, body)
        found = type(self).route(request)
        if fault is not None and fault.kind == "call" and fault.late and fault.action is not None:
            fault.action()
        if fault is not None and fault.kind == "lose":
            return self.hang_up()
        return self.send(found, fault)

    do_GET = do_PUT = do_POST = do_PATCH = do_DELETE = do_HEAD = answer

    def before(self, fault: Fault) -> bool:
        """Do what ``fault`` does before a request is looked at; return whether it is looked at."""
        if fault.kind == "stall":
            time.sleep(fault.seconds)
        elif fault.kind == "call" and not fault.late and fault.action is not None:
            fault.action()
            if fault.drop:
                self.hang_up()
                return False
        elif fault.kind == "reset":
            self.hang_up()
            return False
        elif fault.kind == "status":
            headers = {"retry-after": fault.retry_after} if fault.retry_after is not None else {}
            self.send(error(fault.status, "Injected", f"injected answer {fault.status}", **headers), None)
            return False
        return True

    def send(self, answer: Answer, fault: Fault | None) -> None:
        """Write an answer."""
        content = answer.body
        body = content if isinstance(content, bytes) else b"" if content is None else json.dumps(content).encode()
        self.send_response(answer.status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        for key, value in answer.headers.items():
            self.send_header(key, value)
        self.end_headers()
        if fault is not None and fault.kind == "truncate":
            body = body[: fault.after or len(body) // 2]
            self.close_connection = True
        if self.command != "HEAD":
            self.wfile.write(body)
        self.wfile.flush()

    def hang_up(self) -> None:
        """Reset the connection."""
        self.close_connection = True
        reset(self.connection)

    def finish(self) -> None:
        """Close quietly, also what was reset."""
        with contextlib.suppress(OSError, ValueError):
            super().finish()


class _Threading(http.server.ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 64

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that was killed, or was answered with a reset, is no news; anything else is shown."""
        import sys

        if not isinstance(sys.exception(), OSError | ValueError):
            super().handle_error(request, client_address)


class Server:
    """A running server.

    Attributes:
        port: where it listens, on 127.0.0.1.
        seen: every request so far, as ``NAME METHOD PATH``.
    """

    def __init__(
        self,
        name: str,
        certificates: Certificates,
        faults: Faults,
        route: Callable[[Request], Answer] | None = None,
        handler: type[Handler] = Handler,
        **attributes: Any,
    ) -> None:
        self.seen: list[str] = []
        made = type(
            f"{name.title()}Handler",
            (handler,),
            {"faults": faults, "name": name, "route": staticmethod(route), "seen": self.seen, **attributes},
        )
        self._server = _Threading(("127.0.0.1", 0), made)
        # The handshake belongs to the connection's own thread: a client that stalls must not keep others waiting.
        self._server.socket = certificates.for_server().wrap_socket(
            self._server.socket, server_side=True, do_handshake_on_connect=False
        )
        self.port: int = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True).start()

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()
