"""What a job reads, by reference: in a job's request every place that only the job knows is written as

- ``input://NAME/BELOW``: below an input of the job;
- ``step://DIGEST/BELOW``: below what an earlier Step of the same job has made;
- ``hub:ID@REVISION``: on the Hugging Face hub, fetched there.
"""

from __future__ import annotations

import glob
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from olivine.systems.base import StepRequest


@dataclass(frozen=True)
class JobInput:
    """Something that a job reads: ``path`` as the service takes it, or a folder or file here that is uploaded.

    Attributes:
        mode: ``download`` copies it to the machine, since weights are mapped into memory there; ``ro_mount`` brings
            only what is read.
    """

    path: str
    type: str = "uri_folder"
    mode: str = "download"

    def as_yaml(self) -> dict[str, str]:
        """Return it as it stands in a job."""
        return {"type": self.type, "path": self.path, "mode": self.mode}


@dataclass
class Inputs:
    """The inputs of a job by name, each place once.

    Args:
        place: gives the input for a place (a folder or file here, an address, ``step:DIGEST``) and whether it is data.
        known: references by place, as far as they are known.
    """

    place: Callable[[str, bool], JobInput]
    found: dict[str, JobInput] = field(default_factory=dict)
    known: dict[str, list[str]] = field(default_factory=dict)

    def refer(self, place: str, *, data: bool = False) -> list[str]:
        """Return the references that stand for a place: one, or of a pattern of this machine one for each file."""
        if place not in self.known:
            folder, _, name = place.rpartition("/")
            pattern = any(mark in name for mark in "*?[")
            if "://" in place and pattern:
                self.known[place] = [f"{self.refer(folder + '/', data=data)[0]}{name}"]
            elif data and not Path(place).exists() and "://" not in place:
                found = sorted(glob.glob(place, recursive=True))
                self.known[place] = [reference for each in found for reference in self.refer(each, data=True)]
            else:
                name = f"{'data' if data else 'model'}_{len(self.found)}"
                self.found[name] = self.place(place, data)
                self.known[place] = [f"input://{name}/"]
        return self.known[place]


def referring(requests: Sequence[StepRequest], inputs: Inputs, *, alone: bool = True) -> list[dict[str, Any]]:
    """Return requests as the job reads them, every place in them a reference; fills ``inputs``.

    Args:
        alone: the job makes these Steps and no others; else it makes all that they name.
    """
    within = {request.digest for request in requests} if alone else None
    return [_referring(request, inputs, within) for request in requests]


def _referring(request: StepRequest, inputs: Inputs, within: set[str] | None) -> dict[str, Any]:
    value = request.as_json()
    for key in ("output", "checkpoint", "log", "shared", "max_memory"):
        value.pop(key)
    value["inputs"] = {key: input_reference(place, inputs, within) for key, place in request.inputs.items()}
    value["data"] = {key: data_reference(config, inputs) for key, config in request.data.items()}
    value["params"] = params_references(request.params, inputs)
    return value


def input_reference(place: str, inputs: Inputs, within: set[str] | None) -> str:
    """Return the reference of a Step's input.

    Args:
        within: digests of the Steps that the same job makes; ``None``: it makes all that are named.
    """
    kind, _, rest = place.partition(":")
    if kind == "hub":
        return place
    if kind == "step":
        digest, _, below = rest.partition("/")
        if within is None or digest in within:
            return f"step://{digest}/{below}"
        return f"{inputs.refer(f'step:{digest}')[0]}{below}"
    return inputs.refer(place)[0]


def data_reference(config: Mapping[str, Any], inputs: Inputs) -> dict[str, Any]:
    """Return a data config whose files and folders are references."""
    made = dict(config)
    files = config.get("data_files")
    if files is not None:
        listed = [files] if isinstance(files, str) else files
        made["data_files"] = [reference for each in listed for reference in inputs.refer(each, data=True)]
    name = config.get("data_name")
    if isinstance(name, str) and (name in inputs.known or (Path(name).is_absolute() and Path(name).is_dir())):
        made["data_name"] = inputs.refer(name, data=True)[0]
    return made


def params_references(value: Any, inputs: Inputs) -> Any:
    """Return parameters whose files of this machine, such as a metric's script, are references."""
    if isinstance(value, dict):
        return {key: params_references(item, inputs) for key, item in value.items()}
    if isinstance(value, list):
        return [params_references(item, inputs) for item in value]
    if not isinstance(value, str) or not value.startswith("/") or not 1 < len(value) < 4096:
        return value
    return inputs.refer(value, data=True)[0] if value in inputs.known or Path(value).exists() else value
