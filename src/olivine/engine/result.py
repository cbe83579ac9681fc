"""What a run hands back."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from olivine.errors import EXIT_GOALS, EXIT_OK
from olivine.evaluate.goals import Verdict


@dataclass(frozen=True)
class StepResult:
    """One Step as it went.

    Attributes:
        name: its name in the configuration.
        type: the pass, or ``evaluate``.
        digest: its key in the Store.
        cached: whether the Store held it already.
        seconds: what it took when it was made.
        peak_memory: peak resident memory when it was made, in bytes.
        metrics: what the pass or the evaluation reported.
    """

    name: str
    type: str
    digest: str
    cached: bool
    seconds: float
    peak_memory: int
    metrics: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Result:
    """A finished run.

    Attributes:
        output_dir: the folder with the model that ships.
        format: its format (``genai`` ...).
        size: bytes of the model's files.
        steps: all Steps in order.
        metrics: measurements of the ``input`` and the ``final`` model, by metric.
        seconds: wall time of this run.
        run_dir: logs and events of this run.
        model_dir: the folder of the model's files, where it is not ``output_dir`` itself.
        goals: the verdict on each goal; empty if there are none.
        search: what the search found that chose the model (see docs/architecture.md); ``None`` without one.
        untried: the execution provider that the model was built for, if it has not run there: the machine that built it
            has none.
    """

    output_dir: Path
    format: str
    size: int
    steps: tuple[StepResult, ...]
    metrics: dict[str, dict[str, Any]]
    seconds: float
    run_dir: Path
    model_dir: Path | None = None
    goals: tuple[Verdict, ...] = ()
    search: dict[str, Any] | None = None
    untried: str = ""

    @property
    def state(self) -> str:
        """``succeeded``, or ``goals missed``: the model was made, and must not be taken for what was asked for."""
        return "succeeded" if all(verdict.met for verdict in self.goals) else "goals missed"

    @property
    def exit_code(self) -> int:
        """The exit status that the command line returns."""
        return EXIT_OK if self.state == "succeeded" else EXIT_GOALS

    def as_json(self) -> dict[str, Any]:
        """Return the result as JSON: the content of ``status.json``, but for what changes from run to run."""
        return {
            "output_dir": str(self.output_dir),
            "model_dir": str(self.model_dir or self.output_dir),
            "format": self.format,
            "size_bytes": self.size,
            "seconds": round(self.seconds, 3),
            "steps": [
                {
                    "name": step.name,
                    "type": step.type,
                    "digest": step.digest,
                    "cached": step.cached,
                    "seconds": round(step.seconds, 3),
                    "peak_memory_bytes": step.peak_memory,
                    "metrics": step.metrics,
                }
                for step in self.steps
            ],
            "metrics": self.metrics,
            "state": self.state,
            "goals": [verdict.as_json() for verdict in self.goals],
            "search": self.search,
            "untried": self.untried,
        }
