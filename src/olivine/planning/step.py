"""A Step: the frozen description of one piece of work, whose digest is its key in the Store."""

from __future__ import annotations

from functools import cached_property
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from olivine.store import digest_json


class Step(BaseModel):
    """Everything that shapes a result, and nothing else: neither the name in the file nor any path is in it.

    Attributes:
        kind: ``pass`` or ``evaluate``.
        type: the pass, or ``evaluate``.
        version: of the pass (or the sum of its metrics' versions), raised when it computes differently.
        params: the resolved parameters, defaults included.
        inputs: what goes in, by name (``model``, ``base``): ``step:DIGEST``, ``files:DIGEST`` or ``hub:ID@COMMIT``.
        data: by parameter: the digests of the data files in order, and how rows become sequences.
        device: kind of processor it runs on, since that shapes numbers.
        target: execution provider that the result is made for, where that matters.
        machine: the machine, for measurements that depend on it.
        libraries: versions of the distributions that shape the result.
        remote_code: whether code that comes with the model may run.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["pass", "evaluate"]
    type: str
    version: int = 1
    params: dict[str, Any]
    inputs: dict[str, str]
    data: dict[str, Any] = {}
    device: str = "cpu"
    target: str | None = None
    machine: str | None = None
    libraries: dict[str, str] = {}
    remote_code: bool = False

    @cached_property
    def digest(self) -> str:
        """The key in the Store: 32 hexadecimal digits of SHA-256 over the canonical JSON."""
        return digest_json(self.model_dump(mode="json"))
