"""Answer one prompt with a model: an output folder of a run, any ONNX Runtime GenAI folder, or a checkpoint.

Prints the answer and nothing else. A model that Olivine fine-tuned is asked as it was in training: the text is put into
the template of its workflow. --raw gives the prompt to the model as it is.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from olivine.models.prompting import PromptStyle
    from olivine.models.text import Sampling, TextModel
    from olivine.passes.base import Accelerator


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `olivine generate`."""
    add_model_arguments(parser)
    parser.add_argument("--prompt", metavar="TEXT", help="what to ask; read from standard input if left out")
    add_prompt_arguments(parser)
    add_sampling_arguments(parser, max_new_tokens=64)
    parser.add_argument(
        "--stop", action="append", default=[], metavar="TEXT", help="end the answer before this text (repeatable)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object: the answer, tokens, seconds")


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what every verb that runs a model shares: which one, and where."""
    parser.add_argument("model", metavar="MODEL", help="model folder, or id of a hub model that is on this machine")
    parser.add_argument(
        "--execution-provider",
        default=None,
        metavar="NAME",
        help="where it runs, e.g. CUDAExecutionProvider (default: CPUExecutionProvider)",
    )
    parser.add_argument(
        "--trust-remote-code", action="store_true", help="let Python code that comes with the model run"
    )


def add_prompt_arguments(parser: argparse.ArgumentParser) -> None:
    """Add how a text becomes a prompt."""
    how = parser.add_mutually_exclusive_group()
    how.add_argument(
        "--prompt-template",
        metavar="TEMPLATE",
        help=r"put the text into this template, e.g. '### Text: {phrase}\n### The tone is:\n' (\n is a line break)",
    )
    how.add_argument("--chat", action="store_true", help="put the text into the model's chat template")
    how.add_argument("--raw", action="store_true", help="give the text to the model as it is")
    parser.add_argument("--no-bos", action="store_true", help="do not begin the prompt with the BOS token")


def add_sampling_arguments(parser: argparse.ArgumentParser, *, max_new_tokens: int) -> None:
    """Add how the answer is drawn."""
    parser.add_argument(
        "--max-new-tokens", type=int, default=max_new_tokens, metavar="N", help="longest answer (default: %(default)s)"
    )
    parser.add_argument(
        "--temperature", type=float, default=0.0, metavar="T", help="0 always takes the likeliest token (default)"
    )
    parser.add_argument("--top-k", type=int, default=50, metavar="N", help="draw among the N likeliest tokens; 0: all")
    parser.add_argument(
        "--top-p", type=float, default=1.0, metavar="P", help="draw among the likeliest P of probability"
    )
    parser.add_argument("--seed", type=int, default=None, metavar="N", help="make drawing repeatable")


def run(arguments: argparse.Namespace) -> int:
    """Load the model, ask it once, print the answer."""
    from olivine.errors import EXIT_OK, ConfigError

    sampling = sampling_of(arguments)
    text = arguments.prompt if arguments.prompt is not None else sys.stdin.read()
    if not text.strip():
        raise ConfigError("there is no prompt", remedy='give one: --prompt "..."')
    folder = folder_of(arguments.model)
    style = style_of(arguments, folder)
    model = load(arguments, folder)
    prompt = style.encode(model, text) if style is not None else _encode_raw(model, text, arguments)
    started = time.perf_counter()
    answer, tokens, ended = answer_of(model, prompt, arguments.max_new_tokens, sampling, arguments.stop)
    seconds = time.perf_counter() - started
    if arguments.json:
        print(
            json.dumps(
                {
                    "answer": answer,
                    "ended": ended,
                    "prompt_tokens": len(prompt),
                    "new_tokens": tokens,
                    "seconds": round(seconds, 4),
                },
                ensure_ascii=False,
            )
        )
    else:
        print(answer.strip())
    return EXIT_OK


def _encode_raw(model: TextModel, text: str, arguments: argparse.Namespace) -> list[int]:
    return model.encode_prompt(text, add_special_tokens=not arguments.no_bos)


def answer_of(
    model: TextModel, prompt: list[int], max_new_tokens: int, sampling: Sampling, stop: list[str]
) -> tuple[str, int, str]:
    """Return the answer, its number of tokens, and why it ended: ``eos``, ``stop`` or ``length``."""
    ids: list[int] = []
    for token in model.generate(prompt, max_new_tokens, sampling):
        ids.append(token)
        if stop:
            text = model.decode(ids)
            place = min((found for each in stop if (found := text.find(each)) >= 0), default=-1)
            if place >= 0:
                return text[:place], len(ids), "stop"
    return model.decode(ids), len(ids), "length" if len(ids) == max_new_tokens else "eos"


def folder_of(model: str) -> Path:
    """Return the folder of the model that was given.

    Raises:
        ModelError: there is no such folder.
        UnavailableError: it is a hub model that is not on this machine.
    """
    from olivine.errors import UnavailableError
    from olivine.models.hub import locate

    found = locate(model).path
    if found is None:
        raise UnavailableError(
            f"{model} is neither a folder nor in this machine's Hugging Face cache",
            remedy=f"download it first: hf download {model}",
        )
    return found


def style_of(arguments: argparse.Namespace, folder: Path) -> PromptStyle | None:
    """Return how the text becomes a prompt; ``None`` gives it to the model as it is.

    Raises:
        ConfigError: the template is no template with one column.
    """
    from olivine.data.templates import parse_template
    from olivine.errors import ConfigError
    from olivine.models.prompting import PromptStyle, trained_style

    if arguments.raw:
        return None
    if arguments.chat:
        return PromptStyle(None)
    if arguments.prompt_template is None:
        return trained_style(folder)
    template = parse_template(unescape(arguments.prompt_template))
    if len(template.columns) != 1:
        raise ConfigError(
            f"--prompt-template has {len(template.columns)} columns, and one text is put into it",
            remedy=r"mark one place, e.g. '### Text: {phrase}\n### The tone is:\n'",
        )
    return PromptStyle(template, add_special_tokens=not arguments.no_bos)


def unescape(template: str) -> str:
    r"""Turn ``\n`` and ``\t``, as a shell leaves them in quotes, into a line break and a tab."""
    return template.replace("\\n", "\n").replace("\\t", "\t")


def sampling_of(arguments: argparse.Namespace) -> Sampling:
    """Return how the answer is drawn.

    Raises:
        ConfigError: a value is out of its range.
    """
    from olivine.errors import ConfigError
    from olivine.models.text import Sampling

    for name, fine, allowed in (
        ("--max-new-tokens", arguments.max_new_tokens >= 1, "1 or more"),
        ("--temperature", arguments.temperature >= 0, "0 or more"),
        ("--top-k", arguments.top_k >= 0, "0 or more"),
        ("--top-p", 0 < arguments.top_p <= 1, "above 0 and at most 1"),
    ):
        if not fine:
            given = getattr(arguments, name.removeprefix("--").replace("-", "_"))
            raise ConfigError(f"{name} {given} is out of range", remedy=f"give {allowed}")
    return Sampling(arguments.temperature, arguments.top_k, arguments.top_p, arguments.seed)


def load(arguments: argparse.Namespace, folder: Path) -> TextModel:
    """Load the model where it was asked to run, with the libraries kept quiet.

    Raises:
        OlivineError: see :func:`olivine.models.text.open_text_model`.
    """
    from olivine.models.text import open_text_model

    for name in ("TQDM_DISABLE", "HF_HUB_DISABLE_PROGRESS_BARS", "HF_HUB_DISABLE_TELEMETRY"):
        os.environ.setdefault(name, "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    return open_text_model(
        folder, target_of(arguments.execution_provider), trust_remote_code=arguments.trust_remote_code
    )


def target_of(execution_provider: str | None) -> Accelerator:
    """Return the accelerator that an execution provider means; the CPU if none was named."""
    from olivine.config.schema import System
    from olivine.hardware.machine import this_machine
    from olivine.hardware.placement import place

    return place(System(execution_provider=execution_provider or "CPUExecutionProvider"), this_machine())
