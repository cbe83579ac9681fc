"""Packages that single training arguments ask for: transformers looks for them when the training begins.

Seen with transformers 5.23. Whatever is not here it brings itself, or says so after the model was loaded.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from olivine.errors import Location, Problem
from olivine.passes.base import Requirement

REPORTERS: Mapping[str, str] = {
    "azure_ml": "azureml-core",
    "clearml": "clearml",
    "codecarbon": "codecarbon",
    "comet_ml": "comet-ml",
    "dagshub": "dagshub",
    "dvclive": "dvclive",
    "flyte": "flytekit",
    "kubeflow": "",
    "mlflow": "mlflow|mlflow-skinny",
    "neptune": "neptune",
    "swanlab": "swanlab",
    "tensorboard": "tensorboard|tensorboardX",
    "trackio": "trackio",
    "wandb": "wandb",
}
"""What ``report_to`` may name, with the package of each; Kubeflow is a place to run in."""

LOCAL = ("tensorboard", "codecarbon", "kubeflow")
"""Those of them that write files, and send nothing anywhere unless they are told to elsewhere."""

OPTIMISERS: tuple[tuple[tuple[str, ...], str], ...] = (
    (("galore_",), "galore-torch"),
    (("apollo_",), "apollo-torch"),
    (("lomo", "adalomo"), "lomo-optim"),
    (("grokadamw",), "grokadamw"),
    (("schedule_free_",), "schedulefree"),
    (("stable_adamw",), "torch-optimi"),
    (("adamw_torch_4bit", "adamw_torch_8bit"), "torchao"),
    (("adamw_anyprecision",), "torchdistx"),
    (("adamw_apex",), "apex"),
    (("adamw_bnb", "adamw_8bit", "paged_", "lion_", "ademamix", "rmsprop_bnb"), "bitsandbytes"),
)
"""How names of ``optim`` begin, and the package of each."""


def packages(arguments: Mapping[str, Any]) -> tuple[Requirement, ...]:
    """Return what resolved ``training_args`` ask for beyond what every fine-tuning needs."""
    found = [REPORTERS[each] for each in _reporters(arguments) if REPORTERS.get(each)]
    optimiser = str(arguments.get("optim", ""))
    found += [package for starts, package in OPTIMISERS if optimiser.startswith(starts)]
    if arguments.get("deepspeed"):
        found.append("deepspeed")
    if arguments.get("use_liger_kernel"):
        found.append("liger-kernel")
    return tuple(Requirement(package, "") for package in dict.fromkeys(found))


def package_problems(arguments: Mapping[str, Any]) -> list[Problem]:
    """Return what is wrong with arguments that transformers would hand to other packages."""
    found = []
    for name in _reporters(arguments):
        if name == "all":
            found.append(
                Problem(
                    "report_to: all sends training figures to every service whose package happens to be installed",
                    Location(path="training_args.report_to"),
                    remedy=f"name those that you want: {', '.join(REPORTERS)}",
                )
            )
        elif name not in REPORTERS:
            near = difflib.get_close_matches(name, REPORTERS, 1)
            found.append(
                Problem(
                    f"report_to cannot be {name!r}",
                    Location(path="training_args.report_to"),
                    remedy=f"did you mean {near[0]}?" if near else f"give none or one of {', '.join(REPORTERS)}",
                )
            )
    if arguments.get("deepspeed") is True:
        found.append(
            Problem(
                "deepspeed says nothing of how",
                Location(path="training_args.deepspeed"),
                "Olive brought a configuration of its own for `true`",
                "give DeepSpeed's JSON file, or what is in it; or leave it out: one process trains",
            )
        )
    return found


def reporting_notes(arguments: Mapping[str, Any]) -> list[str]:
    """Return what the user should know of services that resolved ``training_args`` report to."""
    away = [each for each in _reporters(arguments) if each in REPORTERS and each not in LOCAL]
    if not away:
        return []
    names = " and ".join(away)
    return [
        f"training_args.report_to: parameters and losses are sent to {names}, wherever that is set up to send them; "
        "keys in the environment are kept from Steps, so log in with its own command"
    ]


def _reporters(arguments: Mapping[str, Any]) -> list[str]:
    given = arguments.get("report_to") or []
    names = [given] if isinstance(given, str) else list(given)
    return [str(each) for each in names if each != "none"]
