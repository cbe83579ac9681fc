"""A cloud on loopback, started once a session for all tests in this folder; see ``standin``."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from standin.azurite import find
from standin.cloud import Cloud


@pytest.fixture(scope="session")
def running_cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    """The cloud, for fixtures that outlive a test. Tests take ``cloud``."""
    pytest.importorskip("azure.ai.ml", reason="needs the extra: pip install 'olivine[azure]'")
    command, why = find()
    if command is None:
        pytest.skip(why)
    cloud = Cloud(tmp_path_factory.mktemp("cloud"), command)
    yield cloud
    cloud.close()


@pytest.fixture
def cloud(running_cloud: Cloud) -> Iterator[Cloud]:
    """The cloud; afterwards nothing unknown was asked of it, nothing tried to get out, and its faults are gone."""
    running_cloud.settle()
    yield running_cloud
    gaps = {name: found for name, found in running_cloud.gaps().items() if found}
    running_cloud.settle()
    assert not gaps


@pytest.fixture
def signed_in(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> Cloud:
    """The cloud, with this process as a service principal whose traffic takes the audited way out."""
    for name, value in cloud.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("AZUREML_CURRENT_CLOUD", raising=False)
    return cloud
