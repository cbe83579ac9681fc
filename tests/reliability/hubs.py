"""Runs that fetch their model from a hub that is slow, busy, cuts files off, or sends wrong bytes."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

from faulty_hub import COMMIT, MODEL, FaultyHub
from small_example import Example, undisturbed

TRIES = 30
RATE = 0.2
"""How often an answer is faulty."""


def drive(folder: Path, base: Path, count: int, seed: int) -> Counter[str]:
    """Run with a faulty hub and an empty hub cache until the run succeeds, ``count`` times over; return what was seen.

    A run that fails has to say that the hub is at fault, and must leave nothing that a later one takes for the model.
    """
    expected = undisturbed(base).results
    seen: Counter[str] = Counter()
    for number in range(count):
        example = Example(folder / "fetching", base)
        (example.folder / "base-model").unlink()
        hub = FaultyHub(base, rate=RATE, seed=seed + number)
        home = {"HF_HOME": str(example.folder / "hub"), "HF_HUB_OFFLINE": "0"}
        with hub.serving() as address:
            for _ in range(TRIES):
                status = example.run(
                    "--set", f"input_model.model_path={MODEL}", environment=home | {"HF_ENDPOINT": address}
                )
                seen["runs"] += 1
                if status == 0:
                    break
                seen["runs that the hub's faults ended, saying so"] += "hub" in example.said
                if status not in (1, 2, 3) or "Traceback" in example.said or "hub" not in example.said:
                    seen[f"WRONG end, exit status {status}: {example.said[-300:]}"] += 1
        seen["WRONG no success in time"] += status != 0
        seen["models fetched in the end"] += status == 0
        pinned = status == 0 and COMMIT in (example.output / "workflow.yaml").read_text()
        seen["outputs that name the model's commit"] += pinned
        seen["WRONG output without the model's commit"] += not pinned
        seen["results equal to those of the same model on disk"] += example.results() == expected
        seen["WRONG results"] += example.results() != expected
        for fault, times in hub.seen.items():
            seen[f"answers: {fault}"] += times
        offline = example.run("--set", f"input_model.model_path={MODEL}", environment=home | {"HF_HUB_OFFLINE": "1"})
        seen["runs afterwards with the hub switched off"] += offline == 0
        seen[f"WRONG offline run: {example.said[-300:]}"] += offline != 0
        shutil.rmtree(example.folder)
    return seen
