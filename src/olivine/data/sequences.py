"""From rows to sequences of tokens, and which of their tokens are in the loss.

Special tokens are added as ids, at most once; text is tokenised as a whole, so that a row means the same tokens here
as it does when the model is used. Labels are not shifted: the model shifts them. See docs/data.md for the strategies.
"""

from __future__ import annotations

import random
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from olivine.config.schema import DataConfig
from olivine.data.formats import Row
from olivine.data.sources import parse_split
from olivine.data.templates import Text, render, shape_of
from olivine.errors import ConfigError, DataError, Location, OlivineError, Problem

IGNORED = -100
"""Label of a token that is not in the loss."""

_BATCH = 1000
"""Texts tokenised at a time: enough to keep the tokenizer's threads busy, little enough to stop early."""


@dataclass(frozen=True)
class SequenceReport:
    """What became of the rows.

    Attributes:
        rows_in: rows given.
        rows_used: rows of which at least one token is in a sequence.
        tokens: tokens in the sequences, without padding; in windows that overlap a token counts each time.
        tokens_in_loss: labels that are not -100.
        tokens_dropped: tokens cut off or left out: truncation, a dropped last block, sequences left out as too short
            or as holding nothing to learn. What ``max_samples`` leaves is not counted.
        truncated_rows: rows that were cut.
        sequences: how many there are.
        notes: what the user should know, one line each.
    """

    rows_in: int
    rows_used: int
    tokens: int
    tokens_in_loss: int
    tokens_dropped: int
    truncated_rows: int
    sequences: int
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Sequences:
    """Sequences ready for a collator.

    Attributes:
        input_ids: token ids; lengths differ unless ``pad_to_max_len`` is set.
        labels: as ``input_ids``, with -100 for what is not in the loss. Not shifted.
        lengths: tokens of each sequence before padding on the right: position ``i`` is attended if ``i < length``.
        report: what became of the rows.
    """

    input_ids: list[list[int]]
    labels: list[list[int]]
    lengths: list[int]
    report: SequenceReport

    def __len__(self) -> int:
        return len(self.input_ids)


def check_config(config: DataConfig) -> list[Problem]:
    """Return what is contradictory or missing in ``config`` itself; ``where`` holds the key. Reads no data."""
    problems: list[Problem] = []

    def add(key: str, what: str, remedy: str, why: str = "") -> None:
        problems.append(Problem(what, Location(path=key), why, remedy))

    for key, check in (("split", lambda: parse_split(config.split)), ("", lambda: shape_of(config))):
        try:
            check()
        except OlivineError as error:
            problems += [
                each if each.where is not None else replace(each, where=Location(path=key)) for each in error.problems
            ]
    strategy = config.strategy
    if strategy in ("join-random", "line-by-line-random"):
        if config.max_samples is None:
            add("max_samples", f"the strategy {strategy} needs max_samples", "set how many sequences to draw")
        if config.random_seed is None:
            add(
                "random_seed",
                f"the strategy {strategy} needs random_seed",
                "set a number; the same draws the same rows",
            )
    if strategy == "join-sliding-window":
        if config.stride is None:
            add("stride", f"the strategy {strategy} needs stride", "set it to half of max_seq_len, for instance")
        elif config.stride > config.max_seq_len:
            add(
                "stride",
                f"stride {config.stride} is larger than max_seq_len {config.max_seq_len}",
                f"set it to at most {config.max_seq_len}",
                "tokens between two windows would be in none",
            )
    if config.dataset_type == "pair" and strategy in ("join-random", "join-sliding-window"):
        add(
            "strategy",
            f"pairs are not joined, so {strategy} has no meaning for them",
            "use line-by-line; to join pairs, leave dataset_type: pair out and set train_on: completion",
        )
    if config.pad_to_max_len and config.drop_short_sequences:
        add(
            "drop_short_sequences",
            "pad_to_max_len and drop_short_sequences exclude each other",
            "keep one of them",
            "a sequence that is padded is no longer short",
        )
    if config.max_seq_len < 2:
        add("max_seq_len", "a sequence of one token has nothing to predict", "set max_seq_len to 2 or more")
    if (
        config.dataset_type == "pair"
        and config.train_on != "all"
        and config.max_prompt_len is not None
        and config.max_prompt_len >= config.max_seq_len
    ):
        add(
            "max_prompt_len",
            f"max_prompt_len {config.max_prompt_len} leaves a completion no room in max_seq_len {config.max_seq_len}",
            f"set it below {config.max_seq_len}",
        )
    return problems


def build_sequences(rows: Sequence[Row], config: DataConfig, tokenizer: Any) -> Sequences:
    """Make sequences of ``rows`` as ``config`` says.

    Args:
        rows: in the order of the data.
        config: the strategy and its parameters.
        tokenizer: a ``transformers`` tokenizer. With a fast one, prompt and completion are told apart by the
            positions of tokens in the text, so a token that lies partly in the completion is in the loss.

    Raises:
        ConfigError: see :func:`check_config`; or a chat template is wanted and there is none.
        DataError: a row cannot be used, or there is no sequence at all.
    """
    problems = check_config(config)
    if problems:
        raise ConfigError(problems)
    if not rows:
        raise DataError("the data set is empty", remedy="check data_files, split and max_rows")
    built = _Builder(rows, config, tokenizer)
    built.run()
    return built.result()


@dataclass
class _Encoded:
    """A row in tokens. ``dropped`` counts tokens that were cut off already."""

    ids: list[int]
    labels: list[int]
    dropped: int = 0


class _Builder:
    """Holds what accumulates while sequences are made."""

    def __init__(self, rows: Sequence[Row], config: DataConfig, tokenizer: Any) -> None:
        self.rows = rows
        self.config = config
        self.tokenizer = tokenizer
        self.length = config.max_seq_len
        self.shape = shape_of(config)
        self.ids: list[list[int]] = []
        self.labels: list[list[int]] = []
        self.rows_used = 0
        self.dropped = 0
        self.truncated = 0
        self.empty = 0
        self.short = 0
        self.nothing_to_learn = 0
        self.notes: list[str] = []

    def run(self) -> None:
        strategy = self.config.strategy
        if self.shape.pair and strategy == "join":
            strategy = "line-by-line"
        {
            "join": self.join,
            "join-random": self.join_random,
            "join-sliding-window": self.join_sliding_window,
            "line-by-line": self.line_by_line,
            "line-by-line-random": self.line_by_line_random,
        }[strategy]()

    @property
    def full(self) -> bool:
        """Whether there are as many sequences as were asked for."""
        return self.config.max_samples is not None and len(self.ids) >= self.config.max_samples

    def keep(self, ids: list[int], labels: list[int]) -> bool:
        """Take a sequence, unless no token of it would be learnt: its loss would be the mean of nothing, NaN."""
        # The first token has nothing before it to be predicted from.
        if all(label == IGNORED for label in labels[1:]):
            self.nothing_to_learn += 1
            self.dropped += len(ids)
            return False
        self.ids.append(ids)
        self.labels.append(labels)
        return True

    def result(self) -> Sequences:
        self._explain()
        if not self.ids:
            raise DataError(
                "no sequence is left to train on",
                why="; ".join(self.notes),
                remedy="check max_seq_len, drop_short_sequences, and that the columns hold text",
            )
        lengths = [len(ids) for ids in self.ids]
        in_loss = sum(len(labels) - labels.count(IGNORED) for labels in self.labels)
        joined = self.config.strategy.startswith("join") and not self.shape.pair
        if self.config.pad_to_max_len and not joined:
            self._pad()
        report = SequenceReport(
            rows_in=len(self.rows),
            rows_used=self.rows_used,
            tokens=sum(lengths),
            tokens_in_loss=in_loss,
            tokens_dropped=self.dropped,
            truncated_rows=self.truncated,
            sequences=len(self.ids),
            notes=self.notes,
        )
        return Sequences(self.ids, self.labels, lengths, report)

    def stopped(self) -> None:
        """Note that there would have been more."""
        self.notes.append(f"max_samples: {_count(len(self.ids), 'sequence')} made, the rest of the rows left out")

    def _explain(self) -> None:
        if self.empty:
            self.notes.append(f"{_count(self.empty, 'row')} without any text left out")
        if self.truncated:
            self.notes.append(f"{_count(self.truncated, 'row')} cut to fit")
        if self.short:
            self.notes.append(f"{_count(self.short, 'row')} shorter than {self.length} tokens left out")
        if self.nothing_to_learn:
            self.notes.append(f"{_count(self.nothing_to_learn, 'sequence')} with no token to learn left out")

    def _pad(self) -> None:
        # What is padding is known by position: where pad and EOS are one token, a real EOS keeps its label.
        pad = self.tokenizer.pad_token_id
        if pad is None:
            pad = self.tokenizer.eos_token_id or 0
        for ids, labels in zip(self.ids, self.labels, strict=True):
            missing = self.length - len(ids)
            ids += [pad] * missing
            labels += [IGNORED] * missing

    # Strategies -------------------------------------------------------------------------------------------------------

    def join(self) -> None:
        joiner = self.joiner()
        ids: list[int] = []
        labels: list[int] = []
        done = 0  # tokens of the stream before ``ids``
        spans: list[tuple[int, int]] = []
        kept: list[tuple[int, int]] = []

        def take(length: int) -> None:
            nonlocal done
            if self.keep(ids[:length], labels[:length]):
                kept.append((done, done + length))
            del ids[:length], labels[:length]
            done += length

        rows = self.encode(self.rows)
        for row in rows:
            if spans:
                ids += joiner.ids
                labels += joiner.labels
            begin = done + len(ids)
            spans.append((begin, begin + len(row.ids)))
            ids += row.ids
            labels += row.labels
            while len(ids) >= self.length and not self.full:
                take(self.length)
            if self.full:
                break
        if self.full:
            if ids or next(rows, None) is not None:
                self.stopped()
        elif ids and self.config.last_block == "keep":
            take(len(ids))
        elif ids:
            if not done:
                raise DataError(
                    f"the data set is shorter than one block: {len(ids)} of {self.length} tokens",
                    why="last_block: drop leaves nothing of it",
                    remedy=f"set last_block: keep, or max_seq_len to {len(ids)} or less",
                )
            self.dropped += len(ids)
            self.notes.append(f"the last block of {_count(len(ids), 'token')} is dropped (last_block: drop)")
        self.rows_used = _touched(spans, kept)

    def join_random(self) -> None:
        """Begin each block at a row drawn at random and go on with the rows after it, at the end with the first."""
        encoded = _Lookup(self)
        joiner = self.joiner()
        order = self.draw(forever=True)
        used: set[int] = set()
        barren = 0
        while not self.full and barren < len(self.rows):
            first = next(order)
            ids: list[int] = []
            labels: list[int] = []
            taken: list[int] = []
            for step in range(len(self.rows)):
                index = (first + step) % len(self.rows)
                row = encoded[index]
                if row is None:
                    if not step:
                        break  # a block begins at a row that has text
                    continue
                if taken:
                    ids += joiner.ids
                    labels += joiner.labels
                if len(ids) >= self.length:
                    break
                taken.append(index)
                ids += row.ids
                labels += row.labels
                if len(ids) >= self.length:
                    break
            made = bool(ids) and self.keep(ids[: self.length], labels[: self.length])
            # The same rows give the same again: after a round without any block there is none to be had.
            barren = 0 if made else barren + 1
            if made:
                used.update(taken)
        self.dropped = 0  # a block that is cut goes on in others
        self.empty = encoded.empty
        self.rows_used = len(used)

    def join_sliding_window(self) -> None:
        joiner = self.joiner()
        ids: list[int] = []
        labels: list[int] = []
        spans: list[tuple[int, int]] = []
        kept: list[tuple[int, int]] = []
        for row in self.encode(self.rows):
            if spans:
                ids += joiner.ids
                labels += joiner.labels
            spans.append((len(ids), len(ids) + len(row.ids)))
            ids += row.ids
            labels += row.labels
        assert self.config.stride is not None
        overlap = self.length - self.config.stride
        covered = 0
        for start in range(0, max(len(ids), 1), self.config.stride):
            if self.full or covered >= len(ids):
                break
            seen = overlap if start else 0
            window = labels[start : start + self.length]
            covered = min(start + self.length, len(ids))
            if self.keep(ids[start:covered], [IGNORED] * min(seen, len(window)) + window[seen:]):
                kept.append((start, covered))
        if covered < len(ids):
            self.stopped()
        if self.config.stride < self.length:
            self.dropped = 0  # a window left out holds what others hold too, or what is in no loss
        self.rows_used = _touched(spans, kept)

    def line_by_line(self) -> None:
        for row in self.encode(self.rows):
            if self.full:
                self.notes.append(
                    f"max_samples: {_count(len(self.ids), 'sequence')} made, the rest of the rows left out"
                )
                break
            self.line(row)

    def line_by_line_random(self) -> None:
        config = self.config
        assert config.max_samples is not None
        rows = self.encode([self.rows[index] for index in self.draw()])
        draws = 1 + (config.random_retries if config.drop_short_sequences else 0)
        exhausted = False
        missed = 0
        for _ in range(config.max_samples):
            taken = False
            for _ in range(draws):
                row = next(rows, None)
                exhausted = row is None
                taken = row is not None and self.line(row)
                if taken or exhausted:
                    break
            if exhausted:
                break
            missed += not taken
        if missed:
            self.notes.append(
                f"{_count(missed, 'sample')} not made: no usable row in {_count(draws, 'draw')} (random_retries)"
            )
        if exhausted:
            self.notes.append(
                f"{len(self.ids)} of max_samples {config.max_samples} sequences: there are no more rows to draw"
            )

    def line(self, row: _Encoded) -> bool:
        """Take one row as one sequence; return whether it was taken."""
        if self.config.drop_short_sequences and len(row.ids) < self.length:
            self.short += 1
            self.dropped += len(row.ids)
            return False
        cut = max(len(row.ids) - self.length, 0)
        taken = self.keep(row.ids[: self.length], row.labels[: self.length])
        self.dropped += cut + row.dropped
        self.truncated += bool(cut or row.dropped)
        self.rows_used += taken
        return taken

    def draw(self, *, forever: bool = False) -> Iterator[int]:
        """Yield numbers of rows at random, none twice before each has come once."""
        generator = random.Random(self.config.random_seed)
        order = list(range(len(self.rows)))
        while True:
            generator.shuffle(order)
            yield from order
            if not forever:
                return

    # Tokens -----------------------------------------------------------------------------------------------------------

    def encode(self, rows: Sequence[Row]) -> Iterator[_Encoded]:
        """Yield the rows in tokens, leaving out (and counting) those without text."""
        for row in self.encode_all(rows):
            if row is None:
                self.empty += 1
            else:
                yield row

    def encode_all(self, rows: Sequence[Row]) -> Iterator[_Encoded | None]:
        """Yield each row in tokens; ``None`` for a row whose text is empty or white space only."""
        for start in range(0, len(rows), _BATCH):
            texts = [render(self.config, row, self.tokenizer) for row in rows[start : start + _BATCH]]
            full = [text for text in texts if text.text.strip()]
            encoded = iter(self.tokenise(full))
            for text in texts:
                yield next(encoded) if text.text.strip() else None

    def tokenise(self, texts: Sequence[Text]) -> Iterable[_Encoded]:
        if not texts:
            return []
        needs_parts = self.shape.pair or any(not piece.in_loss for text in texts for piece in text.pieces)
        has_offsets = bool(getattr(self.tokenizer, "is_fast", False))
        wholes = [text.text for text in texts]
        output = self.tokenizer(
            wholes,
            add_special_tokens=False,
            return_attention_mask=False,
            return_token_type_ids=False,
            return_offsets_mapping=needs_parts and has_offsets,
            verbose=False,
        )
        rows = []
        for number, (text, ids) in enumerate(zip(texts, output["input_ids"], strict=True)):
            ids = list(ids)
            if not needs_parts:
                rows.append(self.finish(text, wholes[number], ids, list(ids), None))
                continue
            spans = _spans(text)
            if has_offsets:
                tokens = [_by_offsets(output["offset_mapping"][number], a, b, len(wholes[number])) for a, b in spans]
            else:
                tokens = [self.by_prefixes(wholes[number], ids, a, b) for a, b in spans]
            labels = [IGNORED] * len(ids)
            for piece, (first, last) in zip(text.pieces, tokens, strict=True):
                if piece.in_loss:
                    labels[first:last] = ids[first:last]
            rows.append(self.finish(text, wholes[number], ids, labels, tokens[-1][0] if self.shape.pair else None))
        return rows

    def by_prefixes(self, text: str, ids: list[int], start: int, stop: int) -> tuple[int, int]:
        """Find the tokens of ``text[start:stop]`` without offsets: those that differ from the text up to there."""

        def before(position: int) -> int:
            if position in (0, len(text)):
                return len(ids) if position else 0
            prefix = self.tokenizer(text[:position], add_special_tokens=False, verbose=False)["input_ids"]
            return next((i for i, (a, b) in enumerate(zip(ids, prefix, strict=False)) if a != b), len(prefix))

        return before(start), max(before(start), before(stop))

    def finish(self, text: Text, whole: str, ids: list[int], labels: list[int], completion: int | None) -> _Encoded:
        """Add BOS and EOS, and cut the two parts of a pair; ``completion`` is the first token of the second part."""
        config = self.config
        bos = self.tokenizer.bos_token_id if config.add_special_tokens else None
        eos = self.tokenizer.eos_token_id if config.add_special_tokens else None
        if bos is not None and ids[:1] != [bos]:
            learnt = all(piece.in_loss for piece in text.pieces if piece.text)
            ids, labels = [bos, *ids], [bos if learnt else IGNORED, *labels]
            completion = None if completion is None else completion + 1
        # A chat template may put white space after the EOS that it writes.
        if eos is not None and ids[-1:] != [eos] and not whole.rstrip().endswith(self.tokenizer.eos_token):
            learnt = text.pieces[-1].in_loss
            ids, labels = [*ids, eos], [*labels, eos if learnt else IGNORED]
        if completion is None:
            return _Encoded(ids, labels)
        first = min(completion, config.max_prompt_len or completion)
        last = min(len(ids), completion + (config.max_completion_len or len(ids)))
        kept = ids[:first] + ids[completion:last]
        return _Encoded(kept, labels[:first] + labels[completion:last], len(ids) - len(kept))

    def joiner(self) -> _Encoded:
        """Return the tokens between two rows; in the loss unless only completions are."""
        if not self.config.joiner:
            return _Encoded([], [])

        def tokens(text: str) -> list[int]:
            return list(self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])

        ids, letter = tokens(self.config.joiner), tokens("a")
        after_letter = tokens("a" + self.config.joiner)
        # Some tokenizers put a space before every text, which the joiner, between two texts, must not get.
        if after_letter[: len(letter)] == letter:
            ids = after_letter[len(letter) :]
        return _Encoded(ids, [IGNORED] * len(ids) if self.shape.completion_only else list(ids))


class _Lookup:
    """Rows in tokens by number, tokenised some at a time when first asked for."""

    def __init__(self, builder: _Builder) -> None:
        self.builder = builder
        self.known: dict[int, _Encoded | None] = {}

    def __getitem__(self, index: int) -> _Encoded | None:
        if index not in self.known:
            wanted = [i for i in range(index, min(index + 16, len(self.builder.rows))) if i not in self.known]
            rows = [self.builder.rows[i] for i in wanted]
            self.known.update(zip(wanted, self.builder.encode_all(rows), strict=True))
        return self.known[index]

    @property
    def empty(self) -> int:
        return sum(row is None for row in self.known.values())


def _spans(text: Text) -> list[tuple[int, int]]:
    """Return where each piece begins and ends in the whole text."""
    spans, position = [], 0
    for piece in text.pieces:
        spans.append((position, position + len(piece.text)))
        position += len(piece.text)
    return spans


def _by_offsets(offsets: Sequence[tuple[int, int]], start: int, stop: int, end: int) -> tuple[int, int]:
    """Return the first token, and the one after the last, that lie wholly or partly in ``text[start:stop]``.

    Offsets rise. Tokenizers that trim white space give a token of spaces an empty span at the end of the spaces.
    """
    first = bisect_right(offsets, start, key=lambda span: span[1])
    last = len(offsets) if stop == end else bisect_left(offsets, stop, key=lambda span: span[0])
    return first, max(first, last)


def _touched(spans: Sequence[tuple[int, int]], kept: Sequence[tuple[int, int]]) -> int:
    """Return how many of ``spans`` have something in common with one of ``kept``; both rise."""
    ends = [end for _, end in kept]
    count = 0
    for start, end in spans:
        at = bisect_right(ends, start)
        count += at < len(kept) and kept[at][0] < end
    return count


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
