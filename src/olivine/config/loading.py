"""From a file, in any dialect, to a checked Workflow; all that is wrong is said at once, with its place in the file."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from olivine.config import dialects
from olivine.config.foreign import refuse_foreign
from olivine.config.notes import Note
from olivine.config.overrides import apply_overrides
from olivine.config.parsing import KeyPath, lines_of, read
from olivine.config.paths import make_absolute
from olivine.config.placeholders import blamed, is_placeholder, validated
from olivine.config.profiles import KINDS, profile, with_named_target
from olivine.config.references import (
    References,
    broken_vault_references,
    exposed_vault_references,
    has_references,
    vault_references,
)
from olivine.config.schema import SCHEMA_VERSION, MetricConfig, PassConfig, Workflow, gather
from olivine.config.secrets import find_secrets
from olivine.config.wording import nearest, sentences, suggestion
from olivine.errors import ConfigError, Location, Problem

MOST_PROBLEMS = 100
"""Mistakes that are told; who has more has them of one kind."""


@dataclass(frozen=True)
class Loaded:
    """A configuration that has been read and accepted.

    Attributes:
        workflow: the canonical form; paths in it are absolute.
        notes: what was understood with a change.
        dialect: ``olivine-1`` or the Olive version (``0.6``) that it was written for.
        evidence: what in the file told the dialect.
        file: where it came from, if it was a file.
        as_written: the same workflow with paths as they were written.
        places: where everything in it stands in the file.
    """

    workflow: Workflow
    notes: tuple[Note, ...]
    dialect: str
    evidence: str
    file: Path | None
    as_written: Workflow = field(repr=False)
    places: Places = field(repr=False)

    def locate(self, path: str) -> Location:
        """Return where the user wrote what stands at ``path`` in the canonical form (``passes.lora.r``)."""
        return self.places.locate(tuple(path.split(".")))


@dataclass
class Places:
    """Finds the line of a canonical path.

    Attributes:
        file: the file's name for messages.
        text: its text, or ``None`` if the configuration was given as a mapping.
        canonical: the canonical form before validation; data configs can be named in a path.
        origins: the user's own path of each canonical path that differs; a prefix speaks for all below it. What is
            no path was written by no user.
        overridden: paths that ``--set`` gave.
    """

    file: str | None
    text: str | None
    canonical: Mapping[str, Any]
    origins: Mapping[KeyPath, object]
    overridden: Sequence[str] = ()

    @cached_property
    def lines(self) -> dict[KeyPath, int]:
        """The line of every key."""
        return lines_of(self.text) if self.text is not None else {}

    def locate(self, path: KeyPath) -> Location:
        """Return the place of a canonical path."""
        return self.locate_original(self.original(path))

    def locate_original(self, path: KeyPath) -> Location:
        """Return the place of a path in the user's own terms."""
        dotted = ".".join(str(part) for part in path)
        for override in self.overridden:
            if dotted == override or dotted.startswith(override + "."):
                return Location("--set", path=dotted)
        line = next((self.lines[path[:n]] for n in range(len(path), 0, -1) if path[:n] in self.lines), None)
        return Location(self.file, line, dotted)

    def original(self, path: KeyPath) -> KeyPath:
        """Return a canonical path in the user's own terms."""
        path = self._by_index(path)
        for length in range(len(path), 0, -1):
            found = self.origins.get(path[:length])
            if isinstance(found, tuple):
                return found + path[length:]
        return path

    def _by_index(self, path: KeyPath) -> KeyPath:
        """Replace names of data configs, and digits, by the indexes of a list."""
        found: list[str | int] = []
        node: Any = self.canonical
        for part in path:
            if isinstance(node, list):
                names = [item.get("name") if isinstance(item, dict) else None for item in node]
                if part in names:
                    part = names.index(part)
                elif isinstance(part, str) and part.isdigit():
                    part = int(part)
                node = node[part] if isinstance(part, int) and part < len(node) else None
            elif isinstance(node, dict):
                node = node.get(part)
            found.append(part)
        return tuple(found)


def load(
    source: Path | str | Mapping[str, Any], *, overrides: Sequence[str] = (), dialect: str | None = None
) -> Loaded:
    """Read a configuration, translate it if it is in an older dialect, and check it.

    Args:
        source: a file, or the values themselves; their relative paths are meant from the working directory.
        overrides: ``PATH=VALUE``, in the terms of the file.
        dialect: take it for this dialect instead of looking for evidence.

    Raises:
        ConfigError: with every problem that was found.
        UnavailableError: it is no workflow, but lists passes of a vendor's compiler.
    """
    if isinstance(source, Mapping):
        raw, text, file = copy.deepcopy(dict(source)), None, None
        base = Path.cwd()
    else:
        file = Path(source)
        raw, text = read(file)
        base = file.absolute().parent
    name = str(file) if file is not None else None
    if not isinstance(raw, dict):
        raise ConfigError(
            "a configuration is an object with the sections input_model, passes, engine ..." if raw is not None
            else "the configuration is empty",
            where=Location(name),
            remedy="see docs/getting-started.md for a first one",
        )  # fmt: skip
    refuse_foreign(raw, Places(name, text, raw, {}).locate_original)
    overridden = apply_overrides(raw, overrides)
    _refuse_secrets(raw, Places(name, text, raw, {}, overridden))
    found = dialects.detect(raw) if dialect is None else dialects.Detected(dialects.named(dialect), "--dialect")
    translated = dialects.translate(raw, found.name)
    places = Places(name, text, translated.canonical, translated.origins, overridden)
    problems = [
        Problem(each.what, places.locate_original(each.path), each.why, each.remedy) for each in translated.problems
    ]
    workflow, more = _validate(translated.canonical, places)
    problems += more
    if problems or workflow is None:
        raise ConfigError(_in_order(problems), dialect=found.name, evidence=found.evidence)
    notes = tuple(
        Note(note.path, note.text, places.locate_original(tuple(_numbers(note.path))).line) for note in translated.notes
    )
    resolved = _resolve(workflow, places)
    return Loaded(
        workflow=with_named_target(make_absolute(resolved, base, olive=found.name != dialects.CANONICAL)),
        notes=notes,
        dialect=found.name,
        evidence=found.evidence,
        file=file,
        as_written=workflow,
        places=places,
    )


def _resolve(workflow: Workflow, places: Places) -> Workflow:
    """Put in what the workflow takes from the environment."""
    values = workflow.model_dump(exclude_unset=True)
    _check_vaults(values, places)
    if not has_references(values):
        return workflow
    references = References()
    values = references.resolved(values)
    problems = [
        Problem(
            f"the environment has no {name}",
            places.locate(path),
            f"`{path[-1]}` takes its value from there",
            f"set it: export {name}=...",
        )
        for path, name in references.missing
    ]
    problems += [
        Problem(
            f"the value of {name} would be sent to an address that the configuration says",
            places.locate(path),
            "whoever wrote the configuration could read what is secret here",
            f"put the whole address into the variable, and write `{path[-1]}: ${{env:{name}}}`"
            if path[0] != "tracking"
            else "write the text itself",
        )
        for path, name in references.exposed
    ]
    if problems:
        raise ConfigError(problems)
    return validated(Workflow, values)


def _check_vaults(values: Any, places: Places) -> None:
    """Say which references to key vaults cannot be followed."""
    problems = [
        Problem(
            f"`{path[-1]}` does not say which secret of a key vault is meant",
            places.locate(path),
            remedy="write ${keyvault:VAULT/SECRET}; names of secrets have letters, digits and hyphens",
        )
        for path in broken_vault_references(values)
    ]
    problems += [
        Problem(
            f"the value of {reference} would be sent to an address that the configuration says",
            places.locate(path),
            "whoever wrote the configuration could read what is secret here",
            "put the whole address into the key vault",
        )
        for path, reference in exposed_vault_references(values)
    ]
    client = values.get("azureml_client")
    problems += [
        Problem(
            f"{reference} cannot stand in azureml_client",
            places.locate(path),
            "it says who asks the key vault",
            "take it from the environment: ${env:NAME}",
        )
        for path, reference in vault_references(client, ("azureml_client",))
    ]
    if problems:
        raise ConfigError(problems)


def _numbers(dotted: str) -> list[str | int]:
    return [int(part) if part.isdigit() else part for part in dotted.split(".")]


def _in_order(problems: list[Problem]) -> list[Problem]:
    """Return the problems in the order of the file, each once, and not more than anybody reads."""
    unique = list(dict.fromkeys(problems))
    ordered = sorted(unique, key=lambda problem: (problem.where.line or 0) if problem.where else 0)
    if len(ordered) > MOST_PROBLEMS:
        ordered[MOST_PROBLEMS:] = [Problem(f"there are {len(ordered) - MOST_PROBLEMS} more mistakes")]
    return ordered


def _refuse_secrets(raw: Any, places: Places) -> None:
    problems = [
        Problem(
            f"`{path[-1]}` looks like a secret",
            places.locate_original(path),
            "a configuration is copied into caches, outputs and repositories",
            "remove it, revoke it if the file was ever shared, and give it by the environment or `hf auth login`",
        )
        for path in find_secrets(raw)
    ]
    if problems:
        raise ConfigError(problems)


def _validate(canonical: dict[str, Any], places: Places) -> tuple[Workflow | None, list[Problem]]:
    """Check everything that can be checked, going on after each mistake."""
    problems: list[Problem] = []
    if canonical.get("version") not in (None, SCHEMA_VERSION):
        problems.append(
            Problem(
                f"`version` is {canonical['version']!r}",
                places.locate(("version",)),
                f"this release of Olivine reads version {SCHEMA_VERSION}",
                "upgrade Olivine, or correct it",
            )
        )
    canonical = dict(canonical)
    problems += _check_typed(canonical, places)
    workflow = None
    try:
        workflow = validated(Workflow, canonical | {"version": SCHEMA_VERSION})
    except ValidationError as error:
        for path, text, remedy in sentences(error, Workflow, "a workflow"):
            problems.append(Problem(text, places.locate(path), remedy=remedy))
    problems += _check_references(canonical, places)
    problems += _check_names(canonical, places)
    return workflow, problems


def _check_typed(canonical: dict[str, Any], places: Places) -> list[Problem]:
    """Check passes and metrics against the classes their types name; put the checked parameters into ``canonical``."""
    problems: list[Problem] = []
    if isinstance(canonical.get("passes"), dict):
        checked = {}
        for name, value in canonical["passes"].items():
            if isinstance(value, list):
                checked[name] = [
                    _check_pass(each, ("passes", name, n), places, problems) for n, each in enumerate(value)
                ]
            else:
                checked[name] = _check_pass(value, ("passes", name), places, problems)
        canonical["passes"] = checked
    if isinstance(canonical.get("evaluators"), dict):
        evaluators = {}
        for name, value in canonical["evaluators"].items():
            evaluators[name] = value
            if isinstance(value, dict) and isinstance(value.get("metrics"), list):
                listed = [
                    _check_metric(each, ("evaluators", name, "metrics", index), places, problems)
                    for index, each in enumerate(value["metrics"])
                ]
                evaluators[name] = value | {"metrics": listed}
        canonical["evaluators"] = evaluators
    return problems


def _check_pass(value: Any, path: KeyPath, places: Places, problems: list[Problem]) -> Any:
    """Check one pass; return it with checked parameters, or as it is if something is wrong."""
    from olivine.passes import known, registry
    from olivine.passes.choices import without_choices

    if not isinstance(value, dict) or not isinstance(value.get("type"), str) or len(problems) > MOST_PROBLEMS:
        return value  # the schema says what is wrong with it
    own = set(PassConfig.model_fields) - {"params"}
    found = registry.find(value["type"])
    if found is not None:
        gathered = gather(value, own)
        if not isinstance(gathered["params"], dict):
            return value
        single, searched = without_choices(found.params_type, gathered["params"])
        checked = _check_params(
            gathered | {"params": single}, path, found.type, found.params_type, places, problems, searched
        )
        return checked | {"params": checked["params"] | searched}
    olive = known.find(value["type"])
    if olive is None:
        names = list(dict.fromkeys([*registry.names(), *known.names()]))
        near = nearest(value["type"], names)
        problems.append(
            Problem(
                f"there is no pass {value['type']!r}",
                places.locate((*path, "type")),
                remedy=f"did you mean {near}?" if near else f"the passes here are {', '.join(registry.names())}",
            )
        )
        return value
    gathered = gather(value, own)
    for key, item in gathered["params"].items() if isinstance(gathered["params"], dict) else ():
        kinds = olive.parameters.get(key)
        if kinds is not None and not known.fits(item, kinds):
            wanted = " or ".join(known.KIND_WORDS[kind] for kind in sorted(kinds))
            shown = "an object" if isinstance(item, dict) else "a list" if isinstance(item, list) else repr(item)[:60]
            problems.append(Problem(f"`{key}` is {shown}; it must be {wanted}", places.locate((*path, key))))
    return gathered | {"type": olive.name}


def _check_metric(value: Any, path: KeyPath, places: Places, problems: list[Problem]) -> Any:
    """Check one metric; return it with checked parameters, or as it is if something is wrong."""
    from olivine.evaluate import known, registry

    if not isinstance(value, dict) or not isinstance(value.get("type"), str) or len(problems) > MOST_PROBLEMS:
        return value  # the schema says what is wrong with it
    found = registry.find(value["type"]) or known.find(value["type"])
    if found is None:
        problems.append(
            Problem(
                f"there is no metric {value['type']!r}",
                places.locate((*path, "type")),
                remedy=suggestion(value["type"], registry.names(), "metrics"),
            )
        )
        return value
    gathered = gather(value, set(MetricConfig.model_fields) - {"params"})
    if not isinstance(gathered["params"], dict):
        return value
    return _check_params(gathered, path, found.type, found.params_type, places, problems)


def _check_params(
    gathered: dict[str, Any],
    path: KeyPath,
    kind: str,
    params_type: type[BaseModel],
    places: Places,
    problems: list[Problem],
    searched: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Check the parameters of a pass or a metric against its class; one with choices instead of a value may lack it."""
    try:
        params = params_type.model_validate(gathered["params"])
    except ValidationError as error:
        wrong = [
            each
            for each in sentences(error, params_type, kind)
            if each[0][:1] not in {(key,) for key in searched or ()}
        ]
        if blamed(error)[1] or not wrong:
            return gathered | {"type": kind}
        for inner, text, remedy in wrong:
            problems.append(Problem(text, places.locate((*path, *inner)), remedy=remedy))
        return {key: item for key, item in gathered.items() if key != "params"} | {"type": kind, "params": {}}
    return gathered | {"type": kind, "params": params.model_dump(mode="json", exclude_unset=True)}


def _check_references(canonical: Mapping[str, Any], places: Places) -> list[Problem]:
    """Check every name that refers to a system, an evaluator or a data config."""
    problems: list[Problem] = []
    systems = _keys(canonical.get("systems"))
    evaluators = _keys(canonical.get("evaluators"))
    data = [each.get("name") for each in _list(canonical.get("data_configs")) if isinstance(each, dict)]

    def check(name: Any, known: Sequence[Any], what: str, path: KeyPath) -> None:
        if isinstance(name, str) and name not in known and not is_placeholder(name):
            names = [str(each) for each in known]
            near = nearest(name, names)
            there = (
                f"did you mean {near}?"
                if near
                else (f"there is {', '.join(names)}" if names else f"define it under {what}")
            )
            problems.append(Problem(f"{name!r} is not one of the {what}", places.locate(path), remedy=there))

    def check_target(name: Any, path: KeyPath) -> None:
        if not isinstance(name, str) or profile(name) is None:
            check(name, [*systems, *KINDS], "systems or targets", path)

    check_target(canonical.get("target"), ("target",))
    engine = canonical.get("engine")
    if isinstance(engine, dict):
        check(engine.get("host"), systems, "systems", ("engine", "host"))
        check_target(engine.get("target"), ("engine", "target"))
        if canonical.get("target") is not None and engine.get("target") is not None:
            both = "the target is given twice: target is short for engine.target"
            problems.append(Problem(both, places.locate(("target",)), remedy="keep one"))
        check(engine.get("evaluator"), evaluators, "evaluators", ("engine", "evaluator"))
    for name, value in _items(canonical.get("passes")):
        for index, each in enumerate(value if isinstance(value, list) else [value]):
            if isinstance(each, dict):
                path: KeyPath = ("passes", name, index) if isinstance(value, list) else ("passes", name)
                check(each.get("host"), systems, "systems", (*path, "host"))
                check(each.get("evaluator"), evaluators, "evaluators", (*path, "evaluator"))
                for key, item in _items(each.get("params")):
                    if key.endswith("data_config"):
                        check(item, data, "data_configs", (*path, key))
    for index, flow in enumerate(_list(canonical.get("pass_flows"))):
        for number, name in enumerate(_list(flow)):
            check(name, _keys(canonical.get("passes")), "passes", ("pass_flows", index, number))
    for name, value in _items(canonical.get("evaluators")):
        for index, metric in enumerate(_list(value.get("metrics")) if isinstance(value, dict) else []):
            for key, item in _items(metric.get("params") if isinstance(metric, dict) else None):
                if key.endswith("data_config"):
                    check(item, data, "data_configs", ("evaluators", name, "metrics", index, key))
    return problems


def _check_names(canonical: Mapping[str, Any], places: Places) -> list[Problem]:
    """Two data configs may not have one name."""
    problems: list[Problem] = []
    seen: set[str] = set()
    for index, each in enumerate(_list(canonical.get("data_configs"))):
        name = each.get("name") if isinstance(each, dict) else None
        if not isinstance(name, str):
            continue
        if name in seen:
            problems.append(
                Problem(
                    f"two data configs are called {name!r}", places.locate(("data_configs", index)), remedy="rename one"
                )
            )
        seen.add(name)
    return problems


def _keys(value: Any) -> list[str]:
    return list(value) if isinstance(value, dict) else []


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _items(value: Any) -> list[tuple[str, Any]]:
    return list(value.items()) if isinstance(value, dict) else []
