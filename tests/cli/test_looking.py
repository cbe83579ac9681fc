"""The verbs that look things up: passes, targets, the cache."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from olivine.cli.main import VERBS, main


def said(capsys: pytest.CaptureFixture[str], *arguments: str, expected: int = 0) -> str:
    assert main(arguments) == expected
    captured = capsys.readouterr()
    return captured.out + captured.err


@pytest.mark.parametrize(("verb", "name"), [("passes", "LoRA"), ("targets", "cuda-10gb")])
def test_a_name_alone_is_shown(capsys: pytest.CaptureFixture[str], verb: str, name: str) -> None:
    assert said(capsys, verb, name) == said(capsys, verb, "show", name)


@pytest.mark.parametrize(("verb", "given", "meant"), [("passes", "LoRa2", "LoRA"), ("targets", "cdua", "cuda")])
def test_a_wrong_name_alone_is_answered_with_the_nearest(
    capsys: pytest.CaptureFixture[str], verb: str, given: str, meant: str
) -> None:
    assert f"Did you mean {meant}" in said(capsys, verb, given, expected=2)


def test_a_wrong_action_says_what_to_write(capsys: pytest.CaptureFixture[str]) -> None:
    assert "`show LoRA`" in said(capsys, "passes", "shw", "LoRA", expected=2)


@pytest.mark.parametrize("option", ["--cache", "--cache-dir"])
def test_every_verb_that_has_a_cache_takes_it_by_either_name(option: str) -> None:
    import importlib

    for verb in VERBS:
        parser = argparse.ArgumentParser()
        importlib.import_module(f"olivine.cli.{verb}").add_arguments(parser)
        options = [each for action in parser._actions for each in action.option_strings]
        assert ("--cache" in options) == ("--cache-dir" in options), verb
    parser = argparse.ArgumentParser()
    importlib.import_module("olivine.cli.optimize").add_arguments(parser)
    assert parser.parse_args(["m", option, "elsewhere"]).cache_dir == "elsewhere"


def test_an_empty_cache_says_how_to_look_into_another(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert "--cache-dir" in said(capsys, "cache", "ls")


def test_a_cache_without_studies_says_so(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert f"no study in {tmp_path}" in said(capsys, "study", "ls", "--cache-dir", str(tmp_path))


@pytest.mark.parametrize(
    ("arguments", "meant"),
    [(("config", "chek"), "check"), (("cache", "veryfy"), "verify"), (("quantize", "m", "--form", "gtpq"), "gptq")],
)
def test_a_misspelled_choice_is_answered_with_the_nearest(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], meant: str
) -> None:
    with pytest.raises(SystemExit) as left:
        main(arguments)
    assert left.value.code == 2
    assert f"Did you mean {meant}?" in capsys.readouterr().err


def test_a_misspelled_target_of_a_verb_is_answered_with_the_nearest(
    capsys: pytest.CaptureFixture[str], pico_model: Path
) -> None:
    assert "the nearest is cuda" in said(capsys, "convert", str(pico_model), "--target", "cdua", expected=2)


def test_a_size_that_is_none_names_its_option(capsys: pytest.CaptureFixture[str], pico_model: Path) -> None:
    assert "--max-size" in said(capsys, "optimize", str(pico_model), "--max-size", "2XB", expected=2)
