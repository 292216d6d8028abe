"""Whether probabilities are what they say: how often that comes true which is predicted with some probability."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mantik.integrations.sklearn.outputs import is_missing
from mantik.integrations.sklearn.pictures.axes import draw_line, dress, numbers, padded
from mantik.integrations.sklearn.pictures.outcomes import outcome_of, rankings_of, subject_of, weights_of
from mantik.integrations.sklearn.pictures.sheet import Sheet
from mantik.integrations.sklearn.pictures.style import BLUE, GREY
from mantik.integrations.sklearn.pictures.wording import class_title, joined, number, short

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from mantik.integrations.sklearn.evaluation import Evaluation

__all__ = ["calibration_curve"]

_BINS = 10
_LIMITS = (-0.015, 1.015)
_ROUNDING = 1e-6


def calibration_curve(evaluation: Evaluation) -> Figure | None:
    """Draw how often the positive one of two classes, or the likeliest one of many, is true, by its probability."""
    found = _of_positive(evaluation) if evaluation.is_binary else _of_likeliest(evaluation)
    if found is None:
        return None
    probabilities, is_true, weights, x_label, y_label, about = found
    if not len(probabilities) or probabilities.min() < -_ROUNDING or probabilities.max() > 1 + _ROUNDING:
        return None
    counted = np.ones(len(probabilities)) if weights is None else weights
    if not counted.sum():
        return None
    edges = np.linspace(0, 1, _BINS + 1)
    bins = np.searchsorted(edges[1:-1], probabilities)
    sizes = np.bincount(bins, counted, _BINS)
    there = sizes > 0
    predicted = np.bincount(bins, counted * probabilities, _BINS)[there] / sizes[there]
    observed = np.bincount(bins, counted * is_true, _BINS)[there] / sizes[there]
    error = float(np.average(np.abs(observed - predicted), weights=sizes[there]))
    note = joined(f"expected calibration error {number(error)}", about)
    sheet = Sheet.of("Calibration curve", subject_of(evaluation), note, rows=2, height_ratios=(3.2, 1))
    above, below = sheet.axes
    perfect = draw_line(above, [0, 1], [0, 1], color=GREY, linewidth=1.2, linestyle=(0, (2, 2)))
    draw_line(above, predicted, observed, linewidth=2.0, marker="o", markersize=6)
    below.bar(edges[:-1], sizes, 1 / _BINS, align="edge", color=BLUE, edgecolor="white", linewidth=0.8)
    for axes in sheet.axes:
        numbers(axes.xaxis, _LIMITS, most=5)
    numbers(above.yaxis, _LIMITS, most=5)
    numbers(below.yaxis, padded(sizes, zero=True), most=3)
    dress(above, None, y_label)
    dress(below, x_label, "Rows" if weights is None else "Weight", grid="y")
    sheet.legend([perfect], ["as predicted"], within=above, loc="upper left")
    return sheet.figure


_Found = tuple[np.ndarray, np.ndarray, "np.ndarray | None", str, str, str]


def _of_positive(evaluation: Evaluation) -> _Found | None:
    if evaluation.probabilities is None:
        return None
    rankings, _ = rankings_of(evaluation)
    if not rankings:
        return None
    ranking = rankings[0]
    name = short(class_title(ranking.name))
    labels = f"Predicted probability of {name}", f"Share of {name}"
    return ranking.scores, ranking.is_true, ranking.weights, *labels, f"positive class: {short(ranking.name)}"


def _of_likeliest(evaluation: Evaluation) -> _Found | None:
    probabilities, targets, labels = evaluation.probabilities, evaluation.targets, evaluation.labels
    if (
        probabilities is None
        or targets is None
        or targets.ndim != 1
        or evaluation.is_multilabel
        or probabilities.shape != (len(targets), len(labels))
    ):
        return None
    likeliest, highest = probabilities.argmax(axis=1), probabilities.max(axis=1)
    known = ~is_missing(targets) & np.isfinite(highest)
    weights = weights_of(evaluation)
    if weights is not None:
        known &= weights > 0
    outcome = outcome_of(targets[known], targets[known], labels, None)
    if outcome is None:
        return None
    return (
        highest[known],
        outcome.true == likeliest[known],
        None if weights is None else weights[known],
        "Predicted probability of the likeliest class",
        "Share that is of that class",
        "",
    )
