"""How pictures look: colours that those who see few can tell apart, and sizes that are read on MLflow's page."""

from __future__ import annotations

from typing import Any

from matplotlib import colormaps

__all__ = [
    "BLUE",
    "BODY",
    "COLORS",
    "DASHES",
    "DPI",
    "FAINT",
    "GREY",
    "HEIGHT",
    "INK",
    "LARGE",
    "LINE",
    "ORANGE",
    "REVERSED",
    "SCALE",
    "SMALL",
    "TINY",
    "WIDTH",
    "looks_of",
]

BLUE, ORANGE = "#0072B2", "#D55E00"
INK, FAINT, GREY, LINE = "#1a1a1a", "#595959", "#8c8c8c", "#dedede"

COLORS = (BLUE, ORANGE, "#009E73", "#CC79A7", "#E69F00", "#56B4E9", INK)
"""Okabe and Ito's palette without its yellow, which is faint on white."""

DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1, 1)), (0, (5, 1.5, 1, 1.5)))

SCALE = colormaps["cividis"]
"""Colours of numbers: from dark blue to yellow."""

REVERSED = colormaps["cividis_r"]
"""The same from yellow to dark blue, where what is great shall stand out from the white around it."""

DPI = 150
WIDTH, HEIGHT = 6.4, 4.8
"""Inches. MLflow shows artifacts about 800 pixels wide, where text of the least of these sizes is 12 pixels high."""

LARGE, BODY, SMALL, TINY = 12.0, 9.0, 8.0, 7.0
"""Points."""


def looks_of(at: int) -> dict[str, Any]:
    """Return colour and dashes of one of many lines: no two are alike among the first 28."""
    return {"color": COLORS[at % len(COLORS)], "linestyle": DASHES[at // len(COLORS) % len(DASHES)]}
