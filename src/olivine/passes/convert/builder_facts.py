"""What the installed model builder of ONNX Runtime GenAI can do, read from its source without importing it.

Importing the builder imports torch and transformers (several seconds); planning has no time for that, and the builder
offers no list. So its source is read as text, in milliseconds: which architectures it dispatches on, which execution
providers and precisions its command line offers, and which extra options its code looks up.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

SEEN_WITH = ">=0.16,<0.19"
"""Versions of onnxruntime-genai with which the tests of this file and of the pass were seen to pass."""

_ARCHITECTURE = re.compile(r"""config\.architectures\[0\] == ["'](\w+)["']""")
_LOOKED_UP = re.compile(
    r"""extra_options(?:\.get\(|\.pop\(|\[)\s*["'](\w+)["']|["'](\w+)["']\s+(?:not\s+)?in\s+(?:self\.)?extra_options"""
)
_DESCRIBED = re.compile(r"^ {16}(\w+) = ", re.MULTILINE)
_INTERNAL = frozenset({"hf_details"})


@dataclass(frozen=True)
class BuilderFacts:
    """What the installed builder can do.

    Attributes:
        architectures: model classes (``Phi3ForCausalLM``), sorted.
        execution_providers: in its own words (``cpu``, ``cuda`` ...).
        precisions: ``int4``, ``int8`` ...
    """

    architectures: tuple[str, ...]
    execution_providers: tuple[str, ...]
    precisions: tuple[str, ...]


@cache
def builder_facts() -> BuilderFacts | None:
    """Return what the installed builder can do; ``None`` if there is none, or its source is not as it was seen."""
    folder = _builder_folder()
    if folder is None:
        return None
    source = (folder / "builder.py").read_text(encoding="utf-8")
    facts = BuilderFacts(
        architectures=tuple(sorted(set(_ARCHITECTURE.findall(source)))),
        execution_providers=_choices(source, "--execution_provider"),
        precisions=_choices(source, "--precision"),
    )
    return facts if facts.architectures and facts.execution_providers and facts.precisions else None


@cache
def builder_options() -> frozenset[str]:
    """Return the names of the extra options that the installed builder looks up or describes; empty if there is none.

    The builder itself ignores an option that it does not know.
    """
    folder = _builder_folder()
    if folder is None:
        return frozenset()
    texts = [file.read_text(encoding="utf-8", errors="replace") for file in sorted(folder.rglob("*.py"))]
    found = {name for text in texts for match in _LOOKED_UP.findall(text) for name in match if name}
    described = (folder / "builder.py").read_text(encoding="utf-8").partition("Key value pairs for various options")[2]
    found |= set(_DESCRIBED.findall(described.partition("parse_args")[0]))
    return frozenset(name for name in found if not name.startswith("_") and name not in _INTERNAL)


def _builder_folder() -> Path | None:
    """Find the builder's folder without importing its package."""
    from importlib.util import find_spec

    spec = find_spec("onnxruntime_genai")
    if spec is None or spec.origin is None:
        return None
    folder = Path(spec.origin).parent / "models"
    return folder if (folder / "builder.py").is_file() else None


def _choices(source: str, option: str) -> tuple[str, ...]:
    """Return the ``choices`` that the command line declares for ``option``."""
    found = re.search(rf'"{option}",(?:(?!add_argument).)*?choices=\[([^\]]*)\]', source, re.DOTALL)
    return tuple(re.findall(r'"(\w+)"', found[1])) if found else ()
