"""Run a workflow: every pass in order, then measure the result and put it into the output folder."""

from __future__ import annotations

import argparse
import sys


def add_config_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `run` and `plan` share: the configuration and its overrides."""
    parser.add_argument("config_file", nargs="?", metavar="CONFIG", help="workflow file, JSON or YAML, in any dialect")
    parser.add_argument("--config", "--run-config", dest="config", metavar="CONFIG", help="the same, as an option")
    add_reading_arguments(parser)
    parser.add_argument(
        "--trust-remote-code", action="store_true", help="let Python code that comes with the model run, for this run"
    )
    parser.add_argument(
        "--allow-script",
        action="append",
        default=[],
        metavar="FILE",
        help="let this Python file of a custom metric run, for this run (repeatable)",
    )
    parser.add_argument(
        "--layout",
        metavar="NAME",
        help="lay out the output folder as a release of Olive did: olive-0.6, olive-0.7, olive-0.8, olive-0.10",
    )
    parser.add_argument("--force", action="store_true", help="go on although memory or disk seem too small")
    parser.add_argument(
        "--refresh", action="store_true", help="ask whether what was fetched from elsewhere has changed there"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object a line for machines")


def add_reading_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what every verb shares that reads a configuration."""
    parser.add_argument(
        "--set",
        dest="overrides",
        action="append",
        default=[],
        metavar="PATH=VALUE",
        help="override one value, e.g. --set passes.lora.r=16 (repeatable)",
    )
    parser.add_argument(
        "--dialect",
        metavar="NAME",
        help="read the file as written for this release of Olive (0.6.2), or as olivine-1, instead of detecting it",
    )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `olivine run`."""
    add_config_arguments(parser)
    parser.add_argument("--dry-run", action="store_true", help="only plan: the same as `olivine plan`")


def tell(text: str) -> None:
    """Say how far a fetch is, beside what the verb prints."""
    print(text, file=sys.stderr, flush=True)


def config_of(arguments: argparse.Namespace) -> str:
    """Return the configuration file that was given, positionally or as an option.

    Raises:
        ConfigError: none was given, or two.
    """
    from olivine.errors import ConfigError

    given = [each for each in (arguments.config_file, arguments.config) if each]
    if len(given) != 1:
        raise ConfigError(
            "no configuration was given" if not given else "two configurations were given",
            remedy="`olivine run --config olive-config.json`",
        )
    return str(given[0])


def run(arguments: argparse.Namespace) -> int:
    """Load, plan, run, and tell how it went."""
    if arguments.dry_run:
        from olivine.cli import plan as plan_verb

        arguments.show_data, arguments.offline = 0, None
        return plan_verb.run(arguments)
    from olivine.api import execute, prepare
    from olivine.cli.view import make_view

    plan, store = prepare(
        config_of(arguments),
        overrides=arguments.overrides,
        dialect=arguments.dialect,
        trust_remote_code=arguments.trust_remote_code,
        allow_scripts=arguments.allow_script,
        layout=arguments.layout,
        force=arguments.force,
        refresh=arguments.refresh,
        beside=True,
        tell=tell,
    )
    with make_view(plan, as_json=arguments.json, stream=sys.stdout) as view:
        result = execute(plan, store, view)
    return result.exit_code
