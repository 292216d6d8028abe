"""What is measured of clusterers and of those that find outliers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.sparse
import sklearn.metrics as skm
from sklearn.cluster import DBSCAN, AgglomerativeClustering, FeatureAgglomeration, KMeans
from sklearn.datasets import make_blobs
from sklearn.ensemble import IsolationForest
from sklearn.neighbors import LocalOutlierFactor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from mantik.integrations.sklearn.clustering import SILHOUETTE_ROWS
from mantik.integrations.sklearn.evaluation import Evaluation
from tests.integrations.sklearn.measured import BLOBS, GROUPS, X, data_of, measured, near, of


def shapes(features: Any, clusters: Any) -> dict[str, float]:  # noqa: ANN401
    """Return what scikit-learn's functions say of clusters."""
    names = ("silhouette_score", "calinski_harabasz_score", "davies_bouldin_score")
    return {name: getattr(skm, name)(features, clusters) for name in names}


def comparisons(targets: Any, clusters: Any) -> dict[str, float]:  # noqa: ANN401
    """Return what scikit-learn's functions say of clusters and what they should be."""
    names = ("adjusted_rand", "normalized_mutual_info", "homogeneity", "completeness", "v_measure")
    return {f"{name}_score": getattr(skm, f"{name}_score")(targets, clusters) for name in names}


def test_clusters() -> None:
    """Clusters are counted, their shape is measured, and they are compared with targets."""
    estimator = KMeans(4, n_init=1, random_state=0).fit(BLOBS)
    plain = {"n_clusters": 4, "n_iter": estimator.n_iter_, "inertia": estimator.inertia_, "score": -estimator.inertia_}
    expected = plain | shapes(BLOBS, estimator.labels_)
    assert of(estimator, BLOBS) == near(expected)
    named = np.array(["x", "y", "z"])[GROUPS]
    assert of(estimator, BLOBS, named) == near(expected | comparisons(named, estimator.labels_))
    assert of(estimator, BLOBS, GROUPS + 0.5) == near(expected)


def test_noise_is_no_cluster() -> None:
    """What a clusterer takes for noise has a share, and is left out of the shape of clusters."""
    estimator = DBSCAN(eps=0.8).fit(BLOBS)
    inside = estimator.labels_ >= 0
    expected = {
        "n_clusters": len(set(estimator.labels_)) - 1,
        "noise_fraction": 1 - inside.mean(),
        **shapes(BLOBS[inside], estimator.labels_[inside]),
        **comparisons(GROUPS, estimator.labels_),
    }
    assert 0 < expected["noise_fraction"] < 0.5
    assert of(estimator, BLOBS, GROUPS) == near(expected)
    assert of(DBSCAN(eps=1e-6).fit(BLOBS), BLOBS) == {"n_clusters": 0, "noise_fraction": 1}


def test_clusters_at_the_end_of_a_pipeline() -> None:
    """Clusters of a pipeline are measured among the features that the clusterer has seen."""
    stretched = BLOBS * [1, 1000]
    estimator = make_pipeline(StandardScaler(), AgglomerativeClustering(3)).fit(stretched)
    expected = shapes(StandardScaler().fit_transform(stretched), estimator[-1].labels_)
    assert of(estimator, stretched) == near({"n_clusters": 3, **expected})


def test_clusters_of_many_samples() -> None:
    """Of many samples some are compared with each other, always the same."""
    features, _ = make_blobs(SILHOUETTE_ROWS + 500, random_state=0)
    estimator = KMeans(3, n_init=1, random_state=0).fit(features)
    silhouette = skm.silhouette_score(features, estimator.labels_, sample_size=SILHOUETTE_ROWS, random_state=0)
    assert of(estimator, features)["silhouette_score"] == pytest.approx(silhouette)


def test_clusters_without_a_shape() -> None:
    """Distances, sparse features, and groups of features have those metrics that there can be."""
    distances = skm.pairwise_distances(BLOBS)
    assert of(DBSCAN(metric="precomputed", eps=3).fit(distances), distances).keys() == {"n_clusters"}
    sparse = scipy.sparse.csr_matrix(BLOBS)
    found = of(KMeans(3, n_init=1, random_state=0).fit(sparse), sparse)
    assert "silhouette_score" in found
    assert "davies_bouldin_score" not in found
    square = X[:6]
    assert of(FeatureAgglomeration(2).fit(square), square) == {"n_clusters": 2}
    held_out = Evaluation(DBSCAN(eps=1).fit(BLOBS), data_of(BLOBS, name="X_test"))
    assert measured(held_out) == {}


@pytest.mark.parametrize("convention", [(1, -1), (0, 1)])
def test_outliers(convention: tuple[int, int]) -> None:
    """Outliers are counted, and compared with targets of either convention."""
    usual, outlying = convention
    features = np.vstack([BLOBS, [[30, 30], [-30, 30], [0, 40]]])
    is_outlier = np.array([False] * 90 + [True] * 3)
    estimator = IsolationForest(n_estimators=20, random_state=0).fit(features)
    predicted, decided = estimator.predict(features) == -1, -estimator.decision_function(features)
    expected = {
        "outlier_fraction": predicted.mean(),
        "precision_score": skm.precision_score(is_outlier, predicted),
        "recall_score": skm.recall_score(is_outlier, predicted),
        "f1_score": skm.f1_score(is_outlier, predicted),
        "accuracy_score": skm.accuracy_score(is_outlier, predicted),
        "balanced_accuracy_score": skm.balanced_accuracy_score(is_outlier, predicted),
        "matthews_corrcoef": skm.matthews_corrcoef(is_outlier, predicted),
        "roc_auc": skm.roc_auc_score(is_outlier, decided),
        "average_precision": skm.average_precision_score(is_outlier, decided),
    }
    assert of(estimator, features, np.where(is_outlier, outlying, usual)) == near(expected)
    assert of(estimator, features) == near({"outlier_fraction": predicted.mean()})


def test_outliers_that_are_only_found_in_the_fit() -> None:
    """A detector that cannot predict has found outliers among the data that it was fitted to."""
    estimator = LocalOutlierFactor(contamination=0.1)
    expected = np.mean(estimator.fit_predict(BLOBS) == -1)
    assert expected == 0.1
    assert of(estimator, BLOBS) == near({"outlier_fraction": expected})
