"""Calling the model builder of ONNX Runtime GenAI, in this process or in one of its own."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context, parent_process
from multiprocessing.connection import wait
from pathlib import Path

from olivine.errors import OlivineError, StepError
from olivine.models.genai import disable_telemetry
from olivine.passes.base import RunContext
from olivine.passes.importing import uncollected


def build(source: Path, output: Path, precision: str, provider: str, arguments: Sequence[str], scratch: Path) -> None:
    """Call the builder's two public functions: ``parse_extra_options``, which prepares, and ``create_model``.

    Args:
        source: checkpoint folder.
        output: folder to make.
        precision: in the builder's words.
        provider: in the builder's words (``cpu``).
        arguments: extra options, ``KEY=VALUE``.
        scratch: folder for what the builder puts aside; made, and gone afterwards.

    Raises:
        StepError: the builder failed.
    """
    _import_builder()
    from onnxruntime_genai.models import builder

    disable_telemetry()
    shutil.rmtree(scratch, ignore_errors=True)  # of a build that was killed
    place = (None, str(source), str(output), precision, provider, str(scratch))
    try:
        with _no_git():
            options = builder.parse_extra_options(*place, list(arguments))
            builder.create_model(*place, **options)
    except (MemoryError, OSError, OlivineError):
        raise
    except Exception as error:  # the builder raises what its libraries raise, and bare Exception
        if type(error).__name__ == "OutOfMemoryError":
            raise
        said = " ".join(str(error).split())[:400]
        raise StepError(
            f"the model builder failed: {type(error).__name__}: {said}",
            why=f"precision {precision}, {provider}, options {' '.join(arguments)}",
            remedy="try it without the optional parameters; the log holds what the builder printed",
        ) from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


@contextlib.contextmanager
def _no_git() -> Iterator[None]:
    """Keep the builder from asking git for a commit.

    It asks where it is installed, so with an environment inside somebody's repository it would write their commit into
    the model, which would be another one after every commit. Without an answer it writes that of its own release.
    """
    before = os.environ.get("GIT_DIR")
    os.environ["GIT_DIR"] = os.devnull
    try:
        yield
    finally:
        if before is None:
            del os.environ["GIT_DIR"]
        else:
            os.environ["GIT_DIR"] = before


APART = 1 << 30
"""Bytes of a checkpoint from which the graph of its skeleton is built in a process of its own.

Starting one takes about five seconds. It gives back the 400 MB that the builder's libraries take, which counts where
memory is scarce, and is little beside what else this process holds where the model is small.
"""


class BuilderProcess:
    """A process for the model builder: what its libraries take is given back when it ends.

    It starts at once, and imports them while the caller prepares what they are to build. Use it as a context.
    """

    def __init__(self) -> None:
        self._pool = ProcessPoolExecutor(1, mp_context=get_context("spawn"), initializer=_end_with_parent)
        self._pool.submit(_import_builder)

    def __enter__(self) -> BuilderProcess:
        return self

    def __exit__(self, *raised: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def build(
        self, source: Path, builds: Mapping[Path, Sequence[str]], precision: str, provider: str, scratch: Path
    ) -> None:
        """Do as :func:`build` for each folder, and end the process.

        Args:
            source: checkpoint folder.
            builds: extra options by the folder to make.
            precision: in the builder's words.
            provider: in the builder's words.
            scratch: folder for what the builder puts aside.

        Raises:
            StepError: the builder failed, or its process died.
        """
        with self:
            try:
                for output, arguments in builds.items():
                    self._pool.submit(build, source, output, precision, provider, list(arguments), scratch).result()
            except BrokenProcessPool as error:
                raise StepError(
                    "the process of the model builder died",
                    why="it was killed from outside, or by the system for want of memory",
                    remedy="run the same command again; the log holds what the builder printed",
                ) from error


def _import_builder() -> None:
    with uncollected():
        from onnxruntime_genai.models import builder  # noqa: F401


def _end_with_parent() -> None:
    """Have this process end when the one that started it does, however that dies: a pool's process would stay."""
    parent = parent_process()
    assert parent is not None

    def watch() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


@contextlib.contextmanager
def layers_reported(context: RunContext) -> Iterator[None]:
    """Report the builder's progress from what it prints: it offers no callback."""
    config = json.loads((context.inputs["model"] / "config.json").read_text(encoding="utf-8"))
    config = config | config.get("text_config", {}) if isinstance(config.get("text_config"), dict) else config
    with contextlib.redirect_stdout(_Layers(context, int(config.get("num_hidden_layers") or 1))):
        yield


class _Layers(io.TextIOBase):
    """Passes on what the builder prints, and turns its lines ``Reading layer N`` into progress."""

    def __init__(self, context: RunContext, total: int) -> None:
        self._context = context
        self._total = total
        self._below = sys.stdout

    def write(self, text: str) -> int:
        """Pass ``text`` on."""
        if text.startswith("Reading layer "):
            number = text.split()[2]
            if number.isdigit():
                self._context.progress(int(number) + 1, self._total, unit="layers", message="building")
        elif text.startswith("Saving ONNX model"):
            self._context.progress(self._total, self._total, unit="layers", message="quantising and writing")
        return self._below.write(text)

    def flush(self) -> None:
        """Flush what is below."""
        self._below.flush()
