"""A batch of Steps as a command job of Azure Machine Learning: the YAML that ``az ml job create -f`` takes.

The folder ``code`` beside it holds what the job begins with: Olivine's wheel, :mod:`olivine.systems.azureml.start`, and
``request.json``, in which every place is a reference (:mod:`olivine.systems.azureml.references`).

https://azuremlschemas.azureedge.net/latest/commandJob.schema.json
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from olivine.config.schema import System
from olivine.errors import PlanError
from olivine.redaction import redact
from olivine.store.digests import digest_json
from olivine.systems.azureml.environment import environment_of_job
from olivine.systems.azureml.references import Inputs, referring
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
class Token:
    """Where a job finds the token of the Hugging Face hub."""

    vault: str
    secret: str


@dataclass(frozen=True)
class Work:
    """What a job is to do.

    Attributes:
        content: gives the content of its request; fills the inputs that it is given.
        names: of its Steps, for people.
        digest: what it is called by.
        requires: packages that it needs, as ``pip`` takes them.
        device: kind of processor.
        spreads: whether several processes can share it.
        hub: whether it reads the Hugging Face hub.
        kind: what it is in a sentence.
        size: how much it is, in words.
    """

    content: Callable[[Inputs], dict[str, Any]]
    names: Sequence[str]
    digest: str
    requires: Sequence[str]
    device: str
    spreads: bool = False
    hub: bool = False
    kind: str = "Steps of an Olivine workflow"
    size: str = "1 Step"


def work_of(requests: Sequence[StepRequest]) -> Work:
    """Return Steps as the work of a job."""
    return Work(
        lambda inputs: {"version": 1, "steps": referring(requests, inputs)},
        [request.name for request in requests],
        digest_of(requests),
        sorted({each for request in requests for each in request.requires}),
        requests[0].host["device"],
        any(request.spreads for request in requests),
        any(needs_hub(request) for request in requests),
        size="1 Step" if len(requests) == 1 else f"{len(requests)} Steps",
    )


def write_job(
    folder: Path,
    *,
    name: str,
    system: System,
    experiment: str,
    work: Work,
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
    needed = [*base_requirements(), *work.requires, *(FOR_TOKEN if token is not None else ())]
    if token is not None and identity == "user":
        needed.append("azure-ai-ml>=1.30,<2")
    (code / "requirements.txt").write_text("\n".join(needed) + "\n", encoding="utf-8")
    content = json.dumps(work.content(inputs), indent=1, ensure_ascii=False)
    _refuse_secrets(content)
    (code / REQUEST).write_text(content + "\n", encoding="utf-8")
    arguments = " ".join(f"{each}=${{{{inputs.{each}}}}}" for each in inputs.found)
    nodes = (system.instance_count or 1) if work.spreads else 1
    processes = (system.processes_per_instance or 1) if work.spreads else 1
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
        "display_name": ", ".join(dict.fromkeys(work.names))[:250],
        "experiment_name": experiment,
        "description": work.kind,
        "code": "./code",
        "command": f"python {START} ${{{{outputs.{RESULTS}}}}} {arguments}".rstrip(),
        "environment": environment_of_job(system, work.device, needed, folder),
        "compute": f"azureml:{system.aml_compute}",
        "environment_variables": variables,
        "outputs": {RESULTS: output},
        "resources": {"instance_count": nodes, **given},
        # With one of these there, the SDK leaves out the repository, branch and commit of the folder it is run in: they
        # are nobody's business, and would make the same job another one when it is submitted again.
        "properties": {"azureml.git.dirty": "unknown"},
        "tags": {**{key: str(value) for key, value in (system.tags or {}).items()}, "olivine": work.digest},
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


def needs_hub(request: StepRequest) -> bool:
    """Return whether a Step reads the Hugging Face hub."""
    return request.hub or any(place.startswith("hub:") for place in request.inputs.values())


def digest_of(requests: Sequence[StepRequest]) -> str:
    """Return what a batch of Steps is called by."""
    return digest_json([request.digest for request in requests])[:32]


def job_name(requests: Sequence[StepRequest], workspace: Sequence[str], attempt: int = 1) -> str:
    """Return the name of the job that makes Steps; another attempt, after one that failed, has another."""
    digest = digest_json([[request.digest for request in requests], list(workspace)])[:24]
    return f"olivine-{digest}" + (f"-{attempt}" if attempt > 1 else "")


def _refuse_secrets(content: str) -> None:
    """Refuse to write into a job what nobody else may read: whoever sees the workspace sees its jobs.

    Raises:
        PlanError: says where, without the secret.
    """
    shown = redact(content)
    if shown != content:
        pairs = zip(content.splitlines(), shown.splitlines(), strict=False)
        line = next((after for before, after in pairs if before != after), "")
        raise PlanError(
            f"a secret would be written into the job: {line.strip()[:200]}",
            why="the job and its code can be read by all who see the workspace",
            remedy="write the text itself where it is none, or let that Step run here (host)",
        )
