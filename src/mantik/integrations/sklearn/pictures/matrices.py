"""Confusion matrices: of two classes, of many, and of several labels or outputs."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from mantik.integrations.sklearn.pictures.axes import categories, dress, write_in
from mantik.integrations.sklearn.pictures.outcomes import outcome_of, output_names, subject_of, weights_of
from mantik.integrations.sklearn.pictures.sheet import Sheet
from mantik.integrations.sklearn.pictures.style import BODY, INK, SCALE, SMALL, TINY
from mantik.integrations.sklearn.pictures.wording import joined, number, short, short_names

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from mantik.integrations.sklearn.evaluation import Evaluation
    from mantik.integrations.sklearn.pictures.outcomes import Outcome

__all__ = ["confusion_matrices", "confusion_matrix"]

_TITLE = "Confusion matrix"
_HEIGHT = 5.6
_WITH_SHARES = 10
"""Classes whose cells have room for two lines."""

_MOST = 30
"""Classes that are drawn all."""

_KEPT = 20
"""Classes that are drawn of more."""

_PANELS, _SMALL = 6, 6
"""Small matrices, and classes in one of them."""

_LARGE_TEXT = 11.0
_BRIGHT = 0.55
"""The share from which on a cell is so bright that its text is dark."""


def confusion_matrix(evaluation: Evaluation) -> Figure | None:
    """Draw which class was taken for which; None without any row that has both."""
    outcome = outcome_of(evaluation.targets, evaluation.predictions, evaluation.labels, weights_of(evaluation))
    if outcome is None:
        return None
    chosen = _most_confused(outcome, _MOST, _KEPT)
    names, count = short_names([outcome.names[at] for at in chosen], 18), len(outcome.names)
    some = "" if len(chosen) == count else f"the {len(chosen)} most confused of {count:,} classes"
    sheet = Sheet.of(
        _TITLE, subject_of(evaluation), joined(some, "" if outcome.weights is None else "weighted"), height=_HEIGHT
    )
    drawn = _draw(sheet.axes[0], *_counted(outcome, chosen), names)
    dress(sheet.axes[0], "Predicted class", "True class", grid="none")
    sheet.color_scale(drawn, "Share of the true class", (0, 1))
    return sheet.figure


def confusion_matrices(evaluation: Evaluation) -> Figure | None:
    """Draw, of several labels or outputs, a small matrix each: of those with the most errors, if they are many."""
    targets, predictions, weights = evaluation.targets, evaluation.predictions, weights_of(evaluation)
    if targets is None or predictions is None or targets.shape != predictions.shape:
        return None
    what, known = ("label", [0, 1]) if evaluation.is_multilabel else ("output", [])
    names = output_names(evaluation, targets.shape[1], what)
    found = [
        (name, outcome_of(t, p, known, weights)) for name, t, p in zip(names, targets.T, predictions.T, strict=True)
    ]
    outcomes = [(name, outcome) for name, outcome in found if outcome is not None]
    if not outcomes:
        return None
    errors = [int(np.sum(outcome.true != outcome.predicted)) for _, outcome in outcomes]
    kept = np.sort(np.argsort(errors, kind="stable")[::-1][:_PANELS])
    some = "" if len(kept) == len(names) else f"the {len(kept)} of {len(names):,} {what}s with the most errors"
    columns = min(3, len(kept))
    rows = math.ceil(len(kept) / columns)
    sheet = Sheet.of(_TITLE, subject_of(evaluation), some, rows=rows, columns=columns, height=1.1 + 2.1 * rows)
    for axes, (name, outcome) in zip(sheet.axes, (outcomes[at] for at in kept), strict=False):
        chosen = _most_confused(outcome, _SMALL, _SMALL)
        classes = ["no", "yes"] if outcome.names == [0, 1] and evaluation.is_multilabel else outcome.names
        title = joined(short(name, 20), "" if len(chosen) == len(outcome.names) else f"{len(chosen)} classes")
        _draw(axes, *_counted(outcome, chosen), short_names([classes[at] for at in chosen], 8), columns)
        dress(axes, "Predicted", "True", title=title, grid="none")
    for axes in sheet.axes[len(kept) :]:
        axes.set_visible(False)
    return sheet.figure


def _most_confused(outcome: Outcome, most: int, kept: int) -> np.ndarray:
    """Return which classes are drawn, in their order: all, or, if they are more than `most`, `kept` of them."""
    true, predicted, count = outcome.true, outcome.predicted, len(outcome.names)
    if count <= most:
        return np.arange(count)
    wrong = true != predicted
    weights = None if outcome.weights is None else outcome.weights[wrong]
    errors = np.bincount(true[wrong], weights, count) + np.bincount(predicted[wrong], weights, count)
    # Of those with as many errors, the greatest.
    order = np.lexsort([-np.bincount(true, outcome.weights, count), -errors])
    return np.sort(order[:kept])


def _counted(outcome: Outcome, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the matrix of some classes, and how much there is of each true class, in all columns."""
    count = len(chosen)
    place = np.full(len(outcome.names), -1)
    place[chosen] = np.arange(count)
    rows, columns = place[outcome.true], place[outcome.predicted]
    weights = np.ones(len(rows)) if outcome.weights is None else outcome.weights
    within = (rows >= 0) & (columns >= 0)
    matrix = np.bincount(rows[within] * count + columns[within], weights[within], count * count)
    return matrix.reshape(count, count), np.bincount(rows[rows >= 0], weights[rows >= 0], count)


def _draw(axes: Axes, counts: np.ndarray, totals: np.ndarray, names: list[str], columns: int = 1) -> Any:  # noqa: ANN401
    """Draw a matrix into axes, and return what has the colours."""
    count = len(names)
    shares = counts / np.where(totals, totals, 1)[:, None]
    edges = np.arange(count + 1) - 0.5
    drawn = axes.pcolormesh(
        edges, edges, shares, cmap=SCALE, vmin=0, vmax=1, shading="flat", edgecolors="white", linewidth=0.6, alpha=1
    )
    # Points that a class is wide, without what is beside the matrices.
    room = (4.6 if columns == 1 else 4.4 / columns) * 72 / count
    size = SMALL if count <= _WITH_SHARES else TINY
    slanted = max(map(len, names)) * size * 0.6 > room
    categories(axes.xaxis, names, size=size, rotation=(45 if count <= _WITH_SHARES else 90) if slanted else 0)
    categories(axes.yaxis, names, size=size)
    two_lines = count <= _WITH_SHARES
    text_size = _text_size(count, columns)
    for row, column in zip(*np.nonzero(counts >= 0 if two_lines else counts), strict=True):
        text = _amount(counts[row, column])
        share = shares[row, column]
        if two_lines and counts[row, column]:
            text += f"\n{_percent(share)}"
        write_in(
            axes, column, row, text, fontsize=text_size, color=INK if share > _BRIGHT else "white", linespacing=1.25
        )
    return drawn


def _text_size(count: int, columns: int) -> float:
    if count <= 4 and columns == 1:  # noqa: PLR2004
        return _LARGE_TEXT
    if count <= 6:  # noqa: PLR2004
        return BODY if columns == 1 else TINY
    return TINY if count <= _KEPT else 5.5


def _amount(value: float) -> str:
    """Return a count in four characters, or five with weights."""
    if value < 10_000:  # noqa: PLR2004
        return number(value) if value % 1 else f"{int(value)}"
    for unit, name in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= unit:
            return f"{value / unit:.3g}{name}" if value / unit < 100 else f"{value / unit:.0f}{name}"  # noqa: PLR2004
    return number(value)


def _percent(share: float) -> str:
    """Return a share as a percentage that is 0 or 100 only where it is exactly that."""
    if 0 < share < 0.01:  # noqa: PLR2004
        return "<1%"
    if 0.99 < share < 1:  # noqa: PLR2004
        return ">99%"
    return f"{share:.0%}"
