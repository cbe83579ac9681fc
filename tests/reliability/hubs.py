"""A model fetched from a hub that is slow, busy, breaks off or sends wrong bytes; a run that begins with that."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

from faulty_hub import COMMIT, MODEL, FaultyHub
from small_example import LONGEST_S, Example, undisturbed

TRIES = 10
RATE = 0.3
"""How often an answer is faulty."""
FETCH = f"""
import sys
from olivine.errors import OlivineError
from olivine.models.hub import fetch
try:
    print(fetch({MODEL!r}, "main"))
except OlivineError as error:
    sys.exit(f"error: {{error}}")
"""


def drive(folder: Path, base: Path, count: int, seed: int) -> Counter[str]:
    """Fetch a model from a faulty hub ``count`` times, and run the example with it; return how often each thing came.

    A fetch that gives up has to say that the hub is at fault, and must leave nothing that is taken for the model.
    """
    seen: Counter[str] = Counter()
    whole = {file.name: file.read_bytes() for file in base.iterdir()}
    for number in range(count):
        hub = FaultyHub(base, rate=RATE, seed=seed + number)
        home = folder / f"hub-{number}"
        with hub.serving() as address:
            for _ in range(TRIES):
                done = subprocess.run(
                    [sys.executable, "-c", FETCH],
                    env=os.environ | {"HF_HOME": str(home), "HF_HUB_OFFLINE": "0", "HF_ENDPOINT": address},
                    capture_output=True,
                    text=True,
                    timeout=LONGEST_S,
                )
                seen["fetches"] += 1
                if done.returncode == 0:
                    break
                seen["that gave up, and said why"] += "hub" in done.stderr
                if "Traceback" in done.stderr or "hub" not in done.stderr:
                    seen[f"WRONG end: {done.stderr[-300:]}"] += 1
        seen["WRONG no success in time"] += done.returncode != 0
        if done.returncode == 0:
            here = Path(done.stdout.strip())
            same = {file.name: file.read_bytes() for file in here.iterdir()} == whole
            seen["models fetched, every byte as it is"] += same
            seen["WRONG models"] += not same
        for fault, times in hub.seen.items():
            seen[f"answers: {fault}"] += times
        shutil.rmtree(home)
    seen.update(_run(folder, base, seed))
    return seen


def _run(folder: Path, base: Path, seed: int) -> Counter[str]:
    """Run the example with a model from a faulty hub, and once more with the hub switched off."""
    expected = undisturbed(base).results
    seen: Counter[str] = Counter()
    example = Example(folder / "fetching", base)
    (example.folder / "base-model").unlink()
    model = ("--set", f"input_model.model_path={MODEL}")
    home = {"HF_HOME": str(example.folder / "hub"), "HF_HUB_OFFLINE": "0"}
    with FaultyHub(base, rate=RATE, seed=seed).serving() as address:
        for _ in range(TRIES):
            status = example.run(*model, environment=home | {"HF_ENDPOINT": address})
            if status == 0:
                break
            if status != 3 or "Traceback" in example.said or "hub" not in example.said:
                seen[f"WRONG end of a run, exit status {status}: {example.said[-300:]}"] += 1
    seen["runs with the faulty hub that ended well"] += status == 0
    seen["WRONG no run ended well"] += status != 0
    pinned = status == 0 and COMMIT in (example.output / "workflow.yaml").read_text()
    seen["outputs that name the model's commit"] += pinned
    seen["WRONG output without the model's commit"] += not pinned
    made = example.results()
    # The adapter names its base, which is an id here and a folder there.
    differing = sorted(key for key in expected | made if expected.get(key) != made.get(key) and key != "pass lora")
    seen["results equal to those of the same model on disk"] += not differing
    seen[f"WRONG results: {', '.join(differing)}"] += bool(differing)
    offline = example.run(*model, environment=home | {"HF_HUB_OFFLINE": "1"})
    seen["runs afterwards with the hub switched off"] += offline == 0
    seen[f"WRONG offline run: {example.said[-300:]}"] += offline != 0
    shutil.rmtree(example.folder)
    return seen
