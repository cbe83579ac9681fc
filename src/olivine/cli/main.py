"""The command ``olivine``: finds the verb, imports its module alone, and turns errors into an exit status.

Nothing heavier than argparse is imported for ``--help``.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import importlib
import os
import sys
from collections.abc import Iterator, Sequence
from types import ModuleType
from typing import TYPE_CHECKING

from olivine import __version__

if TYPE_CHECKING:
    from olivine.errors import OlivineError
    from olivine.systems.base import Interrupted

VERBS: dict[str, str] = {
    "run": "run a workflow: fine-tune, merge, quantise, convert, measure",
    "plan": "show what a run would do, and everything that is wrong, without doing it",
    "optimize": "make the smallest and fastest model for a target; no configuration needed",
    "finetune": "fine-tune a model on your rows; no configuration needed",
    "quantize": "make a quantised checkpoint; no configuration needed",
    "convert": "make an ONNX Runtime GenAI model of a checkpoint; no configuration needed",
    "benchmark": "measure one model and keep the record; no configuration needed",
    "generate": "answer one prompt with a model",
    "chat": "talk with a model",
    "evaluate": "measure models: accuracy, perplexity, speed, size",
    "report": "make the page that shows a run",
    "compare": "show runs beside each other",
    "cache": "list, explain, verify, and collect what earlier runs made",
    "passes": "list the passes, or show one with all its parameters",
    "targets": "list the machines that models may ship to, and what is missing for each here",
    "config": "check configurations, upgrade old ones, show what they mean",
    "study": "look into searches: the front, the pick and why, every trial",
    "azure": "make, remove and list computes of an Azure Machine Learning workspace",
    "doctor": "look for what may keep Olivine from working here",
}
HIDDEN = ("worker",)
FORMER: dict[str, str] = {
    "auto-opt": "optimize",
    "capture-onnx-graph": "convert",
    "manage-aml-compute": "azure compute",
    "shared-cache": "cache",
}
"""What commands of Olive correspond to."""
DEBUG = "--debug"

EXAMPLES = """\
examples:
  olivine run --config olive-config.json
  olivine run --config workflow.yaml --set passes.lora.r=16
  olivine plan workflow.yaml --show-data 2
  olivine generate models --prompt "cricket is a wonderful sport!"
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status (see :mod:`olivine.errors`)."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = DEBUG in arguments  # wherever it stands: before the verb too, or behind the action of one
    arguments = [each for each in arguments if each != DEBUG]
    verb = next((each for each in arguments if not each.startswith("-")), None)
    if verb in HIDDEN or (verb in VERBS and arguments[0] == verb):
        try:
            return _run_verb(verb, arguments[1:], debug=debug or os.environ.get("OLIVINE_DEBUG") == "1")
        except KeyboardInterrupt:  # while the verb's module was imported: nothing has begun
            print("Stopped.", file=sys.stderr)
            return 130
    parser = _top_parser()
    if not arguments:
        parser.print_help()
        return 0
    parser.parse_args(arguments)
    return 0


def _top_parser() -> argparse.ArgumentParser:
    """Return the parser that knows the verbs' names only; a wrong verb ends here with the nearest one."""
    parser = _Parser(
        prog="olivine",
        description="One config file, one command: from a language model to the artefact that ships.",
        epilog="verbs:\n"
        + "".join(f"  {verb:<10} {summary}\n" for verb, summary in VERBS.items())
        + "\n"
        + EXAMPLES
        + "\n`olivine VERB --help` explains each verb.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage="olivine VERB [options]",
    )
    parser.add_argument("--version", action="version", version=f"olivine {__version__}")
    parser.add_argument("verb", choices=list(VERBS), metavar="VERB", help=argparse.SUPPRESS)
    return parser


class _Parser(argparse.ArgumentParser):
    """Says the nearest valid choice when a verb or option is misspelled."""

    def error(self, message: str) -> None:  # type: ignore[override]
        import difflib

        given = message.split("'")[1] if "'" in message else message.rsplit(": ", 1)[-1].split(" ")[0]
        if "invalid choice" in message:
            known = message.partition("choose from")[2].strip(" ()").replace("'", "").split(", ")
        else:
            known = [option for action in self._actions for option in action.option_strings]
        near = difflib.get_close_matches(given.split("=")[0], known, n=1, cutoff=0.5)
        hint = f" Did you mean {near[0]}?" if near else ""
        if "VERB" in message and given in FORMER:
            hint = f" What Olive does with it, `olivine {FORMER[given]}` does."
        self.exit(2, f"olivine: {message}.{hint} `{self.prog} --help` shows what there is.\n")


def _run_verb(verb: str, arguments: Sequence[str], *, debug: bool) -> int:
    """Import the verb's module and run it."""
    # Pydantic would look through every installed package for plug-ins of its own; none is of use here.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    from olivine.telemetry import switch_off_telemetry

    switch_off_telemetry()
    # What is imported stays to the end; to look for garbage in it again and again takes a tenth of a short command.
    gc.set_threshold(50_000, 20, 20)
    module = importlib.import_module(f"olivine.cli.{verb}")
    parser = _Parser(
        prog=f"olivine {verb}",
        description=module.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    module.add_arguments(parser)
    if verb not in HIDDEN:
        parser.add_argument(DEBUG, action="store_true", help="show tracebacks")
    parsed = parser.parse_args(arguments)
    if verb in HIDDEN:
        return _guarded(module, parsed, debug=debug)
    from olivine.redaction import RedactedOutput

    # What a user's umask lets others write, they could change before it is used.
    os.umask(os.umask(0o022) | 0o022)
    with RedactedOutput():
        return _guarded(module, parsed, debug=debug)


def _guarded(module: ModuleType, arguments: argparse.Namespace, *, debug: bool) -> int:
    """Run a verb; every failure becomes one paragraph per problem and an exit status."""
    from olivine.errors import EXIT_FAILED, EXIT_INTERRUPTED, OlivineError

    try:
        return int(module.run(arguments))
    except OlivineError as error:
        if debug:
            import traceback

            print(getattr(error, "traceback", "") or traceback.format_exc(), file=sys.stderr)
        print(_told(error), file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt as stopped:
        with _interrupts(allowed=False):  # whoever is impatient presses it several times
            print(_left(stopped), file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has gone (`olivine plan ... | head`): nothing more can be said.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILED
    except BaseException as error:  # what native libraries throw is no Exception
        if isinstance(error, SystemExit | GeneratorExit):
            raise
        if debug:
            import traceback

            traceback.print_exc(file=sys.stderr)  # not raised: Python would show it past the redaction
            return EXIT_FAILED
        print(
            f"olivine: internal error: {type(error).__name__}: {error}. This is a defect of Olivine, not of your "
            "input. Run it again with --debug and report the traceback.",
            file=sys.stderr,
        )
        return EXIT_FAILED


def _left(stopped: KeyboardInterrupt) -> str:
    """Return what to say of a run that the user stopped; what goes on elsewhere is ended if the user says so."""
    from olivine.errors import OlivineError

    left = _elsewhere(stopped)
    if left is None:
        return "Stopped. Run the same command again to go on where it was."
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return f"Stopped waiting. {left.text}"
    print(f"{left.text}\nEnd it now? [y/N] ", end="", file=sys.stderr, flush=True)
    try:
        with _interrupts(allowed=True):
            answer = sys.stdin.readline()
        if answer.strip().lower() not in ("y", "yes"):
            return "It goes on."
        left.cancel()
    except KeyboardInterrupt:
        return "\nIt goes on."
    except OlivineError as error:
        return f"{_told(error)}\nIt goes on, as far as is known."
    return "It is being ended."


@contextlib.contextmanager
def _interrupts(*, allowed: bool) -> Iterator[None]:
    """Let Ctrl-C interrupt, or do nothing, while this is entered."""
    import signal
    import threading

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.default_int_handler if allowed else signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _elsewhere(stopped: BaseException) -> Interrupted | None:
    """Return what goes on elsewhere: told by the interruption, or by the one before it if the user was impatient."""
    from olivine.systems.base import Interrupted

    found: BaseException | None = stopped
    while found is not None and not isinstance(found, Interrupted):
        found = found.__context__
    return found


def _told(error: OlivineError) -> str:
    """Return an error as the user sees it: each problem wrapped to a paragraph of its own."""
    import shutil
    import textwrap

    problems = error.problems
    width = max(60, min(120, shutil.get_terminal_size().columns))
    head = "error: " if len(problems) == 1 else f"{len(problems)} errors\n"
    if len(problems) == 1:
        return textwrap.fill(head + str(problems[0]), width, break_long_words=False, break_on_hyphens=False)
    paragraphs = [
        textwrap.fill(
            f"{number}. {problem}", width, subsequent_indent="   ", break_long_words=False, break_on_hyphens=False
        )
        for number, problem in enumerate(problems, 1)
    ]
    return head + "\n".join(paragraphs)


if __name__ == "__main__":
    sys.exit(main())
