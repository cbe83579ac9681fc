"""Files of a web server: ``https://`` with nothing but the standard library, one connection, no memory to speak of."""

from __future__ import annotations

import base64
import contextlib
import email.utils
import http.client
import os
import re
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

from olivine.errors import UnavailableError
from olivine.redaction import redact
from olivine.storage.addresses import unsigned
from olivine.storage.transfer import STALL_S, Absent, Changed, Denied, Facts, Interrupted

READ = 1 << 20
"""Bytes that are read at once."""
_BUSY = frozenset({408, 423, 425, 429, 500, 502, 503, 504, 509, 520, 521, 522, 523, 524})
_RANGE = re.compile(r"bytes (?:(\d+)-(\d+)|\*)/(\d+|\*)")
_SHA256 = re.compile(r"sha-256=:?([A-Za-z0-9+/=]{43,44}):?", re.IGNORECASE)
_DIGESTS = ("x-ms-meta-sha256", "x-amz-meta-sha256", "x-goog-meta-sha256", "x-checksum-sha256")
"""Headers that hold the SHA-256 of the content in hexadecimal digits, where a server sends them."""


class WebFile:
    """One file, as :mod:`olivine.storage.transfer` wants it.

    Args:
        url: where it is; a user and a password in it are sent as the server asks for them, and never shown.
        stall_s: seconds without a byte after which a connection counts as broken.
        headers: sent with every request.
    """

    def __init__(self, url: str, *, stall_s: float = STALL_S, headers: Mapping[str, str] | None = None) -> None:
        parts = urlsplit(url)
        self._headers = {"User-Agent": "olivine", "Accept-Encoding": "identity", **(headers or {})}
        if parts.username is not None:
            both = f"{unquote(parts.username)}:{unquote(parts.password or '')}".encode()
            self._headers["Authorization"] = "Basic " + base64.b64encode(both).decode()
        host = parts.netloc.rpartition("@")[2]
        self._url = urlunsplit((parts.scheme, host, parts.path, parts.query, ""))
        self._stall_s = stall_s
        self._opener = urllib.request.build_opener(
            urllib.request.HTTPSHandler(context=_trust()), _Redirects(), urllib.request.ProxyHandler()
        )

    @property
    def name(self) -> str:
        """The URL without what signs it."""
        return unsigned(self._url)

    def look(self) -> Facts:
        """Ask for its first byte: unlike HEAD, whoever may read may do that."""
        try:
            with self._open({"Range": "bytes=0-0"}) as response:
                return _facts(response.status, response.headers)
        except _NotInRange as empty:
            return Facts(0, _version(empty.headers))

    def read(self, start: int, facts: Facts) -> Iterator[bytes]:
        """Yield its bytes from ``start``.

        Raises:
            Changed: it is another version by now.
        """
        if facts.size == 0:
            return
        headers = {"Range": f"bytes={start}-"} if start else {}
        if facts.version is not None and facts.version.startswith('"'):
            headers["If-Match"] = facts.version
        try:
            with self._open(headers) as response:
                # Not every server heeds If-Match, so what it answers is looked at too.
                if facts.version is not None and _version(response.headers) != facts.version:
                    raise Changed(f"it is {_version(response.headers)} in place of {facts.version}")
                skip = 0
                if start:
                    found = _RANGE.match(response.headers.get("Content-Range", ""))
                    if response.status == 200:
                        skip = start  # a server that knows no ranges sends it from the beginning
                    elif found is None or found[1] is None or int(found[1]) != start:
                        raise Interrupted("the server answered with another range than it was asked for")
                while block := response.read(READ):
                    if skip:
                        passed = min(skip, len(block))
                        skip, block = skip - passed, block[passed:]
                    if block:
                        yield block
        except _NotInRange:
            raise Changed("it is shorter than it was") from None
        except (OSError, http.client.HTTPException) as error:
            raise Interrupted(_said(error)) from error

    def renew(self) -> bool:
        """A URL has no credentials that could be renewed."""
        return False

    @contextlib.contextmanager
    def _open(self, headers: Mapping[str, str]) -> Iterator[Any]:
        request = urllib.request.Request(self._url, headers={**self._headers, **headers})
        try:
            response = self._opener.open(request, timeout=self._stall_s)
        except urllib.error.HTTPError as error:
            with error:
                raise _refusal(error) from None
        except (OSError, http.client.HTTPException) as error:
            raise _unreachable(error) from error
        except ValueError as error:
            raise UnavailableError(f"{self.name} is no URL that can be asked", why=_said(error)) from None
        with response:
            yield response


class _NotInRange(Exception):
    def __init__(self, headers: Mapping[str, str]) -> None:
        self.headers = headers


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows a redirection, but not from https to http, and sends no credentials to another host."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        before, after = urlsplit(req.full_url), urlsplit(newurl)
        if before.scheme == "https" and after.scheme != "https":
            raise UnavailableError(
                f"{unsigned(req.full_url)} leads to {unsigned(newurl)}, which is not encrypted",
                remedy="give the address that is meant",
            )
        made = super().redirect_request(req, fp, code, msg, headers, newurl)
        if made is not None and before.netloc != after.netloc:
            made.remove_header("Authorization")
        return made


def _trust() -> ssl.SSLContext:
    """Return whom to trust: the system's authorities, or the file that the usual variables name."""
    for name in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        path = os.environ.get(name)
        if path and os.path.isfile(path):
            return ssl.create_default_context(cafile=path)
    return ssl.create_default_context()


def _facts(status: int, headers: Mapping[str, str]) -> Facts:
    size: int | None = None
    found = _RANGE.match(headers.get("Content-Range", ""))
    if status == 206 and found is not None and found[3] != "*":
        size = int(found[3])
    elif status == 200 and headers.get("Content-Length", "").isdigit():
        size = int(headers["Content-Length"])
    # Content-MD5 is that of the whole file only if the whole was sent: it is of what the message holds.
    md5 = _bytes(headers.get("x-ms-blob-content-md5") or (headers.get("Content-MD5") if status == 200 else None), 16)
    return Facts(size, _version(headers), _digest(headers), md5)


def _digest(headers: Mapping[str, str]) -> str | None:
    for name in _DIGESTS:
        value = headers.get(name, "").strip('"').lower()
        if re.fullmatch(r"[0-9a-f]{64}", value):
            return value
    found = _SHA256.search(headers.get("Repr-Digest", "") or headers.get("Digest", ""))
    decoded = _bytes(found[1], 32) if found is not None else None
    return decoded.hex() if decoded is not None else None


def _bytes(text: str | None, length: int) -> bytes | None:
    """Return Base64 decoded, if it is that of so many bytes."""
    with contextlib.suppress(ValueError):
        decoded = base64.b64decode(text or "", validate=True)
        return decoded if len(decoded) == length else None
    return None


def _version(headers: Mapping[str, str]) -> str | None:
    return headers.get("ETag") or headers.get("Last-Modified")


def _refusal(error: urllib.error.HTTPError) -> Exception:
    said = f"the server answers {error.code} {error.reason}"
    if error.code in (404, 410):
        return Absent(said)
    if error.code in (401, 403, 407):
        return Denied(said)
    if error.code == 412:
        return Changed(said)
    if error.code == 416:
        return _NotInRange(dict(error.headers.items()))
    if error.code in _BUSY:
        return Interrupted(said, _retry_after(error.headers.get("Retry-After")))
    return UnavailableError(f"{unsigned(error.url or '')}: {said}", remedy="check the address")


def _unreachable(error: BaseException) -> Exception:
    reason = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(reason, ssl.SSLCertVerificationError):
        return UnavailableError(
            "the server's certificate is not trusted",
            why=_said(reason),
            remedy="if it is one of your own, name the file of its authority in SSL_CERT_FILE",
        )
    return Interrupted(_said(reason))


def _retry_after(text: str | None) -> float | None:
    """Read seconds, or a date."""
    if not text:
        return None
    if text.strip().isdigit():
        return float(text)
    with contextlib.suppress(TypeError, ValueError):
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - time.time())
    return None


def _said(error: Any) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return redact(text[:200])
