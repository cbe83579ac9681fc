"""Chats: the text of a list of messages, and which of it the assistant says."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from olivine.config.schema import DataConfig
from olivine.data.bounds import bounded
from olivine.errors import ConfigError, DataError, Location

if TYPE_CHECKING:
    from olivine.data.formats import Row
    from olivine.data.templates import Piece


def render_chat(config: DataConfig, row: Row, tokenizer: Any, *, completion_only: bool) -> tuple[Piece, ...]:
    """Return the text of a chat as the tokenizer's chat template (or the config's own) writes it.

    With ``completion_only`` the assistant's turns are in the loss: what the template marks with ``{% generation %}``
    or, if it marks nothing, from the end of the generation prompt to the end of the turn, its closing token included.

    Raises:
        ConfigError: there is no chat template.
        DataError: the template refuses the messages.
    """
    from olivine.data.templates import Piece

    template = config.chat_template if isinstance(config.chat_template, str) else None
    if template is None and not getattr(tokenizer, "chat_template", None):
        raise ConfigError(
            "chat_template: true needs a chat template, and the model's tokenizer has none",
            where=Location(path="chat_template"),
            remedy="set chat_template to a Jinja template of your own, or use text_template",
        )
    messages: list[dict[str, Any]] = row.values[config.message_col]
    try:
        text = _apply(tokenizer, messages, template)
    except Exception as error:  # a template may raise whatever Jinja or its author has
        raise DataError(
            f"column {config.message_col!r}: the chat template refuses the messages: {error}",
            where=row.where,
            remedy="mend the row, or set chat_template to a Jinja template that takes it",
        ) from error
    if not completion_only:
        return (Piece(text, True),)
    spans = _marked(tokenizer, messages, template)
    if spans is None:
        spans = _turns(tokenizer, messages, template, text)
    pieces, position = [], 0
    for start, end in spans:
        pieces += [Piece(text[position:start], False), Piece(text[start:end], True)]
        position = end
    pieces.append(Piece(text[position:], False))
    return tuple(piece for piece in pieces if piece.text)


def _apply(tokenizer: Any, messages: list[dict[str, Any]], template: str | None, prompt: bool = False) -> str:
    with bounded():
        return str(
            tokenizer.apply_chat_template(
                messages, chat_template=template, tokenize=False, add_generation_prompt=prompt
            )
        )


def _marked(tokenizer: Any, messages: list[dict[str, Any]], template: str | None) -> list[tuple[int, int]] | None:
    """Return the character spans inside ``{% generation %}``, or ``None`` if the template has no such marks."""
    from transformers.utils.chat_template_utils import render_jinja_template

    source = tokenizer.get_chat_template(template)
    if "generation" not in source.replace("add_generation_prompt", ""):
        return None
    clean = [{key: value for key, value in message.items() if value is not None} for message in messages]
    with bounded():
        _, spans = render_jinja_template(
            conversations=[clean],
            chat_template=source,
            return_assistant_tokens_mask=True,
            **tokenizer.special_tokens_map,
        )
    return [(start, end) for start, end in spans[0]] or None


def _turns(tokenizer: Any, messages: list[dict[str, Any]], template: str | None, text: str) -> list[tuple[int, int]]:
    """Find the assistant's turns by rendering the chat up to each of them and comparing with the whole."""
    spans: list[tuple[int, int]] = []
    for index, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        start = max(_common(tokenizer, messages[:index], template, text, prompt=True), spans[-1][1] if spans else 0)
        content = message.get("content")
        if isinstance(content, str) and content.strip():
            # A template that knows no generation prompt leaves the turn's header to be stepped over.
            without = _common(tokenizer, messages[:index], template, text, prompt=False)
            at = text.find(content.strip(), start)
            if start == without and at > start:
                start = at
        end = len(text)
        if index + 1 < len(messages):
            end = _common(tokenizer, messages[: index + 1], template, text, prompt=False)
        if end > start:
            spans.append((start, end))
    return spans


def _common(tokenizer: Any, messages: list[dict[str, Any]], template: str | None, text: str, *, prompt: bool) -> int:
    """Return how many characters ``text`` and the rendering of its first ``messages`` have in common at the start."""
    try:
        other = _apply(tokenizer, messages, template, prompt)
    except Exception:  # an empty or one-sided chat, which some templates refuse: nothing is in common then
        return 0
    length = next((i for i, (a, b) in enumerate(zip(text, other, strict=False)) if a != b), min(len(text), len(other)))
    # Two special tokens may begin alike ("<|user|>", "<|endoftext|>"); half of one belongs to neither side.
    for token in tokenizer.get_added_vocab():
        at = text.find(token, max(0, length - len(token) + 1), length + len(token) - 1)
        if 0 <= at < length < at + len(token):
            return at
    return length
