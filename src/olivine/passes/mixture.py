"""A scheme for each matrix under a budget, for passes that choose bits: sensitivities from the cache or made anew.

What is chosen is told to the user in a few lines, and kept with the result, matrix by matrix.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from olivine.errors import Location, StepError
from olivine.passes.base import RunContext
from olivine.passes.budget import BudgetParams
from olivine.quant.allocation import Option, allocate, allocate_within
from olivine.quant.scheme import Rounding, Scheme
from olivine.quant.sensitivity.groups import FusedGroup, fused_groups, options_of
from olivine.quant.sensitivity.table import VERSION, Sensitivities

if TYPE_CHECKING:
    from olivine.quant.reading import TensorReader

CALIBRATION_TOKENS = 8192
"""Tokens on which sensitivities are found; more change the ranking little."""

SEQUENCE_LENGTH = 512
"""Tokens of a sequence, unless the data config says fewer."""

ROUNDS = 4
"""Mixes that are measured before the best of them is taken, for a budget of divergence."""

Sizer = Callable[[FusedGroup, Scheme | None], int]


@dataclass(frozen=True)
class Mixture:
    """What was chosen.

    Attributes:
        chosen: the option of each group, by name.
        groups: the groups, by name.
        predicted: sum of the losses, nats a token.
        measured: divergence of the mix on the calibration text, if it was measured.
    """

    chosen: Mapping[str, Option]
    groups: Mapping[str, FusedGroup]
    predicted: float
    measured: float | None = None

    @property
    def bits(self) -> float:
        """Average bits per weight, scales and zero points included."""
        return 8 * sum(each.bytes for each in self.chosen.values()) / sum(each.weights for each in self.groups.values())

    @property
    def commonest(self) -> int:
        """Bits of most weights."""
        found: Counter[int] = Counter()
        for name, option in self.chosen.items():
            if option.scheme is not None:
                found[option.scheme.bits] += self.groups[name].weights
        return found.most_common(1)[0][0]

    @property
    def scheme_of(self) -> dict[str, Scheme | None]:
        """The scheme of each tensor of the checkpoint."""
        return {tensor: self.chosen[name].scheme for name, group in self.groups.items() for tensor in group.tensors}

    def attributes(self) -> dict[str, Any]:
        """Return what is kept with the artifact."""
        rows = {
            name: {
                "bits": option.scheme.bits if option.scheme is not None else None,
                "group_size": option.scheme.group_size if option.scheme is not None else None,
                "symmetric": option.scheme.symmetric if option.scheme is not None else None,
                "loss": option.loss,
                "bytes": option.bytes,
            }
            for name, option in self.chosen.items()
        }
        return {"mixture": rows, "average_bits": self.bits, "predicted_divergence": self.predicted} | (
            {"measured_divergence": self.measured} if self.measured is not None else {}
        )

    def lines(self) -> list[str]:
        """Return the choice in a few lines: for each kind of matrix, which layers have what."""
        kinds: dict[str, dict[Scheme | None, list[int]]] = {}
        for name, option in self.chosen.items():
            parts = name.split(".")
            layer = int(parts[2]) if len(parts) > 2 and parts[2].isdigit() else -1
            kinds.setdefault(parts[-1], {}).setdefault(option.scheme, []).append(layer)
        told = f"{self.bits:.2f} bits a weight; divergence about {self.predicted:.4f} nats a token"
        if self.measured is not None:
            told += f", measured {self.measured:.4f}"
        lines = [told]
        for kind, schemes in kinds.items():
            cells = [
                describe(scheme) + ("" if layers == [-1] else f" in {_ranges(layers)}")
                for scheme, layers in sorted(schemes.items(), key=lambda each: -len(each[1]))
            ]
            lines.append(f"{kind}: {'; '.join(cells)}")
        return lines


def describe(scheme: Scheme | None) -> str:
    """Return a scheme in a word or two: ``int4/32``, with zero points ``int4/32+z``."""
    if scheme is None:
        return "float"
    return f"int{scheme.bits}/{scheme.group_size}{'' if scheme.symmetric else '+z'}"


def _ranges(layers: Sequence[int]) -> str:
    """Return ``0-3, 7``."""
    found: list[list[int]] = []
    for layer in sorted(layers):
        if found and found[-1][1] == layer - 1:
            found[-1][1] = layer
        else:
            found.append([layer, layer])
    return ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in found)


class Mixer:
    """Chooses a scheme for each matrix of one checkpoint.

    Args:
        params: the budget.
        context: of the running pass.
        reader: the checkpoint.
        method: how weights are rounded.
        tied: whether embedding and output layer share their weights in the result.
        options: what may be chosen for a group.
        sizer: bytes of a group in a scheme.

    Attributes:
        groups: the groups that are chosen for, by name.
    """

    def __init__(
        self,
        params: BudgetParams,
        context: RunContext,
        reader: TensorReader,
        method: Rounding,
        *,
        tied: bool,
        options: Callable[[FusedGroup], Sequence[Scheme | None]],
        sizer: Sizer,
    ) -> None:
        self._params = params
        self._context = context
        self._reader = reader
        self._method: Rounding = method
        every = fused_groups(reader.checkpoint.config, reader.checkpoint.modules, tied=tied)
        allowed = {group.name: options(group) for group in every}
        self.groups = {group.name: group for group in every if allowed[group.name]}
        self._allowed = {name: each for name, each in allowed.items() if each}
        self._sizer = sizer

    def within_bytes(self, max_bytes: int) -> Mixture:
        """Return the mixture of least loss whose matrices take at most ``max_bytes``.

        Raises:
            ValueError: there is none; see :attr:`smallest`.
        """
        return self._mixture(allocate(self.options, max_bytes))

    @property
    def smallest(self) -> dict[str, Option]:
        """The smallest option of each group, its loss left open: known without sensitivities."""
        found = {}
        for name, schemes in self._allowed.items():
            sizes = {scheme: self._sizer(self.groups[name], scheme) for scheme in schemes}
            least = min(sizes, key=sizes.__getitem__)
            found[name] = Option(least, sizes[least], 0.0)
        return found

    def within_bits(self, bits: float) -> Mixture:
        """Return the mixture of least loss with at most ``bits`` per weight.

        Raises:
            StepError: there is none.
        """
        weights = sum(each.weights for each in self.groups.values())
        least = 8 * sum(each.bytes for each in self.smallest.values()) / weights
        if least > bits:
            raise StepError(
                f"average_bits {bits:g} cannot be had: {least:.3f} is the least",
                where=Location(path="average_bits"),
                remedy="give more, or leave out what pins the bits of some matrices",
            )
        return self.within_bytes(int(bits * weights / 8))

    def within_divergence(self, limit: float) -> Mixture:
        """Return a small mixture whose measured divergence is at most ``limit``.

        Losses add up only nearly: what a mix was predicted and what it measures correct the next one.

        Raises:
            StepError: even the best mixture loses more.
        """
        best: Mixture | None = None
        factor = 1.0
        for _ in range(ROUNDS):
            try:
                chosen = allocate_within(self.options, limit / factor)
            except ValueError:
                break
            found = self.measured(self._mixture(chosen))
            measured = found.measured or 0.0
            if measured <= limit and (best is None or found.bits < best.bits):
                best = found
            if 0.95 * limit <= measured <= limit or not found.predicted:
                break
            factor = max(measured / found.predicted, 1e-6) * (1.0 if measured <= limit else 1.02)
        if best is None:
            least = {
                name: min(each, key=lambda option: (option.loss, option.bytes)) for name, each in self.options.items()
            }
            best = self.measured(self._mixture(least))
            if (best.measured or 0.0) > limit:
                raise StepError(
                    f"max_divergence {limit:g} cannot be had: the best measures {best.measured:.3g} nats a token",
                    where=Location(path="max_divergence"),
                    remedy="give more, or choose an unquantised precision",
                )
        return best

    def measured(self, mixture: Mixture) -> Mixture:
        """Return ``mixture`` with its divergence measured on the calibration text."""
        from olivine.quant.sensitivity.mixing import measured_divergence

        found = measured_divergence(
            self._reader,
            self.sequences,
            mixture.scheme_of,
            self._method,
            self._report,
            device=self._device,
            folder=self._context.checkpoint,
            trust_remote_code=self._context.trust_remote_code,
        )
        return Mixture(mixture.chosen, mixture.groups, mixture.predicted, found)

    def _mixture(self, chosen: Mapping[str, Option]) -> Mixture:
        return Mixture(chosen, self.groups, sum(each.loss for each in chosen.values()))

    @cached_property
    def options(self) -> dict[str, list[Option]]:
        """What there is to choose from, with bytes and losses."""
        return {
            name: [
                Option(scheme, self._sizer(self.groups[name], scheme), self.table.losses[name][scheme])
                for scheme in allowed
            ]
            for name, allowed in self._allowed.items()
        }

    # Sensitivities --------------------------------------------------------------------------------------------------

    @cached_property
    def table(self) -> Sensitivities:
        """The sensitivities: those of an earlier run with the same model and text, or new ones."""
        file = self._file()
        found = Sensitivities.load(file) if file is not None else None
        if found is not None and all(
            set(allowed) <= found.losses.get(name, {}).keys() for name, allowed in self._allowed.items()
        ):
            self._context.note("the sensitivities of an earlier run are used")
            return found
        losses = self._losses()
        tokens = sum(map(len, self.sequences))
        table = Sensitivities(self._params.sensitivity, tokens, losses)
        if file is not None:
            table.save(file)
        return table

    def _losses(self) -> Mapping[str, Mapping[Scheme | None, float]]:
        groups = list(self.groups.values())
        options = {
            group.name: list(dict.fromkeys([*options_of(group), *self._allowed[group.name]])) for group in groups
        }
        if self._params.sensitivity == "exact":
            from olivine.quant.sensitivity.exact import exact_losses, load_float_model

            model = load_float_model(self._reader.checkpoint, trust_remote_code=self._context.trust_remote_code)
            return exact_losses(model, self.sequences, groups, options, self._method, self._report)
        from olivine.quant.sensitivity.fisher import fisher_losses

        return fisher_losses(
            self._reader,
            self.sequences,
            groups,
            options,
            self._method,
            self._report,
            device=self._device,
            folder=self._context.checkpoint,
            trust_remote_code=self._context.trust_remote_code,
        )

    def _file(self) -> Path | None:
        """Return where the table of this model, text and method is kept."""
        from olivine.passes.quantize.calibration_set import BUILT_IN

        context = self._context
        if context.shared is None or "model" not in context.identities:
            return None
        data = context.identities.get("calibration_data_config")
        key = {
            "version": VERSION,
            "model": context.identities["model"],
            "data": data or hashlib.sha256(BUILT_IN.read_bytes()).hexdigest(),
            "method": self._method,
            "measure": self._params.sensitivity,
            "tokens": CALIBRATION_TOKENS,
            "groups": sorted(self.groups),
        }
        digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:32]
        return context.shared / "sensitivities" / f"{digest}.json"

    @cached_property
    def sequences(self) -> list[list[int]]:
        """The calibration text as tokens.

        Raises:
            DataError: it is too short.
        """
        from olivine.models.tokenizer import load_tokenizer
        from olivine.passes.quantize.calibration_set import sequences

        config = self._context.data.get("calibration_data_config")
        length = min(SEQUENCE_LENGTH, config.max_seq_len if config is not None else SEQUENCE_LENGTH)
        limit = self._reader.checkpoint.config.get("max_position_embeddings")
        found, notes = sequences(
            config,
            load_tokenizer(self._reader.checkpoint.path),
            CALIBRATION_TOKENS // length,
            length,
            limit=limit if isinstance(limit, int) else None,
        )
        for note in notes:
            self._context.note(note)
        return found

    @property
    def _device(self) -> str:
        return "cuda" if self._context.host.device == "gpu" else "cpu"

    def _report(self, done: float, total: float, what: str) -> None:
        self._context.progress(done, total, message=what)


def say(mixture: Mixture, context: RunContext, total: int | None = None) -> None:
    """Tell the user what was chosen."""
    first, *rest = mixture.lines()
    context.note(first if total is None else f"{total / 1e6:,.1f} MB, {first}")
    for line in rest:
        context.note(line)
