"""The checklist for somebody with a subscription, run against the stand-in: its own faults are found here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from standin.cloud import Cloud

CHECKLIST = Path(__file__).parents[2] / "examples" / "azure" / "checklist.py"


def test_the_checklist_holds_against_the_stand_in(cloud: Cloud, pico_model: Path, tmp_path: Path) -> None:
    cloud.jobs.forget()
    (tmp_path / "client.json").write_text(json.dumps(cloud.client("one")))
    done = subprocess.run(
        [
            sys.executable, str(CHECKLIST), "--client", "client.json", "--compute", "cpu-cluster",
            "--model", str(pico_model), "--kill-after", "1",
        ],
        cwd=tmp_path, env=cloud.process_environment(), capture_output=True, text=True, timeout=1800, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("    holds (") == 3
    assert "FAILED" not in done.stdout
    assert len(cloud.jobs.submissions) == 2
