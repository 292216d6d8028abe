"""The axes of a picture: of numbers or of names, in one look."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from matplotlib.ticker import FixedLocator, NullLocator

from mantik.integrations.sklearn.pictures.style import BLUE, BODY, GREY, INK, LINE, SMALL
from mantik.integrations.sklearn.pictures.ticks import Names, Numbers, Powers, even, powers

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from matplotlib.axis import Axis

__all__ = ["categories", "draw_line", "draw_rule", "dress", "numbers", "padded", "write_in"]

_MOST = 1e300
"""Beyond, the difference of two numbers may be none."""

_NEAR = 1e-9
"""Numbers that differ by less, as a share of their size, are one place on an axis."""


def padded(*values: Any, share: float = 0.05, zero: bool = False) -> tuple[float, float]:  # noqa: ANN401  # arrays
    """Return limits of an axis that has room around the values, even if all of them are the same, or there is none.

    Args:
        *values: Arrays of any shape.
        share: How much room, of their range.
        zero: Whether zero is among them, without room beyond it.
    """
    joint = np.concatenate([np.ravel(np.asarray(each, dtype=float)) for each in (*values, [])])
    joint = np.clip(joint[np.isfinite(joint)], -_MOST, _MOST)
    if zero or not joint.size:
        joint = np.append(joint, 0.0)
    low, high = float(joint.min()), float(joint.max())
    room = (high - low) * share
    if high - low <= _NEAR * max(abs(low), abs(high)):
        room = abs(low) * 0.1 or 1.0
        return (0.0, room) if zero else (low - room, high + room)
    return low - room * (not zero or low < 0), high + room * (not zero or high > 0)


def numbers(axis: Axis, limits: tuple[float, float], *, log: bool = False, whole: bool = False, most: int = 7) -> None:
    """Make an axis one of numbers.

    Args:
        axis: The x or y axis.
        limits: Where it begins and ends.
        log: Whether its scale is logarithmic. The limits are greater than zero then.
        whole: Whether there is nothing between whole numbers.
        most: Intervals between ticks.
    """
    name = _name_of(axis)
    axis.axes.set(**{f"{name}scale": "log" if log else "linear", f"{name}lim": limits})
    axis.set_major_locator(FixedLocator(powers(*limits) if log else even(*limits, most=most, whole=whole)))
    axis.set_major_formatter(Powers() if log else Numbers())


def categories(axis: Axis, names: Sequence[str], *, size: float = SMALL, rotation: float = 0) -> None:
    """Make an axis one of names, at 0, 1, and so on; on the y axis from top to bottom.

    Args:
        axis: The x or y axis.
        names: The names.
        size: Of their text, in points.
        rotation: Of their text, in degrees.
    """
    name = _name_of(axis)
    limits = (-0.5, max(len(names), 1) - 0.5)
    axis.axes.set(**{f"{name}scale": "linear", f"{name}lim": limits if name == "x" else limits[::-1]})
    axis.set_major_locator(FixedLocator(list(range(len(names)))))
    axis.set_major_formatter(Names(names))
    axis.set_tick_params(labelsize=size, labelrotation=rotation)
    if name == "x" and 0 < rotation < 90:  # noqa: PLR2004  # slanted
        for tick in axis.get_major_ticks(len(names)):
            # Turned about its middle, a text would begin left of its tick and end right of it.
            tick.label1.set(ha="right", rotation_mode="anchor")


def dress(
    axes: Axes,
    x_label: str | None,
    y_label: str | None,
    *,
    title: str = "",
    grid: Literal["x", "y", "both", "none"] = "both",
) -> None:
    """Give axes their labels and looks, once they are axes of numbers or names.

    Args:
        axes: The axes.
        x_label: What is along the x axis, with its unit; None: the axes below say it, and have the ticks' labels.
        y_label: What is along the y axis; None: the axes beside say it.
        title: What is shown here.
        grid: Which lines there are behind the data.
    """
    axes.set_facecolor("white")
    for side, spine in axes.spines.items():
        spine.set_visible(side in {"left", "bottom"})
        spine.set(color=GREY, linewidth=0.8)
    axes.grid(visible=False, which="both")
    axes.set_axisbelow(True)
    if grid != "none":
        axes.grid(visible=True, axis=grid, color=LINE, linewidth=0.7, linestyle="-", alpha=1)
    looks: dict[str, Any] = {"direction": "out", "length": 3, "width": 0.8, "pad": 3, "color": GREY, "labelcolor": INK}
    axes.xaxis.set_tick_params(**looks, bottom=True, top=False, labelbottom=x_label is not None, labeltop=False)
    axes.yaxis.set_tick_params(**looks, left=True, right=False, labelleft=y_label is not None, labelright=False)
    for axis in (axes.xaxis, axes.yaxis):
        if not isinstance(axis.get_major_formatter(), Names):
            axis.set_tick_params(labelsize=SMALL, labelrotation=0)
        axis.set_minor_locator(NullLocator())
    axes.set_xlabel(x_label or "", fontsize=BODY, color=INK, labelpad=4, loc="center")
    axes.set_ylabel(y_label or "", fontsize=BODY, color=INK, labelpad=4, loc="center")
    axes.set_title(title, fontsize=BODY, color=INK, loc="left", pad=5, y=1.0)


def draw_line(axes: Axes, x: Any, y: Any, **looks: Any) -> Any:  # noqa: ANN401  # arrays, and matplotlib's properties
    """Draw a line, blue and solid unless told otherwise, and return it."""
    drawn = {"color": BLUE, "linewidth": 1.6, "linestyle": "-", "marker": "", "markersize": 4.5, **looks}
    (made,) = axes.plot(x, y, **{"markerfacecolor": drawn["color"], "markeredgewidth": 0, **drawn})
    return made


def draw_rule(axes: Axes, *, x: float | None = None, y: float = 0.0, **looks: Any) -> Any:  # noqa: ANN401
    """Draw a line across the axes, at an x or a y, black and dashed unless told otherwise, and return it."""
    drawn = {"color": INK, "linewidth": 1.2, "linestyle": (0, (3, 2)), "marker": "", "zorder": 3, **looks}
    return axes.axhline(y, **drawn) if x is None else axes.axvline(x, **drawn)


def write_in(axes: Axes, x: float, y: float, text: str, **looks: Any) -> Any:  # noqa: ANN401
    """Write a text at a place of the data, and return it."""
    return axes.text(x, y, text, **{"fontsize": SMALL, "color": INK, "ha": "center", "va": "center", **looks})


def _name_of(axis: Axis) -> str:
    return "x" if axis is axis.axes.xaxis else "y"
