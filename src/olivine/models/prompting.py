"""How a model that Olivine fine-tuned wants to be asked: read from the workflow that lies beside it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from string import Formatter
from typing import Any

from olivine.models.text import TextModel

WORKFLOW = "workflow.yaml"


@dataclass(frozen=True)
class PromptStyle:
    """How a text becomes a prompt.

    Attributes:
        template: ``str.format`` template with one column; ``None`` puts the text into the chat template.
        add_special_tokens: whether the prompt begins with BOS, if the tokenizer has one.
    """

    template: str | None = None
    add_special_tokens: bool = True

    def encode(self, model: TextModel, text: str) -> list[int]:
        """Return the prompt's ids for ``text``.

        Raises:
            ModelError: there is no template, and the model has no chat template either.
        """
        if self.template is None:
            return model.encode_chat([{"role": "user", "content": text}])
        return model.encode_prompt(fill(self.template, text), add_special_tokens=self.add_special_tokens)


def columns(template: str) -> list[str]:
    """Return the columns of a template, in order, each once.

    Raises:
        ValueError: it is no ``str.format`` template.
    """
    return list(dict.fromkeys(field for _, field, _, _ in Formatter().parse(template) if field is not None))


def fill(template: str, text: str) -> str:
    """Return ``template`` with ``text`` in place of every column, whatever its name. Nothing in it is evaluated."""
    parts = []
    for literal, field, _, _ in Formatter().parse(template):
        parts.append(literal)
        if field is not None:
            parts.append(text)
    return "".join(parts)


def trained_style(folder: Path) -> PromptStyle | None:
    """Return how the model in ``folder`` was asked in training, if the workflow beside it tells and one text suffices.

    That is so if the training text is a chat, or a template whose columns before the last (which the model learned to
    answer with) are a single one.
    """
    file = folder / WORKFLOW
    if not file.is_file():
        return None
    import yaml

    try:
        workflow = yaml.safe_load(file.read_text(encoding="utf-8"))
        passes, configs = workflow.get("passes") or {}, workflow.get("data_configs") or []
        names = [each.get("train_data_config") for each in passes.values()]
        wanted = next((name for name in names if isinstance(name, str)), None)
        config = next((each for each in configs if each.get("name") == wanted), None) if wanted else None
        return _style(config) if config is not None else None
    except (yaml.YAMLError, AttributeError, TypeError, ValueError):
        return None  # somebody's own file of that name: it tells nothing about the prompt


def _style(config: Mapping[str, Any]) -> PromptStyle | None:
    bos = bool(config.get("add_special_tokens", True))
    if config.get("chat_template"):
        return PromptStyle(None, bos)
    template = config.get("prompt_template")
    if template is None and config.get("text_template"):
        template = prompt_part(config["text_template"])
    if template is None or len(columns(template)) != 1:
        return None
    return PromptStyle(template, bos)


def prompt_part(text_template: str) -> str | None:
    """Return ``text_template`` up to its last column, which is what the model answers with; ``None`` if it has none."""
    pieces = list(Formatter().parse(text_template))
    last = max((place for place, piece in enumerate(pieces) if piece[1] is not None), default=None)
    if last is None:
        return None
    parts = []
    for place, (literal, field, _, _) in enumerate(pieces[: last + 1]):
        parts.append(literal.replace("{", "{{").replace("}", "}}"))
        if field is not None and place < last:
            parts.append("{" + field + "}")
    return "".join(parts)
