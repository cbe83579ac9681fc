"""Azure Machine Learning as a system: Steps run as command jobs of a workspace, in the ordinary worker.

A job is a batch of Steps. Its inputs are references to what lies in the cloud already; its name comes of the Steps'
digests and is written down before the job is submitted, so that a client that was killed finds it again; its results
come home Step by Step and are checked by their digests.

Nothing of Azure is imported before a Step is to run here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from olivine.systems.base import Runner
    from olivine.systems.registry import Site


def runner(site: Site) -> Runner:
    """Return a runner for an AzureML system."""
    from olivine.systems.azureml.jobs import AzureMLRunner

    return AzureMLRunner(site)
