"""0.7: rows become sequences with ``max_seq_len``, ``strategy`` and a joiner; before, there were pairs and other names.

Up to 0.6.2, each text made one sequence (``line-by-line``), padded to the full length, and nothing stood between joined
texts. Pairs of prompt and completion were cut part by part and padded to the sum of the two lengths.
"""

from __future__ import annotations

from olivine.config.dialects.data_parameters import prepares_text
from olivine.config.dialects.document import FILLED, Document, Entries, Section
from olivine.config.dialects.models import task_of

COLUMNS = {"default": ("input", "output"), "self_instruct": ("prompt", "completion")}
"""Columns of the ready-made formats of pairs."""


def translate(document: Document) -> None:
    """Rename what was renamed, and write out the defaults that became others."""
    data = document.root.get("data_configs")
    task = task_of(document)
    for config in data if isinstance(data, Entries) else ():
        if not isinstance(config, Section):
            continue
        if prepares_text(config, task):
            if "pre_process_data_config" not in config:
                config.put("pre_process_data_config", Section(config.origin), config.origin)
            if isinstance(config["pre_process_data_config"], Section):
                _text(document, config["pre_process_data_config"])
        else:
            _labels(document, config.section("pre_process_data_config"))


def _labels(document: Document, process: Section) -> None:
    """``label_cols`` was a list of which one counted."""
    value = process.get("label_cols")
    if value is None:
        return
    if isinstance(value, list):
        if len(value) > 1:
            document.note(process.at("label_cols"), f"only the first, {value[0]}, is used")
        if not value:
            process.take("label_cols")
            return
        value = value[0]
    process.put("label_cols", value, process.origins.get("label_cols"))
    process.rename("label_cols", "label_col")


def _one_text(document: Document, process: Section) -> None:
    """Olive 0.3.1 had one way: everything in a text, cut into sequences of ``seqlen`` tokens."""
    columns = process.get("input_cols")
    if isinstance(columns, list) and len(columns) > 1:
        document.note(process.at("input_cols"), "rows are joined; Olive 0.3.1 joined one column after the other")
    process.rename("input_cols", "text_cols")
    random, slides = process.get("random_seed") is not None, process.get("stride") is not None
    process.fill("strategy", "join-random" if random else "join-sliding-window" if slides else "join")
    process.fill("joiner", " ")
    process.fill("add_special_tokens", False)
    process.rename("seqlen", "source_max_len")


def _text(document: Document, process: Section) -> None:
    if "seqlen" in process:
        _one_text(document, process)
    process.rename("corpus_strategy", "strategy")
    if process.get("strategy") is None:
        process.fill("strategy", "line-by-line")
    if process.get("joiner") is None:
        process.put("joiner", None, process.origins.get("joiner", FILLED))
    process.fill("add_special_tokens", True)
    kind = str(process.get("dataset_type") or "corpus")
    if kind != "pair":
        process.rename("source_max_len", "max_seq_len")
        document.without_effect(process, "target_max_len", "a corpus has one length")
        document.without_effect(process, "ignore_source_in_labels", "a corpus has no prompt")
        return
    source, at = process.get("source_max_len"), process.origins.get("source_max_len")
    target = process.get("target_max_len")
    process.rename("source_max_len", "max_prompt_len")
    process.rename("target_max_len", "max_completion_len")
    if isinstance(source, int) and isinstance(target, int):
        process.put("max_seq_len", source + target, at)
    masked, at = process.take("ignore_source_in_labels")
    process.put("train_on", "all" if masked is False else "completion", at if masked is not None else FILLED)
    _pair(document, process)


def _pair(document: Document, process: Section) -> None:
    """Translate where prompt and completion come from."""
    path = process.at("pair_format")
    form, at = process.take("pair_format")
    name = form if form is not None else "default"
    if isinstance(name, str) and name in COLUMNS:
        origin = at if form is not None else FILLED
        process.put("prompt_col", COLUMNS[name][0], origin)
        process.put("completion_col", COLUMNS[name][1], origin)
    elif name == "custom":
        for old, new in (("input", "prompt"), ("output", "completion")):
            for suffix in ("template", "col"):
                process.rename(f"{old}_{suffix}", f"{new}_{suffix}")
    else:
        document.fault(
            path,
            f"the pair format {name!r} is not available",
            "in Olive it cut one column in two, or failed",
            "use custom with input_template and output_template",
        )
