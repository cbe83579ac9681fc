"""One file per metric, and goals. Called, the package is the verb: ``olivine.evaluate(model, ...)``.

The room and the verb have the same name, and Python puts the room in the verb's place once it is imported.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any


class _Room(ModuleType):
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Measure one model as it is: see :func:`olivine.recipes.evaluation.evaluate`."""
        from olivine.verbs import evaluate

        return evaluate(*args, **kwargs)


sys.modules[__name__].__class__ = _Room
