"""Whatever a configuration holds, there is an answer: in time, in little memory, and never a traceback.

``OLIVINE_MUTATIONS=10000 pytest --timeout 0 tests/config/test_mutations.py`` tries that many instead of a few hundred,
in some minutes; ``OLIVINE_SEED`` tries others.
"""

from __future__ import annotations

import gc
import json
import os
import resource
import time
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from configurations import ours
from mutation import mutations

from olivine.cli.main import main

COUNT = int(os.environ.get("OLIVINE_MUTATIONS", "400"))
SEED = int(os.environ.get("OLIVINE_SEED", "1"))
SLOWEST_S = 2.0
MEMORY_MIB = 200


def memory_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def answer(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, float]:
    """Run the command line in this process; return its status, what it printed, and the CPU time that it took."""
    began = time.process_time()
    status = main(list(arguments))
    took = time.process_time() - began
    printed = capsys.readouterr()
    return status, printed.out + printed.err, took


def test_every_mutation_has_an_answer(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    sources: list[Any] = [json.loads(file.read_text()) for file in ours()]
    statuses = {0: 0, 2: 0, 3: 0}
    gc.collect()
    before = memory_mib()
    for number, (name, content) in enumerate(islice(mutations(sources, SEED), COUNT)):
        Path(name).write_bytes(content)
        about = f"mutation {number} of seed {SEED}"
        status, said, took = answer(capsys, "config", "check", name)
        assert status in statuses, f"{about}: {said[-2000:]}"
        assert "Traceback" not in said, about
        assert "internal error" not in said, f"{about}: {said[-2000:]}"
        assert took < SLOWEST_S, f"{about}: {took:.1f} s"
        assert len(said) < 10**5, about
        statuses[status] += 1
        if status != 2:
            for action in (["upgrade", name], ["show", name], ["check", name, "--json"]):
                status, said, took = answer(capsys, "config", *action)
                assert status in (0, 3), f"{about}, {action}: {said[-2000:]}"
                assert took < SLOWEST_S, f"{about}: {took:.1f} s"
    assert memory_mib() - before < MEMORY_MIB
    assert all(statuses.values()) or COUNT < 300, statuses
    print(f"{COUNT} mutations: {statuses}")
