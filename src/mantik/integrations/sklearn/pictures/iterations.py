"""Curves of what an iterative estimator measured while it was trained, and the variance that components explain."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from mantik.integrations.sklearn.curves import curves_of
from mantik.integrations.sklearn.evaluation import attempted, last_of
from mantik.integrations.sklearn.pictures.axes import draw_line, draw_rule, dress, numbers, padded
from mantik.integrations.sklearn.pictures.sheet import Sheet
from mantik.integrations.sklearn.pictures.style import BLUE, GREY, ORANGE, looks_of
from mantik.integrations.sklearn.pictures.wording import estimator_title, joined, short, short_names

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["explained_variance", "training_curve"]

_MOST_PANELS = 4
_MOST_LINES = 7
_MOST_POINTS = 2000
_MOST_COMPONENTS = 50
_DENSE = 30
"""Points of a line that are not seen one by one any more."""

_LINES = {
    "training_loss": ("loss", "training"),
    "training_score_curve": ("score", "training"),
    "validation_score": ("score", "validation"),
    "oob_score": ("loss", "out of bag"),
}
"""What is drawn in one panel, and what a line in it is called, by the names of metrics."""


def training_curve(estimator: Any) -> Figure | None:  # noqa: ANN401  # whatever has been fitted
    """Draw losses and scores by iteration, those of the same sort together; None where nothing was measured twice."""
    last = last_of(estimator)
    curves = attempted(lambda: curves_of(last)) or {}
    panels: dict[str, dict[str, list[float]]] = {}
    for metric, values in curves.items():
        data, _, name = metric.partition("-")
        panel, line = _LINES.get(metric, (name, data))
        if len(values) > 1:
            panels.setdefault(panel, {})[line] = values
    if not panels:
        return None
    # Before the first iteration, histogram-based boosting measures what a constant is worth.
    start = 0 if "training_score_curve" in curves else 1
    best = _best(last)
    shown = list(panels.items())[:_MOST_PANELS]
    names = dict.fromkeys(line for _, lines in shown for line in lines)
    note = joined(
        short(next(iter(names)), 30) if len(names) == 1 else "",
        f"{_MOST_PANELS} of {len(panels)} metrics" if len(panels) > _MOST_PANELS else "",
    )
    columns = min(2, len(shown))
    rows = math.ceil(len(shown) / columns)
    height = 4.8 if len(shown) == 1 else 1.2 + 2.5 * rows
    sheet = Sheet.of(
        "Training curve",
        estimator_title(estimator),
        joined(note, f"best iteration {best:,}" if best else ""),
        rows=rows,
        columns=columns,
        height=height,
    )
    handles: dict[str, Any] = {}
    for axes, (name, lines) in zip(sheet.axes, shown, strict=False):
        drawn = list(lines.items())[:_MOST_LINES]
        for line, values in drawn:
            order = list(handles).index(line) if line in handles else len(handles)
            steps = np.arange(start, start + len(values))
            kept = np.unique(np.linspace(0, len(values) - 1, _MOST_POINTS).round().astype(int))
            marker = "o" if len(values) <= _DENSE else ""
            handles[line] = draw_line(axes, steps[kept], np.array(values)[kept], marker=marker, **looks_of(order))
        if best:
            draw_rule(axes, x=best, color=GREY)
        longest = max(len(values) for _, values in drawn)
        numbers(axes.xaxis, padded([start, start + longest - 1], share=0.03), whole=True, most=7 // columns + 1)
        numbers(axes.yaxis, padded(*(values for _, values in drawn)), most=6)
        dress(axes, "Iteration", short(name).capitalize() if name in {"loss", "score"} else short(name))
    for axes in sheet.axes[len(shown) :]:
        axes.set_visible(False)
    if len(handles) > 1:
        sheet.legend(list(handles.values()), short_names(handles, 16))
    return sheet.figure


def explained_variance(estimator: Any) -> Figure | None:  # noqa: ANN401  # whatever has been fitted
    """Draw `explained_variance_ratio_` of components, and their sum; None without any."""
    ratios = attempted(lambda: np.asarray(last_of(estimator).explained_variance_ratio_, dtype=float))
    if ratios is None or ratios.ndim != 1 or not ratios.size or not np.isfinite(ratios).all():
        return None
    shown = ratios[:_MOST_COMPONENTS]
    note = f"{ratios.sum():.1%} of the variance in {len(ratios):,} component{'s' * (len(ratios) != 1)}"
    some = f"the first {len(shown)} drawn" if len(shown) < len(ratios) else ""
    sheet = Sheet.of("Explained variance", estimator_title(estimator), joined(note, some))
    axes = sheet.axes[0]
    places = np.arange(1, len(shown) + 1)
    bars = axes.bar(places, shown, 0.75, color=BLUE, edgecolor="white", linewidth=0)
    marker = "o" if len(shown) <= _DENSE else ""
    together = draw_line(axes, places, np.cumsum(shown), color=ORANGE, marker=marker)
    numbers(axes.xaxis, (0.4, len(shown) + 0.6), whole=True)
    numbers(axes.yaxis, (0.0, max(1.0, float(shown.sum())) * 1.03))
    dress(axes, "Component", "Share of the variance", grid="y")
    sheet.legend([bars, together], ["each", "together"])
    return sheet.figure


def _best(estimator: Any) -> int | None:  # noqa: ANN401
    """Return the number of the iteration that was best, from 1 on, if the training has looked for it."""
    best = attempted(lambda: int(estimator.best_iteration_))  # LightGBM: 0 where it has not
    if best is None and type(estimator).__module__.startswith("xgboost."):
        best = attempted(lambda: int(estimator.best_iteration) + 1)
    return best or None
