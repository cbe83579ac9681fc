"""From a row to the text of it, and which parts of the text are in the loss.

A template is a ``str.format`` template whose names are columns; they may contain spaces. Attributes and items
(``{a.b}``, ``{a[0]}``) are refused: with them a template could reach into Python objects.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from string import Formatter
from typing import Any

from olivine.config.schema import DataConfig
from olivine.data.formats import Row, kind
from olivine.data.sources import nearest
from olivine.errors import ConfigError, DataError, Location, Problem

_DIGITS = 4
"""Of a width or a precision in a template; a longer one is there to fill memory."""


@dataclass(frozen=True)
class Piece:
    """A part of a text.

    Attributes:
        text: may be empty.
        in_loss: whether the model is trained to produce it.
    """

    text: str
    in_loss: bool


@dataclass(frozen=True)
class Text:
    """The text of one row.

    Attributes:
        pieces: in order; for ``dataset_type: pair`` exactly two, the prompt and the completion.
    """

    pieces: tuple[Piece, ...]

    @property
    def text(self) -> str:
        """The whole."""
        return "".join(piece.text for piece in self.pieces)


@dataclass(frozen=True)
class Template:
    """A parsed template.

    Attributes:
        source: as written.
        parts: literal text and, after it, the column, the format specification and the conversion (``None``: the
            template ends with the literal).
    """

    source: str
    parts: tuple[tuple[str, tuple[str, str, str | None] | None], ...]

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns it uses, in order, each once."""
        return tuple(dict.fromkeys(field[0] for _, field in self.parts if field is not None))

    def fill(self, values: dict[str, Any], first: int = 0, last: int | None = None) -> str:
        """Render its parts ``first`` to ``last``.

        Raises:
            KeyError: a column is missing.
            ValueError: a format specification does not fit the value.
        """
        text = []
        for literal, field in self.parts[first:last]:
            text.append(literal)
            if field is not None:
                column, specification, conversion = field
                text.append(format(_CONVERT[conversion](values[column]), specification))
        return "".join(text)

    def split(self) -> tuple[Template, Template]:
        """Return what is before the last placeholder, and the rest."""
        at = max(index for index, (_, field) in enumerate(self.parts) if field is not None)
        literal, field = self.parts[at]
        return (
            Template(self.source, (*self.parts[:at], (literal, None))),
            Template(self.source, (("", field), *self.parts[at + 1 :])),
        )


_CONVERT: dict[str | None, Callable[[Any], Any]] = {None: lambda value: value, "s": str, "r": repr, "a": ascii}


@lru_cache(maxsize=64)
def parse_template(template: str) -> Template:
    """Parse a template.

    Raises:
        ConfigError: a brace is single, a placeholder is empty, or it asks for an attribute or an item.
    """
    doubled = "write a literal brace twice: {{ and }}"
    parts: list[tuple[str, tuple[str, str, str | None] | None]] = []
    try:
        for literal, name, specification, conversion in Formatter().parse(template):
            if name is None:
                parts.append((literal, None))
                continue
            if not name.strip():
                raise ConfigError("an empty placeholder {} names no column", remedy=f"name a column, or {doubled}")
            if "." in name or "[" in name or "]" in name:
                raise ConfigError(
                    f"the placeholder {{{name}}} asks for a part of a value",
                    why="a template may name columns only",
                    remedy=f"make what is wanted a column of its own, or {doubled}",
                )
            if "{" in (specification or "") or '"' in name or "'" in name or "\n" in name:
                raise ConfigError(f"the placeholder {{{name}}} cannot be read", remedy=doubled)
            if any(len(number) > _DIGITS for number in re.findall(r"\d+", specification or "")):
                raise ConfigError(
                    f"the placeholder {{{name}:{specification}}} makes every text as long as that", remedy=doubled
                )
            if conversion not in _CONVERT:
                raise ConfigError(f"!{conversion} is no conversion in {{{name}}}", remedy="use !s, !r or !a")
            parts.append((literal, (name, specification or "", conversion)))
    except ValueError as error:
        raise ConfigError(f"the template cannot be read: {error}", remedy=doubled) from error
    return Template(template, tuple(parts))


@dataclass(frozen=True)
class Shape:
    """What a data config makes of a row: one text, a prompt and a completion, or a chat.

    Attributes:
        columns: what is used, in order.
        prompt: what comes before the completion; ``None`` if there is no such part.
        rest: the completion, or the whole text.
        chat: whether the text comes from the chat template.
        pair: whether prompt and completion are cut separately.
        completion_only: whether only the completion (or the assistant's turns) is in the loss.
    """

    columns: tuple[str, ...]
    prompt: Template | None = None
    rest: Template | None = None
    chat: bool = False
    pair: bool = False
    completion_only: bool = False


def shape_of(config: DataConfig) -> Shape:
    """Return what ``config`` makes of a row.

    Order of the sources, the first that is set wins: ``chat_template``; for pairs prompt and completion;
    ``text_template``; ``text_cols``; for a corpus prompt and completion, joined; column ``text``.

    Raises:
        ConfigError: it is contradictory or incomplete; ``where`` of a problem holds the key.
    """
    return _shape_of(
        config.dataset_type == "pair",
        bool(config.chat_template),
        config.message_col,
        config.text_template,
        tuple([config.text_cols] if isinstance(config.text_cols, str) else config.text_cols or ())
        if config.text_cols is not None
        else None,
        (config.prompt_template, config.prompt_col),
        (config.completion_template, config.completion_col),
        config.train_on,
    )


@lru_cache(maxsize=64)
def _shape_of(
    pair: bool,
    chat: bool,
    message_col: str,
    text_template: str | None,
    text_cols: tuple[str, ...] | None,
    prompt_keys: tuple[str | None, str | None],
    completion_keys: tuple[str | None, str | None],
    train_on: str | None,
) -> Shape:
    completion_only = train_on == "completion" or (train_on is None and pair)
    if chat:
        if pair:
            raise _config_error(
                "dataset_type",
                "a chat is no pair of prompt and completion",
                "leave dataset_type out; train_on: completion trains on the assistant's turns only",
            )
        return Shape((message_col,), chat=True, completion_only=completion_only)
    prompt = _either("prompt", *prompt_keys)
    rest: Template | None = _either("completion", *completion_keys)
    if pair:
        if text_template is not None and prompt is None and rest is None:
            prompt, rest = _split("text_template", text_template)
        for name, part in (("prompt", prompt), ("completion", rest)):
            if part is None:
                raise _config_error(
                    "dataset_type", f"a pair needs a {name}", f"set {name}_template or {name}_col", f"{name}_col"
                )
    elif text_template is not None:
        if completion_only:
            prompt, rest = _split("text_template", text_template)
        else:
            prompt, rest = None, _parse("text_template", text_template)
            if not rest.columns:
                raise _no_placeholder("text_template")
    elif text_cols is not None or (prompt is None and rest is None):
        cols = ("text",) if text_cols is None else text_cols
        if not cols:
            raise _config_error("text_cols", "text_cols is empty", "name at least one column")
        if completion_only and len(cols) == 1:
            raise _config_error(
                "train_on",
                "train_on: completion needs a text of two parts, and there is one column only",
                "set prompt_col and completion_col, or a text_template whose last column is the completion",
            )
        separated = [(" " if index else "", (column, "", None)) for index, column in enumerate(cols)]
        cut = len(separated) - 1 if completion_only else 0
        prompt = Template("", (*separated[:cut], (" ", None))) if cut else None
        rest = Template("", (("", separated[cut][1]), *separated[cut + 1 :]))
    elif prompt is None or rest is None:
        if completion_only:
            missing = "prompt" if prompt is None else "completion"
            raise _config_error(
                "train_on", f"train_on: completion needs a {missing}", f"set {missing}_template or {missing}_col"
            )
        prompt, rest = None, prompt or rest
    columns = (*(prompt.columns if prompt else ()), *(rest.columns if rest else ()))
    return Shape(tuple(dict.fromkeys(columns)), prompt, rest, pair=pair, completion_only=completion_only)


def used_columns(config: DataConfig) -> set[str]:
    """Return the columns that the text of a row is made from.

    Raises:
        ConfigError: the config is contradictory, or a template cannot be read.
    """
    return set(shape_of(config).columns)


def render(config: DataConfig, row: Row, tokenizer: Any = None) -> Text:
    """Return the text of ``row``.

    Args:
        tokenizer: a ``transformers`` tokenizer; needed for a chat template only.

    Raises:
        DataError: a used column is missing, null, or of the wrong type, or the chat template refuses the messages.
        ConfigError: the config is contradictory, or the tokenizer has no chat template.
    """
    shape = shape_of(config)
    problem = problem_in(row, shape.columns, chat=shape.chat)
    if problem is not None:
        raise DataError(problem)
    if shape.chat:
        from olivine.data.chat import render_chat

        if tokenizer is None:
            raise ValueError("a chat template cannot be rendered without the tokenizer")
        return Text(render_chat(config, row, tokenizer, completion_only=shape.completion_only))
    assert shape.rest is not None
    try:
        rest = shape.rest.fill(row.values)
        prompt = shape.prompt.fill(row.values) if shape.prompt is not None else None
    except (ValueError, TypeError) as error:
        raise DataError(
            f"the template cannot format this row: {error}", where=row.where, remedy="correct the template or the row"
        ) from error
    if prompt is None:
        return Text((Piece(rest, True),))
    return Text((Piece(prompt, not shape.completion_only), Piece(rest, True)))


def problem_in(row: Row, columns: Iterable[str], *, chat: bool = False) -> Problem | None:
    """Return what is wrong with the first of ``columns`` in ``row`` that has something wrong.

    A number, a date, or a truth value is text as ``str`` writes it; null, NaN, a list, an object, or binary is none.

    Args:
        chat: whether the columns hold lists of messages instead of text.
    """
    for column in columns:
        if column not in row.values:
            meant = nearest(column, row.values)
            return Problem(
                f"column {column!r} is missing", row.where, remedy=f"did you mean {meant!r}?" if meant else ""
            )
        value = row.values[column]
        fault = _fault_in_chat(value) if chat else _fault_in_text(value)
        if fault:
            return Problem(f"column {column!r} {fault}", row.where)
    return None


def _fault_in_text(value: Any) -> str:
    if isinstance(value, str):
        # JSON may escape half of a surrogate pair, which is no character and cannot be tokenised.
        try:
            value.encode("utf-8")
        except UnicodeEncodeError:
            return "holds half of a surrogate pair, which is not a character"
        return ""
    if value is None:
        return "is null"
    if isinstance(value, float) and math.isnan(value):
        return "is not a number (NaN)"
    if isinstance(value, list | tuple | dict | bytes):
        return f"holds {kind(value)} where text is expected"
    return ""


def _fault_in_chat(value: Any) -> str:
    if value is None:
        return "is null"
    if not isinstance(value, list):
        return f"holds {kind(value)} where a list of messages is expected"
    if not value:
        return "holds no messages"
    for number, message in enumerate(value, 1):
        if not isinstance(message, dict):
            return f"holds {kind(message)} as message {number}; an object with role and content is expected"
        if not isinstance(message.get("role"), str):
            return f"has no role in message {number}"
        content = message.get("content")
        if content is None and not message.get("tool_calls"):
            return f"has no content in message {number}"
        if content is not None and not isinstance(content, list) and (fault := _fault_in_text(content)):
            return f"{fault} in message {number}"
    return ""


def _either(name: str, template: str | None, column: str | None) -> Template | None:
    if template is not None and column is not None:
        raise _config_error(
            f"{name}_col", f"{name}_template and {name}_col say the same thing twice", "keep one of them"
        )
    if template is not None:
        parsed = _parse(f"{name}_template", template)
        if not parsed.columns:
            raise _no_placeholder(f"{name}_template")
        return parsed
    return Template("", (("", (column, "", None)),)) if column is not None else None


def _split(key: str, template: str) -> tuple[Template, Template]:
    parsed = _parse(key, template)
    if not parsed.columns:
        raise _no_placeholder(key)
    return parsed.split()


def _parse(key: str, template: str) -> Template:
    try:
        return parse_template(template)
    except ConfigError as error:
        problem = error.problems[0]
        raise ConfigError(problem.what, where=Location(path=key), why=problem.why, remedy=problem.remedy) from error


def _no_placeholder(key: str) -> ConfigError:
    return _config_error(
        key, f"{key} names no column, so every row would be the same text", "name a column in braces: {phrase}"
    )


def _config_error(key: str, what: str, remedy: str, at: str | None = None) -> ConfigError:
    return ConfigError(what, where=Location(path=at or key), remedy=remedy)
