"""What each matrix is stored as: from patterns to one scheme per module, and all that is wrong with it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from olivine.config.wording import nearest
from olivine.errors import Location, Problem
from olivine.models.checkpoint import TensorInfo
from olivine.models.decoder import misfits, why_not_plain
from olivine.quant.scheme import Scheme
from olivine.quant.stored.form import StoredForm
from olivine.quant.stored.forms import Source, linear_modules

Bits = Literal[2, 4, 8]
GroupSize = Literal[-1, 16, 32, 64, 128, 256]

HEAD = "lm_head"


class Override(BaseModel):
    """What some modules are stored as; what is not given is as for the others."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    pattern: str
    """Names of modules, with ``*`` and ``?``: ``*.down_proj``, ``model.layers.0.*``."""
    bits: Bits | None = None
    """Width of a weight."""
    group_size: GroupSize | None = None
    """Weights that share a scale."""
    symmetric: bool | None = None
    """Whether there are no zero points."""


def not_decoder(config: Mapping[str, Any], tensors: Mapping[str, TensorInfo]) -> list[Problem]:
    """Return why these tensors cannot be quantised, whatever the parameters are."""
    if config.get("quantization_config"):
        return [
            Problem(
                "the checkpoint is quantised already",
                why="rounding it again would add the errors up",
                remedy="give the checkpoint that it was made from",
            )
        ]
    reason = why_not_plain(config, tensors)
    if reason:
        return [
            Problem(
                f"the model is no plain decoder in floating point: {reason}",
                why="Quantize knows the matrices of Llama, Mistral, Qwen, Phi-3, Gemma and their kin",
                remedy="use ModelBuilder with precision int4, which knows more architectures",
            )
        ]
    wrong = misfits(config, tensors)
    if not wrong:
        return []
    return [
        Problem(
            f"the weights do not fit config.json: {_first(wrong)}",
            why="they are from different models, or config.json was changed",
            remedy="download the model again, or give it the config.json that it was trained with",
        )
    ]


def choose(
    form: StoredForm,
    base: Scheme,
    head_bits: Bits | None,
    exclude: Sequence[str],
    overrides: Sequence[Override],
    config: Mapping[str, Any],
    modules: Mapping[str, Sequence[int]],
) -> tuple[dict[str, Scheme], list[Problem]]:
    """Return what each module is stored as, and every problem with that.

    Args:
        form: how the result is stored.
        base: the scheme of what nothing else is said of.
        head_bits: bits of ``lm_head``; ``None`` leaves it as it is.
        exclude: patterns of modules that are left as they are.
        overrides: later ones count more.
        config: the checkpoint's ``config.json``.
        modules: shapes of its matrices by module name.
    """
    sources = linear_modules(config, modules, form)
    found: list[Problem] = []
    for number, pattern in enumerate(exclude):
        found += _unmatched(pattern, sources, f"modules_to_exclude.{number}")
    for number, override in enumerate(overrides):
        found += _unmatched(override.pattern, sources, f"overrides.{number}.pattern")
    schemes: dict[str, Scheme] = {}
    for name, source in sources.items():
        if _named(exclude, name, source) or (name == HEAD and head_bits is None):
            continue
        chosen = base
        if name == HEAD and head_bits is not None:
            chosen = Scheme(head_bits, base.group_size, base.symmetric)
        for override in overrides:
            if _named([override.pattern], name, source):
                chosen = Scheme(
                    override.bits or chosen.bits,
                    override.group_size or chosen.group_size,
                    chosen.symmetric if override.symmetric is None else override.symmetric,
                )
        schemes[name] = chosen
    if not schemes:
        found.append(
            Problem(
                "every matrix is excluded, so nothing is quantised",
                Location(path="modules_to_exclude"),
                why="the result would be a copy",
                remedy="leave the pass out, or exclude less",
            )
        )
    return schemes, [*found, *_unstorable(form, schemes, sources), *_unreadable(form, schemes, sources)]


def _named(patterns: Iterable[str], name: str, source: Source) -> bool:
    """Return whether a pattern names the module, in the form or in the model itself."""
    return any(fnmatchcase(each, pattern) for pattern in patterns for each in (name, source.module))


def _unmatched(pattern: str, sources: Mapping[str, Source], path: str) -> list[Problem]:
    """Return a problem if no module is called so."""
    if any(_named([pattern], name, source) for name, source in sources.items()):
        return []
    bare = pattern.strip("*").strip(".")
    last = sorted({name.rpartition(".")[2] for name in sources})
    wider = f"*.{bare}"
    if bare and any(_named([wider], name, source) for name, source in sources.items()):
        hint = f"did you mean {wider}?"
    else:
        near = nearest(bare, sources) if "." in bare else nearest(bare, last)
        hint = f"did you mean {near if near in sources else f'*.{near}'}?" if near else ""
    kinds = f"modules are called model.layers.0.… and end with {', '.join(last)}"
    return [Problem(f"{pattern!r} names no module of the model", Location(path=path), kinds, hint)]


def _unstorable(form: StoredForm, schemes: Mapping[str, Scheme], sources: Mapping[str, Source]) -> list[Problem]:
    """Return one problem for each reason for which the form cannot hold a scheme, with the first module it is about."""
    reasons: dict[str, list[str]] = {}
    for name, scheme in schemes.items():
        reason = form.why_not(sources[name].rows, sources[name].width, scheme)
        if reason:
            reasons.setdefault(reason, []).append(name)
    return [
        Problem(
            f"{_first(names)} cannot be stored: {reason}",
            Location(path="group_size"),
            f"the form {form.name} has no room for a part of it",
            "choose another group_size for them (in overrides), or exclude them",
        )
        for reason, names in reasons.items()
    ]


def _unreadable(form: StoredForm, schemes: Mapping[str, Scheme], sources: Mapping[str, Source]) -> list[Problem]:
    """Return what the model builder would not read of a form that is for it."""
    if not form.all_or_nothing:
        return []
    found = []
    left = [name for name in sources if name not in schemes and name != HEAD]
    if left:
        found.append(
            Problem(
                f"{_first(left)} cannot be left as it is in the form {form.name}",
                Location(path="modules_to_exclude"),
                "its reader takes every matrix of a layer for a quantised one",
                "give it 8 bits with overrides, or choose the form gptq or compressed-tensors",
            )
        )
    apart = []
    for name in schemes:
        if name.endswith(".q_proj"):
            joined = [f"{name.removesuffix('q_proj')}{each}_proj" for each in "qkv"]
            if len({schemes[each] for each in joined if each in schemes}) > 1:
                apart.append(name.removesuffix(".q_proj"))
    if apart:
        found.append(
            Problem(
                f"q_proj, k_proj and v_proj of {_first(apart)} are stored in different ways",
                Location(path="overrides"),
                "the runtime multiplies with the three at once",
                "give them the same bits, group_size and symmetric, or choose the form gptq or compressed-tensors",
            )
        )
    return found


def _first(names: Sequence[str]) -> str:
    """Return the first name, and how many more there are."""
    return names[0] + (f" (and {len(names) - 1} more)" if len(names) > 1 else "")
