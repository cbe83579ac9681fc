"""A model layer by layer from disk: one decoder layer and the hidden states of the calibration set in memory, no more.

Nothing here knows an architecture. transformers builds the model from its config without weights. To learn what a
layer is called with (position embeddings, masks, windows ...), the model's own ``forward`` runs with stand-ins for its
layers, which note their arguments and compute nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from olivine.errors import Location, ModelError
from olivine.models.checkpoint import CONFIG
from olivine.models.decoder import EMBEDDING, HEAD
from olivine.quant.calibration.activations import BUDGET, Activations
from olivine.quant.reading import TensorReader

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

BATCH_TOKENS = 2048
"""Tokens that go through a layer at a time, at least one sequence."""

Observer = Callable[["Tensor"], None]
"""Takes the inputs of a linear module, float32, shape ``(tokens, K)``."""


class DecoderLayer:
    """One decoder layer with its weights, in float32 on the walker's device.

    Attributes:
        index: which one, from 0.
        name: as the checkpoint has it (``model.layers.3``).
        config: the checkpoint's ``config.json``.
        module: the layer as transformers has it. Its weights may be changed in place: the layers after it then see
            what the changed one computes.
        linears: its linear modules, by the names that the checkpoint has for them
            (``model.layers.3.self_attn.qkv_proj``), in the order in which the layer holds them.
        batch_tokens: the walker's.
    """

    def __init__(self, walker: LayerWalker, index: int, module: nn.Module, name: str) -> None:
        from torch import nn

        self._walker = walker
        self.batch_tokens = walker.batch_tokens
        self.index = index
        self.name = name
        self.config: Mapping[str, Any] = walker.reader.checkpoint.config
        self.module = module
        self.linears: dict[str, nn.Linear] = {
            f"{name}.{path}": each for path, each in module.named_modules() if isinstance(each, nn.Linear)
        }

    def module_of(self, name: str) -> nn.Module:
        """Return the module that the checkpoint calls ``name``."""
        return self.module.get_submodule(name.removeprefix(f"{self.name}."))

    def __call__(self, hidden: Tensor) -> Tensor:
        """Return what the layer makes of ``hidden``; both have the shape ``(sequences, length, H)``.

        Gradients flow if the caller has not turned them off.
        """
        args, kwargs = self._walker.call_of(self.index, *hidden.shape[:2])
        found = self.module(hidden, *args, **kwargs)
        return found[0] if isinstance(found, tuple) else found

    def outputs(self, source: Activations) -> Iterator[tuple[Any, Tensor]]:
        """Run the layer over ``source`` and yield each :class:`.Batch` with its output, on the walker's device."""
        import torch

        with torch.no_grad():
            for batch in source.batches(self._walker.batch_tokens):
                yield batch, self(source.read(batch).to(self._walker.device))

    def advance(self, source: Activations, target: Activations | None = None) -> None:
        """Put what the layer makes of ``source`` into ``target``, or in its own place."""
        for batch, output in self.outputs(source):
            (target or source).write(batch, output)

    def observe(self, source: Activations, observers: Mapping[str, Observer]) -> None:
        """Run the layer over ``source``, as far as it must, and show the inputs of its linear modules to ``observers``.

        Args:
            source: what enters the layer.
            observers: by name in :attr:`linears`; each is called once per batch, with shape ``(tokens, K)``.
        """
        for batch in source.batches(self._walker.batch_tokens):
            inputs = self.inputs(source.read(batch), list(observers))
            for name, observer in observers.items():
                observer(inputs[name])

    def inputs(self, hidden: Tensor, names: Sequence[str]) -> dict[str, Tensor]:
        """Return the inputs of linear modules, each of shape ``(tokens, K)``, where ``hidden`` enters the layer.

        Args:
            hidden: shape ``(sequences, length, H)``, on any device.
            names: of modules in :attr:`linears`. What comes after the last of them is not computed.
        """
        import torch

        found: dict[str, Tensor] = {}

        def note(name: str, inputs: Tensor) -> None:
            found[name] = inputs
            if len(found) == len(names):
                raise _Enough

        observers = {name: partial(note, name) for name in names}
        with torch.no_grad(), self.observed(observers), suppress(_Enough):
            self(hidden.to(self._walker.device))
        return found

    @contextmanager
    def observed(self, observers: Mapping[str, Observer]) -> Iterator[None]:
        """Show the inputs of linear modules to ``observers`` whenever the layer runs, while this is open."""
        handles = [
            self.linears[name].register_forward_pre_hook(
                lambda _, inputs, show=show: show(inputs[0].detach().flatten(0, -2))
            )
            for name, show in observers.items()
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def groups(self) -> list[list[str]]:
        """Return the names of :attr:`linears` in the order in which they run; those with the same input together."""
        import torch

        order: list[tuple[int, list[str]]] = []
        seen: list[Tensor] = []  # held, so that no other tensor gets the same address

        def note(name: str, inputs: Tensor) -> None:
            seen.append(inputs)
            if order and order[-1][0] == inputs.data_ptr():
                order[-1][1].append(name)
            else:
                order.append((inputs.data_ptr(), [name]))

        handles = [
            linear.register_forward_pre_hook(lambda _, inputs, name=name: note(name, inputs[0]))
            for name, linear in self.linears.items()
        ]
        try:
            with torch.no_grad():
                width = self._walker.width
                self(torch.zeros(1, 2, width, device=self._walker.device))
        finally:
            for handle in handles:
                handle.remove()
        return [names for _, names in order]


class LayerWalker:
    """Takes hidden states through a checkpoint of any decoder that transformers can build, one layer at a time.

    Example::

        walker = LayerWalker(TensorReader(folder))
        states = walker.embed(sequences)
        for index in range(walker.layer_count):
            with walker.layer(index) as layer:
                layer.observe(states, {name: hessians[name].add for name in layer.linears})
                ...  # round the weights of layer.linears in place
                layer.advance(states)
        with walker.head() as logits:
            ...

    Args:
        reader: the checkpoint.
        device: where layers compute; hidden states stay in main memory or on disk.
        batch_tokens: tokens that go through a layer at a time.
        trust_remote_code: whether code that comes with the model may run.

    Attributes:
        config: transformers' config.
        layer_count: decoder layers.
        width: ``H``, features of a hidden state.

    Raises:
        ModelError: transformers cannot build the model, or its layers are called with what depends on the tokens.
    """

    def __init__(
        self,
        reader: TensorReader,
        *,
        device: str | torch.device = "cpu",
        batch_tokens: int = BATCH_TOKENS,
        trust_remote_code: bool = False,
    ) -> None:
        import torch

        self.reader = reader
        self.device = torch.device(device)
        self.batch_tokens = batch_tokens
        self._model = _skeleton(reader, trust_remote_code).to_device(self.device)
        self.config = self._model.causal.config
        self.layer_count = len(self._model.layers)
        self.width = int(self.config.hidden_size)
        self._calls: dict[tuple[int, int], list[tuple[tuple[Any, ...], dict[str, Any]]]] = {}

    def embed(
        self, sequences: Sequence[Sequence[int]], *, budget: int = BUDGET, folder: Path | None = None
    ) -> Activations:
        """Return what enters the first layer.

        Only the rows of the embedding that the tokens need are read.

        Args:
            sequences: token ids; sorted by length if lengths differ, so that equal ones are side by side.
            budget: bytes of hidden states that may be in memory; more go to a file.
            folder: where that file goes.

        Raises:
            ModelError: an id is not in the vocabulary.
        """
        import torch

        states = Activations([len(each) for each in sequences], self.width, budget=budget, folder=folder)
        ids = torch.tensor([token for each in sequences for token in each])
        used, places = ids.unique(return_inverse=True)
        rows = self.reader.tensors[EMBEDDING].shape[0]
        if int(used[-1]) >= rows or int(used[0]) < 0:
            raise ModelError(
                f"token {int(used[-1])} is not in the vocabulary of {rows}",
                where=Location(str(self.reader.checkpoint.path / CONFIG)),
                why="tokenizer and model do not belong together",
                remedy="download the model again",
            )
        table = torch.stack([torch.from_numpy(self.reader.read_rows(EMBEDDING, int(i), int(i) + 1))[0] for i in used])
        embedding = self._model.embedding
        embedding.padding_idx = None
        _assign(embedding, "weight", table.to(self.device))
        try:
            with torch.no_grad():
                for batch in states.batches(self.batch_tokens):
                    here = places[batch.first : batch.stop].view(batch.sequences, batch.length).to(self.device)
                    states.write(batch, self._model.first_hidden(here))
        finally:
            _to_meta(embedding)
        return states

    @contextmanager
    def layer(self, index: int) -> Iterator[DecoderLayer]:
        """Read decoder layer ``index`` and give its memory back afterwards.

        Raises:
            ModelError: one of its weights is missing, of another shape, NaN or Inf.
        """
        module, name = self._model.layers[index], f"{self._model.layers_name}.{index}"
        try:
            for path, parameter in list(module.named_parameters()):
                _assign(module, path, self._read(f"{name}.{path}", tuple(parameter.shape)))
            yield DecoderLayer(self, index, module, name)
        finally:
            _to_meta(module)

    @contextmanager
    def head(self) -> Iterator[Callable[[Tensor], Tensor]]:
        """Read the last norm and the output layer (whole); yield what makes logits of the last hidden states.

        It maps ``(sequences, length, H)`` to ``(sequences, length, V)``, with all that the model does on the way.
        Gradients flow if the caller has not turned them off.
        """
        with self._outside(head=True):

            def logits(hidden: Tensor) -> Tensor:
                return self._model.logits(hidden.to(self.device))

            yield logits

    @property
    def output_layer(self) -> nn.Linear:
        """The module that makes logits; it has its weight while :meth:`head` is open."""
        found: nn.Linear = self._model.causal.get_output_embeddings()
        return found

    @contextmanager
    def _outside(self, *, head: bool) -> Iterator[None]:
        """Read the weights that are in no layer, but not the embedding; the output layer only if ``head``."""
        causal = self._model.causal
        paths = [
            path
            for path, _ in causal.named_parameters()
            if not path.startswith(f"{self._model.layers_name}.") and path != EMBEDDING
        ]
        if HEAD not in paths and hasattr(causal, "lm_head"):  # tied: one parameter of two names
            paths.append(HEAD)
        paths = [path for path in paths if head or path != HEAD]
        try:
            for path in paths:
                stored = EMBEDDING if path == HEAD and path not in self.reader.tensors else path
                _assign(causal, path, self._read(stored, tuple(causal.get_parameter(path).shape)))
            yield
        finally:
            for path in paths:
                _assign(causal, path, causal.get_parameter(path).to("meta"))

    def head_inputs(self, states: Activations) -> Iterator[Tensor]:
        """Read the last norm; yield what enters the output layer for each batch, shape ``(tokens, H)``."""
        import torch

        causal = self._model.causal
        found: list[Tensor] = []

        def note(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            found.append(inputs[0].detach().flatten(0, -2))
            raise _Enough

        handle = causal.get_output_embeddings().register_forward_pre_hook(note)
        try:
            with self._outside(head=False):
                for batch in states.batches(self.batch_tokens):
                    with torch.no_grad(), suppress(_Enough):
                        self._model.logits(states.read(batch).to(self.device))
                    yield found.pop()
        finally:
            handle.remove()

    def layer_of(self, module: str) -> int:
        """Return which decoder layer ``module`` is in, by its name in the checkpoint."""
        return int(module.removeprefix(f"{self._model.layers_name}.").split(".", 1)[0])

    def call_of(self, index: int, sequences: int, length: int) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return what layer ``index`` is called with beside the hidden states, for a batch of this shape."""
        key = (sequences, length)
        if key not in self._calls:
            if len(self._calls) >= 8:  # masks of many lengths would add up
                self._calls.clear()
            self._calls[key] = self._model.calls(sequences, length, self.width, self.device)
        return self._calls[key][index]

    def _read(self, name: str, shape: tuple[int, ...]) -> Tensor:
        import torch

        info = self.reader.tensors.get(name)
        if info is None or info.shape != shape:
            found = "is missing" if info is None else f"is {' x '.join(map(str, info.shape))}"
            raise ModelError(
                f"{name} {found}",
                where=Location(str(self.reader.checkpoint.path)),
                why=f"a {type(self._model.causal).__name__} of transformers has {' x '.join(map(str, shape))} there",
                remedy="download the model again",
            )
        return torch.from_numpy(self.reader.read(name)).to(self.device)


class _Enough(Exception):
    """All that was asked for is there; what comes after it need not be computed, or has no weights."""


class _Skeleton:
    """A model of transformers without weights; what is computed of its config (rotary frequencies ...) is there."""

    def __init__(self, causal: Any, layers_name: str) -> None:
        self.causal = causal
        self.layers_name = layers_name
        self.layers: nn.ModuleList = causal.get_submodule(layers_name)
        self._holder, self._attribute = layers_name.rpartition(".")[::2]
        self.embedding: nn.Embedding = causal.get_input_embeddings()

    def to_device(self, device: torch.device) -> _Skeleton:
        for module in self.causal.modules():
            for name, buffer in module.named_buffers(recurse=False):
                if not buffer.is_meta:
                    setattr(module, name, buffer.to(device))
        return self

    def first_hidden(self, ids: Tensor) -> Tensor:
        """Return what the first layer is called with, for ids of the shortened embedding."""
        with self._standing_in() as stand_ins, suppress(_Enough):
            self.causal.base_model(input_ids=ids, use_cache=False)
        found: Tensor = stand_ins[0].hidden
        return found

    def logits(self, hidden: Tensor) -> Tensor:
        """Return the logits where the last layer returns ``hidden``."""
        with self._standing_in(hidden):
            found: Tensor = self.causal(inputs_embeds=hidden, use_cache=False).logits
        return found

    def calls(
        self, sequences: int, length: int, width: int, device: torch.device
    ) -> list[tuple[tuple[Any, ...], dict[str, Any]]]:
        """Return what each layer is called with beside the hidden states."""
        import torch

        found = []
        for fill in (0.0, 1.0):
            with torch.no_grad(), self._standing_in() as stand_ins:
                values = torch.full((sequences, length, width), fill, device=device)
                with suppress(_Enough):
                    self.causal.base_model(inputs_embeds=values, use_cache=False)
            found.append([(each.args, each.kwargs) for each in stand_ins])
        if not _same(*found):
            raise ModelError(
                f"the layers of {type(self.causal).__name__} are called with more than hidden states",
                why="an argument depends on the tokens, so a layer cannot be run apart from the model",
                remedy="use a method that needs no calibration",
            )
        return found[0]

    @contextmanager
    def _standing_in(self, last: Tensor | None = None) -> Iterator[list[Any]]:
        """Have stand-ins in the place of all layers; the last returns ``last``, or ends the run."""
        from torch import nn

        class StandIn(nn.Module):  # type: ignore[misc]
            def __init__(self, layer: nn.Module, is_last: bool) -> None:
                super().__init__()
                self.__dict__["stands_for"] = layer  # not a sub-module
                self.is_last = is_last
                self.hidden: Any = None
                self.args: tuple[Any, ...] = ()
                self.kwargs: dict[str, Any] = {}

            def forward(self, hidden_states: Any, *args: Any, **kwargs: Any) -> Any:
                self.hidden, self.args, self.kwargs = hidden_states, args, kwargs
                if not self.is_last:
                    return hidden_states
                if last is None:
                    raise _Enough
                return last

            def __getattr__(self, name: str) -> Any:
                try:
                    return super().__getattr__(name)
                except AttributeError:  # some models ask a layer for its kind of attention
                    return getattr(self.__dict__["stands_for"], name)

        count = len(self.layers)
        stand_ins = [StandIn(layer, number == count) for number, layer in enumerate(self.layers, 1)]
        holder = self.causal.get_submodule(self._holder)
        setattr(holder, self._attribute, nn.ModuleList(stand_ins))
        try:
            yield stand_ins
        finally:
            setattr(holder, self._attribute, self.layers)


def _skeleton(reader: TensorReader, trust_remote_code: bool) -> _Skeleton:
    """Build the model without weights.

    Raises:
        ModelError: transformers cannot, or it is no decoder with a list of layers.
    """
    import torch
    from torch import nn
    from torch.nn.modules.module import register_module_parameter_registration_hook
    from transformers import AutoConfig, AutoModelForCausalLM

    path = reader.checkpoint.path
    where = Location(str(path / CONFIG))

    def without_values(_module: nn.Module, _name: str, parameter: Any) -> Any:
        return nn.Parameter(parameter.to("meta"), requires_grad=False) if parameter is not None else None

    # Parameters only: buffers are computed from the config, and never read.
    hook = register_module_parameter_registration_hook(without_values)
    try:
        config = AutoConfig.from_pretrained(path, trust_remote_code=trust_remote_code)
        config.use_cache = False
        causal = AutoModelForCausalLM.from_config(config, dtype=torch.float32, trust_remote_code=trust_remote_code)
    except (ValueError, KeyError, ImportError, OSError) as error:
        raise ModelError(
            f"transformers cannot build this model: {str(error).splitlines()[0]}",
            where=where,
            remedy="install a transformers that knows the architecture, or use a method that needs no calibration",
        ) from error
    finally:
        hook.remove()
    causal.eval()
    count = getattr(config, "num_hidden_layers", None)
    lists = [name for name, each in causal.named_modules() if isinstance(each, nn.ModuleList) and len(each) == count]
    if not lists or EMBEDDING not in reader.tensors:
        raise ModelError(
            f"a {type(causal).__name__} is no plain decoder",
            where=where,
            why="it has no list of num_hidden_layers layers" if not lists else f"there is no {EMBEDDING}",
            remedy="use a method that needs no calibration",
        )
    return _Skeleton(causal, lists[0])


def _assign(module: nn.Module, path: str, values: Tensor) -> None:
    """Make ``values`` the parameter ``path``."""
    from torch import nn

    parent, leaf = path.rpartition(".")[::2]
    setattr(module.get_submodule(parent), leaf, nn.Parameter(values, requires_grad=False))


def _to_meta(module: nn.Module) -> None:
    """Drop the values of all parameters."""
    for path, parameter in list(module.named_parameters()):
        _assign(module, path, parameter.to("meta"))


def _same(one: Any, other: Any) -> bool:
    """Return whether two arguments are equal, tensors by their values."""
    import torch

    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and torch.equal(one, other)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(_same, one, other))
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    return bool(one == other)
