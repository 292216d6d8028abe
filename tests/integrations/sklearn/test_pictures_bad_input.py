"""Pictures of data, names and scores of all sorts: what cannot be drawn is left out, and nothing is said or raised."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import scipy.sparse as sp
from sklearn.cluster import DBSCAN, KMeans
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import IsolationForest, RandomForestRegressor
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import LocalOutlierFactor

from mantik.integrations.sklearn.kind import Kind
from mantik.integrations.sklearn.pictures import (
    picture_of_curve,
    picture_of_folds,
    picture_of_permutation_importance,
    pictures_of_estimator,
    pictures_of_evaluation,
    pictures_of_search,
)
from tests.integrations.sklearn.drawings import evaluation, ticks_of, title_of

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from mantik.integrations.sklearn.pictures import Picture

ROWS = np.random.default_rng(0).normal(size=(40, 3))
CLASSES = np.arange(40) % 2
LONG = "a name that is much too long for a picture of this size " * 50
HOSTILE = ["$x$", "_hidden", "$100 % \\frac$", "日本\n語", "\ud800", LONG + "1", LONG + "2", "", " "]


def saved(pictures: Iterable[Picture], folder: Path) -> list[str]:
    """Save pictures, with warnings as errors, and return the names of those that show something."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return [picture.name for picture in pictures if picture.save(folder / f"{picture.name}.png")]


MATRIX, RANKED = ["confusion_matrix"], ["roc_curve", "precision_recall_curve"]
CALIBRATED = ["calibration_curve"]


@pytest.mark.parametrize(
    ("targets", "expected"),
    [
        (CLASSES, MATRIX + RANKED + CALIBRATED),
        (np.zeros(40), MATRIX),
        (CLASSES + 1, MATRIX + RANKED + CALIBRATED),
        (np.where(CLASSES, np.nan, 0.0), MATRIX),
        (np.full(40, np.nan), []),
        (np.array([None, "1"] * 20, dtype=object), MATRIX),
        (np.array([0, "1"] * 20, dtype=object), MATRIX),
        (None, []),
    ],
    ids=["both", "one", "unseen", "nan", "all-nan", "none", "mixed", "without"],
)
def test_targets_of_all_sorts_are_drawn_as_far_as_they_go(targets: Any, expected: list[str], tmp_path: Path) -> None:  # noqa: ANN401
    """What cannot be compared is left out, and nothing is said or raised."""
    model = LogisticRegression().fit(ROWS, CLASSES)
    assert saved(pictures_of_evaluation(evaluation(model, ROWS, targets)), tmp_path) == expected


@pytest.mark.parametrize("weights", [np.zeros(40), np.full(40, -1.0), np.full(40, np.nan)], ids=["0", "-1", "nan"])
def test_rows_without_weight_do_not_count(weights: np.ndarray, tmp_path: Path) -> None:
    """Where none has any, there is nothing to draw."""
    for model in (LogisticRegression().fit(ROWS, CLASSES), LinearRegression().fit(ROWS, CLASSES)):
        assert saved(pictures_of_evaluation(evaluation(model, ROWS, CLASSES, weights)), tmp_path) == []


@pytest.mark.parametrize("rows", [0, 1])
def test_next_to_no_rows_are_no_error(rows: int, tmp_path: Path) -> None:
    """One row is drawn where that says something, and none is not."""
    several = [
        (LogisticRegression().fit(ROWS, CLASSES), MATRIX),
        (LinearRegression().fit(ROWS, ROWS[:, 0]), ["predicted_vs_true", "residuals"]),
        (KMeans(2, n_init=1).fit(ROWS), ["cluster_sizes"]),
        (IsolationForest(n_estimators=5).fit(ROWS), ["outlier_scores"]),
    ]
    for model, expected in several:
        evaluated = evaluation(model, ROWS[:rows], CLASSES[:rows])
        assert saved(pictures_of_evaluation(evaluated), tmp_path) == (expected if rows else [])


@pytest.mark.parametrize("targets", [1.0, np.nan, np.inf, 1e308, 1e-310, 1.7e9], ids=str)
def test_numbers_of_any_size_are_drawn(targets: float, tmp_path: Path) -> None:
    """Constant, missing and extreme targets are no error, beside others that are as they should be."""
    values = np.where(CLASSES, targets, ROWS[:, 0])
    model = LinearRegression().fit(ROWS, ROWS[:, 0])
    assert len(saved(pictures_of_evaluation(evaluation(model, ROWS, values)), tmp_path)) == 2
    constant = np.full(40, targets)
    shown = saved(pictures_of_evaluation(evaluation(DummyClassifier().fit(ROWS, CLASSES), ROWS, constant)), tmp_path)
    assert shown == ([] if np.isnan(targets) else MATRIX)


def test_clusters_of_any_number_are_drawn(tmp_path: Path) -> None:
    """One cluster, one for each row, noise alone, one feature, constant and sparse features are no error."""
    sizes = ["cluster_sizes"]
    several: list[tuple[Any, Any, list[str]]] = [
        (KMeans(1, n_init=1), ROWS, [*sizes, "cluster_projection"]),
        (KMeans(40, n_init=1), ROWS, [*sizes, "cluster_projection"]),
        (KMeans(3, n_init=1), ROWS[:, :1], [*sizes, "silhouette"]),
        (KMeans(3, n_init=1), sp.csr_matrix(ROWS), [*sizes, "cluster_projection", "silhouette"]),
        (DBSCAN(eps=1e-9), ROWS, [*sizes, "cluster_projection"]),
        (DBSCAN(eps=1e-9), np.ones((9, 2)), [*sizes, "cluster_projection"]),
        (DBSCAN(metric="precomputed"), np.abs(ROWS[:, :1] - ROWS[:, 0]), [*sizes, "cluster_projection"]),
    ]
    for model, rows, expected in several:
        evaluated = evaluation(model.fit(rows), rows, data="training")
        assert saved(pictures_of_evaluation(evaluated), tmp_path) == expected
    detector = LocalOutlierFactor(5, contamination=0.01).fit(ROWS)
    assert saved(pictures_of_evaluation(evaluation(detector, ROWS, data="training")), tmp_path) == ["outlier_scores"]


def test_names_are_written_as_they_are(tmp_path: Path) -> None:
    """Dollars are no mathematics, long names are cut in the middle, and no two are the same."""
    names = np.array(HOSTILE)[np.arange(90) % 9]
    rows = np.random.default_rng(0).normal(size=(90, 9))
    model = LogisticRegression().fit(rows, names)
    evaluated = evaluation(model, rows, names, data=HOSTILE[5])
    assert saved(pictures_of_evaluation(evaluated), tmp_path) == MATRIX + RANKED + CALIBRATED
    assert saved(pictures_of_estimator(model, HOSTILE), tmp_path) == ["coefficients"]
    figure = next(pictures_of_evaluation(evaluated)).draw()
    assert figure is not None
    shown = ticks_of(figure.axes[0], "x")
    assert {"$x$", "_hidden"} < set(shown)
    assert len(set(shown)) == 9
    assert max(map(len, [*shown, *title_of(figure).splitlines()])) < 80
    assert "\n" not in "".join(shown)
    assert all(text.isprintable() for text in shown)


def test_a_million_rows_are_drawn(tmp_path: Path) -> None:
    """Points are summed up or some of them taken, always the same."""
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(1_000_000, 2))
    is_large = rows[:, 0] > rng.normal(size=len(rows))
    several = [
        (Kind.CLASSIFIER, is_large, rows[:, 0] > 0, 1 / (1 + np.exp(-rows[:, 0])), 4),
        (Kind.REGRESSOR, rows[:, 0], rows[:, 1], None, 2),
        (Kind.CLUSTERER, None, is_large.astype(int), None, 3),
    ]
    for kind, targets, predictions, probabilities, count in several:
        evaluated = evaluation(None, rows, targets, kind=kind, predictions=predictions, probabilities=probabilities)
        assert len(saved(pictures_of_evaluation(evaluated), tmp_path)) == count


def test_estimators_that_have_learned_nothing_have_no_pictures(tmp_path: Path) -> None:
    """Coefficients that are all zero, and importances, show nothing."""
    nothing = [
        LinearRegression().fit(ROWS, np.ones(40)),
        RandomForestRegressor(3).fit(ROWS, np.ones(40)),
        GridSearchCV(DummyClassifier(), {}),
        object(),
    ]
    for estimator in nothing:
        assert saved(pictures_of_estimator(estimator, ["one"]), tmp_path) == []
        assert saved(pictures_of_search(estimator), tmp_path) == []


def test_scores_that_are_missing_are_left_out(tmp_path: Path) -> None:
    """Where all are, there is no picture."""
    some, none = np.array([[1.0, np.nan], [np.nan, np.nan]]), np.full((2, 2), np.nan)
    for scores, count in ((some, 3), (none, 0)):
        pictures = [
            picture_of_folds({"test_score": scores[0]}, LONG),
            picture_of_curve("learning_curve", [0, 1], scores, scores, LONG, log_x=True, subject=LONG),
            picture_of_permutation_importance({"importances": scores, "importances_mean": scores[:, 0]}, None),
        ]
        assert len(saved(pictures, tmp_path)) == count


def test_failed_candidates_of_a_search_are_counted(tmp_path: Path) -> None:
    """Those without a score are not drawn, which the title says."""
    search = GridSearchCV(LogisticRegression(), {"C": [-1, 1, 2, 3]}, cv=2, error_score=np.nan)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        search.fit(ROWS, CLASSES)
    (picture,) = pictures_of_search(search)
    assert saved([picture], tmp_path) == ["cv_results"]
    figure = picture.draw()
    assert figure is not None
    assert "3 candidates" in title_of(figure)
    assert "1 without a score" in title_of(figure)
