"""What an estimator's score is on parts of the data, over sizes or params, and without what its features say."""

from __future__ import annotations

import math
from functools import partial
from numbers import Real
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from mantik.integrations.sklearn.pictures.axes import categories, draw_line, draw_rule, dress, numbers, padded
from mantik.integrations.sklearn.pictures.importances import permutation_importance
from mantik.integrations.sklearn.pictures.picture import Picture
from mantik.integrations.sklearn.pictures.sheet import Sheet
from mantik.integrations.sklearn.pictures.style import BLUE, FAINT, GREY, ORANGE
from mantik.integrations.sklearn.pictures.wording import joined, number, setting, short, short_names

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from matplotlib.figure import Figure

__all__ = ["picture_of_curve", "picture_of_folds", "picture_of_permutation_importance"]

_PANELS = 6
_MOST_FOLDS = 60
"""Points that are seen one by one; more have no dots."""

_TEST, _TRAIN = "test_", "train_"
_BAND = Patch(facecolor=GREY, edgecolor="none", linewidth=0, alpha=0.3)
_TITLES = {"learning_curve": "Learning curve", "validation_curve": "Validation curve"}


def picture_of_folds(scores: Mapping[str, np.ndarray], title: str) -> Picture:
    """Return a picture of the scores of each fold, their mean and their deviation: ``cross_validation``.

    Args:
        scores: Of shape (folds,), by their names in what `cross_validate` returns: ``test_<score>``,
            ``train_<score>``.
        title: What was tried.
    """
    return Picture("cross_validation", partial(_draw_folds, scores, title))


def picture_of_curve(  # noqa: PLR0913  # what there is to a curve
    kind: Literal["learning_curve", "validation_curve"],
    xs: Sequence[Any],
    train_scores: np.ndarray,
    test_scores: np.ndarray,
    x_label: str,
    *,
    log_x: bool,
    subject: str = "",
) -> Picture:
    """Return a picture of scores over sizes or values: the mean of the folds and their deviation.

    Args:
        kind: What it is called.
        xs: Numbers, or values of any sort, which are drawn as names.
        train_scores: Of shape (xs, folds).
        test_scores: Of shape (xs, folds).
        x_label: What `xs` are.
        log_x: Whether their axis is logarithmic, if they allow it.
        subject: What was tried.
    """
    if kind == "learning_curve":
        # A param has a name of its own, which stays as it is.
        x_label = x_label[:1].upper() + x_label[1:]
    return Picture(kind, partial(_draw_curve, _TITLES[kind], xs, train_scores, test_scores, x_label, log_x, subject))


def picture_of_permutation_importance(
    result: Any,  # noqa: ANN401  # a Bunch
    feature_names: Sequence[object] | None,
    subject: str = "",
) -> Picture:
    """Return a picture of what `permutation_importance` returned of one score: ``permutation_importance``.

    Args:
        result: What it returned.
        feature_names: Of the features; None where they have none.
        subject: What was tried.
    """
    return Picture("permutation_importance", partial(permutation_importance, result, feature_names, subject))


def _draw_folds(scores: Mapping[str, np.ndarray], title: str) -> Figure | None:
    """Draw a panel of each score, with what was measured on test and on training data."""
    panels: dict[str, dict[str, np.ndarray]] = {}
    for key, values in scores.items():
        kind = next((prefix for prefix in (_TEST, _TRAIN) if key.startswith(prefix)), "")
        if np.isfinite(values).any():
            panels.setdefault(key.removeprefix(kind), {})[kind or _TEST] = np.asarray(values, dtype=float)
    if not panels:
        return None
    shown = list(panels.items())[:_PANELS]
    columns = min(2, len(shown))
    rows = math.ceil(len(shown) / columns)
    folds = len(next(iter(scores.values())))
    note = joined(
        f"{folds:,} fold{'s' * (folds != 1)}",
        f"{_PANELS} of {len(panels)} scores" if len(panels) > _PANELS else "",
        _summary(shown[0][1]) if len(shown) == 1 else "",
    )
    height = 4.8 if len(shown) == 1 else 1.2 + 2.3 * rows
    sheet = Sheet.of("Cross-validation", short(title, 60), note, rows=rows, columns=columns, height=height)
    handles = {}
    for axes, (name, series) in zip(sheet.axes, shown, strict=False):
        for kind, values in sorted(series.items(), reverse=True):
            color = BLUE if kind == _TEST else ORANGE
            known = values[np.isfinite(values)]
            mean, deviation = known.mean(), known.std()
            axes.axhspan(mean - deviation, mean + deviation, facecolor=color, edgecolor="none", linewidth=0, alpha=0.15)
            draw_rule(axes, y=mean, color=color, linestyle=(0, (4, 2)), zorder=2)
            marker, size = ("o", 6) if len(values) <= _MOST_FOLDS else (".", 4)
            places = np.arange(1, len(values) + 1)
            handles[kind] = draw_line(axes, places, values, linestyle="", marker=marker, markersize=size, color=color)
        numbers(axes.xaxis, (0.5, folds + 0.5), whole=True, most=10 // columns)
        numbers(axes.yaxis, padded(*series.values(), share=0.12), most=6)
        title = joined(short(name), _summary(series)) if len(shown) > 1 else ""
        dress(axes, "Fold", "Score" if len(shown) > 1 else short(name).capitalize(), title=title)
    for axes in sheet.axes[len(shown) :]:
        axes.set_visible(False)
    names = [{_TEST: "test", _TRAIN: "training"}[kind] for kind in handles]
    mean = Line2D([], [], color=FAINT, linewidth=1.2, linestyle=(0, (4, 2)), marker="")
    sheet.legend([*handles.values(), mean, _BAND], [*names, "mean", "\N{PLUS-MINUS SIGN} deviation"])
    return sheet.figure


def _draw_curve(  # noqa: PLR0913, PLR0917  # what there is to a curve
    title: str,
    xs: Sequence[Any],
    train: np.ndarray,
    test: np.ndarray,
    x_label: str,
    log_x: bool,  # noqa: FBT001
    subject: str,
) -> Figure | None:
    """Draw the mean of the folds at each place, and one deviation around it."""
    series = {"training": (np.asarray(train, dtype=float), ORANGE), "test": (np.asarray(test, dtype=float), BLUE)}
    if not len(xs) or not any(np.isfinite(values).any() for values, _ in series.values()):
        return None
    are_numbers = all(isinstance(x, Real) and not isinstance(x, bool) and math.isfinite(x) for x in xs)
    places = np.array([float(x) for x in xs]) if are_numbers else np.arange(len(xs), dtype=float)
    order = np.argsort(places, kind="stable")
    folds = series["test"][0].shape[1]
    best = _best(xs, series["test"][0]) if title == _TITLES["validation_curve"] else ""
    sheet = Sheet.of(title, short(subject, 60) if subject else "", joined(f"{folds:,} fold{'s' * (folds != 1)}", best))
    axes = sheet.axes[0]
    handles, drawn = [], []
    for values, color in series.values():
        mean, deviation = _moments(values[order])
        axes.fill_between(
            places[order],
            mean - deviation,
            mean + deviation,
            facecolor=color,
            edgecolor="none",
            linewidth=0,
            alpha=0.15,
        )
        handles.append(draw_line(axes, places[order], mean, color=color, marker="o"))
        drawn += [mean - deviation, mean + deviation]
    if not are_numbers:
        texts = short_names(xs, 16)
        crowded = sum(map(len, texts)) > 60  # noqa: PLR2004  # characters that there is room for
        categories(axes.xaxis, texts, rotation=45 if crowded else 0)
    elif log_x and places.min() > 0:
        low, high = padded(np.log10(places))
        numbers(axes.xaxis, (10.0**low, 10.0**high), log=True)
    else:
        numbers(axes.xaxis, padded(places))
    numbers(axes.yaxis, padded(*drawn))
    dress(axes, short(x_label, 60), "Score")
    sheet.legend([*handles, _BAND], [*series, "\N{PLUS-MINUS SIGN} deviation"])
    return sheet.figure


def _moments(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return means and deviations of rows, without what is missing; NaN where nothing is there."""
    known = np.ma.masked_invalid(values)
    return known.mean(axis=1).filled(np.nan), known.std(axis=1).filled(np.nan)


def _summary(series: Mapping[str, np.ndarray]) -> str:
    """Return mean and deviation of what was measured on test data, in words."""
    values = series.get(_TEST, next(iter(series.values())))
    known = values[np.isfinite(values)]
    failed = len(values) - len(known)
    text = f"{number(known.mean())} \N{PLUS-MINUS SIGN} {number(known.std(), 2)}"
    return joined(text, f"{failed:,} failed" if failed else "")


def _best(xs: Sequence[Any], test: np.ndarray) -> str:
    """Return which value has the best mean, in words."""
    means = _moments(test)[0]
    if not np.isfinite(means).any():
        return ""
    at = int(np.nanargmax(means))
    value = setting(xs[at]) if isinstance(xs[at], Real) and not isinstance(xs[at], bool) else short(xs[at])
    return f"best {number(means[at])} at {value}"
