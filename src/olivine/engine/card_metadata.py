"""The head of a model card: YAML in the terms of the Hugging Face hub.

https://github.com/huggingface/hub-docs/blob/main/modelcard.md
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from olivine.engine.values import Value
from olivine.storage.addresses import called, is_address

if TYPE_CHECKING:
    from olivine.engine.result import Result
    from olivine.planning.plan import Plan

LIBRARIES = {
    "genai": "onnxruntime-genai",
    "onnx": "onnxruntime",
    "peft": "peft",
    "hf": "transformers",
    "hf-quantized": "transformers",
}
"""Library that loads a model, by format."""
HUB_METRICS = {"macro_f1": "f1"}
"""The hub's ids of values that are called otherwise here."""
CARRIED = ("license", "license_name", "license_link", "language")
"""What a model made from another inherits from its card."""
LONGEST_CARD = 200_000
"""Characters of a card that are looked at."""
ADAPTERS = frozenset({"LoRA", "QLoRA", "DoRA", "LoftQ"})


def metadata(
    plan: Plan,
    result: Result,
    values: Sequence[Value],
    attributes: Sequence[Mapping[str, Any]],
    carried: Mapping[str, Any],
) -> dict[str, Any]:
    """Return the metadata of the final model.

    Args:
        values: what was measured on it.
        attributes: of the passes' artifacts, in order.
        carried: what the input model's card says (:func:`carried_from`).
    """
    base = hub_id(plan.workflow.input_model.model_path)
    bits = quantised_bits(attributes)
    tuned = any(step.type in ADAPTERS for step in result.steps)
    relation = (
        "adapter" if result.format == "peft" else "finetune" if tuned else "quantized" if bits is not None else None
    )
    tags = ["olivine", *(["onnx"] if result.format in ("genai", "onnx") else [])]
    if bits is not None:
        tags += ["quantized", f"{bits}-bit"]
    found: dict[str, Any] = {
        **carried,
        "base_model": base,
        "base_model_relation": relation if base is not None else None,
        "library_name": LIBRARIES.get(result.format, "transformers"),
        "pipeline_tag": plan.workflow.input_model.task.removesuffix("-with-past"),
        "tags": tags,
        "quantized_by": "olivine" if bits is not None else None,
        "metrics": list(dict.fromkeys(HUB_METRICS.get(each.name, each.name) for each in values if each.main)) or None,
        "model-index": model_index(model_name(plan.workflow.input_model.model_path), plan, values) or None,
    }
    return {key: value for key, value in found.items() if value is not None}


def model_index(name: str, plan: Plan, values: Sequence[Value]) -> list[dict[str, Any]]:
    """Return measurements as the hub's leaderboards and model pages read them: by task and data set."""
    task = plan.workflow.input_model.task.removesuffix("-with-past")
    by_data: dict[str | None, list[Value]] = {}
    for value in values:
        by_data.setdefault(value.data.name if value.data is not None else None, []).append(value)
    results = []
    for found in by_data.values():
        data = found[0].data
        dataset: dict[str, Any] = {"name": "none: measured on the machine", "type": "none"}
        if data is not None:
            files = [data.data_files] if isinstance(data.data_files, str) else data.data_files or []
            dataset = {
                "name": data.name,
                "type": data.data_name or ", ".join(Path(file).name for file in files) or data.name,
                "split": data.split,
            }
        results.append(
            {
                "task": {"type": task},
                "dataset": dataset,
                "metrics": [
                    {
                        "type": HUB_METRICS.get(each.name, each.name),
                        "value": each.value,
                        "name": f"{each.key}, {each.unit}" if each.unit else each.key,
                    }
                    for each in found
                ],
            }
        )
    return [{"name": name, "results": results}] if results else []


def quantised_bits(attributes: Sequence[Mapping[str, Any]]) -> int | None:
    """Return the bits of most weights if a pass quantised them (``precision: int4``), else ``None``."""
    for each in reversed(attributes):
        found = re.fullmatch(r"u?int(\d+)", str(each.get("precision", "")))
        if found is not None:
            return int(found[1])
    return None


def model_name(path: str) -> str:
    """Return the last part of a path or hub id, or what an address calls the model."""
    if is_address(path):
        return called(path)
    return re.split(r"[/\\]", path.rstrip("/\\"))[-1]


def hub_id(path: str) -> str | None:
    """Return what can be the id of a model on the hub: the id itself, or a folder's name; ``None`` if neither can."""
    candidate = path if re.fullmatch(r"[\w.-]+/[\w.-]+", path, re.ASCII) else model_name(path)
    return candidate if re.fullmatch(r"(\w[\w.-]*/)?\w[\w.-]{0,95}", candidate, re.ASCII) else None


def carried_from(folder: Path | None) -> dict[str, Any]:
    """Return what the card in a model's folder says of licence and language; nothing if it has no card that is read."""
    import yaml

    card = folder / "README.md" if folder is not None else None
    if card is None or not card.is_file():
        return {}
    text = card.read_text(encoding="utf-8", errors="replace")[:LONGEST_CARD]
    head = re.match(r"\s*---[ \t]*\r?\n(.*?)\r?\n---[ \t]*(\r?\n|$)", text, re.DOTALL)
    if head is None:
        return {}
    try:
        found = yaml.safe_load(head[1])
    except yaml.YAMLError:
        return {}  # the card of another is not ours to mend, and no reason to fail
    if not isinstance(found, dict):
        return {}
    return {
        key: found[key]
        for key in CARRIED
        if isinstance(found.get(key), str)
        or (isinstance(found.get(key), list) and all(isinstance(each, str) for each in found[key]))
    }
