"""Inside a job: a whole search. The study is the ordinary one; its Steps are left like those of every other job.

Beside ``steps``, the folder of results gets ``search/answer.json`` when the search has come to its end: its trials, and
the Steps that are there. What an earlier attempt of the same search has left is taken from there and not made again.
"""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from olivine.errors import StepError
from olivine.events import Event
from olivine.store import Store
from olivine.systems.azureml.in_job import ANSWER, Job
from olivine.systems.azureml.references import Inputs, JobInput, referring
from olivine.systems.base import Report, Runner, SearchRequest, StepAnswer, StepRequest
from olivine.systems.local import LocalRunner
from olivine.systems.registry import Site

SEARCH = "search"
"""Folder of the search's own answer among the results."""
BEFORE = "before"
"""What the input is called that has the results of an earlier attempt."""
QUIET = frozenset({"study-started", "study-done", "run-started", "run-done"})
"""Events that are told where the search was asked for."""


class SearchJob(Job):
    """The work of a job that searches."""

    def __init__(self, results: Path, inputs: Mapping[str, str], request: dict[str, Any]) -> None:
        super().__init__(results, inputs, request)
        self.search = SearchRequest(**request["search"])
        self.references = Inputs(_not_there, known=request["references"])
        self.store = Store(self.scratch / "cache")
        self.left: set[str] = set()
        self.leaving = threading.Lock()

    def run(self) -> None:
        """See :meth:`Job.run`.

        Raises:
            OlivineError: the search cannot be planned here as it was there.
        """
        from olivine.planning.known import Known
        from olivine.search.elsewhere import received
        from olivine.search.planning import plan_search
        from olivine.search.study import search_only

        loaded = received(self.search, self.scratch)
        facts = Known.from_json(self.search.known, self.here)
        plan = plan_search(loaded, self.store, trust_remote_code=self.search.trust_remote_code, known=facts)
        digests = [step.digest for step in plan.steps]
        if digests != self.search.digests:
            different = [step.name for step, digest in zip(plan.steps, self.search.digests, strict=False)
                         if step.digest != digest]  # fmt: skip
            raise StepError(
                "the search is another one in the job than where it was asked for",
                why=f"Steps have other digests here: {', '.join(different) or 'there are others'}",
                remedy="set one_job_per: step for the system: then candidates are planned where you are",
            )
        trials = search_only(plan, self.store, self.hear, make_runner=lambda site: StepsInJob(self, site), facts=facts)
        self.leave_all()
        self.leave(self.results / SEARCH, {"trials": [each.as_json() for each in trials], "steps": sorted(self.left)})

    # Places ---------------------------------------------------------------------------------------------------------

    def folder_of(self, digest: str) -> Path:
        """See :meth:`Job.folder_of`."""
        found = Store(self.store.root).find(digest)  # of its own: candidates may be made in several threads
        if found is None:
            raise StepError(f"the result of the Step {digest} is gone from the job's own disk")
        return found.path

    def here(self, place: str) -> Path:
        """Return the folder of a model that planning looks into, by where it was for the one who asked."""
        reference = self.references.known.get(place) or [
            each for each in self.search.models if each.startswith("hub:")
        ]  # fmt: skip
        if not reference:
            raise StepError(f"the job has no input for {place}")
        return self.place(reference[0])

    def earlier(self, digest: str) -> Path | None:
        """Return the folder in which this job, or an earlier attempt, has left a Step."""
        homes = [self.results, *([Path(self.inputs[BEFORE])] if BEFORE in self.inputs else [])]
        return next((each for root in homes if self._is_done(each := root / "steps" / digest)), None)

    # Results --------------------------------------------------------------------------------------------------------

    def hear(self, event: Event) -> None:
        """Leave what was made, and pass events on."""
        if event.event in ("step-done", "step-cached"):
            self.leave_step(event.data["digest"])
        if event.event == "trial-done":
            self.leave_all()
        if event.event not in QUIET:
            kind = "progress" if event.event == "progress" else "event"
            self.say(self.search.study, kind, {"event": event.event, "step": event.step, **event.data})

    def leave_all(self) -> None:
        """Leave every Step that is there."""
        for digest in self.store.digests():
            self.leave_step(digest)

    def leave_step(self, digest: str) -> None:
        """Put a Step's files, and then its answer, where results go."""
        with self.leaving:
            artifact = self.store.find(digest) if digest not in self.left else None
            if artifact is None:
                return
            home, manifest = self.results / "steps" / digest, artifact.manifest
            if not self._is_done(home):
                for entry in manifest.files:
                    target = home / "files" / entry.path
                    target.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(artifact.path / entry.path, target)
                answer = StepAnswer(
                    metrics=dict(manifest.metrics),
                    attributes=dict(manifest.attributes),
                    history=[dict(each) for each in manifest.history],
                    peak_memory=manifest.peak_memory_bytes,
                    seconds=manifest.seconds,
                )
                files = [{"path": each.path, "size": each.size, "sha256": each.sha256} for each in manifest.files]
                self.leave(home, {"answer": answer.__dict__, "files": files})
            self.left.add(digest)


class StepsInJob(Runner):
    """Runs the Steps of a search in workers beside it, unless they were left before."""

    elsewhere = True

    def __init__(self, job: SearchJob, site: Site) -> None:
        self.job = job
        self.site = site
        self.workers: dict[bool, LocalRunner] = {}

    def run(self, request: StepRequest, report: Report, *, fresh: bool = False) -> StepAnswer:
        """See :meth:`Runner.run`."""
        home = self.job.earlier(request.digest)
        if home is not None:
            if (home / "files").is_dir():
                shutil.copytree(home / "files", request.output, copy_function=shutil.copyfile, dirs_exist_ok=True)
            return StepAnswer(**json.loads((home / ANSWER).read_text("utf-8"))["answer"])
        step = referring([request], self.job.references, alone=False)[0]
        placed = self.job.placed(step, output=Path(request.output), checkpoint=Path(request.checkpoint))
        with_token = step["hub"] and self.job.hub_token() is not None
        if with_token not in self.workers:
            self.workers[with_token] = self.job.new_runner(with_token)
        return self.workers[with_token].run(placed, report, fresh=fresh)

    def abort(self) -> None:
        """See :meth:`Runner.abort`."""
        for each in self.workers.values():
            each.abort()

    def close(self) -> None:
        """See :meth:`Runner.close`."""
        for each in self.workers.values():
            each.close()


def _not_there(place: str, data: bool) -> JobInput:
    raise StepError(f"the job has no input for {place}")
