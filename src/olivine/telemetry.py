"""Nothing is sent anywhere: what keeps libraries from reporting who uses them, and how.

ONNX Runtime (seen with 1.32 on Linux) reports the process as soon as it is imported, and only the environment keeps it
from that; ``datasets`` counts loads at its maker's.
"""

from __future__ import annotations

import os
import sys

NO_TELEMETRY = {
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
    "ORT_DISABLE_TELEMETRY": "1",
    "HF_UPDATE_DOWNLOAD_COUNTS": "0",
}
"""Variables of the environment that libraries look at when they are imported."""


def switch_off_telemetry() -> None:
    """Switch it off in this process, before a library is imported, and for those that have been. Cheap.

    A program that imported ONNX Runtime itself, before Olivine and without the variable, has let it report its start;
    it reports nothing more after this.
    """
    os.environ.update(NO_TELEMETRY)
    for name in ("onnxruntime", "onnxruntime_genai"):
        if hasattr(module := sys.modules.get(name), "disable_telemetry_events"):
            module.disable_telemetry_events()  # type: ignore[union-attr]
    if "datasets.config" in sys.modules:
        sys.modules["datasets.config"].HF_UPDATE_DOWNLOAD_COUNTS = False  # type: ignore[attr-defined]
