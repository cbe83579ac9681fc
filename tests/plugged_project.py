"""A user's folder with a third party's package installed beside Olivine, and the command line run in it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def plug_in(folder: Path, name: str, source: str, entry_points: str) -> Path:
    """Install a package the way users do, by its metadata on the path; return what goes on PYTHONPATH."""
    (folder / f"{name}.py").write_text(source)
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(entry_points)
    return folder


class PluggedProject:
    """A project whose passes write a line into ``journal`` each time they run."""

    def __init__(self, folder: Path, model: Path, plugin: Path) -> None:
        self.folder = folder
        self.model = model
        self.environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(plugin), *sys.path])}
        self.output = folder / "models"
        self.journal = folder / "journal.txt"

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "olivine", *arguments]

    def olivine(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run the command line to its end."""
        return subprocess.run(
            self.command(*arguments),
            cwd=self.folder,
            env=self.environment | environment,
            capture_output=True,
            text=True,
            timeout=900,
        )

    def start(self, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        """Start the command line and leave it running."""
        return subprocess.Popen(
            self.command(*arguments),
            cwd=self.folder,
            env=self.environment | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def times_run(self) -> int:
        """How often a pass has run."""
        return len(self.lines(self.journal))

    def lines(self, file: Path) -> list[str]:
        return file.read_text().splitlines() if file.exists() else []
