"""What lower libraries raise becomes an error that says what to do."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from olivine.systems.failures import explain

SAVING = """
import resource, sys
import torch
from olivine.systems.failures import explain
tensors = {str(n): torch.zeros(1000) for n in range(8)}
for limit in range(1, 34_000, 1_777):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    try:
        torch.save(tensors, sys.argv[1])
    except Exception as error:
        said = str(explain(error, "lora"))
        assert "the disk is full" in said, (limit, said)
        print(limit)
"""


def test_a_checkpoint_of_torch_s_on_a_full_disk_is_told_as_one(tmp_path: Path) -> None:
    pytest.importorskip("resource")
    done = subprocess.run(
        [sys.executable, "-c", SAVING, str(tmp_path / "state.pt")], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.split()) > 15


def test_an_error_that_nobody_knows_stays_what_it_was() -> None:
    assert "lora failed: RuntimeError: shapes differ" in str(explain(RuntimeError("shapes differ"), "lora"))
