"""What can go wrong between a laptop and the cloud, each made to happen for real, and what has to hold after it.

One scenario is a run of the command line during which something strikes, and, where that ends the run, the same
command again. ``benchmarks/azure_faults.py`` counts all of them over several rounds; ``test_faults.py`` runs some once.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.util
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from cloud_project import CloudProject
from standin.cloud import Cloud
from standin.faults import Fault

REGISTERED = "azureml://registries/olivine-models/models/faulty/versions/1"
MODEL_BLOB = "blob GET /registry/.*safetensors"
RESULT_BLOB = "blob GET .*/olivine/jobs/.*/files/.*safetensors"
LOG_BLOB = "blob GET .*/user_logs/std_log"


def model_of_some_megabytes(folder: Path) -> Path:
    """Write a checkpoint into ``folder`` that is large enough to have a middle."""
    # Two folders of tests have a conftest; this one is not on the path by that name.
    spec = importlib.util.spec_from_file_location("tests_conftest", Path(__file__).parents[1] / "conftest.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    built: Path = module.build_pico_phi3(folder, hidden_size=256, layers=3, vocabulary=1000)
    return built


@dataclass
class Outcome:
    """What came of one scenario.

    Attributes:
        struck: how often the fault struck.
        problems: what does not hold; empty if all is well.
        said: what the terminal showed when it failed as it should.
        jobs: how many were started.
    """

    struck: int = 0
    seconds: float = 0.0
    problems: list[str] = field(default_factory=list)
    said: str = ""
    jobs: int = 0


class Bench:
    """A cloud with a model in its registry, and projects that quantise it.

    Args:
        model: a checkpoint of some megabytes, so that there is a middle to strike.
    """

    def __init__(self, cloud: Cloud, folder: Path, model: Path) -> None:
        self.cloud = cloud
        self.folder = folder
        self.model = model
        self.count = 0
        cloud.add_model("olivine-models", "faulty", "1", model, "custom_model", registry=True)
        self.expected = ""

    def project(self, host: Literal["here", "aml"], folder: Path | None = None, **system: Any) -> CloudProject:
        """Return a new project whose one Step runs ``here`` or in a job."""
        self.count += 1
        folder = folder or self.folder / f"project-{self.count}"
        folder.mkdir(parents=True, exist_ok=True)
        made = CloudProject(folder, self.cloud)
        docker = {"base_image": "mcr.microsoft.com/azureml/base:latest", "conda_file_path": "conda.yaml"}
        made.write(
            {
                "version": 1,
                "input_model": {"model_path": REGISTERED},
                "azureml_client": self.cloud.client("one"),
                "systems": {
                    "here": {"type": "LocalSystem", "device": "cpu"},
                    "aml": {"type": "AzureML", "device": "cpu", "aml_compute": "cpu-cluster",
                            "aml_docker_config": docker, **system},
                },
                "passes": {"quantize": {"type": "Quantize"}},
                "engine": {"host": host, "target": host, "cache_dir": "cache", "output_dir": "models"},
            }
        )  # fmt: skip
        return made

    def digest(self, project: CloudProject) -> str:
        """Return the digest of the weights that a project has put out."""
        files = sorted((project.folder / "models").rglob("*.safetensors"))
        return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest() if files else ""

    def reference(self) -> None:
        """Make the model once without faults; what comes later has to be the same."""
        project = self.project("here")
        done = project.olivine("run", "workflow.json")
        assert done.returncode == 0, done.stdout + done.stderr
        self.expected = self.digest(project)
        assert self.expected

    def jobs(self) -> int:
        """Return how many jobs were started since they were last forgotten."""
        return len(self.cloud.jobs.submissions)

    def good(self, outcome: Outcome, project: CloudProject, done: subprocess.CompletedProcess[str], jobs: int) -> None:
        """Note what does not hold of a run that has to succeed, with ``jobs`` jobs started in all."""
        outcome.jobs = self.jobs()
        if done.returncode != 0:
            outcome.problems.append(f"exit status {done.returncode}: {done.stderr[-1500:]}")
        elif self.digest(project) != self.expected:
            outcome.problems.append("another result")
        if outcome.jobs != jobs:
            outcome.problems.append(f"{outcome.jobs} jobs and not {jobs}")


Scenario = Callable[[Bench], Outcome]
SCENARIOS: dict[str, Scenario] = {}


def scenario(name: str) -> Callable[[Scenario], Scenario]:
    """Register a scenario under its name."""

    def register(function: Scenario) -> Scenario:
        SCENARIOS[name] = function
        return function

    return register


def play(name: str, bench: Bench) -> Outcome:
    """Run one scenario on a settled cloud."""
    bench.cloud.settle()
    bench.cloud.jobs.forget()
    started = time.monotonic()
    outcome = SCENARIOS[name](bench)
    outcome.seconds = time.monotonic() - started
    bench.cloud.faults.clear()
    gaps = {key: found for key, found in bench.cloud.gaps().items() if found}
    if gaps:
        outcome.problems.append(f"gaps: {gaps}")
    if outcome.struck == 0:
        outcome.problems.append("the fault did not strike")
    bench.cloud.settle()
    return outcome


# A model is fetched to this machine -----------------------------------------------------------------------------------


def _fetching(*faults: dict[str, Any], prepare: Callable[[Bench], None] | None = None) -> Scenario:
    def run(bench: Bench) -> Outcome:
        outcome = Outcome()
        project = bench.project("here")
        armed = [bench.cloud.faults.arm(**each) for each in faults]
        if prepare is not None:
            prepare(bench)
        done = project.olivine("run", "workflow.json")
        outcome.struck = sum(each.fired for each in armed)
        bench.good(outcome, project, done, 0)
        return outcome

    return run


MIDDLE = 1_500_000
SCENARIOS["connection reset in the middle of a model, 6 times"] = _fetching(
    {"kind": "reset", "match": MODEL_BLOB, "times": 6, "after": MIDDLE}
)
SCENARIOS["connection ended early in the middle of a model, 6 times"] = _fetching(
    {"kind": "truncate", "match": MODEL_BLOB, "times": 6, "after": MIDDLE}
)
SCENARIOS["one flipped byte in a model"] = _fetching({"kind": "flip", "match": MODEL_BLOB, "after": MIDDLE})
SCENARIOS["reset, early end and flipped byte in one model"] = _fetching(
    *({"kind": kind, "match": MODEL_BLOB, "after": MIDDLE} for kind in ("reset", "truncate", "flip"))
)
SCENARIOS["503 from the storage, 8 times"] = _fetching({"kind": "status", "match": MODEL_BLOB, "times": 8})
SCENARIOS["429 from the registry, 5 times, each with a time to wait"] = _fetching(
    {"kind": "status", "match": "arm (GET|POST) .*/registries/", "times": 5, "status": 429, "retry_after": "1"}
)


def _outage_at(match: str, seconds: float, after: int = 0) -> Callable[[Bench], Fault]:
    def arm(bench: Bench) -> Fault:
        begin = functools.partial(bench.cloud.faults.outage, seconds)
        return bench.cloud.faults.arm("call", match, action=begin, late=True, after=after)

    return arm


def outage_while_fetching(seconds: float) -> Scenario:
    """Return the scenario in which everything is out of reach while a model streams."""

    def run(bench: Bench) -> Outcome:
        outcome = Outcome()
        project = bench.project("here")
        fault = _outage_at(MODEL_BLOB, seconds, MIDDLE)(bench)
        done = project.olivine("run", "workflow.json")
        outcome.struck = fault.fired
        bench.good(outcome, project, done, 0)
        return outcome

    return run


SCENARIOS["60 s outage while a model streams"] = outage_while_fetching(60)


@scenario("signature that expires while a model streams")
def _expired_signature(bench: Bench) -> Outcome:
    outcome = Outcome()
    project = bench.project("here")
    bench.cloud.storage.sas_lifetime = 2

    def later() -> None:
        time.sleep(2.5)
        bench.cloud.storage.sas_lifetime = 3600

    fault = bench.cloud.faults.arm("call", MODEL_BLOB, action=later)
    done = project.olivine("run", "workflow.json")
    outcome.struck = fault.fired
    bench.good(outcome, project, done, 0)
    return outcome


@scenario("client killed while a model streams")
def _killed_fetching(bench: Bench) -> Outcome:
    outcome = Outcome()
    project = bench.project("here")
    _killed_at(bench, project, outcome, MODEL_BLOB, late=True, after=MIDDLE)
    done = project.olivine("run", "workflow.json")
    bench.good(outcome, project, done, 0)
    return outcome


# A Step runs in a job -------------------------------------------------------------------------------------------------


def _in_job(*faults: dict[str, Any]) -> Scenario:
    def run(bench: Bench) -> Outcome:
        outcome = Outcome()
        project = bench.project("aml")
        armed = [bench.cloud.faults.arm(**each) for each in faults]
        done = project.olivine("run", "workflow.json")
        outcome.struck = sum(each.fired for each in armed)
        bench.good(outcome, project, done, 1)
        return outcome

    return run


SCENARIOS["503 when the job is submitted, 4 times"] = _in_job(
    {"kind": "status", "match": "arm PUT .*/jobs/", "times": 4}
)
SCENARIOS["429 when the job is submitted, 4 times"] = _in_job(
    {"kind": "status", "match": "arm PUT .*/jobs/", "times": 4, "status": 429, "retry_after": "1"}
)
SCENARIOS["answer to the submission lost"] = _in_job({"kind": "lose", "match": "arm PUT .*/jobs/"})
SCENARIOS["503 from the service before the job is submitted, 10 times"] = _in_job(
    {"kind": "status", "match": "arm GET .*/jobs/olivine-", "times": 10}
)


@scenario("503 from the service while the job is followed, 10 times")
def _storm_while_following(bench: Bench) -> Outcome:
    outcome = Outcome()
    project = bench.project("aml")
    storm: list[Fault] = []

    def begin() -> None:
        storm.append(bench.cloud.faults.arm("status", "arm GET .*/jobs/olivine-", times=10))

    bench.cloud.faults.arm("call", "arm PUT .*/jobs/", action=begin, late=True)
    done = project.olivine("run", "workflow.json")
    outcome.struck = sum(each.fired for each in storm)
    bench.good(outcome, project, done, 1)
    return outcome


SCENARIOS["connection reset in the middle of a result, 4 times"] = _in_job(
    {"kind": "reset", "match": RESULT_BLOB, "times": 4, "after": 300_000}
)
SCENARIOS["one flipped byte in a result"] = _in_job({"kind": "flip", "match": RESULT_BLOB, "after": 300_000})


@scenario("access tokens that live for 4 seconds, while a job is run and followed")
def _short_tokens(bench: Bench) -> Outcome:
    outcome = Outcome()
    project = bench.project("aml")
    bench.cloud.credential("identity")
    bench.cloud.tokens.lifetime = 4
    before = len(bench.cloud.tokens.issued)
    done = project.olivine("run", "workflow.json")
    outcome.struck = len(bench.cloud.tokens.issued) - before
    bench.good(outcome, project, done, 1)
    return outcome


@scenario("access tokens revoked before their time, while the job is followed")
def _revoked_tokens(bench: Bench) -> Outcome:
    """The client may end, telling who asks is not known; the same command comes back to the job."""
    outcome = Outcome()
    project = bench.project("aml")
    bench.cloud.faults.arm("call", LOG_BLOB, action=bench.cloud.tokens.revoke_all)
    before = bench.cloud.arm.unauthorized
    done = project.olivine("run", "workflow.json")
    outcome.struck = bench.cloud.arm.unauthorized - before
    outcome.said = done.stderr
    if done.returncode == 3:
        done = project.olivine("run", "workflow.json")
    bench.good(outcome, project, done, 1)
    return outcome


@scenario("sign-in refused for 20 s while the job is followed")
def _refused_for_a_while(bench: Bench) -> Outcome:
    outcome = Outcome()
    project = bench.project("aml")
    before = bench.cloud.identity.refusals
    bench.cloud.faults.arm("call", LOG_BLOB, action=functools.partial(bench.cloud.identity.refuse, 20))
    done = project.olivine("run", "workflow.json")
    outcome.struck = bench.cloud.identity.refusals - before
    outcome.said = done.stderr
    bench.good(outcome, project, done, 1)
    return outcome


@scenario("sign-in refused for good while the job is followed")
def _refused_for_good(bench: Bench) -> Outcome:
    """The client ends within minutes and says why; signed in again, the same command comes back to the job."""
    outcome = Outcome()
    project = bench.project("aml")
    before = bench.cloud.identity.refusals
    bench.cloud.faults.arm("call", LOG_BLOB, action=functools.partial(bench.cloud.identity.refuse, 3600))
    started = time.monotonic()
    failed = project.olivine("run", "workflow.json")
    took = time.monotonic() - started
    outcome.struck = bench.cloud.identity.refusals - before
    outcome.said = failed.stderr
    bench.cloud.identity.refuse(0)
    if failed.returncode != 3 or "does not know who asks" not in " ".join(failed.stderr.split()):
        outcome.problems.append(f"exit status {failed.returncode}: {failed.stderr[-1500:]}")
    if took > 300:
        outcome.problems.append(f"it took {took:.0f} s to say so")
    done = project.olivine("run", "workflow.json")
    bench.good(outcome, project, done, 1)
    return outcome


def outage_while_following(seconds: float) -> Scenario:
    """Return the scenario in which everything is out of reach while a job runs."""

    def run(bench: Bench) -> Outcome:
        outcome = Outcome()
        project = bench.project("aml")
        fault = _outage_at(LOG_BLOB, seconds)(bench)
        done = project.olivine("run", "workflow.json")
        outcome.struck = fault.fired
        bench.good(outcome, project, done, 1)
        return outcome

    return run


SCENARIOS["60 s outage while the job is followed"] = outage_while_following(60)


def _killed_at(bench: Bench, project: CloudProject, outcome: Outcome, match: str, **how: Any) -> None:
    """Run the project until a request matches, and kill the client then with signal 9."""
    started: list[subprocess.Popen[str]] = []

    def kill() -> None:
        os.killpg(started[0].pid, signal.SIGKILL)

    fault = bench.cloud.faults.arm("call", match, action=kill, **how)
    started.append(project.start("run", "workflow.json"))
    started[0].communicate(timeout=900)
    outcome.struck += fault.fired
    if started[0].returncode != -signal.SIGKILL:
        outcome.problems.append(f"the client was not killed: exit status {started[0].returncode}")


def killed_at(match: str, **how: Any) -> Scenario:
    """Return the scenario in which the client is killed at a request, and the same command is given again."""

    def run(bench: Bench) -> Outcome:
        outcome = Outcome()
        project = bench.project("aml")
        _killed_at(bench, project, outcome, match, **how)
        done = project.olivine("run", "workflow.json")
        bench.good(outcome, project, done, 1)
        return outcome

    return run


KILLED = {
    "before its code is uploaded": killed_at("arm POST .*/codes/.*startPendingUpload", drop=True),
    "while its code is uploaded": killed_at("blob PUT /upload-", drop=True),
    "before the job is submitted": killed_at("arm PUT .*/jobs/", drop=True),
    "when the job is submitted, before the answer": killed_at("arm PUT .*/jobs/", late=True),
    "while the job runs": killed_at(LOG_BLOB),
    "while the result is fetched": killed_at(RESULT_BLOB, late=True, after=300_000),
}
SCENARIOS |= {f"client killed {when}": how for when, how in KILLED.items()}


@scenario("job that fails")
def _job_fails(bench: Bench) -> Outcome:
    """The job's process is killed from outside: the client fails, says so with the end of the log; again, it runs."""
    outcome = Outcome()
    project = bench.project("aml")

    def kill() -> None:
        for job in bench.cloud.jobs.all():
            until = time.monotonic() + 60
            while job.processes is None and time.monotonic() < until:
                time.sleep(0.01)
            for pid in job.processes.pids if job.processes is not None else []:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(pid, signal.SIGKILL)
                    outcome.struck += 1

    bench.cloud.faults.arm("call", "arm PUT .*/jobs/", action=kill, late=True)
    failed = project.olivine("run", "workflow.json")
    outcome.said = failed.stderr
    if failed.returncode != 1 or "137" not in failed.stderr:
        outcome.problems.append(f"exit status {failed.returncode}: {failed.stderr[-1500:]}")
    if (project.folder / "models").exists():
        outcome.problems.append("an output folder after a failure")
    done = project.olivine("run", "workflow.json")
    bench.good(outcome, project, done, 2)
    return outcome


@scenario("job without output")
def _no_output(bench: Bench) -> Outcome:
    outcome = Outcome()
    project = bench.project("aml")
    bench.cloud.jobs.drop_outputs.add("results")
    failed = project.olivine("run", "workflow.json")
    outcome.struck = bench.jobs()
    outcome.said = failed.stderr
    if failed.returncode != 1 or "left no result" not in " ".join(failed.stderr.split()):
        outcome.problems.append(f"exit status {failed.returncode}: {failed.stderr[-1500:]}")
    bench.cloud.jobs.drop_outputs.clear()
    done = project.olivine("run", "workflow.json")
    bench.good(outcome, project, done, 2)
    return outcome


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """A file system of 64 MiB, or nothing if mounting is not permitted here."""
    folder.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "none", str(folder)], check=True, capture_output=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@scenario("disk that fills up on the way back")
def _full_disk(bench: Bench) -> Outcome:
    outcome = Outcome()
    bench.count += 1
    with small_disk(bench.folder / f"disk-{bench.count}") as folder:
        project = bench.project("aml", folder)

        def fill() -> None:
            with contextlib.suppress(OSError), (folder / "ballast").open("wb", buffering=0) as ballast:
                while True:
                    ballast.write(bytes(1 << 16))

        fault = bench.cloud.faults.arm("call", RESULT_BLOB, action=fill)
        failed = project.olivine("run", "workflow.json")
        outcome.struck = fault.fired
        outcome.said = failed.stderr
        if failed.returncode != 1 or "disk" not in failed.stderr:
            outcome.problems.append(f"exit status {failed.returncode}: {failed.stderr[-1500:]}")
        (folder / "ballast").unlink()
        done = project.olivine("run", "workflow.json")
        bench.good(outcome, project, done, 1)
    return outcome
