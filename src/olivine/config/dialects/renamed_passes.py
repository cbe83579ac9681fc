"""Passes under their last names. Names are in any case, as in Olive.

0.6: GenAIModelExporter became ModelBuilder. 0.7: OrtPerfTuning became OrtSessionParamsTuning. 0.7.1: OnnxModelOptimizer
became OnnxPeepholeOptimizer. 0.8: OnnxIOFloat16ToFloat32 became OnnxIODataTypeConverter. 0.9.3: OnnxMatMul4Quantizer
was split by its algorithm. No old name was ever given to another pass, so this is one table for files of every age.
"""

from __future__ import annotations

from olivine.config.dialects.document import Document, Section
from olivine.passes import known
from olivine.passes.registry import find

FLOAT16, FLOAT = 10, 1
"""ONNX's numbers of the types between which OnnxIOFloat16ToFloat32 converted."""

MATMUL4 = {
    "default": "OnnxBlockWiseRtnQuantization",
    "rtn": "OnnxBlockWiseRtnQuantization",
    "hqq": "OnnxHqqQuantization",
}


def translate(document: Document) -> None:
    """Rename every pass, and the parameters that changed with its name."""
    for _, each in document.passes():
        kind = each.get("type")
        if isinstance(kind, str) and "." in kind and not find(kind):
            # Olive cut the path of a module to its last name.
            kind = kind.rpartition(".")[2]
            each.put("type", kind, each.origins.get("type"))
        found = known.find(kind) if isinstance(kind, str) else None
        if found is None:
            continue
        name = found.name
        if found.replacement is not None:
            name = _successor(document, each, found) or found.replacement
            document.note(each.at("type"), f"{found.name} is called {name} now")
        if name != kind:
            each.put("type", name, each.origins.get("type"))


def _successor(document: Document, each: Section, found: known.KnownPass) -> str | None:
    """Change what changed with the name; return the new name where it depends on parameters."""
    if found.name == "OnnxIOFloat16ToFloat32":
        each.fill("source_dtype", FLOAT16)
        each.fill("target_dtype", FLOAT)
    elif found.name == "OnnxMatMul4Quantizer":
        return _matmul4(document, each)
    return None


def _matmul4(document: Document, each: Section) -> str:
    algorithm = str(each.get("algorithm") or "default").lower()
    if algorithm not in MATMUL4:
        document.note(each.at("algorithm"), f"no pass for ONNX models has the algorithm {algorithm}; it is kept")
        return "OnnxBlockWiseRtnQuantization"
    each.take("algorithm")
    each.fill("bits", 4)
    return MATMUL4[algorithm]
