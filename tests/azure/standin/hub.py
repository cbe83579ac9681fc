"""A Hugging Face hub with one gated model: it gives its files to those alone who show the token."""

from __future__ import annotations

import hashlib
from pathlib import Path

from standin.server import Answer, Request, error

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub:
    """The routes that ``huggingface_hub`` takes to download a model.

    Attributes:
        folders: by id, the folder of each model.
        token: who shows it is let in.
        refused: how many requests came without it.
    """

    def __init__(self) -> None:
        self.folders: dict[str, Path] = {}
        self.token = ""
        self.refused = 0
        self.unknown: list[str] = []

    def route(self, request: Request) -> Answer:
        """Answer one request."""
        path = request.segments
        api = path[:2] == ("api", "models")
        name = "/".join(path[2:4] if api else path[:2])
        folder = self.folders.get(name)
        if folder is None:
            return error(404, "RepoNotFound", name, **{"x-error-code": "RepoNotFound"})
        if request.headers.get("authorization") != f"Bearer {self.token}":
            self.refused += 1
            return error(401, "GatedRepo", f"{name} is gated", **{"x-error-code": "GatedRepo"})
        files = {each.name: each for each in folder.iterdir() if each.is_file()}
        if api and (len(path) == 4 or path[4] in ("revision", "tree")):
            listed = [{"type": "file", "path": name, "oid": _oid(file), "size": file.stat().st_size}
                      for name, file in files.items()]  # fmt: skip
            if path[4:5] == ("tree",):
                return Answer(200, listed)
            siblings = [{"rfilename": each} for each in files]
            return Answer(200, {"id": name, "sha": COMMIT, "siblings": siblings, "private": False, "gated": "manual",
                                "tags": [], "downloads": 0, "likes": 0})  # fmt: skip
        if path[2:3] == ("resolve",) and path[-1] in files:
            content = files[path[-1]].read_bytes()
            headers = {"etag": f'"{_oid(files[path[-1]])}"', "x-repo-commit": COMMIT}
            return Answer(200, content, headers)
        if path[2:3] == ("resolve",):
            return error(404, "EntryNotFound", path[-1], **{"x-error-code": "EntryNotFound", "x-repo-commit": COMMIT})
        self.unknown.append(f"hub {request.method} {request.path}")
        return error(404, "NotFound", request.path)


def _oid(file: Path) -> str:
    """Return what git calls a file's content by."""
    content = file.read_bytes()
    return hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()
