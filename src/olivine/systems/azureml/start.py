"""The first thing that runs in a job: unpack Olivine's wheel, see to what it needs, and begin.

It stands beside the wheel in the job's folder and needs nothing but Python. Packages that the environment lacks are
installed; what it has, it keeps.
"""

import importlib.metadata
import os
import runpy
import subprocess
import sys
import tempfile
import zipfile

LEAST_PYTHON = (3, 11)


def main() -> None:
    """Prepare, and run what is in the wheel."""
    if sys.version_info < LEAST_PYTHON:
        wanted = ".".join(map(str, LEAST_PYTHON))
        sys.exit(f"olivine: the environment has Python {sys.version.split()[0]}, and Olivine needs {wanted} or later")
    here = os.path.dirname(os.path.abspath(__file__))
    wheel = next(name for name in sorted(os.listdir(here)) if name.endswith(".whl"))
    site = tempfile.mkdtemp(prefix="olivine-")
    with zipfile.ZipFile(os.path.join(here, wheel)) as archive:
        archive.extractall(site)
    sys.path.insert(0, site)
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [site, os.environ.get("PYTHONPATH", "")]))
    with open(os.path.join(here, "requirements.txt"), encoding="utf-8") as file:
        missing = [line.strip() for line in file if line.strip() and not is_installed(line.strip())]
    if missing:
        print("olivine: the environment lacks", ", ".join(missing), "- installing", flush=True)
        command = [sys.executable, "-m", "pip", "install", "--disable-pip-version-check", "--quiet"]
        if subprocess.call([*command, *missing]) != 0:
            sys.exit("olivine: they could not be installed; add them to the environment of the system")
    runpy.run_module("olivine.systems.azureml.in_job", run_name="__main__", alter_sys=True)


def is_installed(requirement: str) -> bool:
    """Return whether a distribution is there, in whatever version."""
    name = requirement
    for mark in "<>=!~;[ ":
        name = name.partition(mark)[0]
    try:
        importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


if __name__ == "__main__":
    main()
