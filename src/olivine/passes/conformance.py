"""The tests that every pass inherits, built in or not.

A plug-in author subclasses :class:`PassConformance`, gives the fixtures, and runs pytest. The tests need real inputs,
so give the smallest model that the pass takes. Each test that runs the pass takes as long as the pass does; keep
``params`` to a few steps.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest
from pydantic import ValidationError

from olivine.config.docstrings import field_docs
from olivine.config.schema import DataConfig
from olivine.hardware.machine import this_machine
from olivine.models.checkpoint import detect_format, read_checkpoint
from olivine.passes.base import Accelerator, Format, ModelFacts, Params, Pass, PassResult, PlanContext, RunContext

HEAVY = ("torch", "transformers", "peft", "onnxruntime", "onnxruntime_genai", "onnx", "datasets", "pyarrow", "pandas")
"""Packages that importing a pass's module must not import."""


class Interrupted(BaseException):
    """Stands for a worker that dies in the middle of a pass."""


class PassConformance:
    """Tests of what the framework relies on. Override the fixtures; the tests come with them.

    Needed: ``pass_type``, ``params``, ``inputs``. With defaults: ``data`` (no data configs), ``host`` and ``target``
    (this machine's CPU).
    """

    _reference: ClassVar[dict[type, tuple[Path, PassResult]]] = {}

    @pytest.fixture
    def pass_type(self) -> type[Pass[Any]]:
        """The pass under test."""
        raise NotImplementedError("override the fixture pass_type")

    @pytest.fixture
    def params(self) -> dict[str, Any]:
        """Its parameters, as a configuration has them."""
        raise NotImplementedError("override the fixture params")

    @pytest.fixture
    def inputs(self) -> Mapping[str, Path]:
        """Folders: ``model``, and ``base`` if the model is an adapter."""
        raise NotImplementedError("override the fixture inputs")

    @pytest.fixture
    def data(self) -> Mapping[str, DataConfig]:
        """Data configs by the parameter that names them."""
        return {}

    @pytest.fixture
    def host(self) -> Accelerator:
        """Where the pass runs."""
        return Accelerator()

    @pytest.fixture
    def target(self) -> Accelerator:
        """Where the result ships to."""
        return Accelerator()

    @pytest.fixture
    def plan_context(self, inputs: Mapping[str, Path], host: Accelerator, target: Accelerator) -> PlanContext:
        """What the plan would know of the inputs."""
        base = read_checkpoint(inputs.get("base", inputs["model"]))
        facts = ModelFacts(
            detect_format(inputs["model"]),
            base.config,
            inputs["model"],
            base.modules,
            own_base=(inputs["model"] / "base").is_dir(),
            parameters=base.parameters,
            weights=sum(tensor.bytes for tensor in base.tensors.values()),
        )
        return PlanContext(facts, host, target, this_machine().has_bf16(host.device))

    @pytest.fixture
    def resolved(self, pass_type: type[Pass[Any]], params: dict[str, Any], plan_context: PlanContext) -> Params:
        """The parameters as the plan hands them to the worker."""
        found: Params = pass_type.resolve(pass_type.params_type.model_validate(params), plan_context)[0]
        return found

    @pytest.fixture
    def reference(
        self,
        pass_type: type[Pass[Any]],
        resolved: Params,
        inputs: Mapping[str, Path],
        data: Mapping[str, DataConfig],
        host: Accelerator,
        target: Accelerator,
        tmp_path_factory: pytest.TempPathFactory,
    ) -> tuple[Path, PassResult]:
        """Output and result of one undisturbed run, made once for each test class."""
        if type(self) not in self._reference:
            folder = tmp_path_factory.mktemp("reference")
            result = run_pass(pass_type, resolved, inputs, folder, data=data, host=host, target=target)
            self._reference[type(self)] = folder / "output", result
        return self._reference[type(self)]

    def test_an_estimate_is_made_of_shapes_alone(
        self,
        pass_type: type[Pass[Any]],
        resolved: Params,
        plan_context: PlanContext,
        data: Mapping[str, DataConfig],
        reference: tuple[Path, PassResult],
    ) -> None:
        """Its size of the result is within a fifth of what the pass made, but for a megabyte of small files."""
        if not plan_context.model.weights:
            pytest.skip("the size of the model is not known")
        found = pass_type.estimate(resolved, plan_context, data)
        made = sum(file.stat().st_size for file in reference[0].rglob("*") if file.is_file())
        assert found.memory > 0
        assert abs(found.output - made) <= 0.2 * made + 1_000_000

    def test_metadata_is_present(self, pass_type: type[Pass[Any]]) -> None:
        assert pass_type.type
        assert pass_type.summary
        assert "\n" not in pass_type.summary
        assert pass_type.__doc__
        assert pass_type.accepts
        assert all(isinstance(each, Format) for each in pass_type.accepts)
        assert isinstance(pass_type.produces, Format)
        assert pass_type.version >= 1
        assert not pass_type.own_base or pass_type.produces is Format.PEFT
        undocumented = [
            name for name in pass_type.params_type.model_fields if name not in field_docs(pass_type.params_type)
        ]
        assert not undocumented

    def test_importing_its_module_is_cheap(self, pass_type: type[Pass[Any]]) -> None:
        code = f"import sys, {pass_type.__module__}; print([name for name in {HEAVY!r} if name in sys.modules])"
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
        assert done.stdout.strip() == "[]"

    def test_parameters_are_accepted(self, pass_type: type[Pass[Any]], params: dict[str, Any]) -> None:
        pass_type.params_type.model_validate(params)

    def test_an_unknown_parameter_is_refused(self, pass_type: type[Pass[Any]], params: dict[str, Any]) -> None:
        with pytest.raises(ValidationError, match="no_such_parameter"):
            pass_type.params_type.model_validate(params | {"no_such_parameter": 1})

    def test_the_input_is_of_an_accepted_format(self, pass_type: type[Pass[Any]], inputs: Mapping[str, Path]) -> None:
        assert detect_format(inputs["model"]) in pass_type.accepts

    def test_resolve_is_idempotent(
        self, pass_type: type[Pass[Any]], params: dict[str, Any], plan_context: PlanContext
    ) -> None:
        given = pass_type.params_type.model_validate(params)
        once, _ = pass_type.resolve(given, plan_context)
        twice, _ = pass_type.resolve(once, plan_context)
        assert twice == once
        assert given == pass_type.params_type.model_validate(params)

    def test_resolved_parameters_survive_json(self, pass_type: type[Pass[Any]], resolved: Params) -> None:
        assert pass_type.params_type.model_validate_json(resolved.model_dump_json()) == resolved

    def test_check_finds_nothing_wrong(
        self, pass_type: type[Pass[Any]], resolved: Params, plan_context: PlanContext
    ) -> None:
        assert pass_type.check(resolved, plan_context) == []

    def test_the_result_is_of_the_declared_format(
        self, pass_type: type[Pass[Any]], reference: tuple[Path, PassResult]
    ) -> None:
        output, _ = reference
        assert detect_format(output) is pass_type.produces
        assert read_checkpoint(output).files

    def test_the_result_names_no_folder_of_this_machine(
        self, reference: tuple[Path, PassResult], inputs: Mapping[str, Path]
    ) -> None:
        output, _ = reference
        folders = [str(folder).encode() for folder in (*inputs.values(), output.parent)]
        texts = [file for file in output.rglob("*") if file.is_file() and file.suffix in (".json", ".md", ".txt", "")]
        assert not [file.name for file in texts if any(folder in file.read_bytes() for folder in folders)]

    def test_an_adapter_that_owns_its_base_brings_it(
        self, pass_type: type[Pass[Any]], reference: tuple[Path, PassResult]
    ) -> None:
        output, _ = reference
        assert (output / "base").is_dir() == pass_type.own_base
        if pass_type.own_base:
            assert detect_format(output / "base") is Format.HF

    def test_two_runs_give_the_same_bytes(
        self,
        pass_type: type[Pass[Any]],
        resolved: Params,
        reference: tuple[Path, PassResult],
        inputs: Mapping[str, Path],
        data: Mapping[str, DataConfig],
        host: Accelerator,
        target: Accelerator,
        tmp_path: Path,
    ) -> None:
        run_pass(pass_type, resolved, inputs, tmp_path, data=data, host=host, target=target)
        assert content_digests(tmp_path / "output") == content_digests(reference[0])

    def test_a_run_after_one_that_died_gives_the_same_bytes(
        self,
        pass_type: type[Pass[Any]],
        resolved: Params,
        reference: tuple[Path, PassResult],
        inputs: Mapping[str, Path],
        data: Mapping[str, DataConfig],
        host: Accelerator,
        target: Accelerator,
        tmp_path: Path,
    ) -> None:
        def die(done: float, total: float | None, **_: Any) -> None:
            if total and done >= total / 2:
                raise Interrupted

        # A pass that reports no progress cannot be caught in the middle: then it runs to its end, and again.
        with contextlib.suppress(Interrupted):
            run_pass(pass_type, resolved, inputs, tmp_path, data=data, host=host, target=target, progress=die)
        (tmp_path / "output").rename(tmp_path / "left-behind")
        run_pass(pass_type, resolved, inputs, tmp_path, data=data, host=host, target=target)
        assert content_digests(tmp_path / "output") == content_digests(reference[0])


def run_pass(
    pass_type: type[Pass[Any]],
    params: Params,
    inputs: Mapping[str, Path],
    folder: Path,
    *,
    data: Mapping[str, DataConfig] | None = None,
    host: Accelerator | None = None,
    target: Accelerator | None = None,
    progress: Any = None,
    notes: list[str] | None = None,
) -> PassResult:
    """Run a pass as a worker would, with ``folder/output`` (which must not exist) and ``folder/checkpoint``."""
    (folder / "output").mkdir(parents=True)
    (folder / "checkpoint").mkdir(exist_ok=True)
    context = RunContext(
        inputs=inputs,
        input_format=detect_format(inputs["model"]),
        output=folder / "output",
        checkpoint=folder / "checkpoint",
        data=data or {},
        host=host or Accelerator(),
        target=target or Accelerator(),
        progress=progress or (lambda *_, **__: None),
        note=(notes if notes is not None else []).append,
    )
    return pass_type().run(params, context)


def content_digests(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of every file below ``folder`` by its relative name."""
    return {
        file.relative_to(folder).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }
