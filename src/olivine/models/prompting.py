"""How a model that Olivine fine-tuned wants to be asked: read from the workflow that lies beside it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from olivine.models.text import TextModel

if TYPE_CHECKING:
    from olivine.config.schema import DataConfig
    from olivine.data.templates import Template

WORKFLOW = "workflow.yaml"


@dataclass(frozen=True)
class PromptStyle:
    """How a text becomes a prompt.

    Attributes:
        template: template with one column; ``None`` puts the text into the model's chat template.
        add_special_tokens: whether the prompt begins with BOS, if the tokenizer has one.
    """

    template: Template | None = None
    add_special_tokens: bool = True

    def prompt(self, text: str) -> str:
        """Return ``text`` in the template. Nothing in either is evaluated."""
        assert self.template is not None
        return self.template.fill(dict.fromkeys(self.template.columns, text))

    def encode(self, model: TextModel, text: str) -> list[int]:
        """Return the prompt's ids for ``text``.

        Raises:
            ModelError: there is no template, and the model has no chat template either.
        """
        if self.template is None:
            return model.encode_chat([{"role": "user", "content": text}])
        return model.encode_prompt(self.prompt(text), add_special_tokens=self.add_special_tokens)


def trained_style(folder: Path) -> PromptStyle | None:
    """Return how the model in ``folder`` was asked in training, if the workflow beside it tells and one text suffices.

    That is so if the training text is a chat, or one whose columns before the last (which the model learned to answer
    with) are a single one.
    """
    file = folder / WORKFLOW
    if not file.is_file():
        return None
    import yaml

    from olivine.config.schema import DataConfig

    try:
        workflow = yaml.safe_load(file.read_text(encoding="utf-8"))
        passes, configs = workflow.get("passes") or {}, workflow.get("data_configs") or []
        names = [each.get("train_data_config") for each in passes.values()]
        wanted = next((name for name in names if isinstance(name, str)), None)
        found = next((each for each in configs if each.get("name") == wanted), None) if wanted else None
        return _style(DataConfig.model_validate(found)) if found is not None else None
    except (yaml.YAMLError, AttributeError, TypeError, ValueError):
        return None  # somebody's own file of that name: it tells nothing about the prompt


def _style(config: DataConfig) -> PromptStyle | None:
    if config.chat_template:
        # A template of the config's own is not the one that lies beside the model.
        return PromptStyle(None) if config.chat_template is True else None
    template = prompt_of(config)
    if template is None or len(template.columns) != 1:
        return None
    return PromptStyle(template, config.add_special_tokens)


def prompt_of(config: DataConfig) -> Template | None:
    """Return the template of what comes before the completion, ``None`` if the text of ``config`` has no such parts."""
    from olivine.data.templates import shape_of
    from olivine.errors import ConfigError

    try:
        shape = shape_of(config.model_copy(update={"train_on": "completion"}))
    except ConfigError:
        return None
    return shape.prompt if shape.prompt is not None and shape.prompt.columns else None
