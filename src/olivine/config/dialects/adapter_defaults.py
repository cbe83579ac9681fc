"""0.7: other defaults for adapters and their training, and fewer parameters.

Up to 0.6.2 Olive filled in nearly every training argument; from 0.7 on it leaves most to transformers, whose defaults
are not Olivine's. What was filled in is written out, so that the same training runs.
"""

from __future__ import annotations

from typing import Any

from olivine.config.dialects.document import Document, Section
from olivine.config.dialects.releases import age
from olivine.config.wording import nearest

ADAPTERS = frozenset({"lora", "qlora", "loftq", "dora", "loha", "lokr"})
FOUR_BIT = frozenset({"qlora", "loftq"})

UP_TO_0_6: dict[str, Any] = {
    "seed": 42,
    "data_seed": 42,
    "optim": "paged_adamw_32bit",
    "per_device_train_batch_size": 1,
    "per_device_eval_batch_size": 1,
    "gradient_accumulation_steps": 16,
    "max_steps": 10000,
    "weight_decay": 0.0,
    "learning_rate": 2e-4,
    "gradient_checkpointing": True,
    "lr_scheduler_type": "constant",
    "warmup_ratio": 0.03,
    "logging_steps": 10,
    "group_by_length": True,
}
"""What Olive 0.6 and older filled in."""

SINCE_0_7: dict[str, Any] = {
    "per_device_train_batch_size": 8,
    "per_device_eval_batch_size": 8,
    "gradient_accumulation_steps": 1,
    "learning_rate": 2e-4,
    "gradient_checkpointing": True,
    "lr_scheduler_type": "constant",
    "logging_steps": 500,
}
"""What holds since 0.7, where Olivine would take something else: Olive's own, and transformers' defaults."""

WITHOUT_EFFECT = {
    "use_ort_trainer": "transformers trains",
    "ortmodule_onnx_opset_version": "transformers trains",
    "user_script": "no parameter of this pass names a function",
    "script_dir": "no parameter of this pass names a function",
}


def is_adapter(each: Section) -> bool:
    """Return whether a pass trains an adapter."""
    return str(each.get("type", "")).lower() in ADAPTERS


def translate(document: Document) -> None:
    """Write out the defaults of the release that a file is for."""
    for _, each in document.passes():
        if is_adapter(each):
            _adapter(document, each)


def _adapter(document: Document, each: Section) -> None:
    old = age(document.dialect) < age("0.7")
    _quantised(document, each)
    if each.get("torch_dtype") is None:
        each.fill("torch_dtype", "auto")
        document.note(
            each.origin if isinstance(each.origin, tuple) else (),
            "no torch_dtype: Olive took bfloat16; `auto` takes it where the hardware multiplies it, else float32",
        )
    if old:
        each.fill("lora_dropout", 0.0)
        if each.get("eval_data_config") is not None:
            document.without_effect(each, "eval_dataset_size", "eval_data_config is given")
    else:
        document.without_effect(each, "eval_dataset_size", "Olive 0.7 and later hold out no part of the training data")
        for key, new in (("lora_r", "r"), ("lora_alpha", "alpha")):
            if age(document.dialect) >= age("0.8"):
                document.without_effect(each, key, f"Olive 0.8 and later read {new}")
    for key, why in WITHOUT_EFFECT.items():
        if each.get(key):
            document.without_effect(each, key, why)
        else:
            each.take(key)
    if str(each.get("type")).lower() == "qlora" and each.get("target_modules") is not None:
        document.note(
            each.at("target_modules"),
            "these modules are trained; Olive took no notice of them under QLoRA and trained every linear layer",
        )
    _training_args(document, each, old)


def _quantised(document: Document, each: Section) -> None:
    """``double_quant`` and ``quant_type`` are parameters of QLoRA, which whoever gives them to LoRA means."""
    given = [key for key in ("double_quant", "quant_type") if each.get(key) is not None]
    if str(each.get("type")).lower() == "lora" and given:
        document.note(each.at(given[0]), "LoRA does not quantise; QLoRA is meant, and QLoRA is run")
        each.put("type", "QLoRA", each.origins.get("type"))


def _training_args(document: Document, each: Section, old: bool) -> None:
    given = each.get("training_args")
    if given is None:
        arguments = Section(each.origin)
        each.put("training_args", arguments)
    elif isinstance(given, Section):
        arguments = given
    else:
        return  # the schema says that it must be an object
    for key in [key for key, value in arguments.items() if value is None]:
        arguments.take(key)
    extra = arguments.get("extra_args")
    if isinstance(extra, Section):
        arguments.take("extra_args")
        for key in list(extra):
            if extra[key] is None:
                continue
            if old or key not in arguments:
                extra.move(key, arguments)
            else:
                value, origin = extra.take(key)
                arguments.put(key, value, origin)
    document.without_effect(arguments, "fp16", "torch_dtype says it, and Olive took no notice of it")
    document.without_effect(arguments, "use_module_with_loss", "transformers trains")
    if arguments.get("deepspeed"):
        document.without_effect(arguments, "deepspeed", "one process trains")
    else:
        arguments.take("deepspeed")
    _unknown_arguments(document, arguments)
    if old:
        _fill_up_to_0_6(document, each, arguments)
    else:
        _fill_since_0_7(document, each, arguments)


def _unknown_arguments(document: Document, arguments: Section) -> None:
    """Olive dropped what is no field of TrainingArguments. Here a slip is a mistake, and the rest is named."""
    from olivine.passes.finetune import training_arguments as known  # reads the source of transformers

    fields = known.known_fields()
    if not fields:
        return
    names = {*fields, *known.RENAMED, *known.GONE, *known.OURS, "group_by_length", "adafactor"}
    for key in list(arguments):
        if key in names or key.startswith(known.HUB):
            continue
        near = nearest(key, sorted(names))
        if near is None:
            document.without_effect(arguments, key, "it is no training argument of transformers")
        else:
            document.fault(
                arguments.at(key), f"`{key}` is no training argument of transformers", remedy=f"did you mean {near}?"
            )


def _fill_up_to_0_6(document: Document, each: Section, arguments: Section) -> None:
    if "max_steps" not in arguments and "num_train_epochs" in arguments:
        # The 10,000 steps overruled the epochs that the user asked for.
        document.note(
            each.at("training_args"),
            "no max_steps: Olive 0.6 trained 10000 steps whatever num_train_epochs says; that is kept",
        )
    warms_up = "warmup_steps" in arguments
    for key, value in UP_TO_0_6.items():
        if not (key == "warmup_ratio" and warms_up):
            arguments.fill(key, value)


def _fill_since_0_7(document: Document, each: Section, arguments: Section) -> None:
    for key, value in SINCE_0_7.items():
        arguments.fill(key, value)
    if age(document.dialect) < age("0.9") or str(each.get("type")).lower() in FOUR_BIT:
        arguments.fill("optim", "paged_adamw_32bit")
    if "evaluation_strategy" not in arguments and each.get("eval_data_config") is not None:
        arguments.fill("eval_strategy", "steps")
