"""One table that turns what lower libraries raise into errors that say what to do.

Exceptions are matched by class name and text, so that no library has to be imported to recognise its errors.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import dataclass

from olivine.errors import EXIT_UNAVAILABLE, OlivineError, Problem, StepError

_OUT_OF_MEMORY = (
    "use a smaller per_device_train_batch_size with more gradient_accumulation_steps, a shorter max_seq_len, "
    "gradient_checkpointing: true, or a machine with more memory"
)


@dataclass(frozen=True)
class _Known:
    """A kind of failure: how to recognise it, and what to say."""

    recognise: Callable[[BaseException], bool]
    what: str
    why: str
    remedy: str
    exit_code: int | None = None


def _named(*names: str) -> Callable[[BaseException], bool]:
    return lambda error: any(cls.__name__ in names for cls in type(error).__mro__)


def _says(*texts: str) -> Callable[[BaseException], bool]:
    return lambda error: any(text in str(error).lower() for text in texts)


def _errno(*numbers: int) -> Callable[[BaseException], bool]:
    return lambda error: isinstance(error, OSError) and error.errno in numbers


_TABLE: tuple[_Known, ...] = (
    _Known(_named("MemoryError"), "{step} ran out of memory", "", _OUT_OF_MEMORY),
    _Known(_named("OutOfMemoryError"), "{step} ran out of GPU memory", "", _OUT_OF_MEMORY),
    _Known(
        _says("can't allocate memory", "cannot allocate memory", "bad_alloc", "failed to allocate memory"),
        "{step} ran out of memory",
        "",
        _OUT_OF_MEMORY,
    ),
    _Known(
        lambda error: _errno(errno.ENOSPC, errno.EDQUOT, errno.EFBIG)(error) or _says("no space left on device")(error),
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


def explain(error: BaseException, step: str) -> OlivineError:
    """Return the error to show for ``error``, raised while ``step`` ran."""
    for known in _TABLE:
        if known.recognise(error):
            said = _one_line(error)
            found = StepError(
                Problem(
                    known.what.format(step=step, error=said),
                    None,
                    known.why.format(step=step, error=said),
                    known.remedy,
                )
            )
            if known.exit_code is not None:
                found.exit_code = known.exit_code
            return found
    return StepError(
        Problem(
            f"{step} failed: {type(error).__name__}: {_one_line(error)}",
            remedy="the log has the whole traceback (--debug shows it)",
        )
    )


def killed(step: str, signal_number: int | None, exit_code: int | None, peak_memory: int, memory: int) -> StepError:
    """Return the error for a worker that ended without an answer.

    Args:
        signal_number: the signal that ended it, if one did.
        exit_code: its exit status otherwise.
        peak_memory: the last peak it reported, in bytes.
        memory: the machine's memory, in bytes.
    """
    peak = f"its last reported peak was {peak_memory / 2**30:.1f} GiB of the {memory / 2**30:.1f} GiB here"
    if signal_number == 9:
        return StepError(
            Problem(
                f"the worker of {step} was killed (signal 9), most likely for want of memory",
                None,
                peak,
                _OUT_OF_MEMORY,
            )
        )
    ended = f"by signal {signal_number}" if signal_number else f"with exit status {exit_code}"
    return StepError(
        Problem(f"the worker of {step} ended {ended} without an answer", None, peak, "see the end of the log")
    )


def beyond_limit(step: str, taken: int, limit: int) -> StepError:
    """Return the error for a worker that was stopped because it took more than ``limit`` bytes."""
    return StepError(
        Problem(
            f"{step} was stopped: it took {taken / 1e9:.2f} GB of memory, and engine.max_memory allows "
            f"{limit / 1e9:.2f} GB",
            None,
            "",
            f"allow more, or {_OUT_OF_MEMORY}",
        )
    )


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return text if len(text) <= 400 else text[:400] + " ..."
