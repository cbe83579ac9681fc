"""Olive's quantisers of checkpoints are methods and forms of one pass here, Quantize.

Rtn, KQuant and Gptq wrote Olive's own form, GptqModel and GptqQuantizer GPTQ's. Their defaults are written out. A pass
that asks for something that Quantize does not do is kept as it is, and is not available.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from olivine.config.dialects import module_overrides
from olivine.config.dialects.document import Document, Entries, Section
from olivine.config.dialects.module_overrides import HEAD
from olivine.passes import known

NAME = "Quantize"
MIXED = "SelectiveMixedPrecision"
OLIVES_OWN = ("Rtn", "KQuant", "Gptq")
"""Those that write Olive's own form."""


@dataclass(frozen=True)
class Quantiser:
    """A pass of Olive, in terms of Quantize.

    Attributes:
        method: how it rounds.
        form: what it wrote.
        defaults: of its parameters, under Olive's names.
        without_effect: parameters that nothing depends on here, and why.
        refused: parameters that change the result in a way that Quantize has not.
    """

    method: str
    form: str
    defaults: Mapping[str, Any]
    without_effect: Mapping[str, str] = field(default_factory=dict)
    refused: Mapping[str, str] = field(default_factory=dict)


_OLIVE = {"bits": 4, "group_size": 128, "sym": False}
_EMBEDDING = "Quantize leaves the embedding as it is; ModelBuilder rounds it (embedding_bits)"
_IN_PLACE = "groups keep their places here, whatever act_order says"
_IN_ORDER = "every matrix sees what those before it have become"
_FOUND = "Quantize finds the matrices of a decoder itself"
_GPTQ = {"static_groups": _IN_PLACE, "true_sequential": _IN_ORDER}
_NO_DATA = "the calibration data say it"

QUANTISERS: dict[str, Quantiser] = {
    # Olive takes a symmetric scale from half a step beyond the largest code.
    "Rtn": Quantiser("rtn_half", "olive", _OLIVE, {"embeds": _EMBEDDING}),
    "KQuant": Quantiser("k_quant", "olive", _OLIVE | {"group_size": 32}, {"embeds": _EMBEDDING}),
    "Gptq": Quantiser("gptq", "olive", _OLIVE | {"damp_percent": 0.01}, {"embeds": _EMBEDDING}),
    "GptqModel": Quantiser(
        "gptq",
        "gptq",
        {"bits": 4, "group_size": -1, "sym": True, "damp_percent": 0.05, "desc_act": True},
        {
            **_GPTQ,
            "damp_auto_increment": "damping stays what it is",
            "mse": "Quantize searches for the scales in any case",
            "device": "the pass's host says it",
        },
        {"rotation": "Quantize does not rotate weights"},
    ),
    "GptqQuantizer": Quantiser(
        "gptq",
        "gptq",
        {**_OLIVE, "damp_percent": 0.01, "desc_act": False},
        {
            **_GPTQ,
            "layers_block_name": _FOUND,
            "inside_layer_modules": _FOUND,
            "outside_layer_modules": _FOUND,
            "seed": "calibration data are taken in their order",
            "batch_size": "sequences go through a layer one after another",
            "data_dir": _NO_DATA,
            "dataloader_func_kwargs": _NO_DATA,
        },
        {"dataloader_func": "code from a configuration is not run; name a data config"},
    ),
}

NAMES = {
    "sym": "symmetric",
    "damp_percent": "damping",
    "desc_act": "act_order",
    "data_config": "calibration_data_config",
    "nsamples": "samples",
}
"""Olive's parameters that have another name here."""

ORDER = (
    "type", "method", "form", "bits", "group_size", "symmetric", "lm_head_bits", "overrides", "modules_to_exclude",
    "calibration_data_config", "samples", "sequence_length", "act_order", "damping",
)  # fmt: skip


def translate(document: Document) -> None:
    """Write every quantiser of checkpoints as Quantize, and one that goes on where another left off as one with it."""
    before: Section | None = None
    passes = document.root.section("passes")
    _last_in_more_bits(document, passes)
    for name, value in list(passes.items()):
        if isinstance(value, Section) and before is not None and _goes_on(document, before, value):
            passes.take(name)
        elif isinstance(value, Section):
            before = value if _quantiser(document, value) else None
        else:
            before = None
            for each in value if isinstance(value, Entries) else ():
                if isinstance(each, Section):
                    _quantiser(document, each)


def _quantiser(document: Document, each: Section) -> bool:
    """Translate one pass, and return whether it was one of these."""
    found = QUANTISERS.get(str(each.get("type")))
    if found is None:
        return False
    for key in [key for key, value in each.items() if value is None]:
        each.take(key)
    reason = _why_not(each, found)
    if reason is not None:
        key, why = reason
        document.note(each.at(key), f"{each['type']} is kept as it is, and is not available: {why}")
        return False
    name, kind = str(each["type"]), each.origins.get("type")
    document.note(each.at("type"), f"{name} is {NAME} with method: {found.method} and form: {found.form} here")
    each.put("type", NAME, kind)
    each.put("method", found.method, kind)
    each.put("form", found.form, kind)
    for key, value in found.defaults.items():
        each.fill(key, value)
    for key in ("bits", "group_size"):
        if isinstance(each[key], str) and each[key].lstrip("-").isdigit():
            each[key] = int(each[key])
    if name == "Gptq":
        each.fill("desc_act", each["group_size"] == -1)
    _head(document, each)
    module_overrides.translate(document, each, all_alike=found.form == "olive")
    _without_effect(document, each, name, found)
    for old, new in NAMES.items():
        each.rename(old, new)
    if found.method == "gptq":
        _data(document, each)
    _arrange(each)
    return True


def _why_not(each: Section, found: Quantiser) -> tuple[str, str] | None:
    """Return the parameter that Quantize has nothing for, and why; ``None`` if there is none."""
    for key, why in found.refused.items():
        if each.get(key):
            return key, why
    if each.get("group_size") in (0, "0"):
        return "group_size", "Quantize has no single scale for a whole matrix"
    if each.get("lm_head") is not None and _truth(each["lm_head"]) is None:
        return "lm_head", "lm_head has to be true or false"
    if _truth(each.get("lm_head")) and isinstance(each.get("bits"), list | dict):
        return "bits", "the bits of lm_head would be searched apart from the others"
    return module_overrides.why_not(each)


def _head(document: Document, each: Section) -> None:
    """Olive rounds the output layer, if at all, like all others."""
    if "lm_head" not in each:
        return
    asked, origin = each.take("lm_head")
    if _truth(asked):
        each.put("lm_head_bits", each["bits"], origin)


def _without_effect(document: Document, each: Section, name: str, found: Quantiser) -> None:
    """Remove what nothing depends on, and what the pass never had and Olive took no notice of."""
    olive = known.find(name)
    assert olive is not None
    for key in list(each):
        if key in found.without_effect:
            if bool(each[key]) is (key == "true_sequential"):
                each.take(key)  # as it is done here
            else:
                document.without_effect(each, key, found.without_effect[key])
        elif key in ("user_script", "script_dir"):
            document.without_effect(each, key, "no parameter of this pass names a function")
        elif key not in ORDER and key not in olive.parameters and key in known.parameters_of_any():
            document.without_effect(each, key, f"{name} has no such parameter, and Olive took no notice of it")


def _data(document: Document, each: Section) -> None:
    """How many sequences, and how long, stood in the data config."""
    name = each.get("calibration_data_config")
    if name is None:
        document.note(
            each.at("data_config"),
            "no data_config: Olive took WikiText-2 from the hub; here a text that Olivine brings calibrates",
        )
        return
    listed = document.root.get("data_configs")
    entries = [one for one in listed if isinstance(one, Section)] if isinstance(listed, list) else []
    data = next((one for one in entries if one.get("name") == name), Section(each.origin))
    for key, new, otherwise in (("max_samples", "samples", 128), ("max_seq_len", "sequence_length", 1024)):
        if isinstance(data.get(key), int) and data[key] > 0:
            if each.get(new) is None:
                each.put(new, data[key], data.origins.get(key))
        elif each.get(new) is None:
            each.fill(new, otherwise)
            if new == "samples":
                document.note(
                    each.at("data_config"), f"its first {otherwise} sequences calibrate; Olive took all there are"
                )


def _last_in_more_bits(document: Document, passes: Section) -> None:
    """SelectiveMixedPrecision with ``k_quant_last`` tells the quantisers after it the bits of the output layer."""
    if not _is_one_chain(document):
        return
    for name, each in list(passes.items()):
        if not isinstance(each, Section) or each.get("type") != MIXED or each.get("algorithm") != "k_quant_last":
            continue
        names = list(passes)
        after = [passes[later] for later in names[names.index(name) + 1 :]]
        quantisers = [one for one in after if isinstance(one, Section) and one.get("type") in OLIVES_OWN]
        each.fill("bits", 4)
        each.fill("high_bits", 8)
        if not quantisers:
            continue
        for one in quantisers:
            one.put("bits", each["bits"], each.origins["bits"])
            if _truth(one.get("lm_head")):
                _head_in(one, each)
        passes.take(name)
        where = each.origin if isinstance(each.origin, tuple) else ()
        document.note(where, f"the passes after it round {HEAD}, if at all, to {each['high_bits']} bits")


def _head_in(one: Section, mixed: Section) -> None:
    """Add the bits of the output layer to a pass's overrides, unless they say them."""
    overrides = one.section("overrides")
    head = overrides.section(HEAD)
    if head.get("bits") is None:
        head.put("bits", mixed["high_bits"], mixed.origins["high_bits"])
        overrides.put(HEAD, head, overrides.origins.get(HEAD) or mixed.origin)
        one.put("overrides", overrides, one.origins.get("overrides") or mixed.origin)


def _is_one_chain(document: Document) -> bool:
    """Return whether every pass is run after the one before it."""
    return document.root.get("pass_flows") is None and document.root.get("builds") is None


def _goes_on(document: Document, before: Section, each: Section) -> bool:
    """Have the pass before do what Rtn or KQuant would do after it: round the output layer, if that is left.

    Olive's two leave alone what is quantised. Here nothing is quantised twice, and the pass before has the means.
    """
    if each.get("type") not in ("Rtn", "KQuant") or before.get("form") != "olive" or not _is_one_chain(document):
        return False
    single = Section(each.origin)
    for key in each:
        single.put(key, each[key], each.origins.get(key))
    aside = Document(document.root, document.dialect)
    if not _quantiser(aside, single) or isinstance(single["bits"], list | dict):
        return False
    document.notes += [note for note in aside.notes if "embed" in note.path]
    bits, origin = single.take("lm_head_bits")
    where = each.origin if isinstance(each.origin, tuple) else ()
    if bits is None or before.get("lm_head_bits") is not None:
        document.note(where, "has no effect: the pass before leaves nothing that it would quantise")
        return True
    before.put("lm_head_bits", bits, origin)
    module_overrides.add_head(before, single)
    document.note(where, f"the pass before rounds {HEAD} to {before['lm_head_bits']} bits too, by its own method")
    _arrange(before)
    return True


def _truth(value: Any) -> bool | None:
    """Return a truth value, taken as loosely as Olive does; ``None`` if it is something else."""
    if value is None:
        return False
    text = str(value).lower()
    if text in ("true", "1", "yes", "on"):
        return True
    return False if text in ("false", "0", "no", "off") else None


def _arrange(each: Section) -> None:
    """Put the parameters into one order."""
    items = {key: each.take(key) for key in list(each)}
    for key in (*(key for key in ORDER if key in items), *(key for key in items if key not in ORDER)):
        each.put(key, *items[key])
