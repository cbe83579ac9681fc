"""The real Azurite, Microsoft's emulator of blob storage, which checks keys, SAS and tokens as the service does."""

from __future__ import annotations

import base64
import os
import secrets
import shutil
import socket
import subprocess
import time
from pathlib import Path

from standin.certificates import Certificates

MAIN = Path("node_modules", "azurite", "dist", "src", "blob", "main.js")
ROOT = Path(__file__).resolve().parents[3]


def find() -> tuple[list[str] | None, str]:
    """Return the command that starts Azurite, or None and why there is none."""
    node = shutil.which("node")
    if node is None:
        return None, "node is not installed; Azurite, on which these tests store their blobs, runs on it"
    for folder in filter(None, (os.environ.get("OLIVINE_AZURITE"), ROOT / ".azurite")):
        if (Path(folder) / MAIN).is_file():
            return [node, str(Path(folder) / MAIN)], ""
    return None, "Azurite is not installed: `make azurite` does that (npm install --prefix .azurite azurite)"


class Azurite:
    """A running Azurite with its blobs in memory.

    Attributes:
        port: where it listens, with TLS.
        keys: the key of each account.
    """

    def __init__(self, command: list[str], certificates: Certificates, accounts: list[str], folder: Path) -> None:
        self.keys = {name: base64.b64encode(secrets.token_bytes(64)).decode() for name in accounts}
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port: int = free.getsockname()[1]
        # It ends with its standard input, so also when this process is killed.
        watched = ["sh", "-c", '"$@" & child=$!; cat > /dev/null; kill $child; wait $child', "sh", *command]
        self._process = subprocess.Popen(
            [
                *watched, "--blobHost", "127.0.0.1", "--blobPort", str(self.port), "--cert",
                str(certificates.certificate), "--key", str(certificates.key), "--oauth", "basic",
                "--skipApiVersionCheck", "--disableTelemetry", "--silent", "--inMemoryPersistence",
            ],
            cwd=folder,
            env={
                "PATH": os.environ["PATH"],
                "AZURITE_ACCOUNTS": ";".join(f"{name}:{key}" for name, key in self.keys.items()),
            },
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        until = time.monotonic() + 60
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
                return
            except OSError:
                if time.monotonic() > until or self._process.poll() is not None:
                    self.close()
                    raise RuntimeError(f"Azurite did not start: {' '.join(command)}") from None
                time.sleep(0.05)

    def close(self) -> None:
        """End it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=30)
