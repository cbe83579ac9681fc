"""Inside a job: do the Steps of its request with the ordinary worker, and leave their results where they are fetched.

The log is the way back while it runs: what libraries print as it is, and what Steps report as lines that begin with
:data:`MARK`. A Step's result is there when its ``answer.json`` is, which has the digest of each file.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from olivine.systems.base import StepRequest
    from olivine.systems.local import LocalRunner

MARK = "olivine-event: "
"""What lines of the log begin with that are events."""
ANSWER = "answer.json"
NO_GPU = "the compute shows no GPU (no NVIDIA driver answers), so what should run on one runs on its processor"
PROGRESS_S = 1.0
"""Seconds between two reports of progress."""


def main(arguments: list[str]) -> int:
    """Do the request. ``arguments``: the folder for results, and ``NAME=PATH`` for each input."""
    from olivine.errors import EXIT_FAILED, OlivineError
    from olivine.redaction import RedactedOutput

    results, inputs = Path(arguments[0]), dict(each.split("=", 1) for each in arguments[1:])
    request = json.loads(Path("request.json").read_text("utf-8"))  # a job begins in the folder of its code
    with RedactedOutput():
        job: Job
        if "search" in request:
            from olivine.systems.azureml.search_in_job import SearchJob

            job = SearchJob(results, inputs, request)
        else:
            job = Job(results, inputs, request)
        try:
            job.run()
        except OlivineError as error:
            print(f"olivine: {error}", flush=True)
            return error.exit_code or EXIT_FAILED
        finally:
            job.close()
    return 0


class Job:
    """The work of one process of a job; rank 0 is the one whose results count.

    Args:
        results: the folder for results.
        inputs: where each input lies.
        request: what to do.
    """

    def __init__(self, results: Path, inputs: Mapping[str, str], request: dict[str, Any]) -> None:
        self.request = request
        self.results = results
        self.inputs = inputs
        self.rank = int(os.environ.get("RANK", "0"))
        self.scratch = Path(tempfile.mkdtemp(prefix="olivine-job-"))
        self.made: dict[str, Path] = {}
        self.fetched: dict[tuple[str, str], Path] = {}
        self.runners: dict[bool, LocalRunner] = {}
        self.token: str | None = None
        self.told = 0.0
        self.telling = threading.Lock()
        self.looked = False
        self.fetching = threading.Lock()
        self.asking = threading.Lock()

    def run(self) -> None:
        """Do all of it.

        Raises:
            OlivineError: a Step failed.
        """
        for step in self.request["steps"]:
            self.do(step)

    def do(self, step: dict[str, Any]) -> None:
        """Do one Step, unless it is done already: a job that the service began anew goes on."""
        from olivine.errors import OlivineError
        from olivine.systems.base import Failure

        digest = step["digest"]
        home = self.results / "steps" / digest
        if self.rank == 0 and self._is_done(home):
            self.made[digest] = home / "files"
            return
        self.tell(step, "started", {})
        self.look_for_gpu(step)
        try:
            for name in ("output", "checkpoint"):
                (self.scratch / name / digest).mkdir(parents=True, exist_ok=True)
            output = self.scratch / "output" / digest
            request = self.placed(step, output=output, checkpoint=self.scratch / "checkpoint" / digest)
            answer = self.runner(step["hub"]).run(
                request, lambda kind, data: self.tell(step, kind, data), fresh=step["kind"] != "pass"
            )
        except OlivineError as error:
            if self.rank == 0:
                failure = Failure.of(error, getattr(error, "traceback", ""))
                self.leave(home, {"failure": failure.__dict__})
            raise
        self.made[digest] = output
        if self.rank != 0:
            return
        files = self.put(output, home / "files")
        self.leave(home, {"answer": answer.__dict__, "files": files})
        self.tell(step, "done", {"seconds": answer.seconds})

    def placed(self, step: dict[str, Any], *, output: Path, checkpoint: Path) -> StepRequest:
        """Return a Step's request with the places of this machine."""
        from olivine.systems.base import StepRequest

        return StepRequest(
            **{key: value for key, value in step.items() if key not in ("inputs", "data", "params")},
            inputs={key: str(self.place(place)) for key, place in step["inputs"].items()},
            data=self.resolved(step["data"]),
            params=self.resolved(step["params"]),
            output=str(output),
            checkpoint=str(checkpoint),
            log="",
            shared=str(self.scratch / "shared"),
        )

    def look_for_gpu(self, step: dict[str, Any]) -> None:
        """Say once if the GPU that the system is said to have is not there: then Steps run on the processor."""
        from olivine.hardware.machine import this_machine

        if self.looked or step["host"]["device"] != "gpu":
            return
        self.looked = True
        if not this_machine().gpus:
            self.tell(step, "note", {"text": NO_GPU})

    def runner(self, hub: bool) -> Any:
        """Return the worker's runner; only one whose Steps read the hub is given the token."""
        wanted = hub and self.hub_token() is not None
        if wanted not in self.runners:
            self.runners[wanted] = self.new_runner(wanted)
        return self.runners[wanted]

    def new_runner(self, with_token: bool) -> LocalRunner:
        """Return a runner whose workers are given the token, or not."""
        from olivine.systems.local import LocalRunner

        extra = {"HF_TOKEN": str(self.hub_token())} if with_token else {}
        return LocalRunner(sys.stdout, give_token=with_token, environment=extra)

    def hub_token(self) -> str | None:
        """Return the token of the hub, asked for once, by the identity of the job."""
        from olivine.systems.azureml import job, token

        vault, secret = os.environ.get(job.VAULT), os.environ.get(job.SECRET)
        with self.asking:
            if vault and secret and self.token is None:
                self.token = token.fetch(vault, secret, os.environ.get(job.IDENTITY))
        return self.token

    # Places ---------------------------------------------------------------------------------------------------------

    def folder_of(self, digest: str) -> Path:
        """Return what an earlier Step of this job has made."""
        return self.made[digest]

    def place(self, reference: str) -> Path:
        """Return where a reference leads to on this machine."""
        kind, _, rest = reference.partition(":")
        if kind == "hub":
            return self.from_hub(rest)
        name, _, below = rest.removeprefix("//").partition("/")
        if kind == "step":
            found = self.folder_of(name)
        else:
            found = self.model(Path(self.inputs[name]))
        return found / below if below else found

    def model(self, path: Path) -> Path:
        """Return the folder with the checkpoint of a model that is an input; an MLflow folder holds it further down."""
        from olivine.models.mlflow import MLMODEL, checkpoint_in

        found = model_folder(path)
        if not (found / MLMODEL).is_file():
            return found
        checkpoint, notes = checkpoint_in(found, self.scratch / "shared")
        for note in notes:
            print(f"olivine: {note}", flush=True)
        return checkpoint

    def from_hub(self, rest: str) -> Path:
        """Return a model of the hub, which a process of its own fetches: it alone needs the token for that."""
        identity, _, below = rest.partition("@")
        revision, _, below = below.partition("/")
        with self.fetching:
            if (identity, revision) not in self.fetched:
                self.fetched[identity, revision] = self.fetch(identity, revision)
        found = self.fetched[identity, revision]
        return found / below if below else found

    def fetch(self, identity: str, revision: str) -> Path:
        """Fetch a model of the hub."""
        import subprocess

        from olivine.errors import StepError
        from olivine.redaction import environment_for_child

        token = self.hub_token()
        environment = environment_for_child(hub_token=token is not None)
        if token is not None:
            environment["HF_TOKEN"] = token
        command = [sys.executable, "-P", "-m", "olivine.systems.azureml.in_job", "--fetch", identity, revision]
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=False)
        if done.returncode != 0:
            raise StepError(f"{identity} ({revision}) could not be fetched from the hub", why=done.stdout.strip())
        return Path(done.stdout.strip().splitlines()[-1])

    def resolved(self, value: Any) -> Any:
        """Return a value with every ``input://`` in it replaced."""
        if isinstance(value, dict):
            return {key: self.resolved(item) for key, item in value.items()}
        if isinstance(value, list):
            return [self.resolved(item) for item in value]
        if isinstance(value, str) and value.startswith("input://"):
            name, _, below = value.removeprefix("input://").partition("/")
            return str(Path(self.inputs[name]) / below) if below else self.inputs[name]
        return value

    # Results --------------------------------------------------------------------------------------------------------

    def _is_done(self, home: Path) -> bool:
        try:
            answer = json.loads((home / ANSWER).read_text("utf-8"))
            return "answer" in answer and all(
                (home / "files" / each["path"]).stat().st_size == each["size"] for each in answer["files"]
            )
        except (OSError, ValueError, KeyError):
            return False

    def put(self, output: Path, home: Path) -> list[dict[str, Any]]:
        """Copy a Step's files to where results go; return them with their sizes and digests."""
        from olivine.store.digests import digest_file
        from olivine.store.disk import tree_files

        found = []
        for name, _ in sorted(tree_files(output)):
            source, target = output / name, home / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
            found.append({"path": Path(name).as_posix(), "size": source.stat().st_size, "sha256": digest_file(source)})
        return found

    @staticmethod
    def leave(home: Path, answer: dict[str, Any]) -> None:
        """Write a Step's answer, after its files."""
        home.mkdir(parents=True, exist_ok=True)
        (home / ANSWER).write_text(json.dumps(answer, default=float), encoding="utf-8")

    # Telling --------------------------------------------------------------------------------------------------------

    def tell(self, step: dict[str, Any], kind: str, data: dict[str, Any]) -> None:
        """Write an event of a Step into the log; of progress not everything."""
        self.say(step["digest"], kind, data)

    def say(self, about: str, kind: str, data: dict[str, Any]) -> None:
        """Write an event into the log; of progress not everything.

        Args:
            about: digest of a Step, or of a search.
        """
        if self.rank != 0:
            return
        now = time.monotonic()
        if kind == "progress":
            if now - self.told < PROGRESS_S and not (data.get("total") and data["done"] >= data["total"]):
                return
            self.told = now
        with self.telling:
            print(MARK + json.dumps({"step": about, "kind": kind, "data": data}, default=float), flush=True)

    def close(self) -> None:
        """End the workers."""
        for runner in self.runners.values():
            runner.close()


def model_folder(path: Path) -> Path:
    """Return the folder that holds a model: what is given, or the one folder in it, as assets may be wrapped."""
    while path.is_dir() and not any(
        (path / name).is_file() for name in ("config.json", "MLmodel", "genai_config.json")
    ):
        inside = [each for each in path.iterdir() if not each.name.startswith(".")]
        if len(inside) != 1 or not inside[0].is_dir():
            break
        path = inside[0]
    return path


if __name__ == "__main__":
    if sys.argv[1:2] == ["--fetch"]:
        from olivine.models.hub import fetch

        try:
            print(fetch(sys.argv[2], sys.argv[3]))
        except Exception as error:  # told to the job's own process, which fails with it
            print(error)
            sys.exit(1)
        sys.exit(0)
    sys.exit(main(sys.argv[1:]))
