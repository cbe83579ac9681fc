"""A trial: one candidate, what became of it, and the journal that keeps all of a study's.

A study's folder in the Store is ``studies/ID``::

    study.json     what is searched: objectives, goals, dimensions, strategy
    trials.jsonl   one object a line, synced, in the order in which they ended
    result.json    the front, the pick and why; once the study is done
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from olivine.errors import ConfigError
from olivine.evaluate.goals import Verdict

STUDY = "study.json"
TRIALS = "trials.jsonl"
RESULT = "result.json"

State = Literal["complete", "stopped", "failed"]


@dataclass(frozen=True)
class Trial:
    """One candidate.

    Attributes:
        number: its place in the study, from 0.
        key: digest of its Steps: the same candidate has the same.
        point: what was chosen.
        state: ``complete``: everything was measured. ``stopped``: it could no longer qualify. ``failed``.
        reason: why it was stopped or failed.
        values: by objective, in order; ``None`` where it was not measured.
        verdicts: on the goals, as far as they were judged.
        metrics: everything that was measured.
        model: digest of its model in the Store, if it was made.
        size_bytes: of the model's files.
        seconds: wall time that this study spent on it.
        steps: its Steps: name, type, digest, seconds, whether the Store had it.
        until: the last pass that ran, in a search pass by pass; empty if all did. No model that ships.
    """

    number: int
    key: str
    point: Mapping[str, Any]
    state: State
    reason: str = ""
    values: Sequence[float | None] = ()
    verdicts: tuple[Verdict, ...] = ()
    metrics: Mapping[str, Any] = field(default_factory=dict)
    model: str | None = None
    size_bytes: int = 0
    seconds: float = 0.0
    steps: Sequence[Mapping[str, Any]] = ()
    until: str = ""

    @property
    def qualifies(self) -> bool:
        """Whether all passes ran, everything was measured and every goal is met."""
        return not self.until and self.state == "complete" and all(verdict.met for verdict in self.verdicts)

    @property
    def is_foreseen(self) -> bool:
        """Whether it was stopped by what shapes tell, before anything was made of it."""
        return self.state == "stopped" and any(verdict.predicted for verdict in self.verdicts)

    @property
    def is_measured(self) -> bool:
        """Whether it has a value for every objective."""
        return all(value is not None for value in self.values)

    @property
    def numbers(self) -> list[float]:
        """The values that were measured."""
        return [value for value in self.values if value is not None]

    @property
    def violation(self) -> tuple[int, float]:
        """How far it is from qualifying: goals that were not judged, then the sum of the distances; sorts."""
        judged = [verdict for verdict in self.verdicts if verdict.measured is not None]
        return len(self.verdicts) - len(judged), sum(verdict.violation for verdict in judged)

    def as_json(self) -> dict[str, Any]:
        """Return it as a JSON object, with ``qualifies`` beside its attributes."""
        content = {each.name: getattr(self, each.name) for each in fields(self)}
        content["verdicts"] = [verdict.as_json() for verdict in self.verdicts]
        return content | {"qualifies": self.qualifies}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Trial:
        """Read what :meth:`as_json` gave."""
        own = {each.name for each in fields(cls)}
        values = {key: value for key, value in content.items() if key in own}
        return cls(**{**values, "verdicts": tuple(Verdict.from_json(each) for each in content["verdicts"])})


class Journal:
    """A study's folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def trials(self) -> list[Trial]:
        """Return the trials that were written whole: the last line may be cut off by a kill."""
        try:
            text = (self.folder / TRIALS).read_text(encoding="utf-8")
        except FileNotFoundError:
            return []
        return [Trial.from_json(json.loads(line)) for line in text.split("\n")[:-1]]

    def study(self) -> dict[str, Any]:
        """Return what is searched."""
        found: dict[str, Any] = json.loads((self.folder / STUDY).read_text(encoding="utf-8"))
        return found

    def result(self) -> dict[str, Any] | None:
        """Return the outcome, ``None`` while there is none."""
        try:
            found: dict[str, Any] = json.loads((self.folder / RESULT).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        return found

    def begin(self, study: Mapping[str, Any]) -> list[Trial]:
        """Write what is searched, and return the trials that a run which was killed has left.

        A study that was finished begins anew: the Store knows what it made, and what failed is tried again.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        if self.result() is not None:
            (self.folder / TRIALS).unlink(missing_ok=True)
            (self.folder / RESULT).unlink()
        trials = self.trials()
        _write(self.folder / TRIALS, "".join(_line(each) for each in trials))
        _write(self.folder / STUDY, json.dumps(study, indent=2, ensure_ascii=False) + "\n")
        return trials

    def add(self, trial: Trial) -> None:
        """Append a trial, so that a kill right after does not lose it."""
        with open(self.folder / TRIALS, "a", encoding="utf-8") as file:
            file.write(_line(trial))
            file.flush()
            os.fsync(file.fileno())

    def finish(self, result: Mapping[str, Any]) -> None:
        """Write the outcome."""
        _write(self.folder / RESULT, json.dumps(result, indent=2, ensure_ascii=False) + "\n")


def _line(trial: Trial) -> str:
    return json.dumps(trial.as_json(), ensure_ascii=False) + "\n"


def _write(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    staging = path.with_name(f".{path.name}.{os.getpid()}")
    with open(staging, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(staging, path)


def studies(cache_dir: Path) -> list[Journal]:
    """Return the studies of a Store, the latest first."""
    folders = [path.parent for path in (cache_dir / "studies").glob(f"*/{STUDY}")]
    return [Journal(each) for each in sorted(folders, key=lambda each: -(each / STUDY).stat().st_mtime)]


def find_study(cache_dir: Path, name: str | None) -> Journal:
    """Return the study whose id begins with ``name``, the latest if it is ``None``.

    Raises:
        ConfigError: there is none, or several.
    """
    found = [each for each in studies(cache_dir) if name is None or each.folder.name.startswith(name)]
    if not found or (name is not None and len(found) > 1):
        raise ConfigError(
            f"there is no study in {cache_dir}" if name is None else f"{len(found)} studies begin with {name!r}",
            remedy="give the folder that engine.cache_dir names with --cache-dir; `olivine study ls` lists the studies",
        )
    return found[0]
