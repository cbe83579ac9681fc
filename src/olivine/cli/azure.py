"""Make, remove and list computes of an Azure Machine Learning workspace.

olivine azure compute create cpu-cluster --vm-size Standard_DS3_v2 --config workflow.yaml
olivine azure compute list --subscription-id ... --resource-group ... --workspace-name ...
olivine azure compute delete cpu-cluster --aml-config-path config.json
"""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from olivine.config.schema import AzureMLClient

ACTIONS = ("create", "delete", "list")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `olivine azure`."""
    parser.add_argument("subject", choices=("compute",), metavar="compute", help="what is meant: compute")
    parser.add_argument("action", choices=ACTIONS, metavar="ACTION", help="create, delete or list")
    parser.add_argument("name", nargs="?", metavar="NAME", help="the compute")
    where = parser.add_argument_group("which workspace (what is not given comes from the file)")
    where.add_argument("--config", metavar="FILE", help="a workflow file with azureml_client")
    where.add_argument("--aml-config-path", metavar="FILE", help="a config.json that names the workspace")
    where.add_argument("--subscription-id", metavar="ID")
    where.add_argument("--resource-group", metavar="NAME")
    where.add_argument("--workspace-name", metavar="NAME")
    where.add_argument("--auth", metavar="HOW", help="as azureml_client.auth: default, cli, managed_identity ...")
    new = parser.add_argument_group("a compute that is made")
    new.add_argument("--vm-size", metavar="SIZE", help="e.g. Standard_NC24ads_A100_v4")
    new.add_argument("--location", metavar="REGION", help="default: that of the workspace")
    new.add_argument("--min-nodes", type=int, default=0, metavar="N", help="machines it keeps (default: %(default)s)")
    new.add_argument(
        "--max-nodes", type=int, default=2, metavar="N", help="machines it may have (default: %(default)s)"
    )
    new.add_argument(
        "--idle-seconds",
        type=int,
        default=120,
        metavar="S",
        help="seconds after which an idle machine goes (default: %(default)s)",
    )
    new.add_argument("--low-priority", action="store_true", help="take machines that may be taken away, for less money")
    new.add_argument("--identity", action="store_true", help="give it an identity of its own (system-assigned)")
    parser.add_argument("--yes", action="store_true", help="delete without asking")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: argparse.Namespace) -> int:
    """Do it, and say what was done."""
    from olivine.errors import ConfigError
    from olivine.storage.workspace import Workspace
    from olivine.systems.azureml import compute

    if arguments.action != "list" and not arguments.name:
        raise ConfigError(f"`olivine azure compute {arguments.action}` needs the name of the compute")
    workspace = Workspace.connect(client_of(arguments))
    if arguments.action == "list":
        found = compute.all_of(workspace)
        if arguments.json:
            print(json.dumps([each.as_json() for each in found], indent=2))
        for line in [] if arguments.json else compute.table(found):
            print(line)
        return 0
    if arguments.action == "create":
        if not arguments.vm_size:
            raise ConfigError("`olivine azure compute create` needs --vm-size", remedy="e.g. --vm-size Standard_DS3_v2")
        made = compute.create(
            workspace,
            arguments.name,
            arguments.vm_size,
            nodes=(arguments.min_nodes, arguments.max_nodes),
            idle_s=arguments.idle_seconds,
            location=arguments.location,
            low_priority=arguments.low_priority,
            identity=arguments.identity,
        )
        print(json.dumps(made.as_json(), indent=2) if arguments.json else f"made {made}")
        return 0
    if not arguments.yes and not _confirmed(arguments.name):
        print("nothing was deleted")
        return 1
    compute.delete(workspace, arguments.name)
    print(f"deleted {arguments.name}")
    return 0


def client_of(arguments: argparse.Namespace) -> AzureMLClient:
    """Return how the workspace is reached: the options, over what the file says.

    Raises:
        ConfigError: the file cannot be accepted, or an option's value.
    """
    from pydantic import ValidationError

    from olivine.config.schema import AzureMLClient
    from olivine.errors import ConfigError

    given: dict[str, object] = {}
    if arguments.config:
        from olivine.config import load

        client = load(arguments.config).workflow.azureml_client
        if client is None:
            raise ConfigError(f"{arguments.config} has no azureml_client")
        given = client.model_dump(exclude_unset=True)
    for key in ("aml_config_path", "subscription_id", "resource_group", "workspace_name", "auth"):
        value = getattr(arguments, key)
        if value is not None:
            given[key] = value
    try:
        return AzureMLClient.model_validate(given)
    except ValidationError as error:
        first = error.errors()[0]
        name = "--" + str(first["loc"][0]).replace("_", "-") if first["loc"] else "the options"
        raise ConfigError(f"{name}: {first['msg']}") from None


def _confirmed(name: str) -> bool:
    import sys

    from olivine.errors import ConfigError

    if not sys.stdin.isatty():
        raise ConfigError(f"deleting {name} has to be confirmed", remedy="give --yes")
    return input(f"Delete the compute {name}? [y/N] ").strip().lower() in ("y", "yes")
