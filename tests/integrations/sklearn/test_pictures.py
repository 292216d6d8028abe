"""Pictures of what estimators make of data: what is drawn is what scikit-learn says."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from matplotlib.colors import to_hex
from sklearn import metrics
from sklearn.calibration import calibration_curve
from sklearn.cluster import DBSCAN, KMeans
from sklearn.decomposition import PCA
from sklearn.ensemble import IsolationForest, RandomForestClassifier
from sklearn.linear_model import LinearRegression
from sklearn.mixture import GaussianMixture
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from mantik.integrations.sklearn.kind import Kind
from mantik.integrations.sklearn.pictures import pictures_of_evaluation
from tests.integrations.sklearn.drawings import (
    BREAST,
    DIABETES,
    IRIS,
    ORANGE,
    WINE,
    bars,
    drawn,
    evaluation,
    legend_of,
    line,
    mesh,
    names_of,
    texts_of,
    ticks_of,
    title_of,
)

if TYPE_CHECKING:
    from mantik.integrations.sklearn.evaluation import Evaluation

X, Y = BREAST.data.to_numpy(), BREAST.target.to_numpy()
BINARY = GaussianNB().fit(X[:, 8:10], Y)


def many_classes(classes: int) -> Evaluation:
    """Return predictions of many classes, of which the first ones are the most confused."""
    rng = np.random.default_rng(0)
    true = np.repeat(np.arange(classes), 10)
    predicted = true.copy()
    wrong = rng.permutation(15 * 10)[:80]
    predicted[wrong] = rng.integers(15, size=80)
    scores = np.eye(classes)[predicted] + rng.random((len(true), classes)) * 0.5
    return evaluation(
        None,
        np.zeros((len(true), 1)),
        true,
        kind=Kind.CLASSIFIER,
        predictions=predicted,
        probabilities=scores / scores.sum(axis=1, keepdims=True),
    )


def drawn_of(evaluated: Evaluation, name: str) -> Any:  # noqa: ANN401
    """Return one picture of an evaluation."""
    (picture,) = (picture for picture in pictures_of_evaluation(evaluated) if picture.name == name)
    return picture.draw()


def test_a_confusion_matrix_has_counts_and_shares() -> None:
    """Each cell says how many rows it has, and which share of the true class they are."""
    figure = drawn("confusion_matrix", BINARY, X[:, 8:10], Y)
    expected = metrics.confusion_matrix(Y, BINARY.predict(X[:, 8:10]))
    shares = expected / expected.sum(axis=1, keepdims=True)
    assert texts_of(figure.axes[0]) == [
        f"{count}\n{share:.0%}" for count, share in zip(expected.flat, shares.flat, strict=True)
    ]
    np.testing.assert_allclose(mesh(figure.axes[0]), shares)
    assert ticks_of(figure.axes[0], "y") == ["0", "1"]
    assert title_of(figure) == "Confusion matrix\nGaussianNB · X_test, 569 rows"


@pytest.mark.parametrize(("classes", "shown"), [(15, 15), (30, 30), (31, 20), (500, 20)])
def test_of_many_classes_the_most_confused_are_drawn(classes: int, shown: int) -> None:
    """Up to 30 classes all are drawn, and of more the 20 with the most errors, which the title says."""
    evaluated = many_classes(classes)
    figure = drawn_of(evaluated, "confusion_matrix")
    expected = metrics.confusion_matrix(evaluated.targets, evaluated.predictions)
    chosen = [int(name) for name in ticks_of(figure.axes[0], "x")]
    if classes > 30:
        assert f"the {shown} most confused of {classes} classes" in title_of(figure)
        assert set(range(15)) <= set(chosen)
    assert len(chosen) == shown
    np.testing.assert_allclose(mesh(figure.axes[0]), (expected / 10)[np.ix_(chosen, chosen)])


def test_weights_count_in_matrices_and_curves() -> None:
    """Cells are sums of weights, and curves those of weighted samples."""
    weights = np.random.default_rng(0).random(len(Y))
    arguments = BINARY, X[:, 8:10], Y, weights
    shares = metrics.confusion_matrix(Y, BINARY.predict(X[:, 8:10]), sample_weight=weights, normalize="true")
    figure = drawn("confusion_matrix", *arguments)
    np.testing.assert_allclose(mesh(figure.axes[0]), shares)
    assert title_of(figure).endswith("weighted")
    scores = BINARY.predict_proba(X[:, 8:10])[:, 1]
    x, y, _ = metrics.roc_curve(Y, scores, sample_weight=weights)
    np.testing.assert_allclose(line(drawn("roc_curve", *arguments).axes[0], 1), (x, y))


@pytest.mark.parametrize("positive", [None, 0, 1])
def test_the_roc_curve_is_that_of_scikit_learn(positive: int | None) -> None:
    """The line has scikit-learn's points, and the title the area under it and the positive class."""
    figure = drawn("roc_curve", BINARY, X[:, 8:10], Y, pos_label=positive)
    column = 1 if positive is None else positive
    scores = BINARY.predict_proba(X[:, 8:10])[:, column]
    x, y, _ = metrics.roc_curve(column == Y, scores)
    np.testing.assert_allclose(line(figure.axes[0], 1), (x, y))
    area = metrics.roc_auc_score(column == Y, scores)
    assert f"area under the curve (AUC) {area:.3f} · positive class: {column}" in title_of(figure)


def test_the_precision_recall_curve_is_that_of_scikit_learn() -> None:
    """The line has scikit-learn's points, chance is how often the class is there, and the title has the AP."""
    figure = drawn("precision_recall_curve", BINARY, X[:, 8:10], Y)
    scores = BINARY.predict_proba(X[:, 8:10])[:, 1]
    precision, recall, _ = metrics.precision_recall_curve(Y, scores)
    np.testing.assert_allclose(line(figure.axes[0], 0), (recall, precision))
    np.testing.assert_allclose(line(figure.axes[0], 1)[1], Y.mean())
    assert f"average precision (AP) {metrics.average_precision_score(Y, scores):.3f}" in title_of(figure)


def test_without_probabilities_decisions_rank() -> None:
    """A support vector machine has curves of its decision function, and no calibration curve."""
    machine = make_pipeline(StandardScaler(), SVC()).fit(X, Y)
    x, y, _ = metrics.roc_curve(Y, machine.decision_function(X))
    np.testing.assert_allclose(line(drawn("roc_curve", machine, X, Y).axes[0], 1), (x, y))
    evaluated = evaluation(machine, X, Y)
    assert names_of(pictures_of_evaluation(evaluated)) == ["confusion_matrix", "roc_curve", "precision_recall_curve"]


def test_of_several_classes_each_is_ranked_against_the_rest() -> None:
    """There is a curve of each class, named with its area, and the mean of them."""
    model = GaussianNB().fit(IRIS.data, IRIS.target_names[IRIS.target])
    figure = drawn("roc_curve", model, IRIS.data, IRIS.target_names[IRIS.target])
    scores = model.predict_proba(IRIS.data)
    for at, name in enumerate(model.classes_):
        is_true = IRIS.target_names[IRIS.target] == name
        x, y, _ = metrics.roc_curve(is_true, scores[:, at])
        np.testing.assert_allclose(line(figure.axes[0], at + 1), (x, y))
        assert f"{name}: {metrics.roc_auc_score(is_true, scores[:, at]):.3f}".removesuffix(".000") in legend_of(figure)
    area = metrics.roc_auc_score(IRIS.target, scores, multi_class="ovr")
    assert f"macro average: {area:.3f}" in legend_of(figure)
    x, y = line(figure.axes[0], 4)
    np.testing.assert_allclose(metrics.auc(x, y), area, atol=0.002)


@pytest.mark.parametrize(("name", "score"), [("roc_curve", "AUC"), ("precision_recall_curve", "AP")])
def test_of_many_classes_the_eight_worst_curves_are_drawn(name: str, score: str) -> None:
    """The title says that they are eight of twenty, and they are those with the lowest scores."""
    evaluated = many_classes(20)
    figure = drawn_of(evaluated, name)
    assert f"the 8 of 20 classes with the lowest {score}" in title_of(figure)
    measure = metrics.roc_auc_score if score == "AUC" else metrics.average_precision_score
    values = [measure(evaluated.targets == at, evaluated.probabilities[:, at]) for at in range(20)]
    worst = {f"class {at}" for at in np.argsort(values, kind="stable")[:8]}
    assert {entry.rpartition(":")[0] for entry in legend_of(figure)} - {"chance", "macro average"} == worst


def test_the_calibration_curve_is_that_of_scikit_learn() -> None:
    """The line has scikit-learn's points for ten bins, and the bars below have all rows."""
    figure = drawn("calibration_curve", BINARY, X[:, 8:10], Y)
    observed, predicted = calibration_curve(Y, BINARY.predict_proba(X[:, 8:10])[:, 1], n_bins=10)
    np.testing.assert_allclose(line(figure.axes[0], 1), (predicted, observed))
    assert sum(bar.get_height() for bar in figure.axes[1].patches) == len(Y)


def test_of_several_classes_the_likeliest_is_calibrated() -> None:
    """Of each row the highest probability counts, and whether that class is the true one."""
    model = GaussianNB().fit(WINE.data.iloc[:, :2], WINE.target)
    figure = drawn("calibration_curve", model, WINE.data.iloc[:, :2], WINE.target)
    probabilities = model.predict_proba(WINE.data.iloc[:, :2])
    is_right = model.predict(WINE.data.iloc[:, :2]) == WINE.target
    observed, predicted = calibration_curve(is_right, probabilities.max(axis=1), n_bins=10)
    np.testing.assert_allclose(line(figure.axes[0], 1), (predicted, observed))


def test_several_labels_have_a_matrix_each() -> None:
    """Of nine labels the six with the most errors are drawn, named after the columns of the targets."""
    rng = np.random.default_rng(0)
    features = rng.normal(size=(200, 4))
    labels = pd.DataFrame(features @ rng.normal(size=(4, 9)) > 0, columns=[f"tag {at}" for at in range(9)]).astype(int)
    model = RandomForestClassifier(10, max_depth=2, random_state=0).fit(features, labels)
    figure = drawn("confusion_matrix", model, features, labels)
    matrices = metrics.multilabel_confusion_matrix(labels, model.predict(features))
    errors = matrices[:, 0, 1] + matrices[:, 1, 0]
    shown = [int(axes.get_title(loc="left").removeprefix("tag ")) for axes in figure.axes if axes.get_visible()]
    assert sorted(errors[shown]) == sorted(errors)[3:]
    for axes, at in zip(figure.axes, shown, strict=True):
        np.testing.assert_allclose(mesh(axes), matrices[at] / matrices[at].sum(axis=1, keepdims=True))
    assert "the 6 of 9 labels with the most errors" in title_of(figure)


def test_residuals_and_predictions_are_drawn_by_row() -> None:
    """Each row is a point, the histogram has all of them, and titles have RMSE and R²."""
    model = LinearRegression().fit(DIABETES.data, DIABETES.target)
    predicted, true = model.predict(DIABETES.data), DIABETES.target.to_numpy()
    figure = drawn("residuals", model, DIABETES.data, DIABETES.target)
    np.testing.assert_allclose(line(figure.axes[0], 0), (predicted, true - predicted))
    np.testing.assert_allclose(bars(figure.axes[1]).sum(), 1)
    assert f"RMSE {metrics.mean_squared_error(true, predicted) ** 0.5:.1f}" in title_of(figure)
    figure = drawn("predicted_vs_true", model, DIABETES.data, DIABETES.target)
    np.testing.assert_allclose(line(figure.axes[0], 0), (true, predicted))
    assert f"R² {metrics.r2_score(true, predicted):.3f}" in title_of(figure)
    assert (figure.axes[0].get_xlabel(), figure.axes[0].get_ylabel()) == ("True target", "Predicted target")


def test_of_many_rows_the_number_at_a_place_is_drawn() -> None:
    """More than 5000 rows are hexagons, which count all of them."""
    true = np.random.default_rng(0).normal(size=20_000)
    model = LinearRegression().fit(true[:, None], true)
    for name in ("residuals", "predicted_vs_true"):
        figure = drawn(name, model, true[:, None], true + np.sin(true))
        assert figure.axes[0].collections[0].get_array().sum() == 20_000
        assert figure.axes[-1].get_ylabel() == "Rows at a place"


def test_several_outputs_have_a_panel_each() -> None:
    """The first four are drawn, named after the columns of the targets."""
    targets = pd.DataFrame(np.random.default_rng(0).normal(size=(50, 6)), columns=list("uvwxyz"))
    features = targets.to_numpy()[:, :3]
    figure = drawn("predicted_vs_true", LinearRegression().fit(features, targets), features, targets)
    assert [axes.get_title(loc="left") for axes in figure.axes][:2] == ["u · R² 1", "v · R² 1"]
    assert len(figure.axes) == 4
    assert "4 of 6 outputs" in title_of(figure)


def test_cluster_sizes_are_bars_with_noise_last() -> None:
    """Each cluster has a bar with its rows and their share; noise is none of the clusters."""
    model = DBSCAN(eps=0.5).fit(IRIS.data)
    figure = drawn("cluster_sizes", model, IRIS.data, data="training")
    sizes = [int(np.sum(model.labels_ == label)) for label in (0, 1, -1)]
    assert bars(figure.axes[0]).tolist() == sizes
    assert ticks_of(figure.axes[0], "y") == ["cluster 0", "cluster 1", "noise"]
    assert texts_of(figure.axes[0])[0] == f"{sizes[0]}  ({sizes[0] / 150:.1%})"
    assert "training data, 150 rows · 2 clusters and noise" in title_of(figure)


@pytest.mark.parametrize("form", [np.asarray, sp.csr_matrix])
def test_clusters_are_drawn_in_the_plane_of_the_principal_components(form: Any) -> None:  # noqa: ANN401
    """The points are those of a PCA of what the clusterer itself is given, up to their signs."""
    features = np.abs(WINE.data.to_numpy())
    model = make_pipeline(StandardScaler(with_mean=False), KMeans(3, n_init=1, random_state=0)).fit(form(features))
    figure = drawn("cluster_projection", model, form(features))
    reduction = PCA(2).fit(model[0].transform(features))
    expected = np.abs(reduction.transform(model[0].transform(features)))
    labels = model.predict(form(features))
    for at in range(3):
        np.testing.assert_allclose(np.abs(line(figure.axes[0], at)).T, expected[labels == at], atol=1e-8)
    share = reduction.explained_variance_ratio_[0]
    assert figure.axes[0].get_xlabel() == f"Principal component 1 ({share:.1%} of the variance)"
    assert legend_of(figure) == [f"cluster {at} ({np.sum(labels == at)})" for at in range(3)]


def test_more_features_than_rows_are_projected_by_their_products() -> None:
    """Where a covariance matrix would be too large, the same components are found."""
    features = np.random.default_rng(0).normal(size=(80, 1500))
    model = KMeans(1, n_init=1).fit(features)
    expected = np.abs(PCA(2, svd_solver="full").fit_transform(features))
    for form in (np.asarray, sp.csr_matrix):
        figure = drawn("cluster_projection", model, form(features))
        np.testing.assert_allclose(np.abs(line(figure.axes[0], 0)).T, expected, atol=1e-8)


def test_two_features_are_drawn_as_they_are() -> None:
    """A plane needs no projection, and its axes have the features' names."""
    frame = IRIS.data.iloc[:, :2]
    figure = drawn("cluster_projection", GaussianMixture(1, random_state=0).fit(frame), frame)
    np.testing.assert_allclose(line(figure.axes[0], 0), frame.to_numpy().T)
    assert [figure.axes[0].get_xlabel(), figure.axes[0].get_ylabel()] == list(frame.columns)


def test_the_silhouette_is_that_of_scikit_learn() -> None:
    """Each cluster has the coefficients of its rows, sorted, and the title their mean."""
    model = KMeans(3, n_init=1, random_state=0).fit(IRIS.data)
    figure = drawn("silhouette", model, IRIS.data)
    values = metrics.silhouette_samples(IRIS.data, model.labels_)
    for at, patch in enumerate(figure.axes[0].patches):
        np.testing.assert_allclose(patch.get_data().values, np.sort(values[model.labels_ == at])[::-1])
    assert f"mean (dashed) {values.mean():.3f}" in title_of(figure)


def test_scores_of_outliers_are_told_from_the_others() -> None:
    """No bar has rows of both sides of the threshold, which is at zero."""
    model = IsolationForest(random_state=0).fit(WINE.data)
    figure = drawn("outlier_scores", model, WINE.data)
    is_outlier = model.predict(WINE.data) == -1
    heights = {True: 0.0, False: 0.0}
    for bar in figure.axes[0].patches:
        heights[to_hex(bar.get_facecolor()).upper() == ORANGE] += bar.get_height()
        assert bar.get_height() == 0 or (bar.get_x() + bar.get_width() / 2 < 0) == (
            to_hex(bar.get_facecolor()).upper() == ORANGE
        )
    assert heights == {True: is_outlier.sum(), False: (~is_outlier).sum()}
    assert line(figure.axes[0], 0)[0].tolist() == [0, 0]
    assert f"{is_outlier.sum()} outliers" in title_of(figure)
