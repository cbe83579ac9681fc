"""A wheel of the Olivine that is running, made of its files: a job runs the very source that submits it.

It is made of the package's folder and its metadata, so it comes out the same whether Olivine was installed from a
wheel, or its sources are being worked on. https://packaging.python.org/specifications/binary-distribution-format/
"""

from __future__ import annotations

import base64
import hashlib
import zipfile
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

import olivine
from olivine.errors import UnavailableError

_WHEEL = "Wheel-Version: 1.0\nGenerator: olivine\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
_BEGINNING = (1980, 1, 1, 0, 0, 0)
"""The time of every file in it, so that the same sources give the same bytes."""
_LEFT_OUT = frozenset({"__pycache__", ".mypy_cache", ".ruff_cache"})


def build_wheel(folder: Path) -> Path:
    """Write the wheel into ``folder`` and return it. The same sources give the same bytes.

    Raises:
        UnavailableError: Olivine is not installed, so nobody knows what it needs.
    """
    found = installed()
    version = found.version
    files = {f"olivine/{name}": path.read_bytes() for name, path in sorted(_sources().items())}
    info = f"olivine-{version}.dist-info"
    files[f"{info}/METADATA"] = (found.read_text("METADATA") or "").encode()
    files[f"{info}/WHEEL"] = _WHEEL.encode()
    entry_points = found.read_text("entry_points.txt")
    if entry_points:
        files[f"{info}/entry_points.txt"] = entry_points.encode()
    files[f"{info}/RECORD"] = _record(files, f"{info}/RECORD").encode()
    wheel = folder / f"olivine-{version}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            entry = zipfile.ZipInfo(name, _BEGINNING)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, content)
    return wheel


def installed() -> Distribution:
    """Return the installed distribution of Olivine, which has its metadata.

    Raises:
        UnavailableError: there is none.
    """
    try:
        return distribution("olivine")
    except PackageNotFoundError:
        raise UnavailableError(
            "jobs need a wheel of Olivine, and nothing says what it needs: it is not installed here",
            remedy="install it: `pip install .` in its sources",
        ) from None


def base_requirements() -> list[str]:
    """Return what Olivine needs without any extra, as its metadata says it."""
    from packaging.requirements import Requirement

    found = [Requirement(each) for each in installed().requires or ()]
    return [
        f"{each.name}{each.specifier}" for each in found if each.marker is None or each.marker.evaluate({"extra": ""})
    ]


def _sources() -> dict[str, Path]:
    """Return the package's files by their names in it."""
    root = Path(olivine.__file__).resolve().parent
    found = {}
    for path in root.rglob("*"):
        inside = path.relative_to(root)
        if path.is_file() and not _LEFT_OUT & set(inside.parts):
            found[inside.as_posix()] = path
    return found


def _record(files: dict[str, bytes], own: str) -> str:
    lines = []
    for name, content in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
        lines.append(f"{name},sha256={digest},{len(content)}")
    return "\n".join([*lines, f"{own},,", ""])
