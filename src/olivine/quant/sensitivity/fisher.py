"""The divergence that rounding a matrix causes, estimated from the gradient: one backward pass serves all options.

For a small change ``d`` of the weights, the divergence of the next-token distribution is ``d' F d / 2`` with the Fisher
information ``F``: the mean of ``g g'`` over texts whose next tokens are drawn from the model itself, ``g`` being the
gradient of their log-likelihood. (Amari, Natural gradient works efficiently in learning, Neural Computation 10(2),
1998; for pruning: Theis et al., Faster gaze prediction with dense networks and Fisher pruning,
https://arxiv.org/abs/1801.05787.)

Rounding does two things. Its errors are as good as independent of each other, so only the diagonal of ``F`` counts:
``sum(g**2 * d**2) / 2``. And it shrinks the matrix as a whole: scales of least error give back ``(1 - c) w``
on average, which costs ``c**2 * (g w)**2 / 2``. With 4 bits the second is next to nothing, with 2 it is most of it.

The model is never in memory: hidden states go forward through one layer after the other, and gradients come back the
same way. Per layer there are its weights, their gradient and its square.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from olivine.models.decoder import EMBEDDING, HEAD
from olivine.quant.calibration.activations import BUDGET, Activations, Batch
from olivine.quant.calibration.walking import DecoderLayer, LayerWalker
from olivine.quant.reading import TensorReader
from olivine.quant.scheme import Rounding, Scheme
from olivine.quant.sensitivity.groups import FusedGroup
from olivine.quant.sensitivity.restoring import restored

if TYPE_CHECKING:
    from torch import Tensor

ROWS = 4096
"""Rows of a matrix on which its options are compared, evenly spread; more would not change the sum noticeably."""

Report = Callable[[float, float, str], None]
Losses = dict[str, dict[Scheme | None, float]]


def fisher_losses(
    reader: TensorReader,
    sequences: Sequence[Sequence[int]],
    groups: Sequence[FusedGroup],
    options: Mapping[str, Sequence[Scheme | None]],
    method: Rounding,
    report: Report = lambda *_: None,
    *,
    device: str = "cpu",
    folder: Path | None = None,
    budget: int = BUDGET,
    seed: int = 0,
    trust_remote_code: bool = False,
) -> Losses:
    """Return the estimated divergence, nats a token, of each option of each group.

    Args:
        reader: the checkpoint.
        sequences: token ids.
        groups: what to look at.
        options: what to try for each, by name.
        method: how weights are rounded.
        report: told how many of how many layers are done, and what is being done.
        device: where layers compute.
        folder: where hidden states go that ``budget`` bytes do not hold.
        budget: bytes of hidden states in memory.
        seed: of the tokens that are drawn.
        trust_remote_code: whether code that comes with the model may run.
    """
    sequences = sorted(sequences, key=len)
    walker = LayerWalker(reader, device=device, trust_remote_code=trust_remote_code)
    tokens, count = sum(map(len, sequences)), walker.layer_count
    steps = 2.0 * count + 2
    group_of = {tensor: group for group in groups for tensor in group.tensors}
    losses: Losses = {group.name: dict.fromkeys(options[group.name], 0.0) for group in groups}

    def add(tensor: str, weight: Tensor, curvature: Curvature, roles: Sequence[str]) -> None:
        for group in groups:
            if tensor in group.tensors and group.role in roles:
                found = option_losses(weight.detach().cpu(), curvature, options[group.name], method)
                for scheme, loss in found.items():
                    losses[group.name][scheme] += loss / tokens

    states: list[Activations] = []
    try:
        states.append(walker.embed(sequences, budget=budget // (count + 2), folder=folder))
        lengths = states[0].lengths
        scale = _embedding_scale(reader, sequences, states[0])
        for index in range(count):
            report(index, steps, f"forward through layer {index}")
            states.append(Activations(lengths, walker.width, budget=budget // (count + 2), folder=folder))
            with walker.layer(index) as layer:
                layer.advance(states[index], states[index + 1])
        report(count, steps, "the output layer")
        gradients = states.pop()
        weight, curvature = _head(walker, gradients, seed)
        add(HEAD if HEAD in group_of else EMBEDDING, weight, curvature, ("head", "tied"))
        del weight, curvature
        for index in reversed(range(count)):
            entered = states.pop()
            report(2 * count - index, steps, f"back through layer {index}")
            with walker.layer(index) as layer:
                weights = {
                    name: module.weight for name, module in layer.linears.items() if f"{name}.weight" in group_of
                }
                found = _layer(layer, weights, entered, gradients)
                entered.close()
                for name, weight in weights.items():
                    add(f"{name}.weight", weight, found[name], ("linear",))
        report(2 * count + 1, steps, "the embedding")
        rows, curvature = _embedding(reader, sequences, gradients, scale)
        add(EMBEDDING, rows, curvature, ("embedding", "tied"))
        gradients.close()
    finally:
        for each in states:
            each.close()
    return losses


@dataclass(frozen=True)
class Curvature:
    """What the Fisher information says of one matrix.

    Attributes:
        squares: sum over texts of the squared gradient, shape as the weight.
        along: sum over texts of the square of the gradient along the weight itself.
    """

    squares: Tensor
    along: float


def option_losses(
    weight: Tensor, curvature: Curvature, options: Sequence[Scheme | None], method: Rounding
) -> dict[Scheme | None, float]:
    """Return the loss of each option of one matrix, summed over texts.

    Args:
        weight: float32, shape ``(N, K)``, on the CPU.
        curvature: of the matrix.
        options: what to try; ``None`` loses nothing.
        method: how weights are rounded.
    """
    import torch

    squares = curvature.squares.cpu()
    factor = 1.0
    if len(weight) > ROWS:
        kept = torch.linspace(0, len(weight) - 1, ROWS).long()
        whole, part = float(squares.sum()), float(squares[kept].sum())
        weight, squares = weight[kept], squares[kept]
        factor = whole / part if part else 1.0
    norm = float(weight.square().sum())
    found: dict[Scheme | None, float] = {}
    for scheme in options:
        found[scheme] = 0.0
        if scheme is not None and norm:
            error = restored(weight.contiguous(), scheme, method).sub_(weight)
            shrunk = float((error * weight).sum()) / norm
            found[scheme] = 0.5 * (factor * float((error.square_() * squares).sum()) + shrunk**2 * curvature.along)
    return found


def _head(walker: LayerWalker, states: Activations, seed: int) -> tuple[Tensor, Curvature]:
    """Replace the last hidden states by the gradients of the drawn tokens' log-likelihood.

    Returns:
        The output layer's weight, and its curvature, in expectation over the tokens that might be drawn: each token's
        loss is its own, so they need not be drawn here.
    """
    import torch

    generator = torch.Generator(walker.device).manual_seed(seed)
    entered: list[Tensor] = []
    with walker.head() as logits_of:
        output = walker.output_layer
        handle = output.register_forward_pre_hook(lambda _, inputs: entered.append(inputs[0].detach()))
        squares, along = torch.zeros_like(output.weight), 0.0
        try:
            for batch in _one_by_one(states):
                entered.clear()
                hidden = states.read(batch).to(walker.device).requires_grad_()
                logs = torch.log_softmax(logits_of(hidden)[0].float(), -1)
                likely = logs.detach().exp()
                drawn = torch.multinomial(likely, 1, generator=generator)
                (gradient,) = torch.autograd.grad(logs.gather(1, drawn).sum(), hidden)
                # Softcapped logits (Gemma 2) are bounded by the plain ones, which count here.
                plain = torch.nn.functional.linear(entered[0][0], output.weight)
                mean = (likely * plain).sum(-1, keepdim=True)
                along += float((likely * (plain - mean).square()).sum())
                squares.addmm_((likely - likely.square()).T, entered[0][0].square())
                states.write(batch, gradient)
        finally:
            handle.remove()
        return output.weight.detach().clone(), Curvature(squares, along)


def _layer(
    layer: DecoderLayer, weights: Mapping[str, Tensor], entered: Activations, gradients: Activations
) -> dict[str, Curvature]:
    """Take ``gradients`` back through a layer; return the curvature of each of ``weights``."""
    import torch

    device = next(iter(weights.values())).device
    squares = {name: torch.zeros_like(weight) for name, weight in weights.items()}
    along = dict.fromkeys(weights, 0.0)
    for weight in weights.values():
        weight.requires_grad_()
    for batch in _one_by_one(entered):
        hidden = entered.read(batch).to(device).requires_grad_()
        output = layer(hidden)
        above = gradients.read(batch).to(device)
        found = torch.autograd.grad(output, [hidden, *weights.values()], above)
        gradients.write(batch, found[0])
        for (name, weight), gradient in zip(weights.items(), found[1:], strict=True):
            along[name] += float((gradient * weight.detach()).sum()) ** 2
            squares[name].addcmul_(gradient, gradient)
    return {name: Curvature(squares[name], along[name]) for name in weights}


def _embedding(
    reader: TensorReader, sequences: Sequence[Sequence[int]], gradients: Activations, scale: float
) -> tuple[Tensor, Curvature]:
    """Return the rows of the ids that occur, and their curvature; ``scale`` is what the model multiplies them with."""
    import torch

    used, places = torch.tensor([token for each in sequences for token in each]).unique(return_inverse=True)
    rows = _rows(reader, used.tolist())
    squares, along = torch.zeros(len(used), gradients.width), 0.0
    for batch in _one_by_one(gradients):
        here = places[batch.first : batch.stop]
        own, of = here.unique(return_inverse=True)
        summed = torch.zeros(len(own), gradients.width).index_add_(0, of, gradients.read(batch)[0]).mul_(scale)
        along += float((summed * rows[own]).sum()) ** 2
        squares[own] += summed.square_()
    return rows, Curvature(squares, along)


def _embedding_scale(reader: TensorReader, sequences: Sequence[Sequence[int]], states: Activations) -> float:
    """Return what the model multiplies the rows of its embedding with (Gemma: the root of their length)."""
    first = next(_one_by_one(states))
    return float(states.read(first).norm() / _rows(reader, sequences[0]).norm())


def _rows(reader: TensorReader, ids: Sequence[int]) -> Tensor:
    """Return rows of the embedding."""
    import torch

    return torch.stack([torch.from_numpy(reader.read_rows(EMBEDDING, each, each + 1))[0] for each in ids])


def _one_by_one(states: Activations) -> Iterator[Batch]:
    """Yield the sequences: the gradient of each is squared by itself."""
    return states.batches(0)
