"""0.3: ``evaluation_only`` went, and evaluators had no ``target`` of their own any more."""

from __future__ import annotations

from olivine.config.dialects.document import Document, Section


def translate(document: Document) -> None:
    """Leave out the passes of a file that only measures; measure on the target of its evaluator."""
    root = document.root
    engine = root.section("engine")
    path = engine.at("evaluation_only")
    only, _ = engine.take("evaluation_only")
    if only:
        for name in root.section("passes"):
            document.note(root.section("passes").at(name), "has no effect: evaluation_only is true")
        root.take("passes")
        document.note(path, "only the input model is measured, so there are no passes")
        engine.put("evaluate_input_model", True, path)
    for name, each in root.section("evaluators").items():
        if isinstance(each, Section) and "target" in each:
            _target(document, name, each)


def _target(document: Document, name: str, evaluator: Section) -> None:
    engine = document.root.section("engine")
    path = evaluator.at("target")
    if engine.get("evaluator") == name and engine.get("target") in (None, evaluator["target"]):
        evaluator.move("target", engine)
    elif engine.get("target") == evaluator["target"]:
        evaluator.take("target")
    else:
        evaluator.take("target")
        document.note(path, "has no effect: everything is measured on the engine's target")
