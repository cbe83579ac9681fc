"""Making input features larger or smaller before rounding, and dividing them where they are computed.

With ``y = W x`` and scales ``s``, ``y = (W s) (x / s)``: exact in floating point, but rounding ``W s`` loses less of
``y`` if features with large inputs get large scales. AWQ (Lin et al., https://arxiv.org/abs/2306.00978) takes
``s = mean|x|**alpha`` and searches ``alpha``.

What divides ``x`` is the weight of the norm before, or the rows of the matrix before (``up_proj`` for ``down_proj``,
``v_proj`` for ``o_proj``). Which one that is, and whether a norm stores its gain less one, is found by trying: a place
is taken if dividing there does to the input what it should, and the layer computes the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from olivine.models.decoder import attention_rows, parts
from olivine.quant.calibration.activations import Activations
from olivine.quant.calibration.hessian import Moments
from olivine.quant.calibration.methods import Method
from olivine.quant.calibration.walking import DecoderLayer
from olivine.quant.stored.filling import SCALE_TYPES
from olivine.quant.stored.writing import QuantizedCheckpointWriter

if TYPE_CHECKING:
    from torch import Tensor, nn

ALPHAS = tuple(step / 10 for step in range(1, 11))
"""Exponents that are tried beside 0, which leaves everything as it is."""

ROWS = 512
"""Rows of each matrix on which they are tried."""

SPAN = 1e4
"""The largest mean input over the smallest that still counts."""

TOLERANCE = 1e-3
"""How far the layer's output may move, as a share of what the layer adds to its input."""


@dataclass(frozen=True)
class Place:
    """An input that can be scaled.

    Attributes:
        consumers: names of all linear modules that get it.
        producer: name of the module whose weight (and bias) is divided: a norm or a linear module.
        elements: which of the producer's output features each input feature comes from, shape ``(K,)``. With grouped
            queries several come from one.
        offset: what the norm adds to its weight (Gemma: 1); 0 for a linear module.
    """

    consumers: tuple[str, ...]
    producer: str
    elements: Tensor
    offset: float = 0.0


@dataclass(frozen=True)
class Scaled:
    """What scaling did to one input.

    Attributes:
        alpha: the exponent; 0 if rounding is better without scales.
        vectors: what is stored otherwise than in the original now: norms and biases in float32, by tensor name.
    """

    alpha: float
    vectors: Mapping[str, Tensor]


def scale_layer(
    layer: DecoderLayer, states: Activations, writer: QuantizedCheckpointWriter, method: Method
) -> dict[str, Scaled | None]:
    """Scale the inputs of ``layer`` where rounding loses less for it; its weights change, what it computes does not.

    Only matrices that are quantised are scaled, and divided: norms and biases are all that has to be stored
    otherwise.

    Args:
        layer: with its original weights.
        states: what enters it.
        writer: says how each matrix is stored.
        method: how they will be rounded; scales are chosen by what is lost with it.

    Returns:
        By the first of the modules that share an input; ``None`` where nothing before it can be divided.
    """
    first = next(states.batches(layer.batch_tokens))
    hidden = states.read(first)[:1]
    found: dict[str, Scaled | None] = {}
    for consumers, candidates in _inputs(layer, hidden):
        place = None
        if all(_is_quantised(layer, name, writer) for name in consumers):
            place = next((each for each in candidates if _holds(layer, each, hidden, writer)), None)
        if place is None:
            found[consumers[0]] = None
            continue
        alpha, scales = _choose(layer, place, states, writer, replace(method, sweeps=1))
        vectors = fold(layer, place, scales, _types(layer, place.producer, writer), hidden) if alpha else {}
        found[consumers[0]] = None if vectors is None else Scaled(alpha, vectors)
    return found


def fold(
    layer: DecoderLayer, place: Place, scales: Tensor, types: Mapping[str, str], hidden: Tensor
) -> dict[str, Tensor] | None:
    """Multiply the consumers of ``place`` by ``scales``, and divide its producer.

    A norm's weight is rounded to the type in which it is stored, and the consumers make up for that.

    Args:
        layer: changed in place.
        place: where.
        scales: shape ``(K,)``, equal where features come from one element; powers of two where the producer has a bias,
            whose rounding the consumers could not make up for.
        types: safetensors' types of the tensors of the producer; of float32 if they are not there.
        hidden: shape ``(sequences, length, H)``, on which the layer has to compute the same.

    Returns:
        The vectors that changed, as they are stored; ``None`` if the layer would compute something else: then nothing
        is changed.
    """
    import torch

    producer = layer.module_of(place.producer)
    touched: list[tuple[nn.Module, str]] = [
        (producer, "weight"),
        *((layer.linears[n], "weight") for n in place.consumers),
    ]
    biased = getattr(producer, "bias", None) is not None
    if biased:
        touched.append((producer, "bias"))
    before = [(module, name, getattr(module, name)) for module, name in touched]
    was = _probe(layer, place, hidden)
    full = torch.ones(len(producer.weight), device=scales.device)
    full[place.elements] = scales
    vectors: dict[str, Tensor] = {}
    if producer.weight.dim() == 1:
        gain = producer.weight + place.offset
        name = f"{place.producer}.weight"
        weight = _stored(gain / full - place.offset, types.get(name, "F32"))
        after = weight + place.offset
        usable = (gain != 0) & (after != 0) & after.isfinite()
        vectors[name] = torch.where(usable, weight, producer.weight)
        full = torch.where(usable, gain / after, torch.ones_like(full))
        _set(producer, "weight", vectors[name])
    else:
        _set(producer, "weight", producer.weight / full[:, None])
    if biased:
        name = f"{place.producer}.bias"
        vectors[name] = _stored(producer.bias / full, types.get(name, "F32"))
        _set(producer, "bias", vectors[name])
    effective = full[place.elements]
    for consumer in place.consumers:
        _set(layer.linears[consumer], "weight", layer.linears[consumer].weight * effective)
    now = _probe(layer, place, hidden)
    same = _near(now[0] * effective, was[0], was[0]) and _near(now[1], was[1], was[1] - hidden.to(was[1].device))
    if not same:
        for module, name, values in before:
            _set(module, name, values)
        return None
    return {name: values.detach() for name, values in vectors.items()}


def _allowed(producer: nn.Module, scales: Tensor) -> Tensor:
    """Return the nearest scales that :func:`fold` takes."""
    return scales if getattr(producer, "bias", None) is None else scales.log2().round().exp2()


def _probe(layer: DecoderLayer, place: Place, hidden: Tensor) -> tuple[Tensor, Tensor]:
    """Return the input of the consumers and the output of the layer."""
    import torch

    found: list[Tensor] = []
    with torch.no_grad(), layer.observed({place.consumers[0]: found.append}):
        output = layer(hidden.to(place.elements.device))
    return found[0], output


def _near(one: Tensor, other: Tensor, size: Tensor) -> bool:
    """Return whether two tensors differ by less than :data:`TOLERANCE` of ``size``."""
    return bool((one - other).norm() <= TOLERANCE * size.norm())


def _stored(values: Tensor, dtype: str) -> Tensor:
    """Return ``values`` as a tensor of safetensors' type ``dtype`` holds them, in float32."""
    import torch

    return values.to(getattr(torch, SCALE_TYPES[dtype])).float() if dtype in SCALE_TYPES else values


def _set(module: nn.Module, name: str, values: Tensor) -> None:
    from torch import nn

    setattr(module, name, nn.Parameter(values.detach(), requires_grad=False))


def _types(layer: DecoderLayer, producer: str, writer: QuantizedCheckpointWriter) -> dict[str, str]:
    """Return safetensors' types of the producer's vectors."""
    names = (f"{producer}.weight", f"{producer}.bias")
    return {name: writer.tensors[name].dtype for name in names if name in writer.tensors}


def _is_quantised(layer: DecoderLayer, name: str, writer: QuantizedCheckpointWriter) -> bool:
    """Return whether every row of a linear module is quantised."""
    rows = sum(source.rows for source in writer.sources.values() if source.module == name)
    return rows == len(layer.linears[name].weight)


def _holds(layer: DecoderLayer, place: Place, hidden: Tensor, writer: QuantizedCheckpointWriter) -> bool:
    """Return whether any scales may be folded there: some are, on the way to nothing."""
    import torch

    producer = layer.module_of(place.producer)
    if place.producer in layer.linears and not _is_quantised(layer, place.producer, writer):
        return False
    before = [
        (module, name, values)
        for module in (producer, *(layer.linears[each] for each in place.consumers))
        for name in ("weight", "bias")
        if (values := getattr(module, name, None)) is not None
    ]
    pattern = torch.arange(len(producer.weight), device=place.elements.device) * 0.37
    scales = _allowed(producer, pattern.sin().exp2()[place.elements])  # between a half and two
    found = fold(layer, place, scales, {}, hidden)
    for module, name, values in before:
        _set(module, name, values)
    return found is not None


def _inputs(layer: DecoderLayer, hidden: Tensor) -> Iterator[tuple[tuple[str, ...], list[Place]]]:
    """Yield the linear modules that share each input, in the order in which they run, and where it may come from."""
    import torch

    ran: list[str] = []
    entered: dict[str, Tensor] = {}  # held, so that no other tensor gets the same address
    norms: dict[str, Tensor] = {}

    def note_linear(name: str, inputs: tuple[Any, ...]) -> None:
        ran.append(name)
        entered[name] = inputs[0]

    def note_norm(name: str, output: Any) -> None:
        if isinstance(output, torch.Tensor):
            norms[name] = output

    handles = [
        linear.register_forward_pre_hook(lambda _, inputs, name=name: note_linear(name, inputs))
        for name, linear in layer.linears.items()
    ]
    for path, module in layer.module.named_modules():
        weight = module._parameters.get("weight")
        if weight is not None and weight.dim() == 1:
            name = f"{layer.name}.{path}"
            handles.append(module.register_forward_hook(lambda _, __, output, name=name: note_norm(name, output)))
    device = next(iter(layer.linears.values())).weight.device
    try:
        with torch.no_grad():
            layer(hidden.to(device))
    finally:
        for handle in handles:
            handle.remove()
    groups: dict[tuple[int, tuple[int, ...]], list[str]] = {}
    for name in ran:
        groups.setdefault((entered[name].data_ptr(), tuple(entered[name].shape)), []).append(name)
    for names in groups.values():
        values = entered[names[0]]
        width = values.shape[-1]
        whole = torch.arange(width, device=device)
        candidates = [
            Place(tuple(names), norm, whole, offset)
            for norm, output in norms.items()
            if output.data_ptr() == values.data_ptr() and output.shape == values.shape
            for offset in (0.0, 1.0)
        ]
        if not candidates:
            earlier = ran[: ran.index(names[0])]
            candidates = [
                Place(tuple(names), linear, start + rows)
                for linear in reversed(earlier)
                for start, rows in _rows(layer, linear, width)
            ]
        yield tuple(names), candidates


def _rows(layer: DecoderLayer, linear: str, width: int) -> Iterator[tuple[int, Tensor]]:
    """Yield the parts of a linear module that ``width`` features may come from: first row, and the row of each."""
    import torch

    config = layer.config
    weight = layer.linears[linear].weight
    features = torch.arange(width, device=weight.device)
    for _, start, stop in reversed(parts(f"{linear}.weight", len(weight), config)):
        count = stop - start
        if count == width:
            yield start, features
        elif width % count == 0 and attention_rows(config) == (width, count):  # grouped queries
            each = width // int(config["num_attention_heads"])
            yield start, features // (each * (width // count)) * each + features % each


def _choose(
    layer: DecoderLayer, place: Place, states: Activations, writer: QuantizedCheckpointWriter, method: Method
) -> tuple[float, Tensor]:
    """Return the exponent with which ``method`` loses least of the consumers' outputs, and its scales."""
    import torch

    width, device = len(place.elements), place.elements.device
    moments = Moments(width, device)
    sizes = torch.zeros(width, device=device)

    def take(values: Tensor) -> None:
        moments.add(values)
        sizes.add_(values.abs().sum(0))

    layer.observe(states, {place.consumers[0]: take})
    producer = layer.module_of(place.producer)
    hessian = moments.hessian
    shared = torch.zeros(int(place.elements.max()) + 1, device=device).index_add_(0, place.elements, sizes)
    sizes = shared[place.elements]  # up to a factor, which is taken out below
    sizes = sizes.clamp_min(float(sizes.max()) / SPAN)
    best, chosen = _lost(layer, place, torch.ones_like(sizes), hessian, writer, method), (0.0, torch.ones_like(sizes))
    for alpha in ALPHAS if bool(sizes.min() > 0) else ():
        scales = sizes**alpha
        scales = _allowed(producer, scales / (scales.max() * scales.min()).sqrt())
        lost = _lost(layer, place, scales, hessian, writer, method)
        if lost < best:
            best, chosen = lost, (alpha, scales)
    return chosen


def _lost(
    layer: DecoderLayer,
    place: Place,
    scales: Tensor,
    hessian: Tensor,
    writer: QuantizedCheckpointWriter,
    method: Method,
) -> float:
    """Return the squared error of the consumers' outputs if they are rounded with ``scales``, on some rows of each."""
    import torch

    scaled = hessian / scales / scales[:, None]
    inputs = method.eliminate(scaled)
    total = 0.0
    for module, source in writer.sources.items():
        if source.module not in place.consumers:
            continue
        step = max(1, source.rows // ROWS)
        weight = layer.linears[source.module].weight[source.start : source.stop : step]
        dtype = getattr(torch, SCALE_TYPES[writer.scale_dtype(module)])
        rounded = method.round(weight * scales, inputs, scaled.diagonal(), writer.schemes[module], dtype)
        error = rounded.dequantise() / scales - weight
        total += step * float(((error @ hessian) * error).sum())
    return total


def summary(found: Mapping[str, Scaled | None]) -> Sequence[str]:
    """Return one line for each kind of input: how many were scaled, and how many could not be."""
    kinds: dict[str, list[Scaled | None]] = {}
    for name, each in found.items():
        kinds.setdefault(name.rsplit(".", 1)[-1], []).append(each)
    lines = []
    for kind, entries in kinds.items():
        alphas = [each.alpha for each in entries if each is not None]
        used = [alpha for alpha in alphas if alpha]
        line = f"scaling: the input of {kind} is scaled in {len(used)} of {len(entries)} layers"
        if used:
            line += f", alpha {sum(used) / len(used):.2f} on average"
        if len(alphas) < len(entries):
            line += f"; in {len(entries) - len(alphas)} nothing before it can be divided"
        lines.append(line)
    return lines
