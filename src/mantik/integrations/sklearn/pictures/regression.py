"""What a regressor predicts, beside what is true: the values themselves, and what lies between them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.colors import LogNorm

from mantik.integrations.sklearn.pictures.axes import draw_line, draw_rule, dress, numbers, padded
from mantik.integrations.sklearn.pictures.outcomes import output_names, subject_of, weights_of
from mantik.integrations.sklearn.pictures.sheet import Sheet
from mantik.integrations.sklearn.pictures.style import BLUE, INK, SCALE
from mantik.integrations.sklearn.pictures.wording import joined, number, short

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.collections import PolyCollection
    from matplotlib.figure import Figure

    from mantik.integrations.sklearn.evaluation import Evaluation

__all__ = ["predicted_vs_true", "residuals"]

_MOST_POINTS = 5000
"""Rows that are drawn as points; of more, colours say how many there are at a place."""

_CELLS = 50
_BINS = 30
_PANELS = 4
_LARGEST = 1e150
"""The square of a greater number is none."""


@dataclass(frozen=True, slots=True)
class _Output:
    """One target: those rows where it is known and something is predicted.

    Attributes:
        name: What it is called; empty where that is not known.
        true: Of shape (rows,).
        predicted: Of shape (rows,).
        weights: Of shape (rows,); ones where all rows count the same.
    """

    name: str
    true: np.ndarray
    predicted: np.ndarray
    weights: np.ndarray

    @property
    def residuals(self) -> np.ndarray:
        """What is true, less what is predicted."""
        left: np.ndarray = self.true - self.predicted
        return left

    @property
    def spread(self) -> str:
        """How far predictions are off, in words."""
        error = math.sqrt(np.average(self.residuals**2, weights=self.weights))
        return f"RMSE {number(error)}"

    @property
    def explained(self) -> str:
        """How much of what is true they explain, in words; empty where it is always the same."""
        mean = np.average(self.true, weights=self.weights)
        total = float(np.average((self.true - mean) ** 2, weights=self.weights))
        if len(self.true) < 2 or not total:  # noqa: PLR2004  # one alone does not vary
            return ""
        return f"R\N{SUPERSCRIPT TWO} {number(1 - float(np.average(self.residuals**2, weights=self.weights)) / total)}"


def predicted_vs_true(evaluation: Evaluation) -> Figure | None:
    """Draw predictions against what is true, each target in a panel; None without numbers to compare."""
    outputs, note = _outputs_of(evaluation)
    if not outputs:
        return None
    single = len(outputs) == 1
    sheet, panels = _sheet("Predicted against true", evaluation, outputs[0].explained if single else note, outputs)
    clouds = []
    for axes, output in zip(panels, outputs, strict=True):
        limits = padded(output.true, output.predicted)
        clouds.append(_cloud(axes, output.true, output.predicted, limits, limits))
        diagonal = draw_line(axes, limits, limits, color=INK, linewidth=1.2, linestyle=(0, (3, 2)), zorder=3)
        numbers(axes.xaxis, limits, most=6)
        numbers(axes.yaxis, limits, most=6)
        what = short(output.name, 24) if single and output.name else ""
        dress(axes, f"True {what}".strip(), f"Predicted {what}".strip(), title=_title(output, output.explained, single))
    sheet.legend([diagonal], ["predicted = true"], within=panels[0], loc="upper left")
    _explain(sheet, clouds)
    return sheet.figure


def residuals(evaluation: Evaluation) -> Figure | None:
    """Draw by how much predictions are off, against them and as a histogram; None without numbers to compare."""
    outputs, note = _outputs_of(evaluation)
    if not outputs:
        return None
    single = len(outputs) == 1
    sheet, panels = _sheet("Residuals", evaluation, outputs[0].spread if single else note, outputs, beside=single)
    clouds = []
    for axes, output in zip(panels, outputs, strict=True):
        across, up = padded(output.predicted), padded(output.residuals)
        clouds.append(_cloud(axes, output.predicted, output.residuals, across, up))
        draw_rule(axes, y=0.0)
        numbers(axes.xaxis, across, most=6)
        numbers(axes.yaxis, up, most=6)
        what = short(output.name, 24) if single and output.name else ""
        y_label = "Residual: true \N{MINUS SIGN} predicted"
        dress(axes, f"Predicted {what}".strip(), y_label, title=_title(output, output.spread, single))
    if single:
        beside = sheet.axes[1]
        limits = padded(outputs[0].residuals)
        weights = outputs[0].weights / outputs[0].weights.sum()
        counts, edges = np.histogram(outputs[0].residuals, _BINS, limits, weights=weights)
        beside.barh(edges[:-1], counts, np.diff(edges), align="edge", color=BLUE, edgecolor="white", linewidth=0.4)
        draw_rule(beside, y=0.0)
        numbers(beside.xaxis, padded(counts, zero=True), most=3)
        numbers(beside.yaxis, limits, most=6)
        dress(beside, "Share of rows" if evaluation.weights is None else "Share of weight", None)
    _explain(sheet, clouds)
    return sheet.figure


def _outputs_of(evaluation: Evaluation) -> tuple[list[_Output], str]:
    """Return the targets that are drawn, and a note on those left out."""
    targets, predictions = evaluation.targets, evaluation.predictions
    if targets is None or predictions is None or targets.shape != predictions.shape:
        return [], ""
    if targets.dtype.kind not in "biuf" or predictions.dtype.kind not in "biuf":
        return [], ""
    weights = weights_of(evaluation)
    if targets.ndim == 1:
        name = getattr(evaluation.data.targets, "name", None)
        names = [name if isinstance(name, str) else ""]
        targets, predictions = targets[:, None], predictions[:, None]
    else:
        names = output_names(evaluation, targets.shape[1], "output")
    found = []
    for name, true, predicted in zip(names, targets.T, predictions.T, strict=True):
        known = (np.abs(true.astype(float)) < _LARGEST) & (np.abs(predicted.astype(float)) < _LARGEST)
        counted = np.ones(len(true)) if weights is None else weights
        if counted[known].sum() > 0:
            found.append(_Output(name, true[known].astype(float), predicted[known].astype(float), counted[known]))
    left = f"{_PANELS} of {len(found):,} outputs" if len(found) > _PANELS else ""
    return found[:_PANELS], left


def _sheet(
    title: str, evaluation: Evaluation, note: str, outputs: list[_Output], *, beside: bool = False
) -> tuple[Sheet, list[Axes]]:
    """Return a sheet, and a panel for each output."""
    subject, count = subject_of(evaluation), len(outputs)
    if beside:
        sheet = Sheet.of(title, subject, note, columns=2, width_ratios=(4, 1))
        return sheet, sheet.axes[:1]
    columns = min(2, count)
    rows = math.ceil(count / columns)
    sheet = Sheet.of(title, subject, note, rows=rows, columns=columns, height=4.8 if count == 1 else 0.8 + 2.7 * rows)
    for axes in sheet.axes[count:]:
        axes.set_visible(False)
    return sheet, sheet.axes[:count]


def _title(output: _Output, summary: str, single: bool) -> str:  # noqa: FBT001  # whether it is the only one
    return "" if single else joined(short(output.name, 20), summary)


def _cloud(
    axes: Axes, x: np.ndarray, y: np.ndarray, across: tuple[float, float], up: tuple[float, float]
) -> PolyCollection | None:
    """Draw rows: as points, or, if they are many, as hexagons, which are returned."""
    if len(x) <= _MOST_POINTS:
        alpha = 0.75 if len(x) <= 200 else 0.45 if len(x) <= 1500 else 0.25  # noqa: PLR2004  # less the more they are
        draw_line(axes, x, y, linestyle="", marker="o", markersize=4.5, alpha=alpha)
        return None
    return axes.hexbin(
        x, y, gridsize=_CELLS, extent=(*across, *up), mincnt=1, cmap=SCALE, edgecolors="face", linewidths=0.2, alpha=1
    )


def _explain(sheet: Sheet, clouds: list[PolyCollection | None]) -> None:
    """Say what the colours of hexagons are, which are the same in all panels."""
    drawn = [cloud for cloud in clouds if cloud is not None]
    if not drawn:
        return
    most = max(2.0, *(float(np.ma.max(np.ma.asarray(cloud.get_array()))) for cloud in drawn))
    for cloud in drawn:
        cloud.set_norm(LogNorm(1, most))
    sheet.color_scale(drawn[0], "Rows at a place", (1, most), log=True)
