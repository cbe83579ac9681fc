"""What a container image is to the stand-in: an environment with the libraries, and without Olivine.

A job has to bring Olivine itself, as it has to in the cloud; the copy under test is not on its path.
"""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from pathlib import Path


def build_image(folder: Path) -> Path:
    """Make an environment in ``folder`` that sees this one's libraries but for Olivine; return its ``bin``."""
    libraries = folder / "libraries"
    libraries.mkdir(parents=True)
    for entry in Path(sysconfig.get_path("purelib")).iterdir():
        if "olivine" not in entry.name.lower():
            (libraries / entry.name).symlink_to(entry)
    return folder


def start_container(image: Path, folder: Path) -> Path:
    """Make a job's own environment over an image; return its ``bin``."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True, env=_bare())
    places = sysconfig.get_paths(vars={"base": str(folder), "platbase": str(folder)})
    site_packages = Path(places["purelib"])
    (site_packages / "image.pth").write_text(f"{image / 'libraries'}\n")
    binaries = folder / "bin"
    pip = binaries / "pip"
    pip.write_text(f'#!/bin/sh\nexec {binaries / "python"} -m pip "$@"\n')
    pip.chmod(0o755)
    return binaries


def _bare() -> dict[str, str]:
    return {"PATH": os.environ["PATH"]}
