"""What will be trained on, token by token, for ``olivine plan --show-data``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from olivine.config.schema import DataConfig
from olivine.data.rows import read_rows
from olivine.data.sequences import IGNORED, build_sequences


@dataclass(frozen=True)
class PreviewToken:
    """One token.

    Attributes:
        id: its number in the vocabulary.
        text: what it adds to the text; empty for a token that ends within a character, which the next completes.
        in_loss: whether it is in the loss.
    """

    id: int
    text: str
    in_loss: bool


@dataclass(frozen=True)
class PreviewSequence:
    """One sequence without its padding."""

    tokens: tuple[PreviewToken, ...]


def preview(config: DataConfig, tokenizer: Any, count: int) -> list[PreviewSequence]:
    """Return the first ``count`` sequences that ``config`` makes, exactly as training would get them.

    Raises:
        OlivineError: whatever :func:`~olivine.data.rows.read_rows` and
            :func:`~olivine.data.sequences.build_sequences` raise.
    """
    wanted = count if config.max_samples is None else min(count, config.max_samples)
    rows = read_rows(config).rows
    sequences = build_sequences(rows, config.model_copy(update={"max_samples": wanted}), tokenizer)
    result = []
    for ids, labels, length in zip(sequences.input_ids, sequences.labels, sequences.lengths, strict=True):
        texts = decode_each(ids[:length], tokenizer)
        result.append(
            PreviewSequence(
                tuple(
                    PreviewToken(token, text, label != IGNORED)
                    for token, text, label in zip(ids[:length], texts, labels[:length], strict=True)
                )
            )
        )
    return result


def decode_each(ids: Sequence[int], tokenizer: Any) -> list[str]:
    """Return what each token adds to the text; the parts joined are the text.

    A token is decoded together with those before it, since a tokenizer may drop the space at the start of a text, and
    characters may be spread over tokens.
    """
    texts: list[str] = []
    start = pending = 0  # tokens from ``start`` give context; those from ``pending`` have not been shown yet

    def decode(first: int, last: int) -> str:
        return str(tokenizer.decode(ids[first:last], skip_special_tokens=False, clean_up_tokenization_spaces=False))

    for index in range(len(ids)):
        before, now = decode(start, pending), decode(start, index + 1)
        if now.endswith("\ufffd") and index + 1 < len(ids):
            texts.append("")
            continue
        texts.append(now[len(before) :])
        start, pending = pending, index + 1
    return texts
