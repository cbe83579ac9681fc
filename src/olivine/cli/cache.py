"""List, explain, verify, and collect what earlier runs made.

ls            what is in the cache
why CONFIG    which Steps of a workflow would run again, and because of which change
verify        read every file and compare it with its digest
gc            remove leftovers, and with --older-than or --max-size what was not used for long
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from typing import TYPE_CHECKING, Any

from olivine.cli.cache_option import CACHE_DIR, add_cache_argument
from olivine.config.sizes import parse_size, size_in_words

if TYPE_CHECKING:
    from olivine.planning import PlannedStep
    from olivine.store import Store

_AGE_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 7 * 86400.0}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `olivine cache`."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ls|why|verify|gc", parser_class=type(parser))
    cache = argparse.ArgumentParser(add_help=False)
    add_cache_argument(cache)
    cache.add_argument("--json", action="store_true", help="print JSON")
    actions.add_parser(
        "ls", parents=[cache], allow_abbrev=False, description="List what is in the cache, last used first."
    )
    _add_why(actions)
    verify = actions.add_parser(
        "verify",
        parents=[cache],
        allow_abbrev=False,
        description="Read every file and compare it with its digest; exit 1 if one differs.",
    )
    verify.add_argument("digest", nargs="?", help="only this artifact; the first digits will do")
    gc = actions.add_parser(
        "gc",
        parents=[cache],
        allow_abbrev=False,
        description="Remove what killed runs left, and with the options below what was not used for long. What a "
        "running workflow uses stays.",
    )
    gc.add_argument("--older-than", type=age, metavar="AGE", help="remove what was not used for so long: 12h, 30d, 8w")
    gc.add_argument(
        "--max-size", type=size_in_bytes, metavar="SIZE", help="remove the least recently used until it fits: 20GB"
    )
    gc.add_argument("--dry-run", action="store_true", help="only say what would go")


def _add_why(actions: Any) -> None:
    from olivine.cli.run import add_config_arguments

    why = actions.add_parser(
        "why",
        allow_abbrev=False,
        description="Say for each Step whether its result is in the cache, and if not, which change makes it run.",
    )
    add_config_arguments(why)


def age(text: str) -> float:
    """Read ``30d`` as seconds."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smhdw])", text.strip().lower())
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no age; write it as 12h, 30d or 8w")
    return float(match[1]) * _AGE_UNITS[match[2]]


def size_in_bytes(text: str) -> int:
    """Read ``20GB`` or ``20GiB`` as bytes."""
    try:
        return parse_size(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def run(arguments: argparse.Namespace) -> int:
    """Do one of the actions."""
    actions = {"ls": _ls, "why": _why, "verify": _verify, "gc": _gc}
    return actions[arguments.action](arguments)


def _open(arguments: argparse.Namespace) -> Store:
    """Return the Store that was asked for.

    Raises:
        ConfigError: a folder was named that is not there.
    """
    from olivine.errors import ConfigError
    from olivine.store import Store

    store = Store(arguments.cache_dir)
    if not store.root.is_dir() and arguments.cache_dir != CACHE_DIR:
        raise ConfigError(
            f"there is no cache at {store.root}", remedy="give the folder that engine.cache_dir names, with --cache-dir"
        )
    return store


def _ls(arguments: argparse.Namespace) -> int:
    store = _open(arguments)
    artifacts = sorted(store.artifacts(), key=lambda each: -store.last_used(each.digest))
    if arguments.json:
        rows = [
            {
                "digest": each.digest,
                "name": each.manifest.step.get("name", ""),
                "type": each.manifest.step.get("type", ""),
                "format": each.manifest.format,
                "size_bytes": each.size,
                "away": each.away or None,
                "created": each.manifest.created,
                "last_used": store.last_used(each.digest),
                "path": str(each.path),
            }
            for each in artifacts
        ]
        print(json.dumps(rows, indent=2, ensure_ascii=False))
        return 0
    if not artifacts:
        print(f"nothing in {store.root}; a workflow's own cache, engine.cache_dir, is looked into with --cache-dir")
        return 0
    now = time.time()
    table = [("digest", "step", "type", "format", "size", "made", "used")]
    for each in artifacts:
        step = each.manifest.step
        table.append(
            (
                each.digest[:12],
                str(step.get("name", "")),
                str(step.get("type", "")),
                each.manifest.format,
                size_in_words(each.size) + (" away" if each.away else ""),
                shown_age(now - each.manifest.created),
                shown_age(now - store.last_used(each.digest)),
            )
        )
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
    for row in table:
        print("  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip())
    here = sum(each.size for each in artifacts if not each.away)
    print(f"\n{_counted(len(artifacts))}, {size_in_words(here)} in {store.root}")
    away = [each for each in artifacts if each.away]
    if away:
        size = size_in_words(sum(each.size for each in away))
        print(f"away: {_counted(len(away))}, {size} that jobs have left in a cloud")
    return 0


def _why(arguments: argparse.Namespace) -> int:
    from olivine.api import prepare
    from olivine.cli.run import config_of

    plan, store = prepare(
        config_of(arguments),
        overrides=arguments.overrides,
        dialect=arguments.dialect,
        trust_remote_code=arguments.trust_remote_code,
        allow_scripts=arguments.allow_script,
        fetch_models=False,
    )
    found = [reason(step, store, {each.digest: each.name for each in plan.steps}) for step in plan.steps]
    for warning in store.warnings:
        print(f"note: {warning}", file=sys.stderr)
    if arguments.json:
        print(json.dumps(found, indent=2, ensure_ascii=False, default=str))
        return 0
    for each in found:
        print(f"{each['name']} ({each['type']}): {'in the cache' if each['cached'] else 'will run'}")
        for line in each["reasons"]:
            print(f"  {line}")
    return 0


def reason(step: PlannedStep, store: Store, names: dict[str, str]) -> dict[str, Any]:
    """Return whether a Step's result is there, and if not, why, as JSON."""
    from olivine.store.explaining import explain_miss

    entry: dict[str, Any] = {
        "name": step.name,
        "type": step.step.type,
        "digest": step.digest,
        "cached": step.cached,
        "reasons": [],
        "differences": [],
        "nearest": None,
    }
    if step.cached:
        return entry
    miss = explain_miss(step.step.model_dump(mode="json"), store)
    if miss.nearest is None:
        entry["reasons"] = [f"no result of {step.step.type} is in the cache"]
        return entry
    entry["nearest"] = miss.nearest.digest
    entry["differences"] = [difference.as_json() for difference in miss.differences]
    if not miss.differences:
        entry["reasons"] = ["its result was there until now"]
    else:
        used = miss.nearest.manifest.step.get("name") or step.step.type
        entry["reasons"] = [f"most similar in the cache: {used}, {miss.nearest.digest[:12]}"]
    for difference in miss.differences:
        maker = _maker(difference.now, names) if difference.path.startswith("inputs.") else None
        entry["reasons"].append(
            f"its input {difference.path.removeprefix('inputs.')} is made by {maker}, which gives another result"
            if maker is not None
            else str(difference)
        )
    return entry


def _maker(identity: Any, names: dict[str, str]) -> str | None:
    """Return the name of the Step in this plan that makes an input, if one does."""
    if not isinstance(identity, str) or not identity.startswith("step:"):
        return None
    return names.get(identity.removeprefix("step:").partition("/")[0])


def _verify(arguments: argparse.Namespace) -> int:
    from olivine.errors import EXIT_FAILED, EXIT_OK, ConfigError

    store = _open(arguments)
    digests = store.digests()
    if arguments.digest is not None:
        digests = [each for each in digests if each.startswith(arguments.digest)]
        if not digests:
            raise ConfigError(
                f"no artifact has a digest that begins with {arguments.digest!r}",
                remedy="`olivine cache ls` lists them",
            )
    problems = [problem for digest in digests for problem in store.verify(digest)]
    away = len({each.digest for each in store.artifacts() if each.away} & set(digests))
    if arguments.json:
        content = {"checked": len(digests) - away, "away": away, "problems": problems}
        print(json.dumps(content, indent=2, ensure_ascii=False))
    elif problems:
        print("\n".join(problems))
        print(f"\n{len(problems)} faults in {_counted(len(digests))}. The next run that needs one makes it again.")
    else:
        print(f"{_counted(len(digests) - away)}: every file matches its digest")
    if away and not arguments.json:
        print(f"{_counted(away)} not looked at: jobs have left the files in a cloud; they are compared when they come")
    return EXIT_FAILED if problems else EXIT_OK


def _gc(arguments: argparse.Namespace) -> int:
    store = _open(arguments)
    report = store.collect(older_than_s=arguments.older_than, max_bytes=arguments.max_size, dry_run=arguments.dry_run)
    if arguments.json:
        print(json.dumps(report.as_json() | {"dry_run": arguments.dry_run}, indent=2, ensure_ascii=False))
        return 0
    verb = "would remove" if arguments.dry_run else "removed"
    for digest in report.removed:
        print(f"{verb} artifact {digest}")
    for path in report.leftovers:
        print(f"{verb} {path}")
    if report.in_use:
        print(f"{_counted(len(report.in_use))} would have gone but a running workflow uses them")
    freed = "would free" if arguments.dry_run else "freed"
    print(
        f"{freed} {size_in_words(report.freed_bytes)}; {_counted(report.kept)}, {size_in_words(report.kept_bytes)} stay"
    )
    if arguments.older_than is None and arguments.max_size is None and report.kept:
        print("--older-than 30d or --max-size 20GB removes artifacts too")
    return 0


def _counted(count: int) -> str:
    return f"{count} artifact" + ("" if count == 1 else "s")


def shown_age(seconds: float) -> str:
    """Time gone by in its largest unit: ``5 min``, ``3 d``."""
    for limit, unit, length in ((120, "s", 1), (7200, "min", 60), (172800, "h", 3600)):
        if seconds < limit:
            return f"{max(0, int(seconds // length))} {unit}"
    return f"{int(seconds // 86400)} d"
