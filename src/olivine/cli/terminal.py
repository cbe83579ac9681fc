"""Rich's console, which shows names as they are spelt and does not let the terminal act on them."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.segment import Segment

from olivine.redaction import CONTROLS, visible

if TYPE_CHECKING:
    from rich.console import ConsoleOptions, RenderableType


class SafeConsole(Console):
    """A console whose texts hold nothing that a terminal acts on; what Rich itself draws stays."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """See Rich."""
        for segment in super().render(renderable, options):
            if segment.control is None and CONTROLS.search(segment.text):
                yield Segment(visible(segment.text), segment.style)
            else:
                yield segment


def console(**how: Any) -> Console:
    """Return a console on standard output."""
    return SafeConsole(file=getattr(sys.stdout, "for_drawing", None), **how)
