"""A folder with a workflow of somebody who uses the cloud, and the command line run in it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from standin.cloud import Cloud

CONDA = '{"name": "olivine", "channels": ["conda-forge"], "dependencies": ["python=3.11", "pip"]}'


class CloudProject:
    """A folder in which that user works."""

    def __init__(self, folder: Path, cloud: Cloud) -> None:
        self.folder = folder
        self.cloud = cloud
        (folder / "conda.yaml").write_text(CONDA)

    def write(self, config: dict[str, Any]) -> None:
        """Write the workflow."""
        (self.folder / "workflow.json").write_text(json.dumps(config, indent=2))

    def start(self, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        """Start the command line in a session of its own."""
        return subprocess.Popen(
            [sys.executable, "-m", "olivine", *arguments],
            cwd=self.folder,
            env=self.cloud.process_environment(**environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def olivine(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run the command line to its end."""
        process = self.start(*arguments, **environment)
        out, err = process.communicate(timeout=1800)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)
