"""``passes``: what is done with the model."""

# Annotations are not postponed: pydantic would compile each once more, at every start.

from typing import Any

from pydantic import Field, model_validator

from olivine.config.schema.node import Node, gather


class PassConfig(Node):
    """One pass: its type, and its parameters beside it. In memory the parameters are gathered in ``params``.

    For a search, a parameter may have a list of choices, a range (``{low: 4, high: 64}``, with ``step`` or ``log``),
    ``SEARCHABLE_VALUES`` (the pass's own choices), or ``DEFAULT_VALUE`` in place of a value.
    """

    type: str
    """The pass, e.g. ``LoRA``; ``olivine passes`` lists them."""
    host: str | None = None
    """System to run on, if not the engine's."""
    evaluator: str | None = None
    """Evaluator for this pass's result, beside the engine's for the last."""
    optional: bool | None = None
    """``true``: a search also tries to leave this pass out."""
    disable_search: bool | None = None
    """``true``: a search leaves this pass's parameters at what they are here."""
    timeout: float | None = Field(default=None, gt=0)
    """Seconds that this pass may take, if not the engine's ``step_timeout``."""
    params: dict[str, Any] = {}
    """Filled from the keys beside ``type``."""

    @model_validator(mode="before")
    @classmethod
    def _gather(cls, value: Any) -> Any:
        return gather(value, {"type", "host", "evaluator", "disable_search", "optional", "timeout"})
