"""A search over many params: each has an axis of its own, and a line over all of them is a candidate."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.collections import LineCollection

from mantik.integrations.sklearn.pictures.axes import categories, draw_line, draw_rule, dress, numbers, write_in
from mantik.integrations.sklearn.pictures.sheet import Sheet
from mantik.integrations.sklearn.pictures.style import GREY, ORANGE, REVERSED, TINY
from mantik.integrations.sklearn.pictures.wording import joined, setting, short

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from mantik.integrations.sklearn.pictures.trials import Param, Trials

__all__ = ["parallel_coordinates"]

_MOST_AXES = 7
_MOST_LINES = 300
_MOST_NAMES = 9
"""Values of a param that are written each; of more numbers some are, of more names only some have one."""

_NUMBERS = 4
"""Texts along an axis of many numbers."""

_SPREAD = 0.07
"""How far lines through the same value lie apart, the best uppermost; otherwise they would hide each other."""

_STRIP = 0.06
"""The width of the scale of colours, which is the axis of the scores."""


def parallel_coordinates(trials: Trials, subject: str, note: str) -> Figure:
    """Draw candidates as lines from param to param, which end at their scores.

    Args:
        trials: The candidates.
        subject: What they are of.
        note: What else there is to say of them.
    """
    most = sorted(trials.params, key=lambda param: -_explained(param, trials.scores))[:_MOST_AXES]
    params = [param for param in trials.params if any(param is kept for kept in most)]
    order = np.argsort(trials.scores, kind="stable")[-_MOST_LINES:]
    some = joined(
        f"{len(params)} of {len(trials.params)} params" if len(params) < len(trials.params) else "",
        f"the best {len(order)} drawn" if len(order) < len(trials.scores) else "",
    )
    sheet = Sheet.of("Search", subject, joined(note, some))
    axes = sheet.axes[0]
    low, high = trials.limits
    ends = np.clip((trials.scores - low) / (high - low), 0, 1)
    apart = _SPREAD * (np.argsort(np.argsort(trials.scores, kind="stable")) / max(1, len(trials.scores) - 1) - 0.5)
    heights = np.column_stack(
        [*(_heights(param) + apart * (len(param.values) <= _MOST_NAMES) for param in params), ends]
    )
    places = np.arange(heights.shape[1])
    # The best are drawn last.
    lines = LineCollection(
        [np.column_stack([places, heights[row]]) for row in order],
        array=trials.scores[order],
        cmap=REVERSED,
        linewidths=1.1,
        linestyles="solid",
        alpha=0.8,
    )
    lines.set_clim(low, high)
    axes.add_collection(lines, autolim=False)
    draw_line(axes, places, heights[trials.best], color=ORANGE, linewidth=2.6, zorder=4)
    room = int(4.9 * 72 / len(places) / (TINY * 0.62))
    for place, param in enumerate(params):
        draw_rule(axes, x=place, color=GREY, linewidth=0.9, linestyle="-")
        for height, text in _texts(param):
            _write(axes, place + 0.03, height, short(text, max(room, 4)))
    last = len(params)
    axes.pcolormesh(
        [last, last + _STRIP],
        np.linspace(0, 1, 65),
        np.linspace(low, high, 64)[:, None],
        cmap=REVERSED,
        shading="flat",
        zorder=5,
    )
    for share in np.linspace(0, 1, _NUMBERS):
        _write(axes, last + _STRIP + 0.03, share, trials.text(low + share * (high - low)))
    names = [param.name for param in params]
    crowded = max(map(len, names)) > room * 1.1
    label = trials.score_label if crowded else trials.score_label.replace(" of ", "\nof ")
    categories(axes.xaxis, [*names, label], rotation=25 if crowded else 0)
    numbers(axes.yaxis, (-0.07, 1.07))
    dress(axes, "", None, grid="none")
    axes.yaxis.set_visible(False)
    for spine in axes.spines.values():
        spine.set_visible(False)
    return sheet.figure


def _heights(param: Param) -> np.ndarray:
    """Return where trials are along the axis of a param, from 0 to 1."""
    places = np.log(param.places) if param.is_log else param.places
    shares: np.ndarray = (places - places.min()) / (places.max() - places.min())
    return shares


def _texts(param: Param) -> list[tuple[float, str]]:
    """Return what is written along the axis of a param, and how high."""
    values, heights = param.values, np.unique(_heights(param))
    if param.names is not None or len(values) == len(heights) <= _MOST_NAMES:
        kept = np.unique(np.linspace(0, len(values) - 1, _MOST_NAMES).round().astype(int))
        return [(float(heights[at]), param.text(values[at])) for at in kept]
    low, high = float(values.min()), float(values.max())
    shares = np.linspace(0, 1, _NUMBERS).tolist()
    if param.is_log:
        return [(share, setting(math.exp(math.log(low) + share * math.log(high / low)))) for share in shares]
    return [(share, setting(low + share * (high - low))) for share in shares]


def _write(axes: Axes, place: float, height: float, text: str) -> None:
    ground = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 0.8}
    write_in(axes, place, height, text, fontsize=TINY, ha="left", zorder=6, bbox=ground)


def _explained(param: Param, scores: np.ndarray) -> float:
    """Return which part of the scores' variance lies between groups of a param's values."""
    fifths = np.clip((_heights(param) * 5).astype(int), 0, 4)
    groups = np.unique(param.places, return_inverse=True)[1] if len(param.values) <= len(scores) / 3 else fifths
    sizes = np.bincount(np.ravel(groups))
    means = np.bincount(np.ravel(groups), scores)[sizes > 0] / sizes[sizes > 0]
    return float(np.average((means - scores.mean()) ** 2, weights=sizes[sizes > 0]))
