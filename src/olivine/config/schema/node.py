"""What every part of a configuration is made of."""

from typing import Any

from pydantic import BaseModel, ConfigDict


class Node(BaseModel):
    """A part of the configuration: frozen, and an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


def gather(value: Any, own: set[str]) -> Any:
    """Move the keys of ``value`` that are not in ``own`` into ``params``, so that a file can be flat."""
    if not isinstance(value, dict) or "params" in value:
        return value
    return {key: item for key, item in value.items() if key in own} | {
        "params": {key: item for key, item in value.items() if key not in own}
    }
