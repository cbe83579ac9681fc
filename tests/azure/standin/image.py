"""What a container image is to the stand-in: an environment with the libraries, and without Olivine.

A job has to bring Olivine itself, as it has to in the cloud; the copy under test is not on its path. Images for GPUs
have other distributions of ONNX Runtime, with the same modules; this one goes by their names too, and has no GPU.
"""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from importlib import metadata
from pathlib import Path

FOR_GPU = {"onnxruntime": "onnxruntime-gpu", "onnxruntime-genai": "onnxruntime-genai-cuda"}
"""What a distribution for GPUs is called beside the one for processors."""


def build_image(folder: Path) -> Path:
    """Make an environment in ``folder`` that sees this one's libraries but for Olivine; return its ``bin``."""
    libraries = folder / "libraries"
    libraries.mkdir(parents=True)
    for entry in Path(sysconfig.get_path("purelib")).iterdir():
        if "olivine" not in entry.name.lower():
            (libraries / entry.name).symlink_to(entry)
    for name, other in FOR_GPU.items():
        version = metadata.version(name)
        described = libraries / f"{other.replace('-', '_')}-{version}.dist-info"
        described.mkdir()
        (described / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {other}\nVersion: {version}\n")
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
