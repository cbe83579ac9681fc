"""``LMEvaluator``, since 0.7: an evaluator that runs tasks of lm-eval is one with the metric ``lm_eval``."""

from __future__ import annotations

from olivine.config.dialects.document import Document, Entries, Section

NAME = "lmevaluator"
SIZE = "size_on_disk"
"""Stands among the tasks, and is the size of the model's files."""
WITHOUT_EFFECT = {
    "batch_size": "requests are answered one at a time, which changes no score",
    "model_class": "the model's format says how it is asked",
    "device": "engine.target says where models are measured",
    "execution_provider": "engine.target says where models are measured",
    "provider_options": "engine.target says where models are measured",
    "max_length": "the model's own context is used",
    "bootstrap_iters": "standard errors are not resampled",
    "metrics": "Olive took no notice of it beside tasks",
}


def translate(document: Document, evaluator: Section) -> None:
    """Make the evaluator's tasks a metric."""
    origin = evaluator.origins.get("type")
    tasks = evaluator.get("tasks")
    for key, why in WITHOUT_EFFECT.items():
        document.without_effect(evaluator, key, why)
    if not isinstance(tasks, Entries):
        return  # it is said what is wrong with it
    evaluator.take("type")
    metrics = Entries(origin)
    asked = [place for place, task in enumerate(tasks) if str(task).lower() != SIZE]
    if asked:
        metric = Section(origin)
        metric.put("type", "lm_eval", origin)
        evaluator.move("tasks", metric)
        evaluator.move("limit", metric)
        kept = Entries(tasks.origin)
        for place in asked:
            kept.add(tasks[place], tasks.origins[place])
        metric.put("tasks", kept, metric.origins.get("tasks"))
        metrics.add(metric, origin)
    if len(asked) < len(tasks):
        size = Section(origin)
        size.put("type", "size", origin)
        metrics.add(size, origin)
    evaluator.take("tasks")
    evaluator.put("metrics", metrics, origin)
