"""Clusters: how large they are, how they lie to each other, and how well they are apart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse
import sklearn.metrics
from sklearn.pipeline import Pipeline
from sklearn.utils import _safe_indexing

from mantik.integrations.sklearn.clustering import SILHOUETTE_ROWS
from mantik.integrations.sklearn.evaluation import last_of
from mantik.integrations.sklearn.pictures.axes import categories, draw_line, draw_rule, dress, numbers, padded, write_in
from mantik.integrations.sklearn.pictures.outcomes import drawn_rows, subject_of
from mantik.integrations.sklearn.pictures.sheet import Sheet
from mantik.integrations.sklearn.pictures.style import BLUE, COLORS, FAINT, GREY
from mantik.integrations.sklearn.pictures.wording import feature_titles, joined, number, short
from mantik.integrations.sklearn.randomness import draws

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from mantik.integrations.sklearn.evaluation import Evaluation

__all__ = ["cluster_projection", "cluster_sizes", "silhouette"]

_MOST_BARS = 30
_MOST_COLORED = 12
_MOST_BLOCKS = 20
_MOST_POINTS = 5000
_MOST_DENSE = 1000
"""Features whose covariance matrix is made; of more, so many rows are compared with each other instead."""

_MOST_CELLS = 20_000_000
"""Rows times features that are looked at."""

_MARKERS = "os^D"


@dataclass(frozen=True, slots=True)
class _Clusters:
    """Clusters in the order of their labels, with noise last.

    Attributes:
        labels: One of each cluster.
        sizes: How many rows each has.
        places: Of each row, the place of its cluster among them.
    """

    labels: list[Any]
    sizes: np.ndarray
    places: np.ndarray

    def largest(self, most: int) -> list[int]:
        """Return the places of the largest clusters, in their order."""
        return sorted(np.argsort(-self.sizes, kind="stable")[:most].tolist())

    def name(self, at: int) -> str:
        """Return what a cluster is called."""
        return "noise" if self.is_noise(at) else f"cluster {short(self.labels[at], 14)}"

    def is_noise(self, at: int) -> bool:
        """Tell whether it is what belongs to no cluster, which has a negative label."""
        return isinstance(self.labels[at], int) and self.labels[at] < 0


def cluster_sizes(evaluation: Evaluation) -> Figure | None:
    """Draw how many rows each cluster has; None without clusters."""
    clusters = _clusters_of(evaluation)
    if clusters is None:
        return None
    kept = clusters.largest(_MOST_BARS)
    count = len(clusters.labels)
    note = f"{count:,} clusters" if count == len(kept) else f"the {len(kept)} largest of {count:,} clusters"
    if any(map(clusters.is_noise, range(count))):
        note = note.replace(f"{count:,} clusters", f"{count - 1:,} cluster{'s' * (count != 2)} and noise")  # noqa: PLR2004
    sheet = Sheet.of("Cluster sizes", subject_of(evaluation), note, height=_height(len(kept)))
    axes = sheet.axes[0]
    sizes = clusters.sizes[kept]
    colors = [GREY if clusters.is_noise(at) else BLUE for at in kept]
    axes.barh(range(len(kept)), sizes, 0.75, color=colors, edgecolor="white", linewidth=0)
    limits = (0.0, float(sizes.max()) * 1.22)
    for at, size in enumerate(sizes):
        share = size / clusters.sizes.sum()
        write_in(axes, size + limits[1] * 0.012, at, f"{size:,}  ({share:.1%})", ha="left", color=FAINT)
    categories(axes.yaxis, [clusters.name(at) for at in kept])
    numbers(axes.xaxis, limits, whole=True)
    dress(axes, "Rows", "", grid="x")
    return sheet.figure


def cluster_projection(evaluation: Evaluation) -> Figure | None:
    """Draw rows in the plane in which they differ most, coloured by cluster; None where there is none.

    Two features are drawn as they are.
    """
    clusters = _clusters_of(evaluation)
    found = None if clusters is None else _matrix_of(evaluation, len(clusters.places))
    if clusters is None or found is None:
        return None
    matrix, rows, names = found
    if matrix.shape[1] == 2:  # noqa: PLR2004  # a plane
        points = matrix.toarray() if scipy.sparse.issparse(matrix) else matrix
        labels = feature_titles(names, 2)
    else:
        points, shares = _projected(matrix)
        labels = [f"Principal component {at} ({share:.1%} of the variance)" for at, share in enumerate(shares, start=1)]
    kept = clusters.largest(_MOST_COLORED)
    places = clusters.places[rows]
    others = np.isin(places, kept, invert=True)
    note = joined(
        f"{len(rows):,} rows drawn" if len(rows) < len(clusters.places) else "",
        f"the {len(kept)} largest of {len(clusters.labels):,} clusters coloured" if others.any() else "",
    )
    sheet = Sheet.of("Clusters", subject_of(evaluation), note)
    axes = sheet.axes[0]
    looks = {"linestyle": "", "markersize": 4.5, "alpha": 0.8}
    handles, titles = [], []
    if others.any():
        handles.append(draw_line(axes, points[others, 0], points[others, 1], marker=".", color="#bdbdbd", **looks))
        titles.append("others")
    for order, at in enumerate(kept):
        color = GREY if clusters.is_noise(at) else COLORS[order % len(COLORS)]
        marker = "x" if clusters.is_noise(at) else _MARKERS[order // len(COLORS) % len(_MARKERS)]
        edge = {"markeredgewidth": 1.0, "markeredgecolor": color} if clusters.is_noise(at) else {}
        mine = points[places == at]
        handles.insert(order, draw_line(axes, mine[:, 0], mine[:, 1], marker=marker, color=color, **looks, **edge))
        titles.insert(order, f"{clusters.name(at)} ({clusters.sizes[at]:,})")
    numbers(axes.xaxis, padded(points[:, 0]), most=6)
    numbers(axes.yaxis, padded(points[:, 1]), most=6)
    dress(axes, *labels)
    sheet.legend(handles, titles)
    return sheet.figure


def silhouette(evaluation: Evaluation) -> Figure | None:
    """Draw how much nearer rows are to their own cluster than to the next; None without two clusters.

    It is -1 where another one is much nearer, and 1 where none is near. Noise does not count.
    """
    clusters = _clusters_of(evaluation)
    last = last_of(evaluation.estimator)
    if clusters is None or any(getattr(last, name, None) == "precomputed" for name in ("affinity", "metric")):
        return None
    features = _features_of(evaluation)
    noise = [at for at in range(len(clusters.labels)) if clusters.is_noise(at)]
    inside = np.flatnonzero(~np.isin(clusters.places, noise))
    # The same rows as for the metric, so that the mean is the same.
    if len(inside) > SILHOUETTE_ROWS:
        inside = inside[np.random.RandomState(0).permutation(len(inside))[:SILHOUETTE_ROWS]]
    places = clusters.places[inside]
    if features is None or not 1 < len(np.unique(places)) < len(places):
        return None
    try:
        values = sklearn.metrics.silhouette_samples(_safe_indexing(features, inside), places)
    except (TypeError, ValueError):
        # The features are no numbers, or some of them are missing.
        return None
    kept = [at for at in clusters.largest(_MOST_BLOCKS) if (places == at).any()]
    note = joined(
        f"mean (dashed) {number(values.mean())}",
        f"the {len(kept)} largest of {len(clusters.labels):,} clusters" if len(clusters.labels) > _MOST_BLOCKS else "",
        f"{len(inside):,} rows drawn" if len(inside) < (clusters.sizes.sum() - clusters.sizes[noise].sum()) else "",
    )
    sheet = Sheet.of("Silhouette", subject_of(evaluation), note, height=_height(len(kept)))
    axes = sheet.axes[0]
    for order, at in enumerate(kept):
        mine = np.sort(values[places == at])[::-1]
        across = order + np.linspace(-0.42, 0.42, len(mine) + 1)
        axes.stairs(mine, across, orientation="horizontal", fill=True, color=COLORS[order % len(COLORS)], alpha=0.85)
    draw_rule(axes, x=float(values.mean()))
    categories(axes.yaxis, [f"{clusters.name(at)} ({clusters.sizes[at]:,})" for at in kept])
    numbers(axes.xaxis, padded(values, zero=True))
    dress(axes, "Silhouette coefficient", "", grid="x")
    return sheet.figure


def _height(bars: int) -> float:
    return float(np.clip(1.3 + 0.26 * bars, 3.0, 6.4))


def _clusters_of(evaluation: Evaluation) -> _Clusters | None:
    labels = evaluation.predictions
    if labels is None or labels.ndim != 1 or labels.dtype.kind not in "iuUb":
        return None
    found, places = np.unique(labels, return_inverse=True)
    # Labels of noise are the least.
    noise = int(np.sum(found < 0)) if found.dtype.kind == "i" else 0
    places = np.ravel((places - noise) % len(found))
    ordered = np.roll(found, -noise).tolist()
    return _Clusters(ordered, np.bincount(places, minlength=len(ordered)), places)


def _features_of(evaluation: Evaluation) -> Any:  # noqa: ANN401
    """Return the features as the clusterer itself is given them."""
    estimator: Any = evaluation.estimator
    estimator = getattr(estimator, "best_estimator_", estimator)
    if not isinstance(estimator, Pipeline) or len(estimator.steps) < 2:  # noqa: PLR2004  # nothing before it
        return evaluation.data.features
    return None if draws(estimator, "transform") else estimator[:-1].transform(evaluation.data.features)


def _matrix_of(evaluation: Evaluation, count: int) -> tuple[Any, np.ndarray, list[str] | None] | None:
    """Return the features of some rows as a matrix, which rows these are, and the features' names."""
    features = _features_of(evaluation)
    shape = np.shape(features)
    if len(shape) != 2 or shape[0] != count or shape[1] < 2:  # noqa: PLR2004  # a table of two features or more
        return None
    most = _MOST_POINTS if shape[1] <= _MOST_DENSE else _MOST_DENSE
    rows = drawn_rows(count, max(2, min(most, _MOST_CELLS // shape[1])))
    taken = _safe_indexing(features, rows)
    names = getattr(features, "columns", None)
    if scipy.sparse.issparse(taken):
        matrix = taken.tocsr().astype(float)
        return (matrix if np.isfinite(matrix.data).all() else None), rows, names
    try:
        matrix = np.asarray(taken, dtype=float)
    except (TypeError, ValueError):
        # Some features are no numbers.
        return None
    complete = np.isfinite(matrix).all(axis=1)
    return (matrix[complete], rows[complete], names) if complete.sum() > 1 else None


def _projected(matrix: Any) -> tuple[np.ndarray, np.ndarray]:  # noqa: ANN401
    """Return rows by their first two principal components, of shape (rows, 2), and how much these explain."""
    if matrix.shape[1] <= _MOST_DENSE:
        dense = matrix.toarray() if scipy.sparse.issparse(matrix) else matrix
        centred = dense - dense.mean(axis=0)
        variances, vectors = np.linalg.eigh(centred.T @ centred)
        points = centred @ vectors[:, :-3:-1]
    else:
        products = matrix @ matrix.T
        products = products.toarray() if scipy.sparse.issparse(products) else products
        means = products.mean(axis=0)
        variances, vectors = np.linalg.eigh(products - means - means[:, None] + means.mean())
        points = vectors[:, :-3:-1] * np.sqrt(np.clip(variances[:-3:-1], 0, None))
    # Which way a component points says nothing: so that it is always the same, the farthest row is on the right.
    farthest = np.abs(points).argmax(axis=0)
    points = points * np.where(points[farthest, [0, 1]] < 0, -1, 1)
    total = variances.sum()
    return points, np.clip(variances[:-3:-1], 0, None) / total if total > 0 else np.zeros(2)
