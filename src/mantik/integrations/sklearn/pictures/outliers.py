"""How far samples are from what is usual, by an outlier detector."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.patches import Patch

from mantik.integrations.sklearn.pictures.axes import draw_rule, dress, numbers, padded
from mantik.integrations.sklearn.pictures.outcomes import subject_of
from mantik.integrations.sklearn.pictures.sheet import Sheet
from mantik.integrations.sklearn.pictures.style import BLUE, ORANGE

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from mantik.integrations.sklearn.evaluation import Evaluation

__all__ = ["outlier_scores"]

_BINS = 40


def outlier_scores(evaluation: Evaluation) -> Figure | None:
    """Draw a histogram of scores, those of outliers and the others; None without scores."""
    scores, predictions = evaluation.decisions, evaluation.predictions
    if scores is None or predictions is None or scores.shape != predictions.shape or scores.dtype.kind not in "iuf":
        return None
    known = np.isfinite(scores)
    if not known.any():
        return None
    scores, is_outlier = scores[known].astype(float), predictions[known] == -1
    threshold = _threshold(scores, is_outlier)
    limits = padded(scores, [] if threshold is None else [threshold])
    edges = np.linspace(*limits, _BINS + 1)
    if threshold is not None:
        # So that no bin has rows of both sides.
        edges += threshold - edges[np.abs(edges - threshold).argmin()]
    outliers, _ = np.histogram(scores[is_outlier], edges)
    others, _ = np.histogram(scores[~is_outlier], edges)
    note = f"{is_outlier.sum():,} outliers ({is_outlier.mean():.1%})"
    sheet = Sheet.of("Outlier scores", subject_of(evaluation), note)
    axes = sheet.axes[0]
    for counts, color, bottom in ((others, BLUE, 0), (outliers, ORANGE, others)):
        axes.bar(
            edges[:-1], counts, np.diff(edges), bottom, align="edge", color=color, edgecolor="white", linewidth=0.5
        )
    handles: list[Any] = [Patch(color=BLUE), Patch(color=ORANGE)]
    names = ["others", "outliers"]
    if threshold is not None:
        handles.append(draw_rule(axes, x=threshold))
        names.append("threshold")
    numbers(axes.xaxis, limits)
    numbers(axes.yaxis, padded(outliers + others, zero=True), whole=True)
    dress(axes, "Score (lower: more unusual)", "Rows", grid="y")
    sheet.legend(handles, names)
    return sheet.figure


def _threshold(scores: np.ndarray, is_outlier: np.ndarray) -> float | None:
    """Return where outliers begin: at 0 for scikit-learn's; None where scores alone do not tell them."""
    if not (is_outlier.any() and not is_outlier.all()):
        return 0.0 if np.array_equal(scores < 0, is_outlier) else None
    low, high = float(scores[is_outlier].max()), float(scores[~is_outlier].min())
    if low > high:
        return None
    return 0.0 if low <= 0 <= high else (low + high) / 2
