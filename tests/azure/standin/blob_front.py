"""What clients reach as blob storage: Azurite, with faults between it and them.

It stands where TLS ends, so that a fault can be placed in a body: cut it, flip a byte of it, reset inside it.
"""

from __future__ import annotations

import http.client
import ssl
import time
from typing import Any
from urllib.parse import unquote, urlsplit

from standin.faults import Fault
from standin.server import Handler, error
from standin.tokens import Refused, Tokens

PIECE = 64 * 1024
HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "te", "trailer", "upgrade", "proxy-connection"}
AUDIENCES = ("https://storage.azure.com",)


class BlobHandler(Handler):
    """One connection of a client, with one of its own to Azurite behind it."""

    upstream: tuple[str, int]
    context: ssl.SSLContext
    tokens: Tokens
    received: dict[str, int]
    _behind: http.client.HTTPSConnection | None = None

    def answer(self) -> None:
        """Carry one request to Azurite and its answer back."""
        what = f"blob {self.command} {unquote(urlsplit(self.path).path)}"
        if self.faults.down:
            return self.hang_up()
        self.seen.append(what)
        fault = self.faults.take(what)
        uploads = self.command in ("PUT", "POST")
        if fault is not None and fault.kind == "reset" and uploads:
            self.rfile.read(min(fault.after, int(self.headers.get("content-length") or 0)))
            return self.hang_up()
        body = self._body()
        if self.faults.down:
            return self.hang_up()
        if fault is not None and fault.kind != "reset" and not self.before(fault):
            return None
        authorization = self.headers.get("authorization", "")
        if authorization.startswith("Bearer "):
            try:
                self.tokens.claims(authorization, AUDIENCES)
            except Refused as refused:
                challenge = (
                    'Bearer authorization_uri="https://localhost/common", resource_id="https://storage.azure.com"'
                )
                refusal = error(401, "InvalidAuthenticationInfo", str(refused), **{"www-authenticate": challenge})
                return self.send(refusal, None)
        if uploads and body:
            self.received[what] = self.received.get(what, 0) + len(body)
        response = self._ask(body)
        if fault is not None and fault.kind == "lose":
            response.read()
            return self.hang_up()
        return self._relay(response, fault)

    do_GET = do_PUT = do_POST = do_PATCH = do_DELETE = do_HEAD = answer

    def _body(self) -> bytes:
        if "chunked" not in self.headers.get("transfer-encoding", "").lower():
            return self.rfile.read(int(self.headers.get("content-length") or 0))
        body = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _ask(self, body: bytes) -> http.client.HTTPResponse:
        """Send this request to Azurite, once more if it has closed a connection that was kept."""
        for attempt in (1, 2):
            if self._behind is None:
                self._behind = http.client.HTTPSConnection(*self.upstream, context=self.context, timeout=120)
            try:
                self._behind.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
                for key, value in self.headers.items():
                    if key.lower() not in HOP_BY_HOP and key.lower() not in ("content-length", "expect"):
                        self._behind.putheader(key, value)
                if body or "content-length" in self.headers:
                    self._behind.putheader("content-length", str(len(body)))
                self._behind.endheaders(body or None)
                return self._behind.getresponse()
            except (http.client.HTTPException, OSError):
                self._behind = None
                if attempt == 2:
                    raise
        raise AssertionError("not reached")

    def _relay(self, response: http.client.HTTPResponse, fault: Fault | None) -> None:
        """Send Azurite's answer on, with ``fault`` in its body."""
        length = response.getheader("content-length")
        whole = None if length is not None or self.command == "HEAD" else response.read()
        self.send_response(response.status, response.reason)
        for key, value in response.getheaders():
            if key.lower() not in HOP_BY_HOP | {"content-length", "date", "server"}:
                self.send_header(key, value)
        if whole is not None or length is not None:
            self.send_header("content-length", str(len(whole)) if whole is not None else str(length))
        self.end_headers()
        if self.command == "HEAD":
            response.read()
            return None
        sent = 0
        while piece := (response.read(PIECE) if whole is None else whole[sent : sent + PIECE]):
            if self.faults.down:
                return self.hang_up()
            if fault is not None and fault.late and fault.action is not None and sent + len(piece) > fault.after:
                fault.action()
                fault = None
            if fault is not None and fault.kind in ("reset", "truncate", "flip") and sent + len(piece) > fault.after:
                at = fault.after - sent
                if fault.kind == "flip":
                    piece = piece[:at] + bytes([piece[at] ^ 0xFF]) + piece[at + 1 :]
                    fault = None
                else:
                    self.wfile.write(piece[:at])
                    self.wfile.flush()
                    self.close_connection = True
                    self._behind = None
                    if fault.kind == "reset":
                        time.sleep(0.02)  # what was sent should arrive before the reset throws it away
                        self.hang_up()
                    return None
            self.wfile.write(piece)
            sent += len(piece)
        self.wfile.flush()
        return None

    def finish(self) -> None:
        """Close both connections."""
        if self._behind is not None:
            self._behind.close()
        super().finish()


def attributes(upstream: tuple[str, int], context: ssl.SSLContext, tokens: Tokens) -> dict[str, Any]:
    """Return what a :class:`Server` gives to this handler."""
    return {"upstream": upstream, "context": context, "tokens": tokens, "received": {}}
