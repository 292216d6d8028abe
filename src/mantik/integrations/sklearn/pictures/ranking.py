"""Curves of how well scores rank samples: ROC, and precision against recall."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import sklearn.metrics

from mantik.integrations.sklearn.pictures.axes import draw_line, dress, numbers
from mantik.integrations.sklearn.pictures.outcomes import rankings_of, subject_of
from mantik.integrations.sklearn.pictures.sheet import Sheet
from mantik.integrations.sklearn.pictures.style import GREY, INK, looks_of
from mantik.integrations.sklearn.pictures.wording import class_title, joined, number, short, short_names

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from mantik.integrations.sklearn.evaluation import Evaluation
    from mantik.integrations.sklearn.pictures.outcomes import Ranking

__all__ = ["precision_recall_curve", "roc_curve"]

_LIMITS = (-0.015, 1.015)
"""A curve along the edge is seen whole."""

_MOST_CURVES = 8
_MOST_POINTS = 2000
_GRID = np.linspace(0, 1, 501)


@dataclass(frozen=True, slots=True)
class _Curve:
    """A curve, and the one number that it comes down to."""

    name: Any
    x: np.ndarray
    y: np.ndarray
    value: float


def roc_curve(evaluation: Evaluation) -> Figure | None:
    """Draw the rates of true and of false positives for all thresholds; None without scores of both classes."""
    rankings, note = rankings_of(evaluation)
    curves = [_roc(ranking) for ranking in rankings]
    if not curves:
        return None
    single = evaluation.is_binary
    about = _about(evaluation, curves, "area under the curve (AUC)", "the lowest AUC")
    sheet = Sheet.of("ROC curve", subject_of(evaluation), joined(*about, note))
    axes = sheet.axes[0]
    chance = draw_line(axes, [0, 1], [0, 1], color=GREY, linewidth=1.2, linestyle=(0, (2, 2)))
    handles, names = _draw(sheet, curves, single=single)
    if not single and len(curves) > 1:
        mean = np.mean([np.interp(_GRID, curve.x, curve.y) for curve in curves], axis=0)
        # Every curve begins in the corner.
        macro = draw_line(axes, [0, *_GRID], [0, *mean], color=INK, linewidth=2.2, linestyle=(0, (4, 1)))
        handles.insert(0, macro)
        names.insert(0, f"macro average: {number(float(np.mean([curve.value for curve in curves])))}")
    numbers(axes.xaxis, _LIMITS, most=5)
    numbers(axes.yaxis, _LIMITS, most=5)
    dress(axes, "False positive rate", "True positive rate")
    if single:
        sheet.legend([chance], ["chance"], within=axes, loc="lower right")
    else:
        sheet.legend([*handles, chance], [*names, "chance: 0.5"], title="AUC, each against the rest")
    return sheet.figure


def precision_recall_curve(evaluation: Evaluation) -> Figure | None:
    """Draw the precision that each recall costs; None without scores of both classes."""
    rankings, note = rankings_of(evaluation)
    curves = [_precision_recall(ranking) for ranking in rankings]
    if not curves:
        return None
    single = evaluation.is_binary
    about = _about(evaluation, curves, "average precision (AP)", "the lowest AP")
    sheet = Sheet.of("Precision-recall curve", subject_of(evaluation), joined(*about, note))
    axes = sheet.axes[0]
    handles, names = _draw(sheet, curves, single=single, drawstyle="steps-post")
    if single:
        share = float(np.average(rankings[0].is_true, weights=rankings[0].weights))
        chance = draw_line(axes, [0, 1], [share, share], color=GREY, linewidth=1.2, linestyle=(0, (2, 2)))
    numbers(axes.xaxis, _LIMITS, most=5)
    numbers(axes.yaxis, _LIMITS, most=5)
    dress(axes, "Recall", "Precision")
    if single:
        # What is predicted at random is there.
        sheet.legend([chance], [f"chance, {number(share)}"], within=axes, loc="lower left")
    else:
        sheet.legend(handles, names, title="AP, each against the rest")
    return sheet.figure


def _roc(ranking: Ranking) -> _Curve:
    x, y, _ = sklearn.metrics.roc_curve(ranking.is_true, ranking.scores, sample_weight=ranking.weights)
    return _Curve(ranking.name, x, y, float(sklearn.metrics.auc(x, y)))


def _precision_recall(ranking: Ranking) -> _Curve:
    y, x, _ = sklearn.metrics.precision_recall_curve(ranking.is_true, ranking.scores, sample_weight=ranking.weights)
    return _Curve(ranking.name, x, y, float(-np.sum(np.diff(x) * y[:-1])))


def _about(evaluation: Evaluation, curves: list[_Curve], value: str, lowest: str) -> list[str]:
    """Return what is said of curves in the title."""
    if evaluation.is_binary:
        return [f"{value} {number(curves[0].value)}", f"positive class: {short(curves[0].name)}"]
    what = "labels" if evaluation.is_multilabel else "classes"
    return [] if len(curves) <= _MOST_CURVES else [f"the {_MOST_CURVES} of {len(curves):,} {what} with {lowest}"]


def _draw(sheet: Sheet, curves: list[_Curve], *, single: bool, **looks: Any) -> tuple[list[Any], list[str]]:  # noqa: ANN401
    """Draw the worst curves, and return them with what they are called."""
    worst = np.sort(np.argsort([curve.value for curve in curves], kind="stable")[:_MOST_CURVES])
    kept = [curves[at] for at in worst]
    handles = [
        _draw_curve(sheet.axes[0], curve, linewidth=2.0 if single else 1.4, **looks_of(at), **looks)
        for at, curve in enumerate(kept)
    ]
    names = short_names([class_title(curve.name) for curve in kept], 18)
    return handles, [f"{name}: {number(curve.value)}" for curve, name in zip(kept, names, strict=True)]


def _draw_curve(axes: Axes, curve: _Curve, **looks: Any) -> Any:  # noqa: ANN401
    """Draw a curve by its points, or by as many as are seen."""
    kept = np.unique(np.linspace(0, len(curve.x) - 1, _MOST_POINTS).round().astype(int))
    return draw_line(axes, curve.x[kept], curve.y[kept], **looks)
