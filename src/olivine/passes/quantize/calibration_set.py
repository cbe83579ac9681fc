"""The calibration set of Quantize: token sequences from the user's data, or from a text that Olivine brings."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any

from olivine.config.schema import DataConfig
from olivine.data.formats import Row
from olivine.data.templates import render
from olivine.errors import DataError, Location, OlivineError, Problem

BUILT_IN = Path(__file__).with_name("calibration_text.txt")
"""Prose, dialogue, figures and code of our own, in a few languages; paragraphs are separated by empty lines."""


def sequences(
    config: DataConfig | None, tokenizer: Any, samples: int, length: int, *, limit: int | None = None
) -> tuple[list[list[int]], list[str]]:
    """Return at most ``samples`` sequences of ``length`` tokens, and what the user should know of them.

    Args:
        config: the user's data; rows are joined, whatever its strategy says, unless they are pairs. ``None``: the text
            that Olivine brings.
        tokenizer: the model's.
        samples: how many at most.
        length: tokens of each; of pairs: at most.
        limit: positions that the model has.

    Raises:
        DataError: there is not one sequence.
    """
    from olivine.data.rows import read_rows
    from olivine.data.sequences import build_sequences

    length = min(length, limit or length)
    notes = []
    if config is None:
        paragraphs = BUILT_IN.read_text(encoding="utf-8").split("\n\n")
        rows = [Row({"text": each}, BUILT_IN.name, number) for number, each in enumerate(paragraphs, 1)]
        config = DataConfig(name="built_in")
    else:
        rows = read_rows(config).rows
    packed = config.model_copy(
        update={
            "strategy": "join",
            "max_seq_len": length,
            "max_samples": samples,
            "last_block": "keep",
            "pad_to_max_len": False,
            "drop_short_sequences": False,
        }
    )
    found = build_sequences(rows, packed, tokenizer).input_ids
    whole = [each for each in found if len(each) == length]
    if packed.dataset_type != "pair" and whole:
        found = whole
    if len(found) < samples:
        tokens = sum(map(len, found))
        notes.append(
            f"the calibration set has {len(found)} of {samples} sequences: {tokens:,} tokens are all there are"
        )
    if sum(map(len, found)) < length:
        raise DataError(
            f"the calibration data have {sum(map(len, found))} tokens, and one sequence takes {length}",
            why="from so few a matrix learns what is chance in them",
            remedy="give more data, or set sequence_length lower",
        )
    return found, notes


def too_short(config: DataConfig, length: int) -> list[Problem]:
    """Return a problem if the data cannot fill one sequence: a token is at least one byte of text.

    Reads rows only until they are enough. Says nothing of data that a tokenizer is needed to render, or that are not on
    this machine.
    """
    from olivine.data.rows import iter_rows
    from olivine.data.sources import find_source

    if config.chat_template:
        return []
    total = 0
    try:
        if find_source(config).kind == "hub":
            return []
        for row in islice(iter_rows(config), length):
            total += len(render(config, row).text.encode()) + 4  # BOS, EOS and what joins rows
            if total >= length:
                return []
    except OlivineError:
        return []  # the plan's own look at the data says it
    return [
        Problem(
            f"the data config {config.name} has {total} bytes of text, and one sequence takes {length} tokens",
            Location(path="calibration_data_config"),
            "a token is at least one byte",
            f"give more data, or set sequence_length to {max(2, total // 4)} or less",
        )
    ]
