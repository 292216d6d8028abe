"""Which pictures there are of a search, and what it has found over one param or two, or over its iterations."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.patches import Rectangle

from mantik.integrations.sklearn.candidates import candidates_of
from mantik.integrations.sklearn.pictures.axes import categories, draw_line, dress, numbers, padded, write_in
from mantik.integrations.sklearn.pictures.parallel import parallel_coordinates
from mantik.integrations.sklearn.pictures.picture import Picture
from mantik.integrations.sklearn.pictures.sheet import Sheet
from mantik.integrations.sklearn.pictures.style import BLUE, GREY, INK, ORANGE, REVERSED, SMALL, TINY
from mantik.integrations.sklearn.pictures.trials import scorer_of, trials_of
from mantik.integrations.sklearn.pictures.wording import estimator_title, joined, number
from mantik.training.params import text_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

    from mantik.integrations.sklearn.pictures.trials import Param, Trials

__all__ = ["pictures_of_search"]

_MOST_CELLS = 30
"""Along each side of a heat map."""

_MOST_TEXTS = 12
"""Cells side by side that have room for a number."""

_BRIGHT = 0.5
"""The place on the scale up to which a cell is so bright that its text is dark."""


def pictures_of_search(search: Any) -> Iterator[Picture]:  # noqa: ANN401  # any search
    """Yield what can be drawn of a fitted search: ``cv_results``, and of a halving one ``cv_results_by_iteration``.

    Args:
        search: A search of scikit-learn, or another one that has its attributes.
    """
    yield Picture("cv_results", partial(_results, search))
    if "iter" in (getattr(search, "cv_results_", None) or {}):
        yield Picture("cv_results_by_iteration", partial(_iterations, search))


def _results(search: Any) -> Figure | None:  # noqa: ANN401
    """Draw scores by what varies: a line, a heat map, points in a plane, or parallel coordinates."""
    trials = trials_of(search)
    if trials is None or not trials.params:
        return None
    subject, note = estimator_title(search), joined(trials.summary, trials.beyond)
    if len(trials.params) == 1:
        return _over_one(trials, subject, trials.summary)
    if len(trials.params) > 2:  # noqa: PLR2004  # no plane
        return parallel_coordinates(trials, subject, note)
    first, second = sorted(trials.params, key=lambda param: len(param.values))
    rows, columns = len(first.values), len(second.values)
    if columns <= _MOST_CELLS and rows * columns <= 2 * len(trials.scores):
        return _heat_map(trials, second, first, subject, note)
    return _over_two(trials, second, first, subject, note)


def _over_one(trials: Trials, subject: str, note: str) -> Figure:
    """Draw scores with their deviations over one param."""
    sheet = Sheet.of("Search", subject, note)
    axes, (param,) = sheet.axes[0], trials.params
    order = np.argsort(param.places, kind="stable")
    x, y, deviation = param.places[order], trials.scores[order], trials.deviations[order]
    axes.vlines(x, y - deviation, y + deviation, color=BLUE, linewidth=1.2, linestyle="-", alpha=0.6)
    draw_line(axes, x, y, marker="o", linestyle="-" if param.names is None else "")
    best_x, best_y = param.places[[trials.best]], trials.scores[[trials.best]]
    draw_line(axes, best_x, best_y, marker="o", markersize=8, color=ORANGE)
    _along(axes.xaxis, param)
    numbers(axes.yaxis, padded(y - deviation, y + deviation))
    deviations = ", \N{PLUS-MINUS SIGN} their deviation" if trials.deviations.any() else ""
    dress(axes, param.name, trials.score_label + deviations)
    return sheet.figure


def _heat_map(trials: Trials, across: Param, up: Param, subject: str, note: str) -> Figure:
    """Draw scores over all combinations of two params; a combination that was not tried stays empty."""
    sheet = Sheet.of("Search", subject, note)
    axes = sheet.axes[0]
    columns, rows = np.searchsorted(across.values, across.places), np.searchsorted(up.values, up.places)
    texts = [up.text(value) for value in up.values]
    if up.names is None:
        # The first row is the uppermost, and numbers grow upwards.
        rows, texts = len(texts) - 1 - rows, texts[::-1]
    shape = len(up.values), len(across.values)
    sums, counts = np.zeros(shape), np.zeros(shape)
    np.add.at(sums, (rows, columns), trials.scores)
    np.add.at(counts, (rows, columns), 1)
    means = np.ma.masked_array(sums / np.where(counts, counts, 1), counts == 0)
    low, high = trials.limits
    drawn = axes.pcolormesh(
        np.arange(shape[1] + 1) - 0.5,
        np.arange(shape[0] + 1) - 0.5,
        means,
        cmap=REVERSED,
        vmin=low,
        vmax=high,
        shading="flat",
        edgecolors="white",
        linewidth=0.6,
        alpha=1,
    )
    best = columns[trials.best] - 0.5, rows[trials.best] - 0.5
    axes.add_patch(Rectangle(best, 1, 1, fill=False, edgecolor=ORANGE, linewidth=2.5, zorder=4))
    if shape[1] <= _MOST_TEXTS:
        for row, column in zip(*np.nonzero(counts), strict=True):
            place = (means[row, column] - low) / (high - low)
            color = "white" if place > _BRIGHT else INK
            size = SMALL if shape[1] <= 8 else TINY - 0.5  # noqa: PLR2004
            write_in(axes, column, row, trials.text(means[row, column]), color=color, fontsize=size, zorder=5)
    categories(axes.yaxis, texts)
    texts = [across.text(value) for value in across.values]
    slanted = max(map(len, texts)) * len(texts) > 60  # noqa: PLR2004  # characters that there is room for
    categories(axes.xaxis, texts, rotation=45 if slanted else 0)
    dress(axes, across.name, up.name, grid="none")
    sheet.color_scale(drawn, trials.score_label, (low, high))
    return sheet.figure


def _over_two(trials: Trials, across: Param, up: Param, subject: str, note: str) -> Figure:
    """Draw trials as points over two params, coloured by their scores."""
    sheet = Sheet.of("Search", subject, note)
    axes = sheet.axes[0]
    low, high = trials.limits
    order = np.argsort(trials.scores, kind="stable")
    drawn = axes.scatter(
        across.places[order],
        up.places[order],
        s=42,
        c=trials.scores[order],
        marker="o",
        cmap=REVERSED,
        vmin=low,
        vmax=high,
        linewidths=0.4,
        edgecolors=GREY,
        alpha=1,
        zorder=2,
    )
    best = [trials.best]
    ring = {"markersize": 11, "markerfacecolor": "none", "markeredgewidth": 2.0, "markeredgecolor": ORANGE}
    draw_line(axes, across.places[best], up.places[best], marker="o", linestyle="", zorder=3, **ring)
    _along(axes.xaxis, across)
    _along(axes.yaxis, up)
    dress(axes, across.name, up.name)
    sheet.color_scale(drawn, trials.score_label, (low, high))
    return sheet.figure


def _iterations(search: Any) -> Figure | None:  # noqa: ANN401
    """Draw how candidates did in each iteration of a halving search; None without scores."""
    candidates = candidates_of(search)
    if candidates is None:
        return None
    scores = candidates.numbers(f"mean_test_{candidates.scorer}")
    iterations, resources = candidates.numbers("iter"), candidates.numbers("n_resources")
    if not np.isfinite(scores).any() or len(iterations) != len(scores):
        return None
    paths: dict[str, list[int]] = {}
    for row in sorted(range(len(scores)), key=iterations.__getitem__):
        paths.setdefault(text_of(dict(candidates.params[row])), []).append(row)
    known = sorted(set(iterations))
    places = [known.index(iteration) for iteration in iterations]
    note = f"{len(paths):,} candidates"
    if candidates.best is not None:
        note = joined(note, f"chosen, in orange: {number(scores[candidates.best])}")
    sheet = Sheet.of("Search by iteration", estimator_title(search), note)
    axes = sheet.axes[0]
    for rows in paths.values():
        looks: dict[str, Any] = {"color": BLUE, "linewidth": 0.9, "alpha": 0.5, "markersize": 3.5}
        if candidates.best in rows:
            looks = {"color": ORANGE, "linewidth": 2.0, "zorder": 3, "markersize": 6}
        draw_line(axes, [places[row] for row in rows], [scores[row] for row in rows], marker="o", **looks)
    resource = str(getattr(search, "resource", "") or "resources")
    names = []
    for iteration in known:
        rows = [row for row, at in enumerate(iterations) if at == iteration]
        amount = f"\n{number(resources[rows[0]])} {resource}" if resources else ""
        names.append(f"{number(iteration)}\n{len(rows):,} candidate{'s' * (len(rows) != 1)}{amount}")
    categories(axes.xaxis, names, size=SMALL if len(names) <= 5 else TINY - 0.5)  # noqa: PLR2004
    numbers(axes.yaxis, padded(scores))
    folds = f" of {candidates.folds} folds" if candidates.folds else ""
    dress(axes, "Iteration", f"Mean {scorer_of(search, candidates)}{folds}")
    return sheet.figure


def _along(axis: Axis, param: Param) -> None:
    """Make an axis one of a param."""
    if param.names is not None:
        slanted = sum(map(len, param.names)) > 70  # noqa: PLR2004  # characters that there is room for
        categories(axis, param.names, rotation=45 if slanted and axis is axis.axes.xaxis else 0)
    elif param.is_log:
        low, high = padded(np.log10(param.places))
        numbers(axis, (10.0**low, 10.0**high), log=True)
    else:
        whole = bool((param.places % 1 == 0).all())
        numbers(axis, padded(param.places), whole=whole)
