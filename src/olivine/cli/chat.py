"""Talk with a model. Each line is one message; /reset forgets the conversation, /exit (or the end of input) leaves.

The model's chat template is applied. A model that Olivine fine-tuned on a template without conversation is asked as it
was in training, each line on its own. Works in a pipe too: then the answers alone are printed.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from olivine.cli.generate import (
    add_model_arguments,
    add_prompt_arguments,
    add_sampling_arguments,
    folder_of,
    load,
    sampling_of,
    style_of,
)

if TYPE_CHECKING:
    from olivine.models.prompting import PromptStyle
    from olivine.models.text import Sampling, TextModel

COMMANDS = "/reset forgets the conversation, /exit leaves, /help says this"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `olivine chat`."""
    add_model_arguments(parser)
    parser.add_argument("--system", metavar="TEXT", help="a system message that the conversation begins with")
    add_prompt_arguments(parser)
    add_sampling_arguments(parser, max_new_tokens=256)


def run(arguments: argparse.Namespace) -> int:
    """Load the model and answer line by line."""
    from olivine.errors import EXIT_OK

    sampling = sampling_of(arguments)
    folder = folder_of(arguments.model)
    style = style_of(arguments, folder)
    model = load(arguments, folder)
    talk = _Talk(model, style, arguments, sampling)
    people = sys.stdin.isatty()
    if people:
        print(f"{folder}: {talk.manner}\n{COMMANDS}", file=sys.stderr)
    for line in _lines(people):
        said = line.strip()
        if said in ("/exit", "/quit"):
            break
        if said == "/reset":
            talk.reset()
        elif said == "/help":
            print(COMMANDS, file=sys.stderr)
        elif said:
            try:
                for piece in talk.answer(said):
                    print(piece, end="", flush=True)
            except KeyboardInterrupt:  # ends the answer, not the conversation
                if not people:
                    raise
            print(flush=True)
    return EXIT_OK


def _lines(people: bool) -> Iterator[str]:
    """Yield what is typed, or what comes through the pipe."""
    if not people:
        yield from sys.stdin
        return
    while True:
        try:
            yield input("> ")
        except EOFError:
            print(file=sys.stderr)
            return


class _Talk:
    """A conversation: what was said so far, and how the next message becomes a prompt."""

    def __init__(
        self, model: TextModel, style: PromptStyle | None, arguments: argparse.Namespace, sampling: Sampling
    ) -> None:
        self._model = model
        self._sampling = sampling
        self._new_tokens = arguments.max_new_tokens
        self._bos = not arguments.no_bos
        self._raw = arguments.raw
        self._single = style if style is not None and style.template is not None else None
        self._system = [{"role": "system", "content": arguments.system}] if arguments.system else []
        self._turns: list[dict[str, str]] = []
        self._ends = model.end_of_turn_ids()

    @property
    def manner(self) -> str:
        """How messages are put to the model, in words."""
        if self._single is not None:
            return f"each line is put into {self._single.prompt('...')!r}"
        return "each line is given as it is" if self._raw else "a conversation in the model's chat template"

    def reset(self) -> None:
        """Forget what was said."""
        self._turns.clear()

    def answer(self, text: str) -> Iterator[str]:
        """Yield the answer to ``text`` as it is generated, and remember both."""
        if self._single is not None:
            prompt = self._single.encode(self._model, text)
        elif self._raw:
            prompt = self._model.encode_prompt(text, add_special_tokens=self._bos)
        else:
            self._turns.append({"role": "user", "content": text})
            prompt = self._fitting()
        answer = ""
        try:
            for piece in self._model.pieces(self._tokens(prompt)):
                answer += piece
                yield piece
        finally:
            if self._turns:
                self._turns.append({"role": "assistant", "content": answer})

    def _fitting(self) -> list[int]:
        """Return the conversation's ids, its oldest turns forgotten until an answer fits into the context."""
        while True:
            prompt = self._model.encode_chat([*self._system, *self._turns])
            if len(prompt) + self._new_tokens <= self._model.context_length or len(self._turns) < 3:
                return prompt
            del self._turns[:2]
            print("(the oldest turn is forgotten: the context is full)", file=sys.stderr)

    def _tokens(self, prompt: list[int]) -> Iterator[int]:
        for token in self._model.generate(prompt, self._new_tokens, self._sampling):
            if token in self._ends:
                return
            yield token
