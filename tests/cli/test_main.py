"""The command line before any verb runs."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("torch", "transformers", "onnxruntime", "datasets", "pydantic", "rich", "yaml", "numpy", "psutil")


def olivine(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "olivine", *arguments], capture_output=True, text=True, timeout=60)


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys\nfrom olivine.cli.main import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stderr.strip() == "[]"
    assert "olivine run --config" in done.stdout


def test_importing_olivine_loads_nothing() -> None:
    code = f"import sys, olivine\nprint([name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "[]"


def test_every_verb_explains_itself() -> None:
    from olivine.cli.main import VERBS

    for verb in VERBS:
        done = olivine(verb, "--help")
        assert done.returncode == 0, done.stderr
        assert f"olivine {verb}" in done.stdout


@pytest.mark.parametrize(("given", "meant"), [("rnu", "run"), ("plna", "plan"), ("generat", "generate")])
def test_a_misspelled_verb_is_answered_with_the_nearest(given: str, meant: str) -> None:
    done = olivine(given)
    assert done.returncode == 2
    assert f"Did you mean {meant}?" in done.stderr


def test_a_command_of_olive_is_answered_with_what_does_it_here() -> None:
    done = olivine("auto-opt", "--model_name_or_path", "x")
    assert done.returncode == 2
    assert "`olivine optimize`" in done.stderr


def test_a_misspelled_option_is_answered_with_the_nearest() -> None:
    done = olivine("run", "x.json", "--drry-run")
    assert done.returncode == 2
    assert "--dry-run" in done.stderr


def test_run_without_a_configuration_says_how() -> None:
    done = olivine("run")
    assert done.returncode == 2
    assert "olivine run --config olive-config.json" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_public_interface_is_lazy_but_complete() -> None:
    import olivine

    for name in olivine.__all__:
        assert getattr(olivine, name) is not None
    assert callable(olivine.plan)
    assert callable(olivine.run)


@pytest.mark.parametrize(
    "arguments",
    [
        ("config", "show", "absent.yaml", "--debug"),
        ("config", "--debug", "show", "absent.yaml"),
        ("--debug", "config", "show", "absent.yaml"),
    ],
)
def test_debug_shows_the_traceback_wherever_it_stands(arguments: tuple[str, ...]) -> None:
    done = olivine(*arguments)
    assert done.returncode == 2
    assert "Traceback" in done.stderr
    assert "absent.yaml" in done.stderr
