"""The ``training_args`` of a fine-tuning pass: which names the installed transformers knows, old names, defaults.

The fields are read from the library's source by ``ast``: importing transformers would cost the plan seconds.
Seen with transformers 5.23; a rename in a later version shows up here, in the plan, not after hours of training.
"""

from __future__ import annotations

import ast
import difflib
import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from olivine.errors import Location, Problem

RENAMED: dict[str, str] = {
    "evaluation_strategy": "eval_strategy",
    "warmup_ratio": "warmup_steps",
    "no_cuda": "use_cpu",
    "per_gpu_train_batch_size": "per_device_train_batch_size",
    "per_gpu_eval_batch_size": "per_device_eval_batch_size",
}
"""Names of former versions of transformers and what they are called now. ``warmup_steps`` below 1 is a ratio."""

GONE = frozenset({
    "dispatch_batches", "split_batches", "fp16_backend", "fp16_opt_level", "half_precision_backend",
    "include_inputs_for_metrics", "include_tokens_per_second", "jit_mode_eval", "logging_dir", "mp_parameters",
    "past_index", "push_to_hub_model_id", "push_to_hub_organization", "push_to_hub_token", "ray_scope",
    "save_safetensors", "torchdynamo", "tpu_metrics_debug", "tpu_num_cores", "use_ipex",
    "use_legacy_prediction_loop", "use_mps_device", "xpu_backend",
})  # fmt: skip
"""Names that former versions had and that changed nothing in what is trained."""

OURS = frozenset({
    "output_dir", "overwrite_output_dir", "resume_from_checkpoint", "do_train", "do_eval", "do_predict",
    "save_strategy", "save_total_limit", "save_only_model", "disable_tqdm", "use_cpu", "remove_unused_columns",
    "ignore_data_skip", "local_rank", "enable_jit_checkpoint", "restore_callback_states_from_checkpoint",
    "logging_nan_inf_filter",
})  # fmt: skip
"""Names that Olivine sets itself: where files go, what is saved to resume from, and which device is used."""

HUB = "hub_"

DEFAULTS: dict[str, Any] = {
    "seed": 42,
    "per_device_train_batch_size": 1,
    "per_device_eval_batch_size": 1,
    "gradient_accumulation_steps": 4,
    "learning_rate": 2e-4,
    "lr_scheduler_type": "constant",
    "warmup_steps": 0.03,
    "weight_decay": 0.0,
    "optim": "adamw_torch",
    "logging_steps": 10,
    "eval_strategy": "no",
    "report_to": "none",
}
"""What is used where the configuration says nothing; the rest are the library's defaults. The ``constant`` scheduler
takes no warm-up; ``warmup_steps`` (3 % of all steps) acts with any other."""

DEFAULT_EPOCHS = 3.0

ON_CPU: dict[str, str] = {
    "paged_adamw_32bit": "adamw_torch",
    "paged_adamw_8bit": "adamw_torch",
    "adamw_bnb_8bit": "adamw_torch",
    "adamw_8bit": "adamw_torch",
    "adamw_torch_4bit": "adamw_torch",
    "adamw_torch_8bit": "adamw_torch",
    "adamw_apex_fused": "adamw_torch",
    "rmsprop_bnb": "rmsprop",
    "rmsprop_bnb_8bit": "rmsprop",
    "rmsprop_bnb_32bit": "rmsprop",
    "lion_8bit": "adamw_torch",
    "lion_32bit": "adamw_torch",
    "paged_lion_32bit": "adamw_torch",
    "paged_lion_8bit": "adamw_torch",
    "ademamix": "adamw_torch",
    "ademamix_8bit": "adamw_torch",
    "paged_ademamix_32bit": "adamw_torch",
    "paged_ademamix_8bit": "adamw_torch",
}
"""Optimisers that need a GPU, with the twin that runs anywhere (AdamW where there is none of the same kind)."""


@dataclass(frozen=True)
class FieldOf:
    """One field of ``TrainingArguments``.

    Attributes:
        types: the simple types it takes (``int``, ``float``, ``bool``, ``str``, ``None``); empty if others are allowed.
        choices: the values it takes, where they are few.
    """

    types: frozenset[str]
    choices: tuple[str, ...] = ()


@cache
def known_fields() -> Mapping[str, FieldOf]:
    """Return the fields of the installed ``TrainingArguments`` by name; empty if transformers is not installed."""
    spec = importlib.util.find_spec("transformers")
    if spec is None or not spec.submodule_search_locations:
        return {}
    folder = Path(spec.submodule_search_locations[0])
    source = (folder / "training_args.py").read_text(encoding="utf-8")
    enums = _enums(source) | _enums((folder / "trainer_utils.py").read_text(encoding="utf-8"))
    start = source.index("\nclass TrainingArguments")
    body = ast.parse(source[start : source.index("    def __post_init__", start)]).body[0]
    assert isinstance(body, ast.ClassDef)
    found = {}
    for node in body.body:
        if not isinstance(node, ast.AnnAssign) or not isinstance(node.target, ast.Name):
            continue
        if node.target.id.startswith("_"):
            continue
        found[node.target.id] = _field(node, enums)
    return found


def _enums(source: str) -> dict[str, tuple[str, ...]]:
    """Return the string enumerations that ``source`` defines, by name."""
    enums = {}
    for chunk in source.split("\nclass ")[1:]:
        head, _, rest = chunk.partition(":\n")
        if "ExplicitEnum" not in head:
            continue
        values = []
        for line in rest.splitlines():
            if line and not line.startswith((" ", "#")):
                break
            name, equals, value = line.strip().partition(" = ")
            if equals and name.isupper() and value.startswith('"'):
                values.append(value.split('"')[1])
        enums[head.partition("(")[0]] = tuple(values)
    return enums


def _field(node: ast.AnnAssign, enums: Mapping[str, tuple[str, ...]]) -> FieldOf:
    """Return what the annotation and the metadata of one field allow."""
    names = {part.strip() for part in ast.unparse(node.annotation).split("|")}
    named = [name for name in names if name in enums]
    choices = enums[named[0]] if named else ()
    for inner in ast.walk(node):
        if isinstance(inner, ast.Dict):
            for key, value in zip(inner.keys, inner.values, strict=True):
                if isinstance(key, ast.Constant) and key.value == "choices" and isinstance(value, ast.List):
                    choices = tuple(str(each.value) for each in value.elts if isinstance(each, ast.Constant))
    simple = {"int", "float", "bool", "str", "None"}
    rest = names - simple - set(named)
    return FieldOf(frozenset(names & simple) if not rest else frozenset(), choices)


def translate(given: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Return ``given`` in the names of the installed transformers, with a note for each that was renamed or dropped.

    Unknown names stay, for :func:`problems` to name. Idempotent.
    """
    fields = known_fields()
    found: dict[str, Any] = {}
    notes = []
    for name, value in given.items():
        if value is None:
            continue
        renamed = fields.get(RENAMED.get(name, name))
        if value is False and renamed is not None and "no" in renamed.choices:
            value = "no"  # what YAML makes of it without quotes
        if name == "group_by_length" and name not in fields:
            if value:
                found.setdefault("train_sampling_strategy", "group_by_length")
            continue
        if name == "adafactor" and name not in fields:
            if value:
                found["optim"] = "adafactor"
            continue
        if name in RENAMED and name not in fields and name not in OURS and RENAMED[name] not in OURS:
            if RENAMED[name] == "warmup_steps" and given.get("warmup_steps"):
                continue  # as in transformers: a number of steps goes before a ratio
            found[RENAMED[name]] = value
            continue
        if name in OURS or RENAMED.get(name) in OURS:
            notes.append(f"training_args.{name} is left out: Olivine sets it itself")
            continue
        if name in GONE and name not in fields:
            notes.append(f"training_args.{name} is left out: transformers has it no more, and it changes no result")
            continue
        found[name] = value
    return found, notes


def problems(arguments: Mapping[str, Any]) -> list[Problem]:
    """Return what is wrong with translated ``training_args``: unknown names, wrong types and values."""
    fields = known_fields()
    found = []
    for name, value in arguments.items():
        where = Location(path=f"training_args.{name}")
        if name == "push_to_hub" or name.startswith(HUB):
            if value:
                found.append(
                    Problem(
                        f"{name} cannot be used here",
                        where,
                        "a fine-tuning step uploads nothing",
                        "remove it, and upload the output folder with `hf upload` when the run is done",
                    )
                )
            continue
        if fields and name not in fields:
            near = difflib.get_close_matches(name, [*fields, *RENAMED, "group_by_length"], 1)
            found.append(
                Problem(
                    f"{name} is no training argument of the installed transformers",
                    where,
                    remedy=f"did you mean {near[0]}?" if near else "see the fields of transformers.TrainingArguments",
                )
            )
            continue
        if fields:
            found += _value_problems(name, value, fields[name], where)
    if not found:
        found += _would_train_nothing(arguments)
    return found


def _value_problems(name: str, value: Any, field: FieldOf, where: Location) -> list[Problem]:
    if field.choices and isinstance(value, str) and value not in field.choices:
        near = difflib.get_close_matches(value, field.choices, 1)
        remedy = f"did you mean {near[0]}?" if near else f"give one of {', '.join(field.choices)}"
        return [Problem(f"{name} cannot be {value!r}", where, remedy=remedy)]
    kind = "bool" if isinstance(value, bool) else type(value).__name__
    # YAML reads 1e-4 as text: a number in quotes or without a dot is a slip that would surface as a late TypeError.
    fits = kind in field.types or (kind == "int" and "float" in field.types)
    if field.types and not fits and not (field.choices and kind == "str"):
        wanted = " or ".join(sorted(field.types - {"None"}))
        hint = "write it with a dot: 1.0e-4" if kind == "str" and _is_number(value) and "float" in field.types else ""
        return [Problem(f"{name} is {value!r}, and must be {wanted}", where, remedy=hint)]
    return []


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _is_above(value: Any, bound: float) -> bool:
    return isinstance(value, int | float) and value > bound


def _would_train_nothing(arguments: Mapping[str, Any]) -> list[Problem]:
    """Return what is wrong with the numbers; their types have been checked."""
    found = []
    steps = arguments.get("max_steps", -1)
    if steps == 0:
        found.append(
            Problem(
                "max_steps is 0",
                Location(path="training_args.max_steps"),
                "nothing would be trained",
                "give a number of steps, or leave it out to train by num_train_epochs",
            )
        )
    epochs = arguments.get("num_train_epochs", DEFAULT_EPOCHS)
    if not _is_above(steps, -1) and not _is_above(epochs, 0):
        found.append(
            Problem(
                f"num_train_epochs is {epochs}",
                Location(path="training_args.num_train_epochs"),
                "nothing would be trained",
                "give a positive number, or max_steps",
            )
        )
    for name in ("per_device_train_batch_size", "per_device_eval_batch_size", "gradient_accumulation_steps"):
        if not _is_above(arguments.get(name, 1), 0):
            what = f"{name} is {arguments[name]}, and must be 1 or more"
            found.append(Problem(what, Location(path=f"training_args.{name}")))
    if not _is_above(arguments.get("learning_rate", 1.0), 0):
        found.append(
            Problem(
                f"learning_rate is {arguments['learning_rate']}",
                Location(path="training_args.learning_rate"),
                "nothing would be learnt",
                "2.0e-4 is a usual value for LoRA",
            )
        )
    return found


def with_defaults(arguments: Mapping[str, Any], *, on_gpu: bool) -> dict[str, Any]:
    """Return ``arguments`` with :data:`DEFAULTS` below them, and checkpointing of activations only on a GPU.

    On a CPU memory is seldom what is short, and recomputing activations costs a quarter of the speed.
    """
    found = DEFAULTS | dict(arguments)
    if not _is_above(found.get("max_steps"), -1):
        found.setdefault("num_train_epochs", DEFAULT_EPOCHS)
    if "activation_checkpointing" not in found:
        found.setdefault("gradient_checkpointing", on_gpu)
    return dict(sorted(found.items()))
