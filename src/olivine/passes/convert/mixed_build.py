"""A streamed build in which each matrix has the bits that serve it best within a budget."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from olivine.errors import Location, StepError
from olivine.passes.base import RunContext
from olivine.passes.convert.attaching import Choice, Choose
from olivine.passes.convert.mixed_facts import allowed_options, scale_bytes
from olivine.passes.convert.uniform_build import rounding_of
from olivine.passes.mixture import Mixer, Mixture, say
from olivine.quant.reading import TensorReader
from olivine.quant.scheme import Scheme

if TYPE_CHECKING:
    from olivine.passes.convert.builder_params import ModelBuilderParams

RESERVE = 2048
"""Bytes for what is added to ``genai_config.json`` after the build."""


class MixedBuild:
    """Chooses for one build; see :data:`.streamed_build.Choosing`.

    Args:
        params: of the pass.
        context: of the pass.
        reader: the checkpoint.
        tied: whether embedding and output layer share their weights.
        provider: the builder's name of the execution provider.

    Attributes:
        unmatched: nothing: what is excluded by pattern is no matter of budgets, and the plan refuses it.
    """

    unmatched: frozenset[str] = frozenset()

    def __init__(
        self,
        params: ModelBuilderParams,
        context: RunContext,
        reader: TensorReader,
        *,
        tied: bool,
        provider: str,
    ) -> None:
        self._params = params
        self._context = context
        self._method = rounding_of(params)
        self._mixer = Mixer(
            params,
            context,
            reader,
            self._method,
            tied=tied,
            options=lambda group: allowed_options(params, group, provider),
            sizer=lambda group, scheme: group.stored_bytes(scheme, scale_bytes(provider)),
        )
        self._mixture: Mixture | None = None

    def choosing(self, size_with: Callable[[Choose], int]) -> Choose:
        """Return the choice.

        Raises:
            StepError: the budget cannot be met; the smallest size that can is named.
        """
        params, mixer = self._params, self._mixer
        total: int | None = None
        if params.average_bits is not None:
            found = mixer.within_bits(params.average_bits)
        elif params.max_divergence is not None:
            found = mixer.within_divergence(params.max_divergence)
        else:
            assert params.max_size is not None
            found, total = self._within_size(params.max_size, size_with)
        if found.measured is None:
            found = mixer.measured(found)
        self._mixture = found
        say(found, self._context, total)
        return self._choose({name: option.scheme for name, option in found.chosen.items()})

    def _within_size(self, limit: int, size_with: Callable[[Choose], int]) -> tuple[Mixture, int]:
        """Return the best mixture whose model takes at most ``limit`` bytes, and what it takes."""
        template = self._context.inputs["model"] / "chat_template.jinja"
        beside = RESERVE + len(json.dumps(self._params.search, indent=4))
        if template.is_file():
            beside += template.stat().st_size  # copied if the builder has not written one
        schemes = {name: option.scheme for name, option in self._mixer.smallest.items()}
        least = size_with(self._choose(schemes)) + beside
        if least > limit:
            raise StepError(
                f"max_size {limit / 1e6:,.2f} MB cannot be had: the smallest possible is {least / 1e6:,.2f} MB",
                where=Location(path="max_size"),
                why="every matrix has the fewest bits then",
                remedy="give more, or start from a smaller model",
            )
        budget = limit - beside
        while True:
            try:
                found = self._mixer.within_bytes(budget)
            except ValueError:  # the last bytes are the padding's
                found = self._mixer.within_bytes(sum(each.bytes for each in self._mixer.smallest.values()))
            schemes = {name: option.scheme for name, option in found.chosen.items()}
            total = size_with(self._choose(schemes)) + beside
            if total <= limit:
                return found, total
            budget = min(budget, sum(each.bytes for each in found.chosen.values())) - (total - limit)

    def _choose(self, schemes: dict[str, Scheme | None]) -> Choose:
        """Return ``schemes``, by group, as the graph asks for them."""
        by_tensor = {
            tensor: schemes[name]
            for name, group in self._mixer.groups.items()
            if group.role == "linear"
            for tensor in group.tensors
        }

        def choose(name: str, width: int, sources: tuple[str, ...]) -> Choice:
            if name == "/lm_head":
                return Choice(schemes["lm_head"], self._method)
            if name == "/model/embed_tokens":
                scheme = schemes.get("model.embed_tokens", schemes["lm_head"])
                return Choice(scheme, self._method)
            return Choice(by_tensor[sources[0]], self._method)

        return choose

    def metrics(self) -> dict[str, float]:
        """Return the numbers worth keeping."""
        assert self._mixture is not None, "choosing comes first"
        found = {"bits_per_weight": self._mixture.bits, "predicted_divergence": self._mixture.predicted}
        return found if self._mixture.measured is None else {**found, "measured_divergence": self._mixture.measured}

    def attributes(self) -> dict[str, Any]:
        """Return what is kept with the artifact: the whole map, and the bits of most weights as the precision."""
        assert self._mixture is not None, "choosing comes first"
        return {"precision": f"int{self._mixture.commonest}", **self._mixture.attributes()}
