"""The divergence of a whole mix, measured: losses of single matrices add up only nearly.

Two models walk side by side, layer by layer from disk: the float one, and the one as it will be stored.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from olivine.models.checkpoint import Checkpoint
from olivine.quant.calibration.walking import LayerWalker
from olivine.quant.reading import TensorReader
from olivine.quant.scheme import Rounding, Scheme
from olivine.quant.sensitivity.restoring import restored


class RoundedReader(TensorReader):
    """A checkpoint whose matrices read as they would be after rounding.

    Args:
        path: see :class:`.TensorReader`.
        schemes: what each tensor is stored as; others, and those with ``None``, are as they are.
        method: how they are rounded.
    """

    def __init__(self, path: Path | Checkpoint, schemes: Mapping[str, Scheme | None], method: Rounding) -> None:
        super().__init__(path)
        self._schemes = schemes
        self._method = method

    def read(self, name: str) -> NDArray[np.float32]:
        """See :meth:`.TensorReader.read`."""
        return self._rounded(name, super().read(name))

    def read_rows(self, name: str, start: int, stop: int) -> NDArray[np.float32]:
        """See :meth:`.TensorReader.read_rows`."""
        return self._rounded(name, super().read_rows(name, start, stop))

    def _rounded(self, name: str, values: NDArray[np.float32]) -> NDArray[np.float32]:
        scheme = self._schemes.get(name)
        if scheme is None:
            return values
        import torch

        found: NDArray[np.float32] = restored(torch.from_numpy(values), scheme, self._method).numpy()
        return found


def measured_divergence(
    reader: TensorReader,
    sequences: Sequence[Sequence[int]],
    schemes: Mapping[str, Scheme | None],
    method: Rounding,
    report: Callable[[float, float, str], None] = lambda *_: None,
    *,
    device: str = "cpu",
    folder: Path | None = None,
    trust_remote_code: bool = False,
) -> float:
    """Return the mean divergence from the float model, nats a token, with each tensor stored in its scheme."""
    import torch

    sequences = sorted(sequences, key=len)
    given = {"device": device, "trust_remote_code": trust_remote_code}
    walkers = [
        LayerWalker(reader, **given),  # type: ignore[arg-type]
        LayerWalker(RoundedReader(reader.checkpoint, schemes, method), **given),  # type: ignore[arg-type]
    ]
    states = [walker.embed(sequences, folder=folder) for walker in walkers]
    try:
        count = walkers[0].layer_count
        for index in range(count):
            report(index, count + 1, "measuring the mix")
            for walker, each in zip(walkers, states, strict=True):
                with walker.layer(index) as layer:
                    layer.advance(each)
        report(count, count + 1, "measuring the mix")
        lost = 0.0
        with torch.no_grad(), walkers[0].head() as expected_of, walkers[1].head() as found_of:
            for batch in states[0].batches(1):
                expected = torch.log_softmax(expected_of(states[0].read(batch)).float(), -1)
                found = torch.log_softmax(found_of(states[1].read(batch)).float(), -1)
                lost += float((expected.exp() * (expected - found)).sum())
        return lost / states[0].tokens
    finally:
        for each in states:
            each.close()
