"""Look into the studies of a cache: what was searched, the best candidates, every trial.

olivine study show              the latest study: its front, the pick and why
olivine study best 3f2a         the pick of the study whose id begins so
olivine study trials --json     every trial, one JSON object a line
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from olivine.cli.cache_option import add_cache_argument

ACTIONS = ("ls", "show", "best", "trials")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `olivine study`."""
    parser.add_argument("action", choices=ACTIONS, metavar="ACTION", help="ls, show, best or trials")
    parser.add_argument("study", nargs="?", metavar="STUDY", help="how its id begins (default: the latest)")
    add_cache_argument(parser)
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: argparse.Namespace) -> int:
    """Print what was asked for."""
    from olivine.errors import ConfigError
    from olivine.search.trial import find_study, studies

    cache = Path(arguments.cache_dir).expanduser()
    if arguments.action == "ls":
        found = list(studies(cache))
        if not found:
            print(f"no study in {cache}; a workflow's own cache, engine.cache_dir, is looked into with --cache-dir")
        for each in found:
            study, result = each.study(), each.result()
            state = "done" if result is not None else f"not finished, {len(each.trials())} trials so far"
            print(f"{each.folder.name}  {study['workflow_id']}  {study['input_model']}  {state}")
        return 0
    journal = find_study(cache, arguments.study)
    study, result = journal.study(), journal.result()
    trials = result["trials"] if result is not None else [each.as_json() for each in journal.trials()]
    if arguments.action == "trials":
        if arguments.json:
            for trial in trials:
                print(json.dumps(trial, ensure_ascii=False))
        else:
            _table(trials, study, set(result["pareto_front"]) if result else set(), result["pick"] if result else None)
        return 0
    if result is None:
        print(f"study {study['study']} is not finished: {len(trials)} trials so far; run the same command to go on")
        return 0
    if arguments.action == "best" and result["pick"] is None:
        raise ConfigError(
            f"study {study['study']} has no pick: {result['failed']} of {len(trials)} candidates failed",
            remedy="`olivine study trials` says why each of them did",
        )
    if arguments.action == "best":
        pick = next(each for each in trials if each["number"] == result["pick"])
        if arguments.json:
            print(json.dumps(pick, ensure_ascii=False, indent=2))
        else:
            print("\n".join([*summary(result), f"model: {pick['model']} in the cache, and {study['output_dir']}"]))
        return 0
    if arguments.json:
        print(json.dumps(result, ensure_ascii=False, indent=2))
        return 0
    print(f"study {study['study']}: {study['workflow_id']}, {study['input_model']}")
    print("\n".join(summary(result)))
    _table([each for each in trials if each["number"] in result["pareto_front"]], study, set(), result["pick"])
    return 0


def summary(result: dict[str, Any]) -> list[str]:
    """Return the outcome of a study in a few lines."""
    return [
        f"{result['complete']} candidates measured, {result['stopped']} stopped early, {result['failed']} failed; "
        f"{result['qualifying']} qualify, {len(result['pareto_front'])} on the Pareto front",
        *(
            [f"pick: candidate {result['pick']}, {result['why']}", f"      {described(result['pick_point'])}"]
            if result["pick"] is not None
            else [result["why"]]
        ),
    ]


def described(point: dict[str, Any]) -> str:
    """Return a point in a line."""
    return ", ".join(f"{key}={value}" for key, value in point.items()) or "the configuration as it is"


def _table(trials: list[dict[str, Any]], study: dict[str, Any], front: set[int], pick: int | None) -> None:
    from olivine.engine.words import number

    names = [each["name"] for each in study["objectives"]]
    rows = [["", "state", *names, "seconds", "point"]]
    for each in trials:
        mark = "*" if each["number"] == pick else "+" if each["number"] in front else ""
        values = [number(value) if value is not None else "" for value in each["values"] or [None] * len(names)]
        state = (
            each["state"] if each["state"] != "complete" or each["qualifies"] or each.get("until") else "misses goals"
        )
        why = f"  (up to {each['until']})" if each.get("until") else ""
        why += f"  ({each['reason']})" if each["reason"] else ""
        rows.append(
            [f"{each['number']}{mark}", state, *values, f"{each['seconds']:.1f}", described(each["point"]) + why]
        )
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]) - 1)]
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row[:-1], widths, strict=True)]
        print("  ".join([*cells, row[-1]]).rstrip())
