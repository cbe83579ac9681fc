"""Older dialects of the configuration, and the chain that translates them into the canonical one.

Each module translates one break. :func:`detect` goes by evidence in the file; behind :func:`translate` nobody has heard
of dialects.
"""

from __future__ import annotations

from olivine.config.dialects.chain import translate
from olivine.config.dialects.detection import Detected, detect
from olivine.config.dialects.releases import CANONICAL, KNOWN, OLIVE, age, named
from olivine.config.dialects.translation import Fault, Translated

__all__ = ["CANONICAL", "KNOWN", "OLIVE", "Detected", "Fault", "Translated", "age", "detect", "named", "translate"]
