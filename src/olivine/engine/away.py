"""Results that stay where a cloud made them, until something on this machine needs their files.

A fine-tune in a job leaves a merged checkpoint that only the next job reads. It is in the Store all the same, as a
manifest that says where its files are, so that it is found, listed and explained like any other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from olivine.engine.words import size
from olivine.errors import StoreError

if TYPE_CHECKING:
    from olivine.engine.steps import Steps
    from olivine.planning.plan import PlannedStep
    from olivine.store import Artifact


def may_stay(run: Steps, planned: PlannedStep) -> bool:
    """Return whether nothing here needs the files that a Step elsewhere makes: they are not put out, and no Step reads
    them that runs here."""
    if planned.step.kind != "pass" or planned.digest == run.plan.final.step:
        return False
    if run.shared is not None and run.shared.writable:
        return False
    return not any(
        source.step == planned.digest
        for step in run.plan.steps
        if not run.runner(step.system).elsewhere and run.store.find(step.digest) is None
        for source in step.sources.values()
    )


def settle(run: Steps) -> None:
    """Forget results that this run needs and that are no longer where they were left, so that it makes them again.

    Raises:
        UnavailableError: nobody can be asked whether they are.
    """
    wanted = {run.plan.final.step}
    for planned in reversed(run.plan.steps):
        artifact = run.store.find(planned.digest)
        runner = run.runner(planned.system)
        if artifact is not None and not (artifact.away and planned.digest in wanted and runner.elsewhere):
            continue
        if artifact is not None:
            if runner.holds(artifact.away):
                continue
            run.emit("note", planned.name, text="its result is no longer where its job left it, and is made again")
            with run.store.lock(planned.digest):
                run.store.forget_away(planned.digest)
        wanted |= {source.step for source in planned.sources.values()}


def bring(run: Steps, artifact: Artifact) -> Artifact:
    """Fetch the files of a result, and return it as it is in the Store then.

    Raises:
        OlivineError: they do not come.
    """
    from olivine.store.artifact import Damaged

    makers = [step for step in run.plan.steps if step.system]
    maker = next((step for step in makers if step.digest == artifact.digest), makers[0])
    name = str(artifact.manifest.step.get("name", ""))

    def report(kind: str, data: dict[str, Any]) -> None:
        run.emit(kind, name, **data)

    with run.store.lock(artifact.digest, run.told_of_waiting(name)):
        found = run.store.find(artifact.digest)
        if found is not None and not found.away:
            return found
        run.emit("note", name, text=f"fetching the result of {name}, {size(artifact.size)}")
        files = [{"path": each.path, "size": each.size, "sha256": each.sha256} for each in artifact.manifest.files]
        with run.store.stage(artifact.digest) as staging:
            run.runner(maker.system).fetch(artifact.away, files, staging.path, report)
            try:
                return staging.adopt(artifact.manifest)
            except Damaged as damage:
                raise StoreError(f"the result of {name} did not come as its job left it", why=str(damage)) from None
