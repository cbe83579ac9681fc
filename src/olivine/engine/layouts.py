"""The output folders of Olive's releases, for apps and scripts that hold their paths.

What Olive put into its output folder moved with its releases. On request the model lies where a release put it, with
that release's papers beside it; Olivine's own papers stay at the top of the folder.

=============  ==========================================================  =========================================
layout         model                                                       papers
=============  ==========================================================  =========================================
``olive-0.6``  ``lora-merge-mb/gpu-cuda_model/``, passes joined by ``-``   ``..._model.json``, ``..._metrics.json``,
                                                                           ``gpu-cuda_footprints.json``,
                                                                           ``run_history_gpu-cuda.txt``
``olive-0.7``  ``output_model/model/``                                     ``model_config.json``, ``metrics.json``
                                                                           beside it; ``footprints.json``,
                                                                           ``run_history.txt``
``olive-0.8``  ``model/``                                                  the same, at the top
``olive-0.10`` at the top                                                  ``model_config.json``, ``metrics.json``,
                                                                           ``footprint.json``, ``run_history.txt``
=============  ==========================================================  =========================================
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from olivine.errors import ConfigError
from olivine.store.disk import bad_name

if TYPE_CHECKING:
    from olivine.engine.result import Result
    from olivine.passes.base import Accelerator
    from olivine.planning.plan import Plan

LAYOUTS = ("olive-0.6", "olive-0.7", "olive-0.8", "olive-0.10")


def named(name: str) -> str:
    """Return the layout that a release had (``olive-0.6``, ``olive-0.6.2``, ``0.9.1``).

    Raises:
        ConfigError: there is no such layout.
    """
    found = re.fullmatch(r"(?:olive-)?(\d+)\.(\d+)(?:\.\d+)*", name)
    if found is not None:
        minor = int(found[2]) if found[1] == "0" else 99
        if minor >= 2:
            return LAYOUTS[0 if minor <= 6 else 1 if minor == 7 else 2 if minor <= 9 else 3]
    raise ConfigError(f"there is no layout {name!r}", remedy=f"the layouts are {', '.join(LAYOUTS)}")


@dataclass(frozen=True)
class OldOutput:
    """What an old release would have put into the output folder.

    Attributes:
        model: folder of the model's files, relative to the output folder; empty for its top.
        papers: the other files by relative name.
    """

    model: str
    papers: dict[str, bytes]


def model_folder(layout: str, plan: Plan) -> str:
    """Return where a layout puts the model, relative to the output folder; empty for its top."""
    if layout == "olive-0.6":
        passes = "-".join(plan.workflow.passes)
        return f"{passes}/{_prefix(plan)}_model"
    return {"olive-0.7": "output_model/model", "olive-0.8": "model", "olive-0.10": ""}[layout]


def check_folder(plan: Plan) -> None:
    """Refuse names that would lead out of the output folder.

    Raises:
        ConfigError: the name of a pass, or ``engine.output_name``, does.
    """
    assert plan.layout is not None
    folder = model_folder(plan.layout, plan)
    if folder and (fault := bad_name(folder)):
        raise ConfigError(
            f"{plan.layout} makes {folder!r} of the passes' names and engine.output_name, and that is no folder in "
            "the output folder",
            why=fault,
            remedy="rename the passes, or correct engine.output_name",
        )


def old_output(layout: str, plan: Plan, result: Result) -> OldOutput:
    """Return where the model goes and which papers lie beside it, as a release of Olive had them."""
    folder = model_folder(layout, plan)
    config = _model_config(layout, plan, plan.output_dir / folder if folder else plan.output_dir)
    final, before = (_metrics(result.metrics.get(which)) for which in ("final", "input"))
    nodes = _footprints(config, plan, result)
    last = dict(list(nodes.items())[-1:])
    if layout == "olive-0.6":
        prefix = _prefix(plan)
        stem = folder.removesuffix("_model")
        papers: dict[str, Any] = {
            f"{stem}_model.json": config,
            f"{stem}_metrics.json": final,
            f"{prefix}_footprints.json": nodes,
            f"{prefix}_input_model_metrics.json": before,
            f"run_history_{accelerator_name(_target(plan))}.txt": _history(result),
        }
    else:
        beside = "output_model/" if layout == "olive-0.7" else ""
        plural = "" if layout == "olive-0.10" else "s"
        papers = {
            f"{beside}model_config.json": config,
            f"{beside}metrics.json": final,
            f"footprint{plural}.json": nodes,
            f"output_footprint{plural}.json": last,
            "input_model_metrics.json": before,
            "run_history.txt": _history(result),
        }
    return OldOutput(folder, {name: _bytes(content) for name, content in papers.items() if content is not None})


def accelerator_name(target: Accelerator) -> str:
    """Return Olive's name of a device with its execution provider: ``gpu-cuda``."""
    return f"{target.device}-{target.execution_provider.removesuffix('ExecutionProvider').lower()}"


def _target(plan: Plan) -> Accelerator:
    from olivine.passes.base import Accelerator

    return plan.steps[-1].target if plan.steps else Accelerator()


def _prefix(plan: Plan) -> str:
    name = plan.workflow.engine.output_name
    accelerator = accelerator_name(_target(plan))
    return f"{name}_{accelerator}" if name else accelerator


def _model_config(layout: str, plan: Plan, folder: Path) -> dict[str, Any]:
    """Return the model as an ``input_model`` of the release."""
    if str(plan.final_format) in ("onnx", "genai"):
        return {"type": "ONNXModel", "config": {"model_path": str(folder), "onnx_file_name": "model.onnx"}}
    task = plan.workflow.input_model.task
    if layout == "olive-0.6":
        hf_config = {"model_name": plan.workflow.input_model.model_path, "task": task}
        return {"type": "PyTorchModel", "config": {"model_path": str(folder), "hf_config": hf_config}}
    return {"type": "HfModel", "config": {"model_path": str(folder), "task": task}}


def _metrics(measured: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Return measurements under Olive's names, ``metric-sub_type``."""
    if measured is None:
        return None
    found = {}
    for metric, values in measured.items():
        for name, value in values.items() if isinstance(values, Mapping) else [(metric, values)]:
            if isinstance(value, int | float) and not isinstance(value, bool):
                found[f"{metric}-{name}"] = {"value": value}
    return found


def _footprints(config: Mapping[str, Any], plan: Plan, result: Result) -> dict[str, Any]:
    """Return one node a model: the input, then the result of each pass."""
    steps = {step.name: step for step in result.steps}
    parent = "input_model"
    nodes: dict[str, Any] = {
        parent: {"model_id": parent, "parent_model_id": None, "from_pass": None, "pass_run_config": None}
    }
    for planned in plan.passes:
        model_id = f"{planned.step.type}-{planned.digest[:8]}"
        nodes[model_id] = {
            "model_id": model_id,
            "parent_model_id": parent,
            "from_pass": planned.step.type,
            "pass_run_config": dict(planned.step.params),
            "seconds": round(steps[planned.name].seconds, 3) if planned.name in steps else None,
        }
        parent = model_id
    nodes["input_model"]["metrics"] = _metrics(result.metrics.get("input"))
    if parent != "input_model":
        nodes[parent] |= {"model_config": dict(config), "metrics": _metrics(result.metrics.get("final"))}
    return nodes


def _history(result: Result) -> str:
    """Return the table of what ran."""
    rows = [("pass", "type", "seconds")] + [(step.name, step.type, f"{step.seconds:.1f}") for step in result.steps]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    return "".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() + "\n" for row in rows
    )


def _bytes(content: Any) -> bytes:
    return (
        content.encode()
        if isinstance(content, str)
        else (json.dumps(content, indent=4, ensure_ascii=False) + "\n").encode()
    )
