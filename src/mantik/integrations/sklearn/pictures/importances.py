"""What features matter to an estimator: importances and coefficients."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mantik.integrations.sklearn.pictures.axes import categories, draw_line, draw_rule, dress, numbers, padded
from mantik.integrations.sklearn.pictures.core import core_of
from mantik.integrations.sklearn.pictures.sheet import Sheet
from mantik.integrations.sklearn.pictures.style import BLUE, INK, ORANGE, SMALL, TINY
from mantik.integrations.sklearn.pictures.wording import (
    class_title,
    estimator_title,
    feature_titles,
    joined,
    short,
    short_names,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from matplotlib.figure import Figure

    from mantik.integrations.sklearn.pictures.core import Core

__all__ = ["coefficients", "feature_importance", "permutation_importance"]

_MOST = 30
_MOST_IN_PANELS = 20
"""Features, which are drawn of more: those that matter most."""

_PANELS = 4
"""Classes or outputs that have one each; of more, the mean is drawn."""


@dataclass(frozen=True, slots=True)
class _Panel:
    """Bars of all features.

    Attributes:
        title: What they are of; empty where there are no others.
        values: Of shape (features,).
        single: What each value is the mean of, of shape (features, repetitions); None where it is no mean.
    """

    title: str
    values: np.ndarray
    single: np.ndarray | None = None


def feature_importance(estimator: Any, feature_names: Sequence[object] | None) -> Figure | None:  # noqa: ANN401
    """Draw `feature_importances_`; None without any.

    Args:
        estimator: A fitted one; of a pipeline or a search what it ends in is looked at.
        feature_names: Of the features that it is given; None where they are not known.
    """
    core = core_of(estimator, feature_names)
    values = core.importances
    if values is None:
        return None
    return _draw(
        "Feature importance", estimator_title(estimator), [_Panel("", values)], core.names, _meaning(core.estimator)
    )


def coefficients(estimator: Any, feature_names: Sequence[object] | None) -> Figure | None:  # noqa: ANN401
    """Draw `coef_`, negative ones in another colour; of many classes or outputs their mean size. None without any.

    Args:
        estimator: A fitted one; of a pipeline or a search what it ends in is looked at.
        feature_names: Of the features that it is given; None where they are not known.
    """
    core = core_of(estimator, feature_names)
    rows = core.coefficients
    if rows is None:
        return None
    titles = _titles_of(core, len(rows))
    label, note = "Coefficient", ""
    if len(rows) == 1:
        panels = [_Panel("", rows[0])]
        note = f"positive: towards {titles[0]}" if titles else ""
    elif titles and len(rows) <= _PANELS:
        panels = [_Panel(title, row) for title, row in zip(titles, rows, strict=True)]
    else:
        panels = [_Panel("", np.abs(rows).mean(axis=0))]
        label = "Mean size of coefficients"
        note = f"mean of {len(rows):,} {'classes' if titles and hasattr(core.estimator, 'classes_') else 'rows'}"
    return _draw("Coefficients", estimator_title(estimator), panels, core.names, label, note)


def permutation_importance(
    result: Mapping[str, Any], feature_names: Sequence[object] | None, subject: str
) -> Figure | None:
    """Draw by how much a score falls when a feature is shuffled; None without any feature.

    Args:
        result: What `sklearn.inspection.permutation_importance` has returned of one score.
        feature_names: Of the features; None where they are not known.
        subject: What it was measured of.
    """
    means, single = (np.asarray(result[key], dtype=float) for key in ("importances_mean", "importances"))
    repeats = single.shape[1]
    note = f"dots: {repeats:,} repetitions" if repeats > 1 else ""
    panel = _Panel("", means, single)
    return _draw("Permutation importance", subject, [panel], feature_names, "Decrease of the score", note)


def _draw(  # noqa: PLR0913, PLR0917  # a title and its bars
    title: str, subject: str, panels: list[_Panel], names: Sequence[object] | None, label: str, note: str = ""
) -> Figure | None:
    """Draw bars of the features that matter most, side by side where there are several panels."""
    values = np.nan_to_num(np.stack([panel.values for panel in panels]))
    count = values.shape[1]
    if not values.any():
        return None
    most = _MOST if len(panels) == 1 else _MOST_IN_PANELS
    # A coefficient matters as much by its size, but a score that rises without a feature says that it does not.
    weights = values[0] if panels[0].single is not None else np.abs(values).mean(axis=0)
    order = np.argsort(-weights, kind="stable")[:most]
    some = f"{len(order)} of {count:,} features" if len(order) < count else ""
    texts = feature_titles(names, count)
    if len(panels) > 1:
        texts = short_names(texts, 20)
    height = float(np.clip(1.4 + 0.2 * len(order), 3.0, 6.4))
    sheet = Sheet.of(title, subject, joined(some, note), columns=len(panels), height=height)
    for at, (axes, panel) in enumerate(zip(sheet.axes, panels, strict=True)):
        sizes = values[at][order]
        axes.barh(
            range(len(order)),
            sizes,
            0.72,
            color=[BLUE if size >= 0 else ORANGE for size in sizes],
            edgecolor="white",
            linewidth=0,
        )
        drawn = [sizes]
        if panel.single is not None:
            single = panel.single[order]
            places = np.repeat(np.arange(len(order)), single.shape[1])
            draw_line(axes, np.ravel(single), places, linestyle="", marker="o", markersize=2.6, color=INK, alpha=0.6)
            drawn.append(single)
        draw_rule(axes, x=0.0, linewidth=0.8, linestyle="-")
        categories(axes.yaxis, [texts[feature] for feature in order], size=SMALL if len(order) <= 20 else TINY)  # noqa: PLR2004
        numbers(axes.xaxis, padded(*drawn, zero=True), most=max(2, 7 // len(panels)))
        dress(axes, label, None if at else "", title=short(panel.title, 18) if panel.title else "", grid="x")
    return sheet.figure


def _titles_of(core: Core, rows: int) -> list[str]:
    """Return what the rows of coefficients are of; nothing where that is not known."""
    classes = getattr(core.estimator, "classes_", None)
    if classes is None:
        return [f"output {at}" for at in range(rows)] if rows > 1 else []
    if rows == 1 and len(classes) == 2:  # noqa: PLR2004  # one row says which of the two
        return [short(class_title(classes[1]))]
    # Where classes are told apart by pairs, there is a row for each pair.
    if rows != len(classes) or hasattr(core.estimator, "dual_coef_"):
        return []
    return [class_title(name) for name in classes]


def _meaning(estimator: Any) -> str:  # noqa: ANN401
    """Return what the importances of an estimator are."""
    package = type(estimator).__module__.partition(".")[0]
    if package == "xgboost":
        return f"Importance ({getattr(estimator, 'importance_type', None) or 'gain'})"
    if package == "lightgbm":
        kind = getattr(estimator, "importance_type", "split")
        return "Importance (number of splits)" if kind == "split" else f"Importance ({kind})"
    if type(estimator).__module__.startswith(("sklearn.tree", "sklearn.ensemble")):
        return "Importance (mean decrease in impurity)"
    return "Importance"
