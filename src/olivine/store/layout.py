"""Where things lie in the Store's folder, and the folder itself."""

from __future__ import annotations

import json
import os
import re
import secrets

from olivine import __version__
from olivine.errors import StoreError
from olivine.store.disk import StrPath, disk_errors, replace_file, sync_folder
from olivine.store.liveness import current_owner

LAYOUT = 1
"""Version of the layout that :mod:`olivine.store.store` describes."""
DIGEST = re.compile(r"[0-9a-f]{8,64}")
_TAG = b"Signature: 8a477f597d28d172789f06886806bc55\n# Everything here can be made again by Olivine.\n"
"""Backup tools leave out a folder with this file (https://bford.info/cachedir/)."""


class Layout:
    """The places in a Store's folder, as text: they are asked for so often that paths are not worth their while.

    Args:
        root: the folder; it need not exist.
    """

    def __init__(self, root: StrPath) -> None:
        self.root = os.path.abspath(root)
        self._checked = False

    def at(self, *parts: str) -> str:
        """Return a place below the Store's folder."""
        return os.path.join(self.root, *parts)

    def artifact(self, digest: str) -> str:
        """Return the folder of an artifact.

        Raises:
            ValueError: that is no digest.
        """
        if not DIGEST.fullmatch(digest):
            raise ValueError(f"not a digest: {digest!r}")
        return f"{self.root}/artifacts/{digest[:2]}/{digest}"

    def lock(self, digest: str) -> str:
        """Return the lock file of a digest."""
        return self.at("locks", f"{digest}.lock")

    def new_staging(self) -> str:
        """Return a folder that nobody has, named for this process."""
        return self.at("staging", f"{current_owner()}.{secrets.token_hex(4)}")

    def make(self, part: str = "") -> None:
        """Make a folder of the Store, and the Store around it.

        Raises:
            StoreError: it cannot be made, or the Store is of another layout.
        """
        path = self.at(part) if part else self.root
        self.check()
        with disk_errors(path):
            if not os.path.exists(self.at("store.json")):
                os.makedirs(self.root, exist_ok=True)
                # Processes may do this at the same time: each writes the same, whole.
                replace_file(self.at("CACHEDIR.TAG"), _TAG)
                replace_file(self.at(".gitignore"), b"*\n")
                replace_file(self.at("store.json"), json.dumps({"layout": LAYOUT}).encode() + b"\n")
            if not os.path.isdir(path):
                os.makedirs(path, exist_ok=True)
                sync_folder(os.path.dirname(path))

    def check(self) -> None:
        """Refuse a Store that this Olivine does not know; one that is not there yet is fine.

        Raises:
            StoreError: it is of another layout, or its ``store.json`` cannot be read.
        """
        if self._checked:
            return
        try:
            with open(self.at("store.json"), "rb") as file:
                layout = json.loads(file.read())["layout"]
        except (FileNotFoundError, NotADirectoryError):
            return
        except (ValueError, KeyError, TypeError, OSError) as error:
            raise StoreError(
                f"{self.at('store.json')} cannot be read",
                why=str(error),
                remedy="remove that file if this is an Olivine cache, or set engine.cache_dir to another folder",
            ) from error
        if layout != LAYOUT:
            raise StoreError(
                f"the cache {self.root} has layout {layout}; this Olivine {__version__} knows layout {LAYOUT}",
                remedy="use the Olivine that made it, or set engine.cache_dir to another folder",
            )
        self._checked = True
