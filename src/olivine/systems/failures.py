"""One table that turns what lower libraries raise into errors that say what to do.

Exceptions are matched by class name and text, so that no library has to be imported to recognise its errors.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import dataclass

from olivine.config.sizes import gigabytes
from olivine.errors import EXIT_UNAVAILABLE, OlivineError, Problem, StepError

_OUT_OF_MEMORY = "end other programs, use a machine with more memory, or let `olivine plan` say what takes less"


@dataclass(frozen=True)
class _Known:
    """A kind of failure: how to recognise it, and what to say."""

    recognise: Callable[[BaseException], bool]
    what: str
    why: str
    remedy: str
    exit_code: int | None = None
    memory: bool = False
    """Whether memory ran out, so that the peak and the Step's own remedy belong to it."""


def _named(*names: str) -> Callable[[BaseException], bool]:
    return lambda error: any(cls.__name__ in names for cls in type(error).__mro__)


def _says(*texts: str) -> Callable[[BaseException], bool]:
    return lambda error: any(text in str(error).lower() for text in texts)


def _errno(*numbers: int) -> Callable[[BaseException], bool]:
    return lambda error: isinstance(error, OSError) and error.errno in numbers


_TABLE: tuple[_Known, ...] = (
    _Known(_named("MemoryError"), "{step} ran out of memory", "", _OUT_OF_MEMORY, memory=True),
    _Known(_named("OutOfMemoryError"), "{step} ran out of GPU memory", "{error}", _OUT_OF_MEMORY, memory=True),
    _Known(
        _says("can't allocate memory", "cannot allocate memory", "bad_alloc", "failed to allocate memory"),
        "{step} ran out of memory",
        "",
        _OUT_OF_MEMORY,
        memory=True,
    ),
    _Known(
        # torch's writer of archives tells only that less was written than it gave.
        lambda error: (
            _errno(errno.ENOSPC, errno.EDQUOT, errno.EFBIG)(error)
            or _says("no space left on device", "] . unexpected pos ", "pytorchstreamwriter failed writing")(error)
        ),
        "the disk is full",
        "{step} could not write its result",
        "make room (olivine cache gc removes what no run has used for long), or set engine.cache_dir to another disk",
    ),
    _Known(
        _errno(errno.EROFS, errno.EACCES, errno.EPERM),
        "a file cannot be written or read: {error}",
        "",
        "check the permissions of that path",
    ),
    _Known(
        _named("GatedRepoError", "RepositoryNotFoundError"),
        "the hub does not give out this model",
        "{error}",
        "check the id; for a gated model accept its licence on the hub and log in with `hf auth login`",
        EXIT_UNAVAILABLE,
    ),
    _Known(
        _named("OfflineModeIsEnabled", "LocalEntryNotFoundError", "ConnectionError", "ConnectError", "ReadTimeout"),
        "the hub cannot be reached",
        "{error}",
        "check the network, or give a folder that is on this machine",
        EXIT_UNAVAILABLE,
    ),
    _Known(
        _named("ModuleNotFoundError"),
        "{step} needs a package that is not installed: {error}",
        "",
        "`pip install 'olivine[all]'`",
        EXIT_UNAVAILABLE,
    ),
)


def explain(error: BaseException, step: str, *, peak_memory: int = 0, remedy: str = "") -> OlivineError:
    """Return the error to show for ``error``, raised while ``step`` ran.

    Args:
        peak_memory: the most that the worker has held, in bytes, if that is known.
        remedy: what takes less memory in this Step, if the plan knows something.
    """
    for known in _TABLE:
        if known.recognise(error):
            said = _one_line(error)
            why, way_out = known.why.format(step=step, error=said), known.remedy
            if known.memory:
                held = f"it held {gigabytes(peak_memory)} at most" if peak_memory else ""
                why = "; ".join(each for each in (held, why) if each)
                way_out = remedy or way_out
            found = StepError(Problem(known.what.format(step=step, error=said), None, why, way_out))
            if known.exit_code is not None:
                found.exit_code = known.exit_code
            return found
    return StepError(
        Problem(
            f"{step} failed: {type(error).__name__}: {_one_line(error)}",
            remedy="the log has the whole traceback (--debug shows it)",
        )
    )


def killed(
    step: str,
    signal_number: int | None,
    exit_code: int | None,
    peak_memory: int,
    memory: int,
    *,
    limit: int | None = None,
    by_kernel: bool = False,
    remedy: str = "",
) -> StepError:
    """Return the error for a worker that ended without an answer.

    Args:
        signal_number: the signal that ended it, if one did.
        exit_code: its exit status otherwise.
        peak_memory: the most that it was seen to hold, in bytes.
        memory: the machine's memory, in bytes.
        limit: what the processes of its container, or control group, may take together, in bytes.
        by_kernel: whether the system says that it has killed a process for want of memory meanwhile.
        remedy: what takes less memory in this Step, if the plan knows something.
    """
    there = f"the {gigabytes(memory)} of this machine"
    if limit is not None and limit < memory:
        there = f"the {gigabytes(limit)} that this process and its relatives may take together (a container's limit)"
    peak = f"it held {gigabytes(peak_memory)} at most, of {there}"
    if signal_number == 9:
        cause = "by the system, for want of memory" if by_kernel else "most likely for want of memory"
        return StepError(
            Problem(f"the worker of {step} was killed (signal 9), {cause}", None, peak, remedy or _OUT_OF_MEMORY)
        )
    ended = f"by signal {signal_number}" if signal_number else f"with exit status {exit_code}"
    return StepError(
        Problem(f"the worker of {step} ended {ended} without an answer", None, peak, "see the end of the log")
    )


def beyond_limit(step: str, taken: int, limit: int, remedy: str = "") -> StepError:
    """Return the error for a worker that was stopped because it took more than ``limit`` bytes."""
    return StepError(
        Problem(
            f"{step} was stopped: it took {gigabytes(taken)} of memory, and engine.max_memory allows "
            f"{gigabytes(limit)}",
            None,
            "",
            f"allow more, or {remedy or _OUT_OF_MEMORY}",
        )
    )


def hung(step: str, seconds: float) -> StepError:
    """Return the error for a worker that was stopped because it hung for ``seconds``."""
    return StepError(
        Problem(
            f"{step} was stopped: for {seconds:g} s its worker said nothing, computed nothing, and moved no data",
            None,
            "it waits for something that does not come: a network disk, a device, a lock",
            "see the end of the log for where it stood, and run the same command again, which goes on where it was; "
            "if it would have come in time, allow more with engine.hang_timeout",
        )
    )


def too_long(step: str, seconds: float) -> StepError:
    """Return the error for a worker that was stopped because its Step took longer than ``seconds``."""
    return StepError(
        Problem(
            f"{step} was stopped: it was not done after {seconds:g} s, and the configuration allows no more",
            None,
            "",
            "see the end of the log for where it stood, and run the same command again, which goes on from the last "
            "checkpoint if the pass keeps any; if it only needs longer, allow more with timeout of the pass, or with "
            "engine.step_timeout",
        )
    )


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return text if len(text) <= 400 else text[:400] + " ..."
