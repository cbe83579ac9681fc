"""`olivine cache` from the outside."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from olivine.cli.cache import age, reason, shown_age, size_in_bytes
from olivine.config.sizes import size_in_words
from olivine.errors import Location
from olivine.passes.base import Accelerator, Format
from olivine.planning.plan import PlannedStep
from olivine.planning.step import Step


def cache(*arguments: object, **options: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "olivine", "cache", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, **options)  # type: ignore[call-overload]


def test_ls_lists_artifacts_last_used_first(store, put) -> None:
    for number, name in enumerate(("first", "second")):
        artifact = put(f"{number}a" * 16, step={"type": "LoRA", "name": name}, format="peft")
        os.utime(artifact.path.parent / "used", (time.time() - 7200 * (2 - number),) * 2)
    done = cache("ls", "--cache-dir", store.root)
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    digest, name, kind, format, *size, made, unit, used, hours = lines[1].split()
    assert [digest, name, kind, format, *size] == ["1a1a1a1a1a1a", "second", "LoRA", "peft", "702", "B"]
    assert [unit, used, hours] == ["s", "2", "h"]
    assert int(made) < 60  # on a busy machine it is not 0
    assert "first" in lines[2]
    assert "2 artifacts, 1.4 kB" in lines[-1]


def test_ls_as_json(store, put) -> None:
    put()
    (row,) = json.loads(cache("ls", "--json", "--cache-dir", store.root).stdout)
    assert row["digest"] == "d1" * 16
    assert (row["name"], row["type"], row["format"], row["size_bytes"]) == ("lora", "LoRA", "hf", 702)


def test_ls_where_nothing_was_made_says_so(tmp_path: Path) -> None:
    done = cache("ls", cwd=tmp_path)
    assert done.returncode == 0
    assert "nothing in" in done.stdout
    assert os.listdir(tmp_path) == []


def test_a_folder_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    done = cache("ls", "--cache-dir", tmp_path / "typo")
    assert done.returncode == 2
    assert "--cache-dir" in done.stderr


def test_verify_exits_1_and_names_what_is_damaged(store, put) -> None:
    path = put().path / "model.onnx"
    put("aa" * 16)
    assert cache("verify", "--cache-dir", store.root).returncode == 0
    os.truncate(path, 3)
    done = cache("verify", "--cache-dir", store.root)
    assert done.returncode == 1
    assert "d1" * 16 in done.stdout
    assert "model.onnx has 3 bytes instead of 700" in done.stdout
    assert cache("verify", "aaaa", "--cache-dir", store.root).returncode == 0
    assert json.loads(cache("verify", "--json", "--cache-dir", store.root).stdout)["checked"] == 2


def test_gc_removes_what_is_old_and_says_what_it_frees(store, put) -> None:
    artifact = put()
    put("aa" * 16)
    store.release()
    os.utime(artifact.path.parent / "used", (time.time() - 40 * 86400,) * 2)
    dry = cache("gc", "--older-than", "30d", "--dry-run", "--cache-dir", store.root)
    assert f"would remove artifact {'d1' * 16}" in dry.stdout
    assert len(store.digests()) == 2
    done = cache("gc", "--older-than", "30d", "--cache-dir", store.root)
    assert done.returncode == 0
    assert "1 artifact" in done.stdout
    assert store.digests() == ["aa" * 16]
    assert json.loads(cache("gc", "--max-size", "0", "--json", "--cache-dir", store.root).stdout)["removed"] == [
        "aa" * 16
    ]


def planned(step: Step, *, cached: bool = False) -> PlannedStep:
    return PlannedStep(
        name="lora",
        step=step,
        sources={},
        consumes=Format.HF,
        produces=Format.PEFT,
        data={},
        where=Location(),
        host=Accelerator(),
        target=Accelerator(),
        cached=cached,
    )


def test_why_names_the_change_that_makes_a_step_run(store, put) -> None:
    before = Step(kind="pass", type="LoRA", params={"r": 8}, inputs={"model": "step:aa"})
    put(before.digest, step=before.model_dump(mode="json") | {"name": "old name"})
    now = Step(kind="pass", type="LoRA", params={"r": 16}, inputs={"model": "step:bb"})
    found = reason(planned(now), store, {"bb": "merge"})
    assert found["nearest"] == before.digest
    assert found["reasons"] == [
        f"most similar in the cache: old name, {before.digest[:12]}",
        "its input model is made by merge, which gives another result",
        "r: 8 -> 16",
    ]
    assert [each["path"] for each in found["differences"]] == ["inputs.model", "params.r"]


def test_why_says_when_nothing_of_the_kind_was_made(store) -> None:
    step = Step(kind="pass", type="LoRA", params={}, inputs={})
    assert reason(planned(step), store, {})["reasons"] == ["no result of LoRA is in the cache"]
    assert reason(planned(step, cached=True), store, {})["reasons"] == []


@pytest.mark.parametrize("arguments", [["gc", "--older-than", "30"], ["gc", "--max-size", "many"], ["lss"], []])
def test_a_wrong_argument_exits_2(arguments: list[str]) -> None:
    done = cache(*arguments)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_ls_starts_without_heavy_imports(store, put) -> None:
    put()
    code = (
        "import sys\nfrom olivine.cli.main import main\n"
        f"main(['cache', 'ls', '--cache-dir', {str(store.root)!r}])\n"
        "print([name for name in ('pydantic', 'yaml', 'rich', 'torch', 'psutil') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(("text", "seconds"), [("30d", 2592000), ("12h", 43200), ("1.5w", 907200), ("5 m", 300)])
def test_ages(text: str, seconds: float) -> None:
    assert age(text) == seconds


@pytest.mark.parametrize(
    ("text", "count"), [("20GB", 20e9), ("1GiB", 2**30), ("500 mb", 5e8), ("7", 7), ("1.5kb", 1500)]
)
def test_sizes(text: str, count: float) -> None:
    assert size_in_bytes(text) == count


def test_how_sizes_and_ages_are_shown() -> None:
    assert [size_in_words(count) for count in (7, 1500, 5.3e6, 2e12)] == ["7 B", "1.5 kB", "5.3 MB", "2.00 TB"]
    assert [shown_age(seconds) for seconds in (5, 600, 90000, 300000)] == ["5 s", "10 min", "25 h", "3 d"]
