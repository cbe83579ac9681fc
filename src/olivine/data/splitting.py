"""Taking an evaluation set out of rows, before anything is packed, so that no row is on both sides."""

from __future__ import annotations

import json
import random
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from olivine.data.formats import Row
from olivine.errors import DataError


@dataclass(frozen=True)
class SplitReport:
    """What the split did.

    Attributes:
        train_rows: rows to train on.
        eval_rows: rows to evaluate on.
        duplicates: evaluation rows whose values also occur in the training rows; 0 if identical rows are kept together.
        duplicate_rows: rows that repeat an earlier one, in both parts together.
    """

    train_rows: int
    eval_rows: int
    duplicates: int
    duplicate_rows: int


def split_rows(
    rows: Sequence[Row],
    eval_size: float | int,
    seed: int,
    *,
    group_duplicates: bool = True,
    columns: Collection[str] | None = None,
) -> tuple[list[Row], list[Row], SplitReport]:
    """Split rows at random into training and evaluation rows; both keep the order of ``rows``.

    Args:
        rows: all rows.
        eval_size: evaluation rows: a share if it is a float (rounded, at least one row), a number if it is an int.
        seed: the same seed and rows give the same split.
        group_duplicates: keep identical rows on one side, so that nothing that is evaluated was trained on. Their
            groups may make the evaluation set slightly smaller than asked for.
        columns: what counts as identical: equality in these columns; default: in all.

    Raises:
        DataError: there are too few rows, or too few distinct ones, for two sides, or ``eval_size`` leaves one empty.
    """
    total = len(rows)
    if isinstance(eval_size, float) and not 0 < eval_size < 1:
        raise DataError(
            f"the evaluation set cannot be {eval_size:g} of the rows",
            remedy="give a share between 0 and 1, or a number",
        )
    wanted = max(1, round(eval_size * total)) if isinstance(eval_size, float) else eval_size
    if not 0 < wanted < total:
        raise DataError(
            f"{wanted} evaluation rows cannot be taken from {total} rows",
            why="both sides need at least one row",
            remedy="give more rows or a smaller evaluation set",
        )
    keys = [_key(row, columns) for row in rows]
    groups: dict[object, list[int]] = {}
    for index, key in enumerate(keys):
        groups.setdefault(key if group_duplicates else index, []).append(index)
    if len(groups) < 2:
        raise DataError(
            f"all {total} rows are identical, so none can be evaluated that was not trained on",
            remedy="give more distinct rows, or leave the evaluation set out",
        )
    order = list(groups.values())
    random.Random(seed).shuffle(order)
    chosen: set[int] = set()
    for group in order:
        if len(chosen) + len(group) <= wanted:
            chosen.update(group)
    if not chosen:
        # Every group is larger than the set asked for: the smallest comes nearest to it.
        chosen.update(min((len(group), group) for group in order)[1])
    train = [row for index, row in enumerate(rows) if index not in chosen]
    evaluation = [row for index, row in enumerate(rows) if index in chosen]
    report = SplitReport(
        train_rows=len(train),
        eval_rows=len(evaluation),
        duplicates=0 if group_duplicates else duplicates_between(train, evaluation, columns=columns),
        duplicate_rows=total - len(set(keys)),
    )
    return train, evaluation, report


def duplicates_between(
    train_rows: Sequence[Row], eval_rows: Sequence[Row], *, columns: Collection[str] | None = None
) -> int:
    """Return how many of ``eval_rows`` have values (in ``columns``, or all) that also occur in ``train_rows``."""
    seen = {_key(row, columns) for row in train_rows}
    return sum(_key(row, columns) in seen for row in eval_rows)


def _key(row: Row, columns: Collection[str] | None) -> str:
    values = row.values if columns is None else {column: row.values.get(column) for column in columns}
    return json.dumps(values, sort_keys=True, ensure_ascii=False, default=repr)
