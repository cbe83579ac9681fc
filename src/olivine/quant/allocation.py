"""Which matrix gets which bits: the least loss within a budget, or the least bytes within a loss.

Losses of matrices are taken to add up: true of small errors, whose effects on the output hardly meet. Then the choice
is a multiple-choice knapsack. Of each matrix only the options on the lower convex hull of (bytes, loss) can be on the
best line of a Lagrangian relaxation; taking the steps of all hulls in the order of loss saved per byte walks that line
in milliseconds (Sinha and Zoltners, The multiple-choice knapsack problem, Operations Research 27(3), 1979). What is
then left of the budget goes to single exchanges, until none helps.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from olivine.quant.scheme import Scheme


@dataclass(frozen=True)
class Option:
    """One way to store a matrix, or several that must be stored alike.

    Attributes:
        scheme: what it is stored as; ``None`` leaves it as it is.
        bytes: what it takes.
        loss: what it does to the model, in any unit that adds up: nats of divergence, for one.
    """

    scheme: Scheme | None
    bytes: int
    loss: float


def smallest(options: Mapping[str, Sequence[Option]]) -> int:
    """Return the bytes of the smallest choice there is."""
    return sum(min(each.bytes for each in choices) for choices in options.values())


def allocate(options: Mapping[str, Sequence[Option]], max_bytes: int) -> dict[str, Option]:
    """Return the option of each matrix with the least loss in sum, in at most ``max_bytes`` bytes.

    Within one step of a hull of the best there is: the relaxation's bound is met but for a last step that did not
    fit.

    Raises:
        ValueError: even the smallest choice takes more; :func:`smallest` says how much.
    """
    chosen = {name: _hull(choices)[0] for name, choices in options.items()}
    used = sum(each.bytes for each in chosen.values())
    if used > max_bytes:
        raise ValueError(f"{max_bytes:,} bytes do not suffice: the smallest choice takes {used:,}")
    for name, before, after in _steps(options):
        more = after.bytes - before.bytes
        if chosen[name] is before and used + more <= max_bytes:
            chosen[name] = after
            used += more
    return _exchanged(options, chosen, max_bytes - used)


def allocate_within(options: Mapping[str, Sequence[Option]], max_loss: float) -> dict[str, Option]:
    """Return the option of each matrix with the least bytes in sum, at a loss of at most ``max_loss``.

    Raises:
        ValueError: even the choice of the least loss loses more.
    """
    best = {name: min(choices, key=lambda each: (each.loss, each.bytes)) for name, choices in options.items()}
    lost = sum(each.loss for each in best.values())
    if lost > max_loss:
        raise ValueError(f"a loss of {max_loss:g} cannot be had: the best choice loses {lost:g}")
    chosen = {name: _hull(choices)[0] for name, choices in options.items()}
    lost = sum(each.loss for each in chosen.values())
    for name, before, after in _steps(options):
        if lost <= max_loss:
            break
        if chosen[name] is before:
            chosen[name] = after
            lost += after.loss - before.loss
    # The last steps may have been more than was needed: take back what still fits, the largest saving first.
    while True:
        savings = [
            (chosen[name].bytes - each.bytes, name, each)
            for name, choices in options.items()
            for each in choices
            if each.bytes < chosen[name].bytes and lost + each.loss - chosen[name].loss <= max_loss
        ]
        if not savings:
            return chosen
        _, name, option = max(savings, key=lambda each: each[0])
        lost += option.loss - chosen[name].loss
        chosen[name] = option


def _hull(choices: Sequence[Option]) -> list[Option]:
    """Return the options on the lower convex hull of loss over bytes, from the smallest to that of the least loss."""
    kept: list[Option] = []
    for each in sorted(choices, key=lambda each: (each.bytes, each.loss)):
        if kept and each.loss >= kept[-1].loss:
            continue
        while len(kept) > 1 and _slope(kept[-2], kept[-1]) <= _slope(kept[-1], each):
            kept.pop()
        kept.append(each)
    return kept


def _slope(before: Option, after: Option) -> float:
    """Return the loss that a step saves per byte."""
    return (before.loss - after.loss) / (after.bytes - before.bytes)


def _steps(options: Mapping[str, Sequence[Option]]) -> list[tuple[str, Option, Option]]:
    """Return the steps along all hulls, the most loss saved per byte first; those of one hull keep their order."""
    steps = []
    for name, choices in options.items():
        hull = _hull(choices)
        steps += [(name, before, after) for before, after in itertools.pairwise(hull)]
    return sorted(steps, key=lambda step: -_slope(step[1], step[2]))


def _exchanged(options: Mapping[str, Sequence[Option]], chosen: dict[str, Option], left: int) -> dict[str, Option]:
    """Spend what is left: change one option at a time for the one that saves the most loss, while one fits."""
    while True:
        gains = [
            (chosen[name].loss - each.loss, name, each)
            for name, choices in options.items()
            for each in choices
            if each.loss < chosen[name].loss and each.bytes - chosen[name].bytes <= left
        ]
        if not gains:
            return chosen
        _, name, option = max(gains, key=lambda each: each[0])
        left -= option.bytes - chosen[name].bytes
        chosen[name] = option
