"""One thing that a search chooses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Dimension:
    """One thing to choose.

    Attributes:
        name: ``lora.r``; the name of a pass for alternatives; ``quantize.1.bits`` for a parameter of one of several.
        choices: the values, in order; empty for a range.
        low: smallest value of a range.
        high: largest.
        log: whether the range is gone through in ratios.
        whole: whether the range has only whole numbers.
        needs: the values that other dimensions must have for this one to count.
        parents: dimensions whose values together say which choices a parameter has, if it depends on any.
        cases: the values of the parents for which these are the choices.
    """

    name: str
    choices: tuple[Any, ...] = ()
    low: float = 0
    high: float = 0
    log: bool = False
    whole: bool = False
    needs: tuple[tuple[str, tuple[Any, ...]], ...] = ()
    parents: tuple[str, ...] = ()
    cases: tuple[tuple[Any, ...], ...] = ()

    def counts(self, point: Mapping[str, Any]) -> bool:
        """Return whether it is to be chosen, given what has been."""
        if not all(name in point and point[name] in values for name, values in self.needs):
            return False
        return not self.parents or tuple(point.get(name) for name in self.parents) in self.cases

    @property
    def key(self) -> str:
        """What tells it apart: a parameter that depends on others is one dimension for each set of choices."""
        return f"{self.name} if {self.condition}" if self.parents else self.name

    @property
    def condition(self) -> str:
        """When it counts, in words: ``q.bits=4 or q.bits=8``."""
        return " or ".join(
            " and ".join(f"{name}={value}" for name, value in zip(self.parents, case, strict=True))
            for case in self.cases
        )

    @property
    def lowest(self) -> Any:
        """The first choice, or the low end of the range."""
        return self.choices[0] if self.choices else int(self.low) if self.whole else self.low

    @property
    def is_ordered(self) -> bool:
        """Whether near choices are alike: numbers in rising order."""
        numbers = [each for each in self.choices if isinstance(each, int | float) and not isinstance(each, bool)]
        return len(numbers) == len(self.choices) and numbers == sorted(numbers)

    def as_json(self) -> dict[str, Any]:
        """Return it for people and for the report."""
        if self.choices:
            when = {"when": self.condition} if self.parents else {}
            return {"name": self.name, "choices": list(self.choices)} | when
        return {"name": self.name, "low": self.low, "high": self.high, "log": self.log}
