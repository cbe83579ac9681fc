"""Size on disk: the bytes of the files that have to ship."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from olivine.evaluate.base import Metric, MetricContext, Workload
from olivine.models.checkpoint import model_files
from olivine.passes.base import Format, Params
from olivine.passes.estimate import DataSize


class SizeParams(Params):
    """Size has no parameters."""


class Size(Metric[SizeParams]):
    """Bytes on disk of everything that shapes the model: weights, graph, configuration, tokenizer; not its papers."""

    type: ClassVar[str] = "size"
    summary: ClassVar[str] = "bytes on disk of the model's files"
    measures: ClassVar[frozenset[Format]] = frozenset(Format) - {Format.METRICS}
    params_type = SizeParams
    units = {"size_bytes": "bytes", "files": ""}  # noqa: RUF012 (declared ClassVar by Metric)
    higher_is_better = {"size_bytes": False, "files": False}  # noqa: RUF012

    cost: ClassVar[int] = 0

    @classmethod
    def workload(cls, params: SizeParams, sizes: Mapping[str, DataSize]) -> Workload | None:
        """See :meth:`Metric.workload`."""
        return Workload(loads=False)

    def measure(self, params: SizeParams, context: MetricContext) -> dict[str, Any]:
        """See :meth:`Metric.measure`."""
        files = model_files(context.model)
        return {"size_bytes": sum(file.stat().st_size for file in files), "files": len(files)}
