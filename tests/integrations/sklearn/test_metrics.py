"""What is measured of estimators of any kind."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import sklearn.metrics as skm
from mlflow.sklearn.utils import _get_classifier_metrics
from sklearn.base import BaseEstimator, ClassifierMixin, ClusterMixin, OutlierMixin, RegressorMixin
from sklearn.compose import ColumnTransformer
from sklearn.covariance import EmpiricalCovariance
from sklearn.decomposition import NMF, PCA
from sklearn.linear_model import LogisticRegression
from sklearn.mixture import GaussianMixture
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KernelDensity
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from mantik.integrations.sklearn.evaluation import Evaluation
from mantik.integrations.sklearn.kind import Kind
from tests.integrations.sklearn.measured import (
    BLOBS,
    CLASSIFIER,
    FEW,
    NUMBERS,
    REGRESSOR,
    THREE,
    TWO,
    WEIGHTS,
    X3,
    XR,
    X,
    data_of,
    measured,
    near,
    of,
    parts,
)


def test_densities() -> None:
    """Densities have a mean likelihood, beside what their own score says."""
    mixture = GaussianMixture(3, random_state=0).fit(BLOBS)
    assert of(mixture, BLOBS) == near(
        {
            "score": mixture.score(BLOBS),
            "mean_log_likelihood": mixture.score_samples(BLOBS).mean(),
            "aic": mixture.aic(BLOBS),
            "bic": mixture.bic(BLOBS),
            "lower_bound": mixture.lower_bound_,
            "n_iter": mixture.n_iter_,
        }
    )
    density = KernelDensity().fit(BLOBS)
    assert of(density, BLOBS) == near({"score": density.score(BLOBS), "mean_log_likelihood": density.score(BLOBS) / 90})
    covariance = EmpiricalCovariance().fit(BLOBS)
    assert of(covariance, BLOBS) == near({"score": covariance.score(BLOBS)})


def test_a_likelihood_that_would_take_long_is_left_out() -> None:
    """A kernel density of many samples, and a covariance of many features, are not measured."""
    many = np.random.default_rng(0).random((6000, 1))
    assert of(KernelDensity().fit(many), many) == {}
    wide = np.random.default_rng(0).random((5, 1200))
    assert "score" not in of(PCA(2).fit(wide), wide)


def test_transformers() -> None:
    """Transformers say what they have learned; they are not used for it."""
    reduced = PCA(2, random_state=0).fit(X)
    ratio = reduced.explained_variance_ratio_.sum()
    expected = {"n_features_out": 2, "explained_variance_ratio_sum": ratio, "score": reduced.score(X)}
    assert of(reduced, X) == near(expected)
    factors = NMF(2, init="nndsvda", max_iter=1000, random_state=0).fit(abs(X))
    expected = {"n_features_out": 2, "n_iter": factors.n_iter_, "reconstruction_error": factors.reconstruction_err_}
    assert of(factors, abs(X)) == near(expected)
    frame = pd.DataFrame({"kind": FEW, "size": [1.0, 2.0, 3.0, 4.0]})
    columns = ColumnTransformer([("kind", OneHotEncoder(), ["kind"]), ("size", StandardScaler(), ["size"])])
    assert of(columns.fit(frame), frame) == {"n_features_out": 4}


def test_what_a_fit_says_of_itself_belongs_to_the_training() -> None:
    """How many iterations there were, and the loss they came to, are metrics of training data alone."""
    estimator = MLPClassifier(3, solver="lbfgs", max_iter=1000, tol=0.1, random_state=0).fit(X, TWO)
    found = of(make_pipeline(StandardScaler(), estimator).fit(X, TWO), X, TWO)
    assert found["loss"] == estimator.loss_
    assert found["n_iter"] == estimator.n_iter_
    held_out = Evaluation(estimator, data_of(X, TWO, name="X_test"))
    assert not {"loss", "n_iter"} & set(measured(held_out))


def test_the_last_point_of_a_curve_is_no_metric_of_its_own() -> None:
    """A loss that is there as a curve is not recorded a second time; the best one is."""
    estimator = MLPClassifier(3, max_iter=5, tol=1e9, n_iter_no_change=1, random_state=0).fit(X, TWO)
    found = of(estimator, X, TWO)
    assert "loss" not in found
    assert found["best_loss"] == estimator.best_loss_


class Bare(BaseEstimator):
    """Says nothing of what it is for."""

    def __init__(self, answer: Any) -> None:  # noqa: ANN401
        self.answer = answer

    def learn(self, *, table: Any) -> Bare:  # noqa: ANN401, ARG002
        """Learn nothing."""
        return self

    def predict(self, table: Any) -> Any:  # noqa: ANN401, ARG002
        """Predict."""
        return self.answer

    def score(self, *arguments: Any) -> float:  # noqa: ANN401
        """Score."""
        raise LookupError(arguments)


@pytest.mark.parametrize(
    ("targets", "answer", "kind"),
    [
        (["a", "b", "a"], ["a", "b", "b"], Kind.CLASSIFIER),
        ([0, 1, 1], [0, 1, 0], Kind.CLASSIFIER),
        ([0.5, 1, 1], [0, 1, 0], Kind.REGRESSOR),
        ([0, 1, 1], [0.3, 0.7, 0.6], Kind.REGRESSOR),
        ([0, 1, 1], [2, 3, 4], Kind.OTHER),
        (None, [0, 1, 0], Kind.OTHER),
    ],
)
def test_what_says_nothing_of_its_kind(targets: Any, answer: Any, kind: Kind) -> None:  # noqa: ANN401
    """Of a class that says nothing of its kind, targets and predictions tell it, unless they could be either."""
    evaluation = Evaluation(Bare(answer), data_of(np.zeros((3, 1)), targets))
    names = {Kind.CLASSIFIER: CLASSIFIER - {"score"}, Kind.REGRESSOR: REGRESSOR - {"score"}, Kind.OTHER: set()}[kind]
    assert evaluation.kind is kind
    assert set(measured(evaluation)) == names - ({"mean_absolute_percentage_error"} if 0 in (targets or ()) else set())


class Broken(BaseEstimator):
    """Fails at everything, and counts how often it is asked."""

    def __init__(self, asked: list[str]) -> None:
        self.asked = asked

    @property
    def best_estimator_(self) -> Broken:
        """Itself."""
        return self

    def _fail(self, name: str) -> None:
        self.asked.append(name)
        raise SystemError(name)

    def predict(self, X: Any) -> None:  # noqa: ANN401, ARG002, N803
        """Predict."""
        self._fail("predict")

    def predict_proba(self, X: Any) -> None:  # noqa: ANN401, ARG002, N803
        """Say how likely classes are."""
        self._fail("predict_proba")

    def decision_function(self, X: Any) -> None:  # noqa: ANN401, ARG002, N803
        """Say how far samples are on which side."""
        self._fail("decision_function")

    def score(self, X: Any, y: Any) -> None:  # noqa: ANN401, ARG002, N803
        """Score."""
        self._fail("score")

    @property
    def n_iter_(self) -> int:
        """How many iterations there were."""
        raise KeyError("n_iter_")


@pytest.mark.parametrize("mixin", [ClassifierMixin, RegressorMixin, ClusterMixin, OutlierMixin, object])
def test_what_fails_is_asked_once(mixin: type) -> None:
    """An estimator that fails at everything has no metrics, and is not asked for the same thing twice."""
    asked: list[str] = []
    estimator = type("BrokenToo", (Broken,) if mixin is object else (mixin, Broken), {})(asked)
    evaluation = Evaluation(estimator, data_of(np.zeros((3, 1)), [0, 1, 1]))
    assert measured(evaluation) == {}
    assert evaluation.predictions is None
    assert evaluation.probabilities is None
    assert evaluation.decisions is None
    assert len(asked) == len(set(asked))


class Counting(LogisticRegression):
    """Counts how often it predicts."""

    def predict(self, X: Any) -> Any:  # noqa: ANN401, N803
        """Predict."""
        self.predicted_ = getattr(self, "predicted_", 0) + 1
        return super().predict(X)


def test_predictions_are_made_once() -> None:
    """All metrics, the score among them, share one prediction, which is there for pictures too."""
    estimator = Counting().fit(X, TWO)
    evaluation = Evaluation(estimator, data_of(X, TWO))
    assert measured(evaluation)["score"] == skm.accuracy_score(TWO, evaluation.predictions)
    assert estimator.predicted_ == 1


def test_a_score_of_its_own_is_asked_for() -> None:
    """An estimator with a score of its own is scored by that, with the weights that it takes."""

    class Own(GaussianNB):
        def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:  # noqa: ANN401, N803
            return float(sum(sample_weight)) + len(X) + len(y)

    assert of(Own().fit(X, TWO), X, TWO, WEIGHTS)["score"] == pytest.approx(WEIGHTS.sum() + 240)


def test_arrays_alone() -> None:
    """Without an estimator, arrays are measured as what they are said to be."""
    estimator = GaussianNB().fit(X, TWO)
    likely = estimator.predict_proba(X)
    data = data_of(X, TWO)
    of_estimator = measured(Evaluation(estimator, data, pos_label=1))
    del of_estimator["score"]
    for shown in (likely, likely[:, 1]):
        evaluation = Evaluation(None, data, pos_label=1, probabilities=shown, kind=Kind.CLASSIFIER)
        assert measured(evaluation) == near(of_estimator)
        assert evaluation.labels == [0, 1]
    numbers = Evaluation(None, data_of(XR, NUMBERS), predictions=NUMBERS + 1, kind=Kind.REGRESSOR)
    assert measured(numbers)["mean_absolute_error"] == pytest.approx(1)
    assert measured(Evaluation(None, data)) == {}


@pytest.mark.filterwarnings("ignore:.y_pred. was renamed:FutureWarning")  # MLflow calls it so
def test_boosting_of_others() -> None:
    """The classes of XGBoost and LightGBM are measured as scikit-learn's own."""
    from lightgbm import LGBMClassifier
    from xgboost import XGBClassifier

    for estimator in (XGBClassifier(n_estimators=3, max_depth=2), LGBMClassifier(n_estimators=3, verbose=-1)):
        estimator.fit(X3, THREE)
        expected = _get_classifier_metrics(estimator, "", X3, THREE, None, None)
        found = of(estimator, X3, THREE)
        assert parts(found, expected) == pytest.approx(expected, rel=1e-6)
        assert len(expected) == 6
