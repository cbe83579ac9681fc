"""A streamed build in which the parameters say how every matrix is kept."""

from __future__ import annotations

from collections.abc import Callable
from fnmatch import fnmatchcase
from typing import Any

from olivine.errors import ModelError
from olivine.models.checkpoint import Checkpoint
from olivine.passes.base import RunContext
from olivine.passes.convert.attaching import Choice, Choose
from olivine.passes.convert.builder_params import ModelBuilderParams
from olivine.passes.convert.mixed_facts import mixed_bits
from olivine.passes.convert.streamable import multiplies_floats
from olivine.quant.scheme import Rounding, Scheme
from olivine.quant.stored.reading import QuantizedCheckpointReader

HEAD = "/lm_head"
TABLE = "/model/embed_tokens"
"""Names that the model builder gives the output layer and the embedding."""


def rounding_of(params: ModelBuilderParams) -> Rounding:
    """Return how weights are rounded."""
    return "hqq" if params.int4_algo_config == "hqq" else "search"


def graph_params(params: ModelBuilderParams) -> ModelBuilderParams:
    """Return the parameters that the skeleton's graph is built with: without those that say how weights are kept."""
    return params.model_copy(
        update={
            "precision": "int4",
            "int4_algo_config": None,
            "max_size": None,
            "average_bits": None,
            "max_divergence": None,
            "int4_block_size": None,
            "int4_is_symmetric": None,
            "int4_op_types_to_quantize": None,
            "int4_nodes_to_exclude": None,
            "extra_options": params.extra_options | {"shared_embeddings": False},
        }
    )


class UniformBuild:
    """Chooses for one build; see :data:`.streamed_build.Choosing`.

    Args:
        params: of the pass.
        context: of the pass.
        checkpoint: what is built.
        quantised: the same, if it is quantised; its integers stay as they are.
        tied: whether embedding and output layer share their weights.
        provider: the builder's name of the execution provider.

    Attributes:
        unmatched: patterns of ``int4_nodes_to_exclude`` that have matched nothing so far.
    """

    def __init__(
        self,
        params: ModelBuilderParams,
        context: RunContext,
        checkpoint: Checkpoint,
        quantised: QuantizedCheckpointReader | None,
        *,
        tied: bool,
        provider: str,
    ) -> None:
        self._params = params
        self._stored = quantised.schemes if quantised else {}
        self._keeps_floats = bool(self._stored) and multiplies_floats(context.target)
        self._method = rounding_of(params)
        self._bits = 8 if params.precision == "int8" else 4
        self._more_bits = mixed_bits(params.int4_algo_config, int(checkpoint.config.get("num_hidden_layers") or 0))
        self._head_bits = params.lm_head_bits or self._more_bits.get(HEAD, self._bits)
        self._table_bits = params.embedding_bits or self._usual_table_bits(tied=tied, provider=provider)
        self._exclude = params.int4_nodes_to_exclude or []
        self.unmatched = set(self._exclude)

    def _usual_table_bits(self, *, tied: bool, provider: str) -> int | None:
        """Return the bits of an embedding of which the parameters say nothing; ``None`` leaves it as it is."""
        if tied:
            return self._head_bits
        if "Gather" in (self._params.int4_op_types_to_quantize or ()):
            return self._bits
        return 8 if provider == "cpu" else None  # elsewhere no kernel was seen to run

    def choosing(self, size_with: Callable[[Choose], int]) -> Choose:
        """Return the choice, which the size does not change."""
        return self.choose

    def choose(self, name: str, width: int, sources: tuple[str, ...]) -> Choice:
        """See :data:`.attaching.Choose`."""
        modules = [each.removesuffix(".weight") for each in sources]
        names = [f"{name}/{'Gather' if name == TABLE else 'MatMul'}", *modules]
        excluding = {pattern for pattern in self._exclude if any(fnmatchcase(each, pattern) for each in names)}
        self.unmatched.difference_update(excluding)
        if excluding:
            return Choice(None)
        held = {self._stored.get(each) for each in modules}
        if held != {None}:
            return Choice(_only(held, name), None)
        if self._keeps_floats and name not in (TABLE, HEAD):
            return Choice(None)  # it was left as it is on purpose
        group, symmetric = self._params.int4_block_size or 32, self._params.int4_is_symmetric is not False
        if name != TABLE:
            bits = self._head_bits if name == HEAD else self._more_bits.get(name, self._bits)
            return Choice(Scheme(bits, group, symmetric), self._method)
        if self._table_bits is None or width % group:
            return Choice(None)
        return Choice(Scheme(self._table_bits, group, symmetric), self._method)

    def metrics(self) -> dict[str, float]:
        """Return nothing: there is nothing worth keeping beyond what was asked for."""
        return {}

    def attributes(self) -> dict[str, Any]:
        """Return what is kept with the artifact."""
        return {"precision": self._params.precision}


def _only(held: set[Scheme | None], name: str) -> Scheme:
    """Return the one scheme in which all rows of a node are held."""
    (first, *others) = held
    if first is None or others:
        raise ModelError(
            f"{name} joins weights that the checkpoint holds in different ways",
            why="the runtime multiplies with query, key and value at once, so their bits and groups must be the same",
            remedy="quantise these modules alike",
        )
    return first
