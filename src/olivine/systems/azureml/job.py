"""A batch of Steps as a command job of Azure Machine Learning: the YAML that ``az ml job create -f`` takes.

The folder ``code`` beside it holds what the job begins with: Olivine's wheel, :mod:`olivine.systems.azureml.start`, and
``request.json``, in which a place that only the job knows is a reference:

- ``input://NAME/BELOW``: below an input of the job;
- ``step://DIGEST/BELOW``: below what an earlier Step of the batch has made;
- ``hub:ID@REVISION``: on the Hugging Face hub, fetched there.

https://azuremlschemas.azureedge.net/latest/commandJob.schema.json
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from olivine.config.schema import System
from olivine.store.digests import digest_json
from olivine.systems.azureml.environment import environment_of_job
from olivine.systems.azureml.wheel import base_requirements, build_wheel
from olivine.systems.base import StepRequest

SCHEMA = "https://azuremlschemas.azureedge.net/latest/commandJob.schema.json"
RESULTS = "results"
REQUEST = "request.json"
START = "start.py"
VAULT, SECRET, IDENTITY = "OLIVINE_HF_TOKEN_VAULT", "OLIVINE_HF_TOKEN_SECRET", "OLIVINE_IDENTITY"
"""Variables of a job that say where it finds the hub's token, and who it is. The token itself is in none."""
_IDENTITIES = {"managed": {"type": "managed"}, "user": {"type": "user_identity"}}
FOR_TOKEN = ("azure-identity>=1.19", "azure-keyvault-secrets>=4.9")
_RESOURCES = frozenset({"instance_type", "shm_size", "docker_args", "properties", "locations", "max_instance_count"})


@dataclass(frozen=True)
class JobInput:
    """Something that a job reads: ``path`` as the service takes it, or a folder or file here that is uploaded."""

    path: str
    type: str = "uri_folder"

    def as_yaml(self) -> dict[str, str]:
        """Return it as it stands in a job. It is copied to the machine: weights are mapped into memory there."""
        return {"type": self.type, "path": self.path, "mode": "download"}


@dataclass
class Inputs:
    """The inputs of a job by name, each place once.

    Args:
        place: gives the input for a place (a folder or file here, an address, ``step:DIGEST``) and whether it is data.
    """

    place: Callable[[str, bool], JobInput]
    found: dict[str, JobInput] = field(default_factory=dict)
    _names: dict[str, str] = field(default_factory=dict)

    def name(self, place: str, *, data: bool = False) -> str:
        """Return the name of the input for a place."""
        if place not in self._names:
            name = f"{'data' if data else 'model'}_{len(self._names)}"
            self._names[place] = name
            self.found[name] = self.place(place, data)
        return self._names[place]


@dataclass(frozen=True)
class Token:
    """Where a job finds the token of the Hugging Face hub."""

    vault: str
    secret: str


def referring(requests: Sequence[StepRequest], inputs: Inputs) -> list[dict[str, Any]]:
    """Return requests as the job reads them, every place in them a reference; fills ``inputs``."""
    within = {request.digest for request in requests}
    return [_referring(request, inputs, within) for request in requests]


def _referring(request: StepRequest, inputs: Inputs, within: set[str]) -> dict[str, Any]:
    value = request.as_json()
    for key in ("output", "checkpoint", "log", "shared", "max_memory"):
        value.pop(key)
    value["inputs"] = {key: _input(place, inputs, within) for key, place in request.inputs.items()}
    value["data"] = {key: _data(config, inputs) for key, config in request.data.items()}
    value["params"] = _params(request.params, inputs)
    return value


def _input(place: str, inputs: Inputs, within: set[str]) -> str:
    kind, _, rest = place.partition(":")
    if kind == "hub":
        return place
    if kind == "step":
        digest, _, below = rest.partition("/")
        if digest in within:
            return f"step://{digest}/{below}"
        return f"input://{inputs.name(f'step:{digest}')}/{below}"
    return f"input://{inputs.name(place)}/"


def _data(config: dict[str, Any], inputs: Inputs) -> dict[str, Any]:
    """Return a data config whose files and folders are references."""
    made = dict(config)
    files = config.get("data_files")
    if files is not None:
        listed = [files] if isinstance(files, str) else files
        made["data_files"] = [reference for each in listed for reference in _files(each, inputs)]
    name = config.get("data_name")
    if isinstance(name, str) and Path(name).is_absolute() and Path(name).is_dir():
        made["data_name"] = f"input://{inputs.name(name, data=True)}/"
    return made


def _files(place: str, inputs: Inputs) -> list[str]:
    if "://" in place:
        folder, _, name = place.rpartition("/")
        if any(mark in name for mark in "*?["):
            return [f"input://{inputs.name(folder + '/', data=True)}/{name}"]
        return [f"input://{inputs.name(place, data=True)}/"]
    import glob

    found = sorted(glob.glob(place, recursive=True)) if not Path(place).exists() else [place]
    return [f"input://{inputs.name(each, data=True)}/" for each in found]


def _params(value: Any, inputs: Inputs) -> Any:
    """Return parameters whose files of this machine, such as a metric's script, are references."""
    if isinstance(value, dict):
        return {key: _params(item, inputs) for key, item in value.items()}
    if isinstance(value, list):
        return [_params(item, inputs) for item in value]
    if isinstance(value, str) and value.startswith("/") and len(value) < 4096 and Path(value).exists():
        return f"input://{inputs.name(value, data=True)}/"
    return value


def write_job(
    folder: Path,
    *,
    name: str,
    system: System,
    experiment: str,
    requests: Sequence[StepRequest],
    inputs: Inputs,
    results: str | None,
    identity: str | None,
    token: Token | None,
    refresh: bool = True,
) -> dict[str, Any]:
    """Write a job and what goes with it into ``folder`` (``job.yaml``, ``conda.yaml``, ``code``); return the YAML.

    Args:
        results: address of the folder for its results; ``None`` leaves it to the service.
        identity: ``managed``, ``user`` or ``None``.
        token: where it finds the hub's token, if a Step reads the hub.
        refresh: make the folder anew.
    """
    if refresh:
        shutil.rmtree(folder / "code", ignore_errors=True)
    code = folder / "code"
    code.mkdir(parents=True, exist_ok=True)
    build_wheel(code)
    shutil.copyfile(Path(__file__).with_name(START), code / START)
    needed = sorted({each for request in requests for each in request.requires})
    needed = [*base_requirements(), *needed, *(FOR_TOKEN if token is not None else ())]
    if token is not None and identity == "user":
        needed.append("azure-ai-ml>=1.30,<2")
    (code / "requirements.txt").write_text("\n".join(needed) + "\n", encoding="utf-8")
    batch = {"version": 1, "steps": referring(requests, inputs)}
    (code / REQUEST).write_text(json.dumps(batch, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    device = requests[0].host["device"]
    arguments = " ".join(f"{each}=${{{{inputs.{each}}}}}" for each in inputs.found)
    spread = any(request.spreads for request in requests)
    nodes = (system.instance_count or 1) if spread else 1
    processes = (system.processes_per_instance or 1) if spread else 1
    output: dict[str, Any] = {"type": "uri_folder", "mode": "rw_mount"}
    if results is not None:
        output["path"] = results
    variables = {"HF_HUB_DISABLE_TELEMETRY": "1"}
    if token is not None:
        variables |= {VAULT: token.vault, SECRET: token.secret}
    if identity is not None:
        variables[IDENTITY] = identity
    given = {key: value for key, value in (system.resources or {}).items() if key in _RESOURCES}
    document: dict[str, Any] = {
        "$schema": SCHEMA,
        "type": "command",
        "name": name,
        "display_name": ", ".join(dict.fromkeys(request.name for request in requests))[:250],
        "experiment_name": experiment,
        "description": "Steps of an Olivine workflow",
        "code": "./code",
        "command": f"python {START} ${{{{outputs.{RESULTS}}}}} {arguments}".rstrip(),
        "environment": environment_of_job(system, device, needed, folder),
        "compute": f"azureml:{system.aml_compute}",
        "environment_variables": variables,
        "outputs": {RESULTS: output},
        "resources": {"instance_count": nodes, **given},
        # With one of these there, the SDK leaves out the repository, branch and commit of the folder it is run in: they
        # are nobody's business, and would make the same job another one when it is submitted again.
        "properties": {"azureml.git.dirty": "unknown"},
        "tags": {**{key: str(value) for key, value in (system.tags or {}).items()}, "olivine": digest_of(requests)},
    }
    if inputs.found:
        document["inputs"] = {each: found.as_yaml() for each, found in inputs.found.items()}
    if nodes > 1 or processes > 1:
        document["distribution"] = {"type": "pytorch", "process_count_per_instance": processes}
    if identity in _IDENTITIES:
        document["identity"] = dict(_IDENTITIES[identity])
    text = yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=120)
    (folder / "job.yaml").write_text(text, encoding="utf-8")
    return document


def digest_of(requests: Sequence[StepRequest]) -> str:
    """Return what a batch of Steps is called by."""
    return digest_json([request.digest for request in requests])[:32]


def job_name(requests: Sequence[StepRequest], workspace: Sequence[str], attempt: int = 1) -> str:
    """Return the name of the job that makes Steps; another attempt, after one that failed, has another."""
    digest = digest_json([[request.digest for request in requests], list(workspace)])[:24]
    return f"olivine-{digest}" + (f"-{attempt}" if attempt > 1 else "")
