"""Disks that are full or read-only: said with the place in the configuration, nothing lost, and mended by room."""

from __future__ import annotations

import pytest


def said(done) -> str:
    """What a run that failed told the user, on one line."""
    assert "Traceback" not in done.stderr
    return " ".join(done.stderr.split())


@pytest.fixture
def filled(tiny_disk):
    """A disk with room for the papers and not for the model; and the file to remove to make room."""
    filler = tiny_disk / "filler"
    filler.write_bytes(b"x" * (2**20 - 300 * 2**10))
    return tiny_disk, filler


def test_a_full_disk_under_the_output_folder_loses_nothing(project, filled) -> None:
    disk, filler = filled
    project.write(first={"mark": "a"})
    to_disk = ("--set", f"engine.output_dir={disk / 'models'}")
    failed = project.olivine("run", "workflow.json", *to_disk)
    assert failed.returncode == 1
    assert "engine.output_dir: the disk is full" in said(failed)
    assert f"the disk is full: {disk}/" in said(failed)
    assert not (disk / "models").exists()
    filler.unlink()
    assert project.olivine("run", "workflow.json", *to_disk).returncode == 0
    assert (disk / "models" / "mark.txt").read_text() == "a"
    assert project.times_run() == 1


def test_a_full_disk_under_the_cache_leaves_it_sound(project, filled) -> None:
    disk, filler = filled
    project.write(first={"mark": "a"})
    on_disk = ("--set", f"engine.cache_dir={disk / 'cache'}")
    foreseen = project.olivine("run", "workflow.json", *on_disk)
    assert foreseen.returncode == 3
    assert "engine.cache_dir" in said(foreseen)
    assert project.times_run() == 0
    failed = project.olivine("run", "workflow.json", *on_disk, "--force")
    assert failed.returncode == 1
    assert "passes.first: the disk is full" in said(failed)
    assert "engine.cache_dir" in said(failed)
    assert not project.output.exists()
    assert project.olivine("cache", "verify", "--cache-dir", str(disk / "cache")).returncode == 0
    filler.unlink()
    again = project.olivine("run", "workflow.json", *on_disk)
    assert again.returncode == 0, again.stderr
    assert (project.output / "mark.txt").read_text() == "a"


@pytest.mark.parametrize("key", ["engine.output_dir", "engine.cache_dir"])
def test_a_read_only_folder_is_known_before_anything_runs(project, read_only, tmp_path, key: str) -> None:
    project.write(first={"mark": "a"})
    folder = tmp_path / "read-only"
    folder.mkdir()
    read_only(folder)
    refused = project.olivine("run", "workflow.json", "--set", f"{key}={folder / 'inside'}")
    assert refused.returncode == 2
    assert f"{key}: nothing can be written to {folder / 'inside'}" in said(refused)
    assert "Read-only file system" in said(refused)
    assert project.times_run() == 0


def test_the_folder_of_the_input_model_is_no_place_for_the_result(project) -> None:
    project.write(first={"mark": "a"})
    refused = project.olivine("run", "workflow.json", "--set", f"engine.output_dir={project.model}")
    assert refused.returncode == 2
    assert "engine.output_dir" in said(refused)
    assert "the folder of the input model" in said(refused)
    assert project.times_run() == 0
