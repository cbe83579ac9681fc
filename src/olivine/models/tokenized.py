"""Text models whose tokenizer transformers loads."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from olivine.errors import ModelError
from olivine.models.text import Message, TextModel


class TokenizedModel(TextModel):
    """Text to ids and back with ``_tokenizer``, which the model's own class loads."""

    _tokenizer: Any

    def encode(self, text: str) -> list[int]:
        """See :meth:`TextModel.encode`."""
        return list(self._tokenizer(text, add_special_tokens=False)["input_ids"])

    def decode(self, ids: Sequence[int]) -> str:
        """See :meth:`TextModel.decode`."""
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=True))

    def pieces(self, ids: Iterator[int]) -> Iterator[str]:
        """See :meth:`TextModel.pieces`."""
        seen: list[int] = []
        told = ""
        for each in ids:
            seen.append(each)
            text = self.decode(seen)
            if text.endswith("\ufffd"):  # the bytes of a character are still coming
                continue
            yield text[len(told) :]
            told = text
        yield self.decode(seen)[len(told) :]

    def _render(self, messages: Sequence[Message]) -> str:
        try:
            rendered = self._tokenizer.apply_chat_template(
                [dict(each) for each in messages], tokenize=False, add_generation_prompt=True
            )
        except Exception as error:  # whatever the template's own code raises
            raise ModelError(
                f"the chat template of {self.path} cannot be applied: {error}", remedy="mend its chat_template.jinja"
            ) from None
        return str(rendered)
