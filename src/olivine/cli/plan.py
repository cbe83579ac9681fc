"""Show what a run would do: its Steps, what is cached, the data, and everything that is known to be wrong."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from olivine.cli.run import add_config_arguments, config_of, tell

if TYPE_CHECKING:
    from olivine.planning import Plan, PlannedStep
    from olivine.planning.durations import Durations


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `olivine plan`."""
    add_config_arguments(parser)
    parser.add_argument(
        "--show-data",
        type=int,
        default=0,
        metavar="N",
        help="show N training sequences as the model will see them, tokens in the loss marked",
    )
    parser.add_argument(
        "--offline",
        nargs="?",
        const="jobs",
        metavar="FOLDER",
        help="AzureML: ask no workspace, and write the jobs into FOLDER (default: jobs), each as the YAML that "
        "`az ml job create -f` takes",
    )


def run(arguments: argparse.Namespace) -> int:
    """Plan and print."""
    from olivine.api import prepare

    plan, _ = prepare(
        config_of(arguments),
        overrides=arguments.overrides,
        dialect=arguments.dialect,
        trust_remote_code=arguments.trust_remote_code,
        allow_scripts=arguments.allow_script,
        layout=arguments.layout,
        force=arguments.force,
        refresh=arguments.refresh,
        fetch_models=False,
        tell=tell,
        read_weights=arguments.offline is not None,
        online=arguments.offline is None,
    )
    show(plan, as_json=arguments.json)
    if arguments.offline is not None:
        _write_jobs(plan, arguments.offline)
    if arguments.show_data and not arguments.json:
        _show_data(plan, arguments.show_data)
    return 0


def _write_jobs(plan: Plan, folder: str) -> None:
    """Write the jobs of a plan and say where they are."""
    import sys
    from pathlib import Path

    from olivine.systems.azureml.offline import write_jobs

    written = write_jobs(plan, Path(folder))
    for path in written:
        print(f"wrote {path}", file=sys.stderr)
    if not written:
        print("there is no job to write: no Step that is not in the cache runs on an AzureML system", file=sys.stderr)


def show(plan: Plan, *, as_json: bool) -> None:
    """Print a plan, as lines or as JSON."""
    print(
        json.dumps(plan_as_json(plan), indent=2, ensure_ascii=False, default=str)
        if as_json
        else "\n".join(_lines(plan))
    )


def plan_as_json(plan: Plan) -> dict[str, Any]:
    """Return a plan for machines."""
    durations = _durations(plan)
    return {
        "dialect": plan.dialect,
        "file": str(plan.file) if plan.file else None,
        "cache_dir": str(plan.cache_dir),
        "output_dir": str(plan.output_dir),
        "notes": list(plan.notes),
        "unread_bytes": plan.unread,
        "target": plan.fit.as_json() if plan.fit is not None else None,
        "total": _total(plan, durations),
        "search": _search(plan, durations),
        "steps": [
            {
                "name": step.name,
                "type": step.step.type,
                "digest": step.digest,
                "cached": step.cached,
                "consumes": str(step.consumes),
                "produces": str(step.produces),
                "device": step.host.device,
                "system": step.system or None,
                "target": step.target.execution_provider,
                "params": step.step.params,
                "libraries": step.step.libraries,
                "data": {
                    name: {
                        "files": [str(file) for file in survey.files],
                        "rows": survey.rows,
                        "columns": list(survey.columns),
                    }
                    for name, survey in step.surveys.items()
                },
                "estimate": _estimate(step, durations),
                "notes": list(step.notes),
            }
            for step in plan.steps
        ],
    }


def _lines(plan: Plan) -> list[str]:
    dialect = "" if plan.dialect.startswith("olivine") else f" (Olive {plan.dialect} dialect)"
    lines = [f"{plan.file or 'workflow'}{dialect}"]
    lines += [f"  note: {note}" for note in plan.notes]
    lines.append("")
    width = max(len(step.name) for step in plan.steps)
    durations = _durations(plan)
    for number, step in enumerate(plan.steps, 1):
        state = "in the cache" if step.cached else f"runs on {step.place}"
        kind = step.step.type if step.step.kind == "pass" else "measure"
        lines.append(f"{number}. {step.name:<{width}}  {kind}: {step.consumes} -> {step.produces}  [{state}]")
        lines += [f"     {line}" for line in _details(step, durations)]
    total = _total(plan, durations)
    lines += ["", f"in all  {', '.join(_figures(total))}"] if total is not None else [""]
    if total is not None and total["seconds"] is None and durations.rates is None:
        lines.append(f"time    not known yet: `olivine doctor --cache-dir {plan.cache_dir}` measures this machine")
    if (found := _search(plan, durations)) is not None:
        lines.append(f"search  {', '.join(_figures(found))}, for {found['points']} candidates at most")
    if plan.fit is not None and plan.target is not None:
        lines.append(f"target  {plan.target.name}: {plan.fit.sentence()}")
    lines += [f"cache   {plan.cache_dir}", f"output  {plan.model_dir} ({plan.final_format})"]
    return lines


def _details(step: PlannedStep, durations: Durations) -> list[str]:
    lines = []
    for name, survey in step.surveys.items():
        if survey.rows is None:
            lines.append(f"data {name}: {'; '.join(survey.notes)}")
            continue
        rows = f"{survey.rows} rows" if survey.exact else f"about {survey.rows} rows"
        files = ", ".join(str(file) for file in survey.files[:3]) + (" ..." if len(survey.files) > 3 else "")
        lines.append(f"data {name}: {rows}, columns {', '.join(survey.columns)}" + (f"; {files}" if files else ""))
        lines += [f"note: {note}" for note in survey.notes]
    if step.step.kind == "evaluate":
        lines.append("metrics: " + ", ".join(metric["name"] for metric in step.step.params["metrics"]))
    if not step.cached and (found := _estimate(step, durations)) is not None:
        lines.append("takes " + ", ".join(_figures(found)))
    lines += [f"note: {note}" for note in step.notes]
    return lines


def _durations(plan: Plan) -> Durations:
    """Return what tells how long Steps take here."""
    from olivine.hardware.machine import this_machine
    from olivine.planning.durations import Durations
    from olivine.store import Store

    return Durations(Store(plan.cache_dir), this_machine())


def _estimate(step: PlannedStep, durations: Durations) -> dict[str, Any] | None:
    """Return what a Step is estimated to take."""
    if step.estimate is None:
        return None
    return {
        "memory_bytes": step.estimate.memory,
        "memory_bytes_by_phase": dict(step.estimate.phases),
        "needed_memory_bytes": step.estimate.needed,
        "vram_bytes": step.estimate.gpu_memory,
        "vram_bytes_by_phase": dict(step.estimate.vram),
        "output_bytes": step.estimate.output,
        "temporary_bytes": step.estimate.temporary,
        "seconds": durations.seconds(step.estimate, step.step.type),
    }


def _total(plan: Plan, durations: Durations) -> dict[str, Any] | None:
    """Return what the Steps that are to be run take together: the peak of memory, and sums of the rest.

    The run also reads what no digest is known of.
    """
    found = _sum([step for step in plan.steps if not step.cached], durations)
    if found is not None and found["seconds"] is not None:
        found["seconds"] += durations.digesting(plan.unread)
    return found


def _search(plan: Plan, durations: Durations) -> dict[str, Any] | None:
    """Return what a search takes at most: every candidate made and measured, prefixes that they share once."""
    if plan.search is None or not plan.search.steps:
        return None
    found = _sum(plan.search.steps, durations, plan.search.times)
    return None if found is None else found | {"points": plan.search.points}


def _sum(
    steps: Sequence[PlannedStep], durations: Durations, times: Mapping[str, float] | None = None
) -> dict[str, Any] | None:
    """Return what Steps take together, those of each name so many ``times``."""
    known = [(step, step.estimate, (times or {}).get(step.name, 1.0)) for step in steps if step.estimate is not None]
    if not known:
        return None
    seconds = [(durations.seconds(estimate, step.step.type), count) for step, estimate, count in known]
    told = [each * count for each, count in seconds if each is not None]
    return {
        "memory_bytes": max(estimate.memory for _, estimate, _ in known),
        "needed_memory_bytes": max(estimate.needed for _, estimate, _ in known),
        "vram_bytes": max(estimate.gpu_memory for _, estimate, _ in known),
        "output_bytes": int(sum(estimate.output * count for _, estimate, count in known)),
        "temporary_bytes": max(estimate.temporary for _, estimate, _ in known),
        "seconds": sum(told) if len(told) == len(steps) else None,
    }


def _figures(found: dict[str, Any]) -> Iterator[str]:
    from olivine.config.sizes import gigabytes
    from olivine.engine.words import duration

    needed = found["needed_memory_bytes"]
    without = f" ({gigabytes(needed)} without mapped files)" if needed < 0.95 * found["memory_bytes"] else ""
    yield f"about {gigabytes(found['memory_bytes'])} of memory{without}"
    if found["vram_bytes"]:
        yield f"{gigabytes(found['vram_bytes'])} of GPU memory"
    disk = found["output_bytes"] + found["temporary_bytes"]
    if disk:
        yield f"{gigabytes(disk)} of disk"
    if found["seconds"] is not None:
        yield duration(found["seconds"])


def _show_data(plan: Plan, count: int) -> None:
    """Print training sequences token by token: in the loss underlined, outside it dim, padding left out."""
    from rich.text import Text

    from olivine.cli.terminal import console as safe_console
    from olivine.data.preview import preview
    from olivine.errors import PlanError
    from olivine.models.tokenizer import load_tokenizer

    console = safe_console(highlight=False)
    source = plan.steps[0].sources["model"] if plan.steps else None
    if source is None or source.path is None:
        raise PlanError(
            "the data can be shown as tokens only when the model's tokenizer is on this machine",
            remedy="run once, or download the model first",
        )
    tokenizer = load_tokenizer(source.path)
    for step in plan.passes:
        for parameter, config in step.data.items():
            console.print(f"\n{step.name}.{parameter} = {config.name}", style="bold", markup=False)
            for sequence in preview(config, tokenizer, count):
                text = Text()
                for token in sequence.tokens:
                    style = "underline" if token.in_loss else "dim"
                    if not console.is_terminal and token.in_loss:
                        text.append(f"[{token.text}]")
                    else:
                        text.append(token.text, style=style)
                console.print(text)
                in_loss = sum(token.in_loss for token in sequence.tokens)
                console.print(f"{len(sequence.tokens)} tokens, {in_loss} in the loss", style="dim")
