"""Answers of a model to many prompts, greedily."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from olivine.models.text import TextModel


def answers(
    model: TextModel, prompts: Sequence[Sequence[int]], max_new_tokens: int, batch_size: int
) -> Iterator[tuple[int, str]]:
    """Yield each prompt's row and the answer to it. Prompts of equal length go together: padding is never used, so
    batches do not change answers."""
    by_length: dict[int, list[int]] = defaultdict(list)
    for row, prompt in enumerate(prompts):
        by_length[len(prompt)].append(row)
    for _, rows in sorted(by_length.items()):
        for start in range(0, len(rows), batch_size):
            batch = rows[start : start + batch_size]
            found = model.generate_batch([prompts[row] for row in batch], max_new_tokens)
            for row, ids in zip(batch, found, strict=True):
                yield row, model.decode(ids)
