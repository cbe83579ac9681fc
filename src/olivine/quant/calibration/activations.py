"""Hidden states of the calibration set: in memory up to a budget, beyond it in a file."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

BUDGET = 1 << 30
"""Bytes of hidden states that are kept in memory unless the caller says otherwise."""


COPY_TOKENS = 4096
"""Tokens that are copied at a time."""


@dataclass(frozen=True)
class Batch:
    """Sequences that go through a layer together.

    Attributes:
        first: the first of their tokens, counted over the whole set.
        sequences: how many.
        length: tokens of each.
    """

    first: int
    sequences: int
    length: int

    @property
    def stop(self) -> int:
        """The token after their last."""
        return self.first + self.sequences * self.length


class Activations:
    """One float32 vector for each token of the set, sequence after sequence.

    The file has no name (it is removed as soon as it is open), so a killed process leaves none. It is read, not
    mapped: what is mapped counts as resident until the system takes it back.

    Args:
        lengths: tokens of each sequence, those of equal length side by side.
        width: ``H``, features of a token.
        budget: bytes that may stay in memory.
        folder: where the file goes; the system's folder for such files if ``None``.
    """

    def __init__(self, lengths: Sequence[int], width: int, *, budget: int = BUDGET, folder: Path | None = None) -> None:
        import torch

        self.lengths = tuple(lengths)
        self.width = width
        self.tokens = sum(lengths)
        self._memory: Tensor | None = None
        self._file = None
        if 4 * self.tokens * width <= budget:
            self._memory = torch.empty(self.tokens, width)
        else:
            self._file = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115 - closed by close()
            os.truncate(self._file.fileno(), 4 * self.tokens * width)

    @property
    def spilt(self) -> bool:
        """Whether they are in a file."""
        return self._file is not None

    def batches(self, tokens: int) -> Iterator[Batch]:
        """Yield all sequences in batches of equal length and about ``tokens`` tokens, at least one sequence each."""
        first, start = 0, 0
        while start < len(self.lengths):
            length = self.lengths[start]
            stop = start
            while (
                stop < len(self.lengths)
                and self.lengths[stop] == length
                and (stop == start or (stop - start + 1) * length <= tokens)
            ):
                stop += 1
            yield Batch(first, stop - start, length)
            first += (stop - start) * length
            start = stop

    def read(self, batch: Batch) -> Tensor:
        """Return the hidden states of ``batch``, shape ``(sequences, length, H)``; not to be changed."""
        import torch

        shape = (batch.sequences, batch.length, self.width)
        if self._memory is not None:
            return self._memory[batch.first : batch.stop].view(shape)
        assert self._file is not None, "closed"
        found = torch.empty(shape)
        view = memoryview(found.numpy().reshape(-1).view("u1"))
        place, done = 4 * self.width * batch.first, 0
        while done < len(view):
            count = os.preadv(self._file.fileno(), [view[done:]], place + done)
            if not count:
                raise OSError("the file of the calibration activations was cut off")
            done += count
        return found

    def write(self, batch: Batch, values: Tensor) -> None:
        """Replace the hidden states of ``batch`` by ``values`` of shape ``(sequences, length, H)``."""
        values = values.detach().to("cpu").reshape(-1, self.width)
        if self._memory is not None:
            self._memory[batch.first : batch.stop] = values
            return
        assert self._file is not None, "closed"
        view = memoryview(values.float().contiguous().numpy().reshape(-1).view("u1"))
        place, done = 4 * self.width * batch.first, 0
        while done < len(view):
            done += os.pwritev(self._file.fileno(), [view[done:]], place + done)

    def save(self, path: Path) -> None:
        """Write everything to ``path``, and have it on the disk."""
        with open(path, "wb") as stream:
            for batch in self.batches(COPY_TOKENS):
                stream.write(self.read(batch).numpy().reshape(-1).view("u1").data)
            stream.flush()
            os.fsync(stream.fileno())

    def load(self, path: Path) -> None:
        """Undo :meth:`save`.

        Raises:
            OSError: the file ends too early.
        """
        import torch

        with open(path, "rb") as stream:
            for batch in self.batches(COPY_TOKENS):
                values = torch.empty(batch.sequences, batch.length, self.width)
                view = values.numpy().reshape(-1).view("u1").data
                if stream.readinto(view) != len(view):
                    raise OSError(f"{path} was cut off")
                self.write(batch, values)

    def close(self) -> None:
        """Give memory and file back."""
        self._memory = None
        if self._file is not None:
            self._file.close()
            self._file = None
