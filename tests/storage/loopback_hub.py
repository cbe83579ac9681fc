"""A Hugging Face hub on loopback with one data set: what ``hf://`` asks of it, and ranges of its files."""

from __future__ import annotations

import hashlib
import http.server
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@contextmanager
def hub_with(name: str, files: dict[str, bytes], token: str) -> Iterator[int]:
    """Serve ``files`` as the data set ``name`` to those who show the token, until the block ends; give the port."""

    def entry(path: str) -> dict[str, Any]:
        content = files[path]
        digest = hashlib.sha256(content).hexdigest()
        found = {"type": "file", "path": path, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
        return found | {"lfs": {"oid": digest, "size": len(content), "pointerSize": 130}}

    def listed(prefix: str, whole: bool) -> list[dict[str, Any]]:
        inside = [each for each in files if each.startswith(prefix)]
        here = [each for each in inside if whole or "/" not in each[len(prefix) :]]
        folders = {prefix + each[len(prefix) :].partition("/")[0] for each in inside if each not in here}
        return [entry(each) for each in here] + [folder(each) for each in sorted(folders)]

    def folder(path: str) -> dict[str, Any]:
        return {"type": "directory", "path": path, "oid": "0" * 40}

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None:
            pass

        def do_HEAD(self) -> None:
            self.do_GET()

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", "0"))).decode()
            asked = json.loads(body)["paths"] if body.startswith("{") else parse_qs(body).get("paths", [])
            folders = [each for each in asked if any(path.startswith(f"{each}/") for path in files)]
            found: list[dict[str, Any]] = [entry(each) for each in asked if each in files]
            self.answer(found + [folder(each) for each in folders])

        def do_GET(self) -> None:
            path = unquote(urlsplit(self.path).path)
            if self.headers.get("Authorization") != f"Bearer {token}":
                return self.answer({"error": "gated"}, 401, **{"X-Error-Code": "GatedRepo"})
            api = f"/api/datasets/{name}"
            if path in (api, f"{api}/revision/main", f"{api}/revision/{COMMIT}"):
                siblings = [{"rfilename": each} for each in files]
                return self.answer({"id": name, "sha": COMMIT, "siblings": siblings, "tags": [], "private": False})
            if path.startswith(f"{api}/tree/"):
                below = path.removeprefix(f"{api}/tree/").partition("/")[2]
                whole = parse_qs(urlsplit(self.path).query).get("recursive", [""])[0].lower() == "true"
                return self.answer(listed(f"{below}/" if below else "", whole))
            match = re.fullmatch(rf"/datasets/{re.escape(name)}/resolve/[^/]+/(.+)", path)
            if match is None or match[1] not in files:
                return self.answer({"error": "nothing"}, 404, **{"X-Error-Code": "EntryNotFound"})
            return self.content(files[match[1]])

        def content(self, content: bytes) -> None:
            asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
            start, end = 0, len(content)
            if asked is not None:
                start, end = int(asked[1]), min(int(asked[2] or len(content)) + bool(asked[2]), len(content))
            self.send_response(206 if asked is not None else 200)
            if asked is not None:
                self.send_header("Content-Range", f"bytes {start}-{end - 1}/{len(content)}")
            self.send_header("Content-Length", str(end - start))
            self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
            self.send_header("X-Repo-Commit", COMMIT)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content[start:end])

        def answer(self, value: Any, status: int = 200, **headers: str) -> None:
            content = json.dumps(value).encode()
            self.send_response(status)
            for key, each in {
                "Content-Type": "application/json",
                "Content-Length": str(len(content)),
                **headers,
            }.items():
                self.send_header(key, each)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

    class Quiet(http.server.ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: Any, client_address: Any) -> None:
            pass

    with Quiet(("127.0.0.1", 0), Handler) as listening:
        thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield listening.server_address[1]
        finally:
            listening.shutdown()
            thread.join()
