"""A control plane that has too much to do: it is asked again, patiently, and the user is told."""

from __future__ import annotations

import pytest
from standin.cloud import Cloud

from olivine.config.schema import AzureMLClient
from olivine.errors import UnavailableError
from olivine.storage.workspace import Workspace

LOOKING = "looking for the compute cpu-cluster"


def connected(cloud: Cloud, told: list[str], **keys: int) -> Workspace:
    workspace = Workspace.connect(AzureMLClient(**cloud.client("one", **keys)))
    workspace.storm.told = told.append
    return workspace


def look(workspace: Workspace) -> None:
    with workspace.calling(LOOKING):
        workspace.ml.compute.get("cpu-cluster")


def test_a_storm_is_waited_out_as_the_service_says_and_told_in_a_line(signed_in: Cloud) -> None:
    told: list[str] = []
    workspace = connected(signed_in, told)
    look(workspace)
    assert told == []
    fault = signed_in.faults.arm("status", "arm GET .*/computes/", times=5, status=429, retry_after="1")
    look(workspace)
    assert fault.fired == 5
    assert told == [
        f"{LOOKING}: Azure answers 429, and wants to be asked again after 1 s; waiting, and asking again",
        "Azure answers again",
    ]


def test_a_user_may_want_less_patience(signed_in: Cloud) -> None:
    workspace = connected(signed_in, [], max_operation_retries=2, operation_retry_interval=1)
    fault = signed_in.faults.arm("status", "arm GET .*/computes/", times=20, status=503)
    with pytest.raises(UnavailableError, match="Azure answers 503"):
        look(workspace)
    assert fault.fired == 3
