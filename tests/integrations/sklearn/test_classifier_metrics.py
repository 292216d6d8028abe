"""What is measured of classifiers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import sklearn.metrics as skm
from mlflow.sklearn.utils import _get_classifier_metrics
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.model_selection import GridSearchCV
from sklearn.multiclass import OneVsRestClassifier
from sklearn.multioutput import MultiOutputClassifier
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC
from sklearn.tree import DecisionTreeClassifier

from mantik.integrations.sklearn.evaluation import Evaluation
from tests.integrations.sklearn.measured import (
    CLASSIFIER,
    FEW,
    LABELLED,
    LABELS,
    LIKELY,
    NAMED,
    RANKED,
    THREE,
    TWO,
    WEIGHTS,
    X3,
    X,
    data_of,
    measured,
    near,
    of,
    parts,
)

CLASSIFICATIONS = {
    "two classes": (LogisticRegression(), X, TWO, None, None),
    "a positive class": (LogisticRegression(), X, TWO, None, 1),
    "the lesser one is positive": (LogisticRegression(), X, TWO, None, 0),
    "weights": (GaussianNB(), X, TWO, WEIGHTS, None),
    "weights and a positive class": (GaussianNB(), X, TWO, WEIGHTS, 1),
    "names": (GaussianNB(), X, NAMED, None, None),
    "a positive name": (GaussianNB(), X, NAMED, None, "spam"),
    "booleans": (GaussianNB(), X, TWO == 1, None, True),
    "a list": (GaussianNB(), X.tolist(), NAMED.tolist(), None, None),
    "data frame": (LogisticRegression(), pd.DataFrame(X, columns=list("abcdef")), pd.Series(NAMED), None, None),
    "sparse": (LogisticRegression(), scipy.sparse.csr_matrix(X), TWO, None, None),
    "three classes": (GaussianNB(), X3, THREE, None, None),
    "three names": (DecisionTreeClassifier(max_depth=2), X3, np.array(["x", "y", "z"])[THREE], None, None),
    "no probabilities": (LinearSVC(), X, TWO, None, None),
    "three without probabilities": (LinearSVC(), X3, THREE, None, None),
    "pipeline": (make_pipeline(StandardScaler(), LogisticRegression()), X, TWO, None, None),
    "search": (GridSearchCV(LogisticRegression(), {"C": [0.1, 1]}, scoring="f1", cv=2), X, TWO, None, None),
    "calibrated": (CalibratedClassifierCV(LinearSVC(), cv=2), X3, THREE, None, None),
}


@pytest.mark.filterwarnings("ignore:.y_pred. was renamed:FutureWarning")  # MLflow calls it so
@pytest.mark.parametrize("case", CLASSIFICATIONS)
def test_classifiers_have_what_mlflow_measures(case: str) -> None:
    """Every metric that MLflow's autologging has of a classifier is there by its name, with its value."""
    estimator, features, targets, weights, positive = CLASSIFICATIONS[case]
    weighed = {} if weights is None else {"sample_weight": weights}
    estimator.fit(features, targets, **weighed)
    expected = _get_classifier_metrics(estimator, "", features, np.asarray(targets), weights, positive)
    expected["score"] = estimator.score(features, targets, **weighed)
    found = of(estimator, features, targets, weights, pos_label=positive)
    assert parts(found, expected) == near(expected)
    assert len(expected) == (7 if hasattr(estimator, "predict_proba") else 5)


@pytest.mark.parametrize("weights", [None, WEIGHTS])
@pytest.mark.parametrize("positive", [None, "ham", "spam"])
def test_two_classes_have_more_than_mlflow_measures(positive: str | None, weights: np.ndarray | None) -> None:
    """Balanced accuracy, correlation, average precision and Brier's loss are those of scikit-learn's functions."""
    estimator = GaussianNB().fit(X, NAMED)
    found = of(estimator, X, NAMED, weights, pos_label=positive)
    predicted, likely = estimator.predict(X), estimator.predict_proba(X)[:, 0 if positive == "ham" else 1]
    is_there = positive or "spam"
    weighed = {"sample_weight": weights}
    expected = {
        "balanced_accuracy_score": skm.balanced_accuracy_score(NAMED, predicted, **weighed),
        "matthews_corrcoef": skm.matthews_corrcoef(NAMED, predicted, **weighed),
        "average_precision": skm.average_precision_score(NAMED, likely, pos_label=is_there, **weighed),
        "brier_score_loss": skm.brier_score_loss(NAMED, likely, pos_label=is_there, **weighed),
    }
    assert parts(found, expected) == near(expected)
    assert set(found) == CLASSIFIER | LIKELY


def test_decisions_rank_where_there_are_no_probabilities() -> None:
    """A classifier with a decision function alone has the area under the curve, and nothing of probabilities."""
    estimator = RidgeClassifier().fit(X, NAMED)
    decided = estimator.decision_function(X)
    found = of(estimator, X, NAMED, pos_label="ham")
    assert set(found) == CLASSIFIER | RANKED
    assert found["roc_auc"] == pytest.approx(skm.roc_auc_score(NAMED, decided))
    assert found["average_precision"] == pytest.approx(skm.average_precision_score(NAMED == "ham", -decided))


def test_a_class_unknown_to_the_estimator_spoils_only_probabilities() -> None:
    """Held-out data with a class that was not fitted has the metrics of predictions, with the class among them."""
    estimator = GaussianNB().fit(X, TWO)
    held_out = np.where(np.arange(120) < 5, 7, TWO)
    found = measured(Evaluation(estimator, data_of(X, held_out, name="X_test"), pos_label=1))
    predicted = estimator.predict(X)
    assert set(found) == CLASSIFIER
    assert found["f1_score"] == pytest.approx(skm.f1_score(held_out, predicted, average="weighted"))
    assert found["balanced_accuracy_score"] == pytest.approx(skm.balanced_accuracy_score(held_out, predicted))


def test_a_class_absent_from_the_data_spoils_only_what_needs_it() -> None:
    """Held-out data without one of three classes have a logarithmic loss, and no area under the curve."""
    estimator = GaussianNB().fit(X3, THREE)
    some = THREE < 2
    found = measured(Evaluation(estimator, data_of(X3[some], THREE[some], name="X_test")))
    assert set(found) == CLASSIFIER | {"log_loss"}
    likely = estimator.predict_proba(X3[some])
    assert found["log_loss"] == pytest.approx(skm.log_loss(THREE[some], likely, labels=[0, 1, 2]))
    recalled = skm.recall_score(THREE[some], estimator.predict(X3[some]), average="macro", labels=[0, 1])
    assert found["balanced_accuracy_score"] == pytest.approx(recalled)


@pytest.mark.parametrize("one", [0, 1])
def test_held_out_data_of_one_class(one: int) -> None:
    """Data of one of two classes have no area under the curve, and average precision only of positive ones."""
    estimator = LogisticRegression().fit(X, TWO)
    some = one == TWO
    found = measured(Evaluation(estimator, data_of(X[some], TWO[some], name="X_test"), pos_label=1))
    expected = CLASSIFIER | LIKELY - {"roc_auc"}
    assert set(found) == (expected if one else expected - {"average_precision"})
    likely = estimator.predict_proba(X[some])[:, 1]
    assert found["brier_score_loss"] == pytest.approx(np.mean((likely - one) ** 2))


def test_a_fit_to_one_class() -> None:
    """What knows one class only is always right, and nothing else is said of it."""
    estimator = RandomForestClassifier(3, random_state=0).fit(X, np.zeros(120))
    found = of(estimator, X, np.zeros(120))
    assert found == dict.fromkeys(CLASSIFIER - {"matthews_corrcoef"}, 1.0)


@pytest.mark.filterwarnings("ignore:The number of unique classes:UserWarning")  # the fit says so
def test_very_many_classes_are_not_compared_with_each_other() -> None:
    """Of very many classes there is no table of all pairs, but what is linear in them is there."""
    many = np.arange(1200)
    features = many[:, None].astype(float)
    estimator = DecisionTreeClassifier().fit(features, many)
    found = of(estimator, features, many)
    assert set(found) == CLASSIFIER - {"matthews_corrcoef"} | {"log_loss"}


@pytest.mark.parametrize("makes_list", [True, False])
def test_several_labels(makes_list: bool) -> None:  # noqa: FBT001
    """Labels that are there or not are measured each, and averaged by how often they are there."""
    estimator = (MultiOutputClassifier if makes_list else OneVsRestClassifier)(GaussianNB()).fit(LABELLED, LABELS)
    likely = estimator.predict_proba(LABELLED)
    assert isinstance(likely, list) is makes_list
    predicted = estimator.predict(LABELLED)
    scores = np.column_stack([each[:, 1] for each in likely]) if makes_list else likely
    weighted = {"average": "weighted"}
    expected = {
        "precision_score": skm.precision_score(LABELS, predicted, **weighted),
        "recall_score": skm.recall_score(LABELS, predicted, **weighted),
        "f1_score": skm.f1_score(LABELS, predicted, **weighted),
        "jaccard_score": skm.jaccard_score(LABELS, predicted, **weighted),
        "accuracy_score": skm.accuracy_score(LABELS, predicted),
        "hamming_loss": skm.hamming_loss(LABELS, predicted),
        "roc_auc": skm.roc_auc_score(LABELS, scores, **weighted),
        "average_precision": skm.average_precision_score(LABELS, scores, **weighted),
        "score": estimator.score(LABELLED, LABELS),
    }
    assert of(estimator, LABELLED, LABELS) == near(expected)


def test_sparse_labels_of_which_one_is_never_there() -> None:
    """Labels in a sparse matrix are measured, and one that is never there has a probability of zero."""
    labels = LABELS.copy()
    labels[:, 1] = 0
    estimator = RandomForestClassifier(5, max_depth=2, random_state=0).fit(LABELLED, labels)
    evaluation = Evaluation(estimator, data_of(LABELLED, scipy.sparse.csr_matrix(labels)))
    found = measured(evaluation)
    assert evaluation.is_multilabel
    assert evaluation.probabilities is not None
    assert evaluation.probabilities.shape == (80, 4)
    assert not evaluation.probabilities[:, 1].any()
    assert found["f1_score"] == pytest.approx(
        skm.f1_score(labels, estimator.predict(LABELLED), average="weighted", zero_division=0)
    )
    assert "average_precision" in found
    assert "roc_auc" not in found


def test_several_classes_of_a_sample() -> None:
    """Of several classes of each sample it is measured how many are wrong, and for how many samples all are right."""
    several = np.column_stack([THREE, THREE[::-1]])
    estimator = RandomForestClassifier(5, max_depth=2, random_state=0).fit(X3, several)
    evaluation = Evaluation(estimator, data_of(X3, several))
    wrong = estimator.predict(X3) != several
    expected = {"hamming_loss": wrong.mean(), "accuracy_score": 1 - wrong.any(axis=1).mean()}
    assert measured(evaluation) == near(expected)
    assert evaluation.is_multioutput
    assert not evaluation.is_binary


class Guess(ClassifierMixin, BaseEstimator):
    """Predicts what it was told to."""

    def __init__(self, answer: Any, *, likely: Any = None, known: Any = None) -> None:  # noqa: ANN401
        self.answer = answer
        self.likely = likely
        self.known = known

    def fit(self, data: Any, target: Any, some_more: Any = None) -> Guess:  # noqa: ANN401, ARG002
        """Learn nothing."""
        if self.known is not None:
            self.classes_ = self.known
        return self

    def predict(self, data: Any) -> Any:  # noqa: ANN401, ARG002
        """Predict."""
        return self.answer

    def predict_proba(self, data: Any) -> Any:  # noqa: ANN401, ARG002
        """Say how likely classes are."""
        if self.likely is None:
            raise RuntimeError("nothing is likely")
        return self.likely


ODD_CLASSES = {
    "numbers as objects": (np.array([1, 0, 1, 1], dtype=object), np.array([1, 0, 0, 1]), 0.75),
    "a missing number": ([1.0, np.nan, 0.0, 0.0], [1, 1, 1, 0], 2 / 3),
    "a missing name": (np.array(["a", None, "b", "b"], dtype=object), ["a", "a", "a", "b"], 2 / 3),
    "pandas' missing number": (pd.array([1, pd.NA, 0, 0], dtype="Int64"), [1, 1, 1, 0], 2 / 3),
    "pandas' missing name": (pd.Series(["a", None, "b", "b"], dtype="string"), ["a", "a", "a", "b"], 2 / 3),
    "categories": (pd.Series(FEW, dtype="category"), ["b", "a", "a", "a"], 0.75),
    "objects of several types": (
        np.array(["a", 1, 1, (2, 3)], dtype=object),
        np.array(["a", 1, "a", 1], dtype=object),
        0.5,
    ),
    "a column": (np.array([[1], [0], [1], [1]]), [[1], [0], [0], [1]], 0.75),
    "names that are predicted for numbers": ([1, 0, 1, 1], ["1", "0", "1", "1"], None),
    "a prediction is missing": ([1, 0, 1, 1], [1.0, np.nan, 1.0, 1.0], None),
    "predictions of other samples": ([1, 0, 1, 1], [1, 0], None),
    "all are missing": ([np.nan] * 4, [1, 0, 1, 1], None),
    "ragged": ([[1], [0, 1], [1], [1]], [1, 0, 1, 1], None),
    "three dimensions": (np.zeros((4, 2, 2)), [1, 0, 1, 1], None),
}


@pytest.mark.parametrize("case", ODD_CLASSES)
def test_odd_classes(case: str) -> None:
    """Samples without a class do not count; what cannot be compared has no metrics; nothing is raised."""
    targets, answer, right = ODD_CLASSES[case]
    found = of(Guess(answer).fit(None, None), np.zeros((4, 1)), targets)
    assert found.get("accuracy_score") == (None if right is None else pytest.approx(right))


def test_columns_of_probabilities_in_another_order() -> None:
    """Probabilities belong to the classes that the estimator says they belong to, however those are sorted."""
    likely = np.array([[0.1, 0.2, 0.7], [0.2, 0.6, 0.2], [0.5, 0.1, 0.4], [0.3, 0.6, 0.1]])
    estimator = Guess(["b", "a", "c", "a"], likely=likely, known=["c", "a", "b"]).fit(None, None)
    found = of(estimator, np.zeros((4, 1)), FEW)
    expected = -np.log([0.7, 0.6, 0.5, 0.6]).mean()
    assert found["log_loss"] == pytest.approx(expected)
    ordered = likely[:, [1, 2, 0]]
    assert found["roc_auc"] == pytest.approx(
        skm.roc_auc_score(FEW, ordered, average="weighted", multi_class="ovo", labels=["a", "b", "c"])
    )


@pytest.mark.parametrize(
    "likely", [[[0.9, 0.9], [0.2, 0.1], [0.3, 0.3]], [[np.nan, 0.1]] * 3, [[0.2, 0.3, 0.5]] * 3, "no"]
)
def test_probabilities_that_are_none(likely: Any) -> None:  # noqa: ANN401
    """What is called probabilities and is none has no logarithmic loss, and no other metric is missing for it."""
    found = of(Guess([0, 1, 1], likely=likely, known=[0, 1]).fit(None, None), np.zeros((3, 1)), [0, 1, 0])
    assert "log_loss" not in found
    assert found.keys() >= CLASSIFIER
