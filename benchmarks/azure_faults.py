"""Count what Olivine survives between a laptop and Azure Machine Learning: every scenario, several rounds.

    python benchmarks/azure_faults.py --rounds 5 --output azure-faults.json

The cloud is the stand-in of the tests with the real Azurite (``make azurite``); the SDK, the command line and the
jobs' processes are real. It prints a Markdown table, which is in docs/reliability.md.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests" / "azure"), str(ROOT / "tests")]


def main() -> int:
    from fault_scenarios import SCENARIOS, Bench, model_of_some_megabytes, play
    from standin.azurite import find
    from standin.cloud import Cloud

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="", help="pattern for the names of the scenarios to play")
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    command, why = find()
    if command is None:
        sys.exit(why)
    rows: dict[str, list[dict[str, Any]]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        model = model_of_some_megabytes(folder / "model")
        cloud = Cloud(folder / "cloud", command)
        try:
            bench = Bench(cloud, folder, model)
            bench.reference()
            for number in range(arguments.rounds):
                for name in SCENARIOS:
                    if not re.search(arguments.only, name):
                        continue
                    outcome = play(name, bench)
                    rows.setdefault(name, []).append(outcome.__dict__)
                    well = "; ".join(outcome.problems) or "well"
                    print(f"{number + 1}. {name}: {well} ({outcome.seconds:.0f} s)", file=sys.stderr, flush=True)
                    if arguments.output is not None:
                        arguments.output.write_text(json.dumps(rows, indent=1))
        finally:
            cloud.close()
    print("| what went wrong | runs | faults | same result | jobs started for it | seconds, the longest |")
    print("|---|---|---|---|---|---|")
    for name, outcomes in rows.items():
        well = sum(not each["problems"] for each in outcomes)
        jobs = sorted({each["jobs"] for each in outcomes})
        print(
            f"| {name} | {len(outcomes)} | {sum(each['struck'] for each in outcomes)} | {well} of {len(outcomes)} | "
            f"{', '.join(map(str, jobs))} | {max(each['seconds'] for each in outcomes):.0f} |"
        )
    return 1 if any(each["problems"] for outcomes in rows.values() for each in outcomes) else 0


if __name__ == "__main__":
    sys.exit(main())
