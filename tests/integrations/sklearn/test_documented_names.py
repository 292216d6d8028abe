"""The documentation's list of what is recorded of each kind of estimator, against what is."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from sklearn.cluster import DBSCAN, KMeans
from sklearn.decomposition import PCA
from sklearn.ensemble import IsolationForest, RandomForestClassifier
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.mixture import GaussianMixture

from mantik.integrations.sklearn.evaluation import Evaluation
from mantik.integrations.sklearn.metrics import metrics_of
from mantik.integrations.sklearn.pictures import pictures_of_evaluation
from tests.integrations.sklearn.drawings import names_of
from tests.integrations.sklearn.measured import BLOBS, GROUPS, LABELLED, LABELS, NUMBERS, THREE, TWO, X3, XR, X, data_of

PAGE = Path(__file__).parents[3] / "docs" / "reference" / "scikit-learn.md"

OF_ITSELF = {"n_iter", "inertia", "lower_bound"}
"""What these estimators say of their fit, which the page has elsewhere."""

CASES: dict[str, list[tuple[Any, Any, Any]]] = {
    "classifier": [
        (LogisticRegression(max_iter=500), X, TWO),
        (LogisticRegression(max_iter=500), X3, THREE),
    ],
    "classifier of several labels": [(RandomForestClassifier(5, random_state=0), LABELLED, LABELS)],
    "regressor": [(Ridge(), XR, NUMBERS)],
    "clusterer": [(KMeans(3, n_init=1, random_state=0), BLOBS, GROUPS), (DBSCAN(eps=0.7), BLOBS, GROUPS)],
    "outlier detector": [(IsolationForest(random_state=0), X, TWO)],
    "density estimator": [(GaussianMixture(3, random_state=0), BLOBS, None)],
    "transformer": [(PCA(2), X, None)],
}


@cache
def documented(kind: str) -> tuple[set[str], set[str]]:
    """Return the metrics and the pictures that the page names for a kind."""
    text = PAGE.read_text(encoding="utf-8").partition("## Kinds of estimators")[2].partition("\n## ")[0]
    (row,) = [line for line in text.splitlines() if line.startswith(f"| {kind} |")]
    metrics, pictures = row.split(" | ")[1:3]
    return set(re.findall(r"`(\w+)`", metrics)), set(re.findall(r"`(\w+)`", pictures))


@cache
def evaluations(kind: str) -> list[Evaluation]:
    """Return what estimators of a kind make of the data that they are fitted to."""
    return [
        Evaluation(estimator.fit(features, targets), data_of(features, targets))
        for estimator, features, targets in CASES[kind]
    ]


@pytest.mark.parametrize("kind", CASES)
def test_metrics_of_each_kind(kind: str) -> None:
    """The page names all metrics of a kind, and no others."""
    found = {name for evaluation in evaluations(kind) for name in metrics_of(evaluation)}
    assert found - OF_ITSELF == documented(kind)[0]


@pytest.mark.parametrize("kind", CASES)
def test_pictures_of_each_kind(kind: str) -> None:
    """The page names all pictures of a kind's data, and no others."""
    found = {name for evaluation in evaluations(kind) for name in names_of(pictures_of_evaluation(evaluation))}
    assert found == documented(kind)[1]


def test_all_kinds_are_tried() -> None:
    """There is no row of the page that is not compared."""
    text = PAGE.read_text(encoding="utf-8").partition("## Kinds of estimators")[2].partition("\n## ")[0]
    kinds = re.findall(r"^\| ([a-z ]+?) \|", text, re.MULTILINE)
    assert kinds == list(CASES)
