"""What a worker is asked for a planned Step."""

from __future__ import annotations

from collections.abc import Mapping

from olivine.config.sizes import memory_limit
from olivine.hardware.machine import this_machine
from olivine.hardware.memory import memory_limit_bytes
from olivine.hardware.rates import rates_file
from olivine.planning.plan import Plan, PlannedStep, Source
from olivine.planning.resources import remedies
from olivine.store import digest_json
from olivine.systems.base import StepRequest


def step_request(
    planned: PlannedStep,
    plan: Plan,
    inputs: Mapping[str, str],
    *,
    output: str,
    checkpoint: str,
    shared: str,
    log: str,
) -> StepRequest:
    """Return the request for a Step.

    Args:
        inputs: where its inputs are, by name.
        output, checkpoint, shared, log: see :class:`olivine.systems.base.StepRequest`.
    """
    return StepRequest(
        name=planned.name,
        kind=planned.step.kind,
        type=planned.step.type,
        params=dict(planned.step.params),
        inputs=dict(inputs),
        input_format=planned.consumes,
        data={key: config.model_dump(mode="json") for key, config in planned.data.items()},
        output=output,
        checkpoint=checkpoint,
        log=log,
        host={"device": planned.host.device, "execution_provider": planned.host.execution_provider},
        target={"device": planned.target.device, "execution_provider": planned.target.execution_provider},
        trust_remote_code=plan.trust_remote_code,
        log_level=10 * (plan.workflow.engine.log_severity_level + 1),
        shared=shared,
        identities=dict(planned.step.inputs) | {key: digest_json(value) for key, value in planned.step.data.items()},
        max_memory=memory_limit(plan.workflow.engine.max_memory),
        remedy=_remedy(planned, memory_limit(plan.workflow.engine.max_memory)),
        rates=str(rates_file(plan.cache_dir, this_machine())),
        hang_timeout=plan.workflow.engine.hang_timeout,
        timeout=planned.timeout or plan.workflow.engine.step_timeout,
        digest=planned.digest,
        requires=list(planned.requires),
        spreads=planned.spreads,
        hub=planned.reads_hub,
    )


def _remedy(planned: PlannedStep, limit: int | None) -> str:
    """Return what helps if memory runs out: what takes less than the estimate, which was too low then, and the limits.

    Args:
        limit: what ``engine.max_memory`` allows.
    """
    if planned.estimate is None or not planned.estimate.lighter:
        return ""
    limits = [limit, None if planned.system else memory_limit_bytes()]
    available = min([planned.estimate.needed, *(each for each in limits if each is not None)])
    return remedies(planned.name, planned.step.kind, planned.estimate, available)


def reference(source: Source) -> str:
    """Return where an input is, for a runner that gets it there itself: see :attr:`olivine.systems.base.Runner`."""
    if source.address is not None:
        return source.address
    below = f"/{source.subfolder}" if source.subfolder else ""
    if source.step is not None:
        return f"step:{source.step}{below}"
    if source.hub is not None:
        return f"hub:{source.hub}@{source.revision or 'main'}{below}"
    return f"{source.path}{below}"
