"""What a function of the user's measures. Its file runs only if it is named on the command line, for this run."""

from __future__ import annotations

import importlib.util
import inspect
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

from pydantic import Field

from olivine.config.schema import DataConfig
from olivine.errors import ConfigError, Location, OlivineError, Problem
from olivine.evaluate.base import Metric, MetricContext
from olivine.evaluate.known import UserConfig
from olivine.passes.base import Format, Params
from olivine.store.digests import digest_file


class CustomParams(Params):
    """Parameters of :class:`Custom`."""

    user_config: UserConfig = Field(default_factory=UserConfig)
    """``user_script``, the file; ``evaluate_func``, the function in it; ``evaluate_func_kwargs``, more arguments;
    ``script_dir``, a folder that the file imports from."""
    data_config: str | None = None
    """Kept: the function reads its own data."""
    sample_log_num: int | None = None
    """Kept."""
    sample_log_dir: str | None = None
    """Kept."""


class ScriptModel:
    """What the function gets as its model: the folder, also as ``model_path``, where functions for Olive look for it.

    Attributes:
        model_path: the folder.
        format: what is in it (``genai``, ``hf`` ...).
    """

    def __init__(self, path: Path, format: Format) -> None:
        self.model_path = str(path)
        self.format = str(format)

    def __fspath__(self) -> str:
        return self.model_path


class Custom(Metric[CustomParams]):
    """Calls ``evaluate_func(model, device, execution_providers, **evaluate_func_kwargs)`` of a Python file.

    The file is code, and so it runs only with ``--allow-script FILE``. Its content is part of the cache key; what it
    imports from elsewhere is not. ``model`` is a path-like with ``model_path`` and ``format``; the function may leave
    out arguments it has no use for. It returns numbers by name, or one number. ``higher_is_better`` of the sub_types
    says what is good.
    """

    type: ClassVar[str] = "custom"
    summary: ClassVar[str] = "what a function of yours measures (--allow-script FILE)"
    measures: ClassVar[frozenset[Format]] = frozenset(Format) - {Format.METRICS}
    params_type = CustomParams
    units: ClassVar[Mapping[str, str]] = {}
    higher_is_better: ClassVar[Mapping[str, bool]] = {}
    hardware_dependent: ClassVar[bool] = True

    @classmethod
    def script(cls, params: CustomParams) -> str | None:
        """See :meth:`Metric.script`."""
        return params.user_config.user_script

    @classmethod
    def check(cls, params: CustomParams, data: Mapping[str, DataConfig]) -> list[Problem]:
        """See :meth:`Metric.check`."""
        user = params.user_config
        problems = [
            Problem(f"{key} is missing", Location(path="user_config"), remedy=f"add {key}")
            for key in ("user_script", "evaluate_func")
            if getattr(user, key) is None
        ]
        if user.metric_func is not None and user.evaluate_func is None:
            return [
                Problem(
                    "metric_func measures outputs that someone else has to compute",
                    Location(path="user_config.metric_func"),
                    remedy="give an evaluate_func, which gets the model",
                )
            ]
        return problems

    def measure(self, params: CustomParams, context: MetricContext) -> dict[str, Any]:
        """See :meth:`Metric.measure`."""
        user = params.user_config
        assert user.user_script is not None
        assert user.evaluate_func is not None
        module = load_script(Path(user.user_script), user.script_dir)
        function = getattr(module, user.evaluate_func, None)
        if not callable(function):
            there = ", ".join(name for name, value in vars(module).items() if inspect.isfunction(value)) or "none"
            raise ConfigError(
                f"{user.user_script} has no function {user.evaluate_func!r}", remedy=f"its functions are: {there}"
            )
        offered = {
            "model": ScriptModel(context.model, context.format),
            "device": context.target.device,
            "execution_providers": [context.target.execution_provider],
        }
        found = function(**_accepted(function, offered), **(user.evaluate_func_kwargs or {}))
        values = found if isinstance(found, Mapping) else {user.evaluate_func: found}
        numbers = {str(key): _number(value) for key, value in values.items()}
        wrong = [key for key, value in numbers.items() if value is None]
        if wrong or not numbers:
            raise OlivineError(
                f"{user.evaluate_func} of {user.user_script} returned "
                + (f"what is no number: {', '.join(wrong)}" if wrong else "nothing"),
                remedy="return numbers by name, or one number",
            )
        return numbers


def check_scripts(metrics: Sequence[Mapping[str, Any]], digests: Mapping[str, str]) -> None:
    """Refuse scripts that are no longer what the plan showed.

    Args:
        metrics: as in a Step's parameters.
        digests: SHA-256 of each script by the metric's index, as the plan found it.

    Raises:
        OlivineError: one has changed, or is gone.
    """
    for metric in metrics:
        expected = digests.get(str(metric["index"]))
        if expected is None:
            continue
        file = Path(metric["params"]["user_config"]["user_script"])
        if not file.is_file() or digest_file(file) != expected:
            raise OlivineError(
                f"{file} has changed since the plan was made", remedy="read it again, and run the same command again"
            )


def load_script(file: Path, script_dir: str | None) -> ModuleType:
    """Run a Python file and return it as a module."""
    for folder in (script_dir, str(file.parent)):
        if folder is not None and folder not in sys.path:
            sys.path.insert(0, folder)
    spec = importlib.util.spec_from_file_location(file.stem, file)
    if spec is None or spec.loader is None:
        raise ConfigError(f"{file} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[file.stem] = module
    spec.loader.exec_module(module)
    return module


def _accepted(function: Any, offered: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments that a function takes."""
    parameters = inspect.signature(function).parameters
    if any(each.kind is each.VAR_KEYWORD for each in parameters.values()):
        return dict(offered)
    return {key: value for key, value in offered.items() if key in parameters}


def _number(value: Any) -> float | int | None:
    if isinstance(value, bool) or not hasattr(value, "__float__"):
        return None
    return value if isinstance(value, int | float) else float(value)
