"""``bits: auto``: what each matrix of a quantised checkpoint is stored as, chosen under a budget."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from olivine.errors import Location, Problem, StepError
from olivine.models.checkpoint import BITS, Checkpoint, TensorInfo
from olivine.passes.budget import BudgetParams, check_budget
from olivine.quant.scheme import Rounding, Scheme
from olivine.quant.sensitivity.groups import FusedGroup, fused_groups, options_of
from olivine.quant.stored.form import StoredForm
from olivine.quant.stored.forms import Source, linear_modules

if TYPE_CHECKING:
    from olivine.passes.base import RunContext
    from olivine.passes.mixture import Mixture
    from olivine.quant.reading import TensorReader


class FormOptions:
    """What there is to choose from where a checkpoint is stored in one form.

    Args:
        form: the form.
        config: the checkpoint's ``config.json``.
        tensors: its tensors.
        head_bits: bits that the output layer must have, if any.
    """

    def __init__(
        self, form: StoredForm, config: Mapping[str, Any], tensors: Mapping[str, TensorInfo], head_bits: int | None
    ) -> None:
        self._form = form
        self._tensors = tensors
        self._head_bits = head_bits
        modules = {name.removesuffix(".weight"): each.shape for name, each in tensors.items() if len(each.shape) == 2}
        self.sources: dict[str, Source] = linear_modules(config, modules, form)
        self.groups = fused_groups(config, modules, tied=False)

    def options(self, group: FusedGroup) -> Sequence[Scheme | None]:
        """Return the ways to store a group; none for the embedding, which is copied."""
        if group.role == "embedding":
            return []
        parts = self._parts(group)
        bits = (self._head_bits,) if group.role == "head" and self._head_bits is not None else (2, 4, 8)
        found: list[Scheme | None] = [
            scheme
            for scheme in options_of(group, bits=bits)
            if scheme is not None and not any(self._form.why_not(each.rows, each.width, scheme) for _, each in parts)
        ]
        return [*found, None] if group.role == "head" and self._head_bits is None else found

    def size(self, group: FusedGroup, scheme: Scheme | None) -> int:
        """Return the bytes of a group's tensors; of one that is left as it is, what it has now."""
        if scheme is None:
            return sum(self._tensors[each].bytes for each in group.tensors if not self._stays(group))
        total = 0
        for name, source in self._parts(group):
            scale_type = self._form.scale_dtype(self._tensors[source.tensor].dtype)
            for tensor in self._form.tensors(name, source.rows, source.width, scheme, scale_type).values():
                total += math.prod(tensor.shape) * BITS[tensor.dtype] // 8
        return total

    def beside(self, files: int) -> int:
        """Return the bytes of everything else, ``files`` of them beside the weights, a little too many."""
        chosen = {tensor for group in self.groups if group.role != "embedding" for tensor in group.tensors}
        embedding = {tensor for group in self.groups if group.role == "embedding" for tensor in group.tensors}
        kept = sum(each.bytes for name, each in self._tensors.items() if name not in chosen - embedding)
        return kept + files + 8192 + 900 * len(self.sources)  # headers, and an entry for each module in config.json

    def smallest(self) -> int:
        """Return the least bytes that the groups can take."""
        return sum(
            min(self.size(group, each) for each in options) for group in self.groups if (options := self.options(group))
        )

    def schemes(self, mixture: Mixture) -> dict[str, Scheme]:
        """Return what each module is stored as; those that are left as they are, are left out."""
        by_module = {
            name: mixture.chosen[group.name].scheme
            for group in self.groups
            if group.name in mixture.chosen
            for name, _ in self._parts(group)
        }
        return {name: by_module[name] for name in self.sources if by_module.get(name) is not None}  # type: ignore[misc]

    def _parts(self, group: FusedGroup) -> list[tuple[str, Source]]:
        head = group.role == "head"
        return [
            (name, source)
            for name, source in self.sources.items()
            if source.tensor in group.tensors and (name == "lm_head") == head
        ]

    def _stays(self, group: FusedGroup) -> bool:
        """Return whether the group's weights are the embedding's, which are copied in any case."""
        return any(each.role == "embedding" and each.tensors == group.tensors for each in self.groups)


def check_automatic(
    params: BudgetParams, bits: Any, given: Sequence[str], options: FormOptions, files: int
) -> list[Problem]:
    """Return what is wrong with ``bits: auto``; ``given`` are set parameters that contradict it."""
    problems = check_budget(params, "bits", bits)
    if bits != "auto":
        return [each for each in problems if each.where != Location(path="calibration_data_config")]
    problems += [
        Problem(
            f"{name} and bits: auto contradict each other",
            Location(path=name),
            "auto chooses for each matrix",
            f"leave {name} out, or give bits a number",
        )
        for name in given
    ]
    least = options.smallest()
    weights = sum(group.weights for group in options.groups if group.role != "embedding")
    if params.max_size is not None and params.max_size < least + options.beside(files):
        total = least + options.beside(files)
        problems.append(
            Problem(
                f"max_size {params.max_size / 1e6:,.2f} MB cannot be had: "
                f"the smallest possible is {total / 1e6:,.2f} MB",
                Location(path="max_size"),
                "the matrices in their fewest bits, and embedding, norms and tokenizer as they are",
                "give more, or start from a smaller model",
            )
        )
    if params.average_bits is not None and params.average_bits < 8 * least / weights:
        problems.append(
            Problem(
                f"average_bits {params.average_bits:g} cannot be had: {8 * least / weights:.3f} is the least",
                Location(path="average_bits"),
                "scales and zero points count",
                "give more",
            )
        )
    return problems


def files_beside(checkpoint: Checkpoint) -> int:
    """Return the bytes of a checkpoint's files that hold no weights."""
    weights = {tensor.file for tensor in checkpoint.tensors.values()}
    return sum(file.stat().st_size for file in checkpoint.files if file.name not in weights)


def mix(
    params: BudgetParams, context: RunContext, reader: TensorReader, method: Rounding, options: FormOptions
) -> Mixture:
    """Return the mixture within the budget, and tell the user what it is.

    Raises:
        StepError: the budget cannot be met.
    """
    from olivine.passes.mixture import Mixer, say

    mixer = Mixer(params, context, reader, method, tied=False, options=options.options, sizer=options.size)
    if params.average_bits is not None:
        found = mixer.within_bits(params.average_bits)
    elif params.max_divergence is not None:
        found = mixer.within_divergence(params.max_divergence)
    else:
        assert params.max_size is not None
        beside = options.beside(files_beside(reader.checkpoint))
        least = options.smallest() + beside
        if least > params.max_size:
            raise StepError(
                f"max_size {params.max_size / 1e6:,.2f} MB cannot be had: "
                f"the smallest possible is {least / 1e6:,.2f} MB",
                where=Location(path="max_size"),
                remedy="give more, or start from a smaller model",
            )
        found = mixer.within_bytes(params.max_size - beside)
    if found.measured is None:
        found = mixer.measured(found)
    say(found, context)
    return found
