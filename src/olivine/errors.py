"""What Olivine says when something is wrong, and the exit status that goes with it.

Every error a user can cause carries four things: *what* is wrong, *where* (file, line, path in the configuration),
*why* it matters, and the *remedy*. Anything else that escapes is a defect of Olivine, and is reported as such.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

EXIT_OK = 0
EXIT_FAILED = 1
"""A Step failed, or the environment did, after the run had begun."""
EXIT_INVALID = 2
"""The input (command line, configuration, data, model) is wrong; nothing was started."""
EXIT_UNAVAILABLE = 3
"""The input is understood but needs something that this machine does not have."""
EXIT_GOALS = 4
"""Everything ran; no model met the goals."""
EXIT_INTERRUPTED = 130


@dataclass(frozen=True)
class Location:
    """A place in what the user wrote: ``file:line`` and the dotted path of the key (``passes.lora.r``)."""

    file: str | None = None
    line: int | None = None
    path: str | None = None

    def __str__(self) -> str:
        place = self.file or ""
        if self.line is not None:
            place += f":{self.line}"
        return ", ".join(part for part in (place, self.path) if part)


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong, said in full.

    Attributes:
        what: the fault in one sentence without a final full stop ("`lora_dropuot` is not a key of LoRA").
        where: the place in the configuration or file, if there is one.
        why: what follows from it or what caused it; may be empty.
        remedy: what to do now, as an imperative; may be empty.
    """

    what: str
    where: Location | None = None
    why: str = ""
    remedy: str = ""

    def __str__(self) -> str:
        text = f"{self.where}: {self.what}" if self.where and str(self.where) else self.what
        for part in (self.why, self.remedy):
            if part:
                text += f". {part[0].upper()}{part[1:]}" if not text.endswith(".") else f" {part[0].upper()}{part[1:]}"
        return text if text.endswith((".", "!", "?")) else text + "."


class OlivineError(Exception):
    """Base of everything Olivine raises on purpose. ``exit_code`` is what the command line returns."""

    exit_code = EXIT_FAILED

    def __init__(
        self,
        problems: Problem | Sequence[Problem] | str,
        *,
        where: Location | None = None,
        why: str = "",
        remedy: str = "",
    ) -> None:
        if isinstance(problems, str):
            problems = Problem(problems, where, why, remedy)
        self.problems: tuple[Problem, ...] = (problems,) if isinstance(problems, Problem) else tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))

    def placed(self, where: Location | None) -> Self:
        """Add ``where`` to those problems that do not say a place themselves, and return this error."""
        self.problems = tuple(
            problem if problem.where is not None else replace(problem, where=where) for problem in self.problems
        )
        self.args = ("\n".join(str(problem) for problem in self.problems),)
        return self


class ConfigError(OlivineError):
    """The configuration (or the command line) cannot be accepted. Holds *all* problems found, not the first.

    Attributes:
        dialect: the dialect that the configuration was read as, if it came that far.
        evidence: what in the file told it.
    """

    exit_code = EXIT_INVALID

    def __init__(
        self,
        problems: Problem | Sequence[Problem] | str,
        *,
        where: Location | None = None,
        why: str = "",
        remedy: str = "",
        dialect: str | None = None,
        evidence: str | None = None,
    ) -> None:
        super().__init__(problems, where=where, why=why, remedy=remedy)
        self.dialect = dialect
        self.evidence = evidence


class PlanError(OlivineError):
    """The configuration is well formed, but the run cannot work: missing file or column, passes that do not chain."""

    exit_code = EXIT_INVALID


class DataError(OlivineError):
    """The data is wrong: a missing column, a null, broken JSON at line N, an empty data set."""

    exit_code = EXIT_INVALID


class ModelError(OlivineError):
    """The model folder is wrong: missing files, a pickle-only checkpoint, a truncated shard."""

    exit_code = EXIT_INVALID


class UnavailableError(OlivineError):
    """Something needed is not on this machine: a package, an execution provider, a hub that cannot be reached."""

    exit_code = EXIT_UNAVAILABLE


class StoreError(OlivineError):
    """The Store cannot be used: read-only, full, or holding an artifact that does not match its manifest."""


class StepError(OlivineError):
    """A Step failed while it ran.

    Attributes:
        traceback: the worker's traceback as text, shown with ``--debug`` and kept in the run's log.
    """

    def __init__(
        self,
        problems: Problem | Sequence[Problem] | str,
        *,
        where: Location | None = None,
        why: str = "",
        remedy: str = "",
        traceback: str = "",
    ) -> None:
        super().__init__(problems, where=where, why=why, remedy=remedy)
        self.traceback = traceback
