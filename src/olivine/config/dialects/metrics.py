"""Metrics of Olive in the canonical form: what computes a value is the type, and a value that guides a search is a
sub-type.

Olive's ``accuracy`` is any measure that torchmetrics or Hugging Face's evaluate computes from tensors; Olivine's is the
share of right answers. So the former goes by the name of what computes it.
"""

from __future__ import annotations

from olivine.config.dialects import lm_evaluator
from olivine.config.dialects.document import Document, Entries, Section
from olivine.config.dialects.nested_objects import flatten
from olivine.config.wording import nearest, suggestion
from olivine.evaluate.known import FUNCTIONS, UserConfig

EVALUATORS = {each.lower(): each for each in ("LMEvaluator", "MTEBEvaluator")}
BY_FORMAT = frozenset({"onnxevaluator", "pytorchevaluator", "openvinoevaluator", "qnnevaluator", "snpeevaluator"})
"""Evaluators that Olive chooses by the model's format anyway."""

KINDS = frozenset({"accuracy", "latency", "throughput", "custom", "size_on_disk"})
OWN = frozenset({"name", "type", "backend", "sub_types", "user_config", "data_config", "sample_log_num",
                 "sample_log_dir"})  # fmt: skip
USER_CONFIG = frozenset(UserConfig.model_fields)
TIMES = ("avg", "max", "min", "p50", "p75", "p90", "p95", "p99", "p999")
SCORES = ("accuracy_score", "f1_score", "precision", "recall", "auroc", "perplexity", "wer", "rtfx", "exact_match",
          "relaxed_accuracy", "word_sort_ratio")  # fmt: skip
VALUES = {"accuracy": SCORES, "latency": TIMES, "throughput": TIMES, "size_on_disk": ("bytes",)}
RENAMED = {("accuracy", "auc"): "auroc", ("size_on_disk", "bytes"): "size_bytes"}


def translate(document: Document) -> None:
    """Translate every evaluator; one that measures nothing goes, with what refers to it."""
    evaluators = document.root.get("evaluators")
    if not isinstance(evaluators, Section):
        return
    for name, evaluator in list(evaluators.items()):
        if isinstance(evaluator, Section):
            _evaluator(document, evaluator)
            if not evaluator.get("metrics") and evaluator.get("type") is None and set(evaluator) <= {"metrics"}:
                document.without_effect(evaluators, name, "it measures nothing")
                for owner in (document.root.section("engine"), *(each for _, each in document.passes())):
                    if owner.get("evaluator") == name:
                        document.without_effect(owner, "evaluator", "it measures nothing")


def _evaluator(document: Document, evaluator: Section) -> None:
    flatten(document, evaluator, "type_args")
    document.without_effect(evaluator, "name", "the key is its name")
    for key in [key for key, value in evaluator.items() if value is None]:
        evaluator.take(key)
    kind = evaluator.get("type")
    if isinstance(kind, str) and kind.lower() == lm_evaluator.NAME:
        lm_evaluator.translate(document, evaluator)
        return
    if isinstance(kind, str) and kind.lower() in EVALUATORS:
        evaluator.put("type", EVALUATORS[kind.lower()], evaluator.origins.get("type"))
    elif isinstance(kind, str) and kind.lower() in BY_FORMAT:
        document.without_effect(evaluator, "type", "the model's format says how it is run")
    metrics = evaluator.get("metrics")
    for metric in metrics if isinstance(metrics, Entries) else ():
        if isinstance(metric, Section) and str(metric.get("type")).lower() in KINDS:
            _metric(document, metric)


def _metric(document: Document, metric: Section) -> None:
    kind = str(metric["type"]).lower()
    for key in [key for key, value in metric.items() if value is None]:
        metric.take(key)
    _user_config(document, metric)
    _old_sub_type(metric)
    for key in ("priority", "priority_rank", "higher_is_better", "goal", "metric_config"):
        document.without_effect(metric, key, "it belongs to a value in sub_types, and Olive took no notice of it here")
    values = metric.get("sub_types")
    if isinstance(values, Section):  # one in place of a list
        listed = Entries(values.origin)
        listed.add(values, metric.origins.get("sub_types"))
        metric.put("sub_types", listed, metric.origins.get("sub_types"))
        values = listed
    for index, value in enumerate(values if isinstance(values, Entries) else ()):
        if isinstance(value, str) and isinstance(values, Entries):
            made = Section(values.origins[index])
            made.put("name", value, values.origins[index])
            values[index] = value = made
        if isinstance(value, Section):
            _value(document, value, kind, str(metric.get("backend") or "torch_metrics"))
    if isinstance(values, Entries) and not values:
        metric.take("sub_types")
    _type(document, metric, kind)


def _user_config(document: Document, metric: Section) -> None:
    """Put keys that belong to ``user_config`` into it (they may stand beside it since 0.7), and name unknown ones."""
    user = metric.get("user_config")
    strays = [key for key in metric if key not in OWN and key in USER_CONFIG]
    if user is None and strays:
        user = Section(metric.origin)
        metric.put("user_config", user, metric.origin if isinstance(metric.origin, tuple) else None)
    if not isinstance(user, Section):
        return
    for key in strays:
        metric.move(key, user)
    for key in list(user):
        if user[key] is None:
            user.take(key)
        elif key == "data_config" and metric.get("data_config") is None:
            user.move(key, metric)
        elif key == "dataloader_func_kwargs":
            document.without_effect(user, key, "Olive has func_kwargs here, and took no notice of it")
        elif key not in USER_CONFIG:
            document.fault(
                user.at(key), f"`{key}` is not a key of user_config", remedy=suggestion(key, sorted(USER_CONFIG))
            )
            user.take(key)
    if not user:
        metric.take("user_config")


def _old_sub_type(metric: Section) -> None:
    """Before 0.2 a metric had one value, described beside it."""
    if not isinstance(metric.get("sub_type"), str) or "sub_types" in metric:
        return
    value = Section(metric.origin)
    metric.move("sub_type", value, "name")
    metric.move("priority_rank", value, "priority")
    for key in ("priority", "higher_is_better", "goal", "metric_config"):
        metric.move(key, value)
    listed = Entries(metric.origin)
    listed.add(value, value.origins.get("name"))
    metric.put("sub_types", listed, value.origins.get("name"))


def _value(document: Document, value: Section, kind: str, backend: str) -> None:
    for key in [key for key, item in value.items() if item is None]:
        value.take(key)
    priority = value.get("priority")
    if isinstance(priority, int) and priority < 1:
        value.take("priority")  # none, as Olive takes it
    document.without_effect(value, "priority_rank", "Olive reads priority here, and took no notice of it")
    if value.get("metric_config") == {}:
        value.take("metric_config")
    name = value.get("name")
    if not isinstance(name, str):
        return
    lowered = name.lower()
    if (kind, lowered) in RENAMED and backend != "huggingface_metrics":
        value.put("name", RENAMED[(kind, lowered)], value.origins.get("name"))
        if kind == "accuracy":
            document.note(value.at("name"), f"{name} is called {RENAMED[(kind, lowered)]} now")
    elif kind in VALUES and lowered in VALUES[kind]:
        value.put("name", lowered, value.origins.get("name"))
    elif kind in VALUES and backend != "huggingface_metrics":
        near = nearest(lowered, VALUES[kind])
        if near is not None:
            document.fault(value.at("name"), f"{name!r} is no value of {kind}", remedy=f"did you mean {near}?")


def _type(document: Document, metric: Section, kind: str) -> None:
    """Give a metric its canonical type."""
    origin = metric.origins.get("type")
    backend, _ = metric.take("backend")
    if kind == "size_on_disk":
        metric.put("type", "size", origin)
        for key in ("data_config", "user_config"):
            document.without_effect(metric, key, "the size of files needs no data")
    elif kind != "accuracy":
        metric.put("type", kind, origin)
    elif str(backend).lower() == "huggingface_metrics":
        metric.put("type", "huggingface_metrics", origin)
    elif _is_perplexity(metric):
        metric.put("type", "perplexity", origin)
        document.note(metric.at("type"), "the perplexity of every token of the data is measured")
        for key in ("user_config", "sample_log_num", "sample_log_dir"):
            document.without_effect(metric, key, "perplexity does without it")
        for value in metric["sub_types"]:
            document.without_effect(value, "metric_config", "perplexity does without it")
    else:
        metric.put("type", "torch_metrics", origin)


def _is_perplexity(metric: Section) -> bool:
    """Return whether a metric measures nothing but perplexity, from data alone."""
    values = metric.get("sub_types")
    if not isinstance(values, Entries) or metric.get("data_config") is None:
        return False
    user = metric.section("user_config")
    names = [value.get("name") if isinstance(value, Section) else None for value in values]
    return names == ["perplexity"] and not any(user.get(key) is not None for key in FUNCTIONS)
