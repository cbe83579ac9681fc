"""The divergence that an option causes, measured: the model runs with that one matrix rounded.

As many forward passes as there are options, so for small models only; :mod:`.fisher` needs one, and ranks alike.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from olivine.errors import Location, UnavailableError
from olivine.hardware.memory import free_memory_bytes
from olivine.models.checkpoint import Checkpoint
from olivine.quant.scheme import Rounding, Scheme
from olivine.quant.sensitivity.groups import FusedGroup
from olivine.quant.sensitivity.restoring import restored

if TYPE_CHECKING:
    from torch import Tensor


class Divergence:
    """The float model's next-token distributions on some text, and how far others are from them.

    Args:
        model: a causal language model in float32, in memory.
        sequences: token ids, all of one length but perhaps the last.
    """

    def __init__(self, model: Any, sequences: Sequence[Sequence[int]]) -> None:
        import torch

        self.model = model
        self.batches = [torch.tensor([list(each)]) for each in sequences]
        self.tokens = sum(len(each) for each in sequences)
        self.parameters = dict(model.named_parameters())
        with torch.no_grad():
            self.expected = [self._logs(batch) for batch in self.batches]

    def measure(self) -> float:
        """Return the mean divergence of the model as it is now, nats a token."""
        import torch

        lost = 0.0
        with torch.no_grad():
            for batch, expected in zip(self.batches, self.expected, strict=True):
                lost += float((expected.exp() * (expected - self._logs(batch))).sum())
        return lost / self.tokens

    def of(self, groups: Sequence[FusedGroup], schemes: Mapping[str, Scheme | None], method: Rounding) -> float:
        """Return the divergence with ``groups`` stored in ``schemes``, all at once."""
        with self._rounded(groups, schemes, method):
            return self.measure()

    def _logs(self, batch: Tensor) -> Tensor:
        import torch

        return torch.log_softmax(self.model(batch, use_cache=False).logits[0].float(), -1)

    @contextmanager
    def _rounded(
        self, groups: Sequence[FusedGroup], schemes: Mapping[str, Scheme | None], method: Rounding
    ) -> Iterator[None]:
        """Have the model compute with rounded weights."""
        kept: dict[str, Tensor] = {}
        try:
            for group in groups:
                scheme = schemes[group.name]
                for name in group.tensors if scheme is not None else ():
                    assert scheme is not None
                    parameter = self.parameters[name]
                    kept[name] = parameter.data
                    parameter.data = restored(parameter.data, scheme, method)
            yield
        finally:
            for name, values in kept.items():
                self.parameters[name].data = values


def exact_losses(
    model: Any,
    sequences: Sequence[Sequence[int]],
    groups: Sequence[FusedGroup],
    options: Mapping[str, Sequence[Scheme | None]],
    method: Rounding,
    report: Callable[[float, float, str], None] = lambda *_: None,
) -> dict[str, dict[Scheme | None, float]]:
    """Return the measured divergence, nats a token, of each option of each group; see :func:`.fisher.fisher_losses`."""
    divergence = Divergence(model, sequences)
    total, done = sum(len(options[group.name]) for group in groups), 0
    losses: dict[str, dict[Scheme | None, float]] = {}
    for group in groups:
        losses[group.name] = {}
        for scheme in options[group.name]:
            report(done, total, f"options of {group.name}")
            found = divergence.of([group], {group.name: scheme}, method) if scheme is not None else 0.0
            losses[group.name][scheme] = found
            done += 1
    return losses


def load_float_model(checkpoint: Checkpoint, *, trust_remote_code: bool = False) -> Any:
    """Return the checkpoint as transformers has it, in float32, in memory.

    Raises:
        UnavailableError: it does not fit.
    """
    import torch
    from transformers import AutoModelForCausalLM

    needed, free = 6 * checkpoint.parameters, free_memory_bytes()
    if needed > free:
        raise UnavailableError(
            f"measuring each matrix takes the model in memory: {needed / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free",
            where=Location(path="sensitivity"),
            remedy="set sensitivity: fisher, which goes through it layer by layer",
        )
    model = AutoModelForCausalLM.from_pretrained(
        checkpoint.path, dtype=torch.float32, use_safetensors=True, trust_remote_code=trust_remote_code
    )
    return model.eval()
