"""What stands below each field of a pydantic model, read from the source when somebody asks.

Pydantic can do it when the class is made (``use_attribute_docstrings``), but then every start of the command line would
pay for texts that only the schema, the reference and ``olivine passes show`` need.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from functools import cache
from itertools import pairwise
from typing import Any, get_args

from pydantic import BaseModel


@cache
def field_docs(model: type[BaseModel]) -> dict[str, str]:
    """Return the texts below the fields of ``model``, inherited ones too, by field; a field without one is left out."""
    found: dict[str, str] = {}
    for cls in reversed(model.__mro__):
        if not (issubclass(cls, BaseModel) and cls is not BaseModel):
            continue
        try:
            tree = ast.parse(textwrap.dedent(inspect.getsource(cls)))
        except (OSError, TypeError, SyntaxError):
            continue  # made at run time: it has no source
        body = tree.body[0].body if isinstance(tree.body[0], ast.ClassDef) else []
        for statement, following in pairwise(body):
            if (
                isinstance(statement, ast.AnnAssign)
                and isinstance(statement.target, ast.Name)
                and isinstance(following, ast.Expr)
                and isinstance(following.value, ast.Constant)
                and isinstance(following.value.value, str)
            ):
                found[statement.target.id] = inspect.cleandoc(following.value.value)
    return {name: text for name, text in found.items() if name in model.model_fields}


def documented_schema(model: type[BaseModel]) -> dict[str, Any]:
    """Return ``model.model_json_schema()`` with the fields' texts as descriptions."""
    schema = model.model_json_schema()
    for each in _models_in(model):
        target = schema if each is model else schema.get("$defs", {}).get(each.__name__, {})
        for name, text in field_docs(each).items():
            if name in target.get("properties", {}):
                target["properties"][name].setdefault("description", " ".join(text.split()))
    return schema


def _models_in(model: type[BaseModel]) -> list[type[BaseModel]]:
    """Return ``model`` and every model that its fields reach."""
    found: list[type[BaseModel]] = []
    waiting: list[Any] = [model]
    while waiting:
        annotation = waiting.pop()
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            if annotation not in found:
                found.append(annotation)
                waiting += [field.annotation for field in annotation.model_fields.values()]
        else:
            waiting += get_args(annotation)
    return found
