"""How well the estimated sensitivities rank the options, beside measured ones; and whether losses add up.

    python benchmarks/sensitivity.py --model TRAINED --text TEXT [--sequences 8] [--length 128]

Prints Spearman's rank correlation over all groups and options, and over the groups at each option alone; then, for a
few budgets, the divergence that the sum of the losses predicts for the mix and the one that is measured.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import time
from pathlib import Path
from typing import Any


def ranks(values: list[float]) -> list[float]:
    """Return the rank of each value; equal ones share theirs."""
    order = sorted(range(len(values)), key=values.__getitem__)
    found = [0.0] * len(values)
    start = 0
    while start < len(order):
        stop = start
        while stop < len(order) and values[order[stop]] == values[order[start]]:
            stop += 1
        for place in order[start:stop]:
            found[place] = (start + stop - 1) / 2
        start = stop
    return found


def spearman(first: list[float], second: list[float]) -> float:
    """Return Spearman's rank correlation."""
    one, other = ranks(first), ranks(second)
    mean = (len(one) - 1) / 2
    product = sum((a - mean) * (b - mean) for a, b in zip(one, other, strict=True))
    return product / math.sqrt(sum((a - mean) ** 2 for a in one) * sum((b - mean) ** 2 for b in other))


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--sequences", type=int, default=8)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--table", type=Path, help="where the exact table is kept, and taken from if it is there")
    arguments = parser.parse_args()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from olivine.models.checkpoint import read_checkpoint
    from olivine.quant.allocation import allocate, smallest
    from olivine.quant.reading import TensorReader
    from olivine.quant.sensitivity.exact import Divergence, exact_losses
    from olivine.quant.sensitivity.fisher import fisher_losses
    from olivine.quant.sensitivity.groups import fused_groups, options_of
    from olivine.quant.sensitivity.table import Sensitivities

    text = arguments.text.read_text(encoding="utf-8")
    ids = AutoTokenizer.from_pretrained(arguments.model)(text[: len(text) // 2])["input_ids"]
    count, length = arguments.sequences, arguments.length
    spread = (len(ids) - length) // count
    sequences = [ids[start : start + length] for start in range(0, count * spread, spread)]
    model: Any = AutoModelForCausalLM.from_pretrained(arguments.model, dtype=torch.float32).eval()
    checkpoint = read_checkpoint(arguments.model)
    groups = fused_groups(checkpoint.config, checkpoint.modules)
    options = {group.name: options_of(group) for group in groups}
    started = time.perf_counter()
    reader = TensorReader(checkpoint)
    fisher = Sensitivities("fisher", count * length, fisher_losses(reader, sequences, groups, options, "search"))
    print(f"fisher: {time.perf_counter() - started:.1f} s", flush=True)
    exact = Sensitivities.load(arguments.table) if arguments.table else None
    if exact is None:
        started = time.perf_counter()
        exact = Sensitivities("exact", count * length, exact_losses(model, sequences, groups, options, "search"))
        print(f"exact: {time.perf_counter() - started:.1f} s", flush=True)
        if arguments.table:
            exact.save(arguments.table)
    pairs = [
        (group.name, scheme, fisher.losses[group.name][scheme], exact.losses[group.name][scheme])
        for group in groups
        for scheme in options[group.name]
        if scheme is not None
    ]
    print(f"\nSpearman over {len(pairs)} pairs: {spearman([p[2] for p in pairs], [p[3] for p in pairs]):.4f}")
    print("\n| option | Spearman over groups | estimated / measured, all groups |\n|---|---|---|")
    for scheme in dict.fromkeys(pair[1] for pair in pairs):
        some = [pair for pair in pairs if pair[1] == scheme]
        told = f"int{scheme.bits}, groups of {scheme.group_size}, {'' if scheme.symmetric else 'a'}symmetric"
        ratio = sum(p[2] for p in some) / sum(p[3] for p in some)
        print(f"| {told} | {spearman([p[2] for p in some], [p[3] for p in some]):.3f} | {ratio:.2f} |")
    print("\n| table | bits a weight | predicted | measured |\n|---|---|---|---|")
    by_name = {group.name: group for group in groups}
    divergence = Divergence(model, sequences)
    weights = sum(group.weights for group in groups)
    for bits in (3.5, 4.25, 4.5, 5.0, 6.0):
        measured, predicted = {}, {}
        for table in (fisher, exact):
            choices = table.options(by_name, 4)
            if smallest(choices) > bits * weights / 8:
                continue
            chosen = allocate(choices, int(bits * weights / 8))
            predicted[table.measure] = sum(each.loss for each in chosen.values())
            measured[table.measure] = divergence.of(groups, {n: each.scheme for n, each in chosen.items()}, "search")
        for name in measured:
            print(f"| {name} | {bits} | {predicted[name]:.5f} | {measured[name]:.5f} |", flush=True)
    print(json.dumps({"groups": len(groups), "tokens": count * length}))


if __name__ == "__main__":
    main()
