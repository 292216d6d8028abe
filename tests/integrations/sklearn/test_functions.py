"""The functions that record an estimator or an evaluation when they are called, without autologging."""

from __future__ import annotations

import os
import pickle
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlflow
import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.datasets import load_breast_cancer, load_diabetes, load_iris
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.metrics import accuracy_score, log_loss, mean_squared_error, precision_score, roc_auc_score
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier

import mantik
from mantik.exceptions import InvalidValueError, MantikError
from mantik.integrations.sklearn import log_classifier_evaluation, log_estimator, log_regressor_evaluation
from mantik.testing import Refuse

if TYPE_CHECKING:
    from collections.abc import Callable

    from mantik.testing import Platform
    from mantik.testing.holdings import Run
    from tests.integrations.arrivals import Arrived

X, Y = load_breast_cancer(return_X_y=True)
X3, Y3 = load_iris(return_X_y=True)
XR, YR = load_diabetes(return_X_y=True)
TWO = make_pipeline(StandardScaler(), LogisticRegression(C=0.5)).fit(X[::2], Y[::2])
THREE = LogisticRegression(max_iter=500).fit(X3[::2], Y3[::2])
TRUE, PREDICTED, PROBA = Y[1::2], TWO.predict(X[1::2]), TWO.predict_proba(X[1::2])

CURVES = {"calibration_curve", "precision_recall_curve", "roc_curve"}


@pytest.fixture
def arrived(arrived: Arrived, tmp_path: Path) -> Arrived:
    """Track in an experiment of one's own, which is called as the folder is."""
    mlflow.set_experiment(tmp_path.name)
    return arrived


def runs(arrived: Arrived) -> list[Run]:
    """Return the runs of this test, the first first."""
    return arrived.runs(Path.cwd().name)


def pictures(arrived: Arrived, run_id: str | None) -> set[str]:
    """Return the names of a run's pictures."""
    return {path.removesuffix(".png") for path in arrived.artifacts(run_id) if path.endswith(".png")}


def the_only(arrived: Arrived) -> Run:
    """Return the one run that there is."""
    (run,) = runs(arrived)
    return run


def test_a_classification(arrived: Arrived) -> None:
    """Classes and probabilities of two classes: metrics and pictures named after the data, in a finished run."""
    found = log_classifier_evaluation(TRUE, PREDICTED, y_proba=PROBA, pos_label=0)
    assert mlflow.active_run() is None
    run = the_only(arrived)
    assert run.status == "FINISHED"
    assert run.metrics == pytest.approx(found)
    assert found["accuracy_score_test"] == accuracy_score(TRUE, PREDICTED)
    assert found["precision_score_test"] == precision_score(TRUE, PREDICTED, pos_label=0)
    assert found["log_loss_test"] == pytest.approx(log_loss(TRUE, PROBA))
    assert found["roc_auc_test"] == pytest.approx(roc_auc_score(TRUE, PROBA[:, 1]))
    assert pictures(arrived, run.run_id) == {f"{name}_test" for name in {*CURVES, "confusion_matrix"}}
    assert "mlflow.autologging" not in run.tags


def test_epochs_of_the_active_run(arrived: Arrived) -> None:
    """In the active run, which stays active, each step is a point of one metric; pictures only if wanted."""
    with mlflow.start_run() as active:
        for step in (1, 2):
            log_classifier_evaluation(Y3, THREE.predict(X3), name="val", step=step, log_plots=False)
        assert mlflow.active_run() is not None
    assert arrived.steps(active.info.run_id, "accuracy_score_val") == [1, 2]
    assert the_only(arrived).run_id == active.info.run_id
    assert pictures(arrived, active.info.run_id) == set()


FORMS: dict[str, Callable[[Any], Any]] = {
    "list": list,
    "series": pd.Series,
    "tensor": torch.tensor,
    "gradient": lambda values: torch.tensor(np.asarray(values, dtype=float), requires_grad=True),
    "column": lambda values: np.asarray(values).reshape(-1, 1),
    "texts": lambda values: np.asarray(values).astype(str).tolist(),
}


def test_any_arrays(arrived: Arrived) -> None:
    """Lists, columns, tensors and texts give what arrays give."""
    weights = np.linspace(1, 2, len(TRUE))
    plain = [
        log_classifier_evaluation(of(TRUE), of(PREDICTED), y_proba=PROBA, sample_weight=weights, log_plots=False)
        for of in (np.asarray, *FORMS.values())
    ]
    assert plain == [pytest.approx(plain[0])] * (len(FORMS) + 1)
    assert plain[0]["accuracy_score_test"] == accuracy_score(TRUE, PREDICTED, sample_weight=weights)
    assert [run.metrics for run in runs(arrived)] == plain


def test_a_network_of_two_classes(arrived: Arrived) -> None:
    """The probability of the second class alone, as one column of a tensor, is enough for all metrics."""
    both = log_classifier_evaluation(TRUE, y_proba=PROBA, log_plots=False)
    one = log_classifier_evaluation(torch.tensor(TRUE), y_proba=torch.tensor(PROBA[:, 1:]), log_plots=False)
    assert one == pytest.approx(both)
    assert one["accuracy_score_test"] == accuracy_score(TRUE, PREDICTED)
    assert len(runs(arrived)) == 2


def test_scores(arrived: Arrived) -> None:
    """Scores alone tell how samples are ranked; one column for each of two classes says as much as one number."""
    scores = TWO.decision_function(X[1::2])
    one = log_classifier_evaluation(TRUE, y_score=scores)
    two = log_classifier_evaluation(TRUE, y_score=np.column_stack([-scores, scores]), log_plots=False)
    assert one == two
    assert set(one) == {"average_precision_test", "roc_auc_test"}
    assert one["roc_auc_test"] == pytest.approx(roc_auc_score(TRUE, scores))
    drawn = pictures(arrived, runs(arrived)[0].run_id)
    assert {"precision_recall_curve_test", "roc_curve_test"} <= drawn
    assert "confusion_matrix_test" not in drawn


def test_classes_that_are_not_in_the_data(arrived: Arrived) -> None:
    """Columns without samples are numbered as networks do it, or are named by labels in any order."""
    some = Y3 < 2
    proba = THREE.predict_proba(X3[some])
    numbered = log_classifier_evaluation(Y3[some], y_proba=proba, log_plots=False)
    names = np.array(["setosa", "versicolor", "virginica"])
    backwards = names[::-1]
    named = log_classifier_evaluation(
        names[Y3[some]], y_proba=proba[:, ::-1], labels=backwards, name="named", log_plots=False
    )
    assert numbered["accuracy_score_test"] == accuracy_score(Y3[some], THREE.predict(X3[some]))
    assert numbered["log_loss_test"] == pytest.approx(log_loss(Y3[some], proba, labels=[0, 1, 2]))
    assert [*named.values()] == pytest.approx([*numbered.values()])
    assert len(runs(arrived)) == 2


def test_one_class_in_a_batch(arrived: Arrived) -> None:
    """Samples of one class alone do not end a training, and say nothing of ranking."""
    found = log_classifier_evaluation([1, 1, 1], y_proba=[0.9, 0.2, 0.8])
    assert found["accuracy_score_test"] == pytest.approx(2 / 3)
    assert "roc_auc_test" not in found
    assert the_only(arrived).metrics == pytest.approx(found)


def test_several_labels(arrived: Arrived) -> None:
    """Labels that are there or not, with the probabilities in one array or as scikit-learn has them."""
    labels = np.column_stack([Y3 == 0, Y3 > 0, X3[:, 0] > 6]).astype(int)
    tree = DecisionTreeClassifier(max_depth=2, random_state=0).fit(X3, labels)
    columns = np.column_stack([each[:, 1] for each in tree.predict_proba(X3)])
    one = log_classifier_evaluation(pd.DataFrame(labels), tree.predict(X3), y_proba=columns)
    other = log_classifier_evaluation(labels, y_proba=tree.predict_proba(X3), log_plots=False)
    assert one == pytest.approx(other)
    assert one["accuracy_score_test"] == accuracy_score(labels, tree.predict(X3))
    assert "confusion_matrix_test" in pictures(arrived, runs(arrived)[0].run_id)


def test_a_regression(arrived: Arrived) -> None:
    """Numbers of tensors and frames: metrics and pictures; rows without target do not count."""
    predicted = LinearRegression().fit(XR, YR).predict(XR)
    targets = YR.copy()
    targets[0] = np.nan
    found = log_regressor_evaluation(
        pd.DataFrame({"y": targets}),
        torch.tensor(predicted[:, None], requires_grad=True),
        name="a/{b}",
        step=np.int64(3),
    )
    assert found["mean_squared_error_a/{b}"] == pytest.approx(mean_squared_error(YR[1:], predicted[1:]))
    run = the_only(arrived)
    assert "root_mean_squared_error_a/{b}" in found
    assert len(run.metrics) == len(found)
    assert len(arrived.artifacts(run.run_id, "predicted_vs_true_a")) == 1


def test_predictions_that_are_nan(arrived: Arrived) -> None:
    """A training that has diverged goes on: what cannot be computed is left out."""
    found = log_regressor_evaluation([1.0, 2.0], [np.nan, np.nan])
    assert not any(name.startswith("mean_squared_error") for name in found)
    assert the_only(arrived).status == "FINISHED"


def test_an_estimator(arrived: Arrived) -> None:
    """An estimator has in its run what autologging gives it, and is not changed."""
    before = pickle.dumps(TWO)
    found = log_estimator(TWO, X[::2], Y[::2])
    assert pickle.dumps(TWO) == before
    run = the_only(arrived)
    assert run.status == "FINISHED"
    assert run.params["logisticregression__C"] == "0.5"
    assert run.tags["estimator_name"] == "Pipeline"
    assert "mlflow.autologging" not in run.tags
    assert found["training_accuracy_score"] == accuracy_score(Y[::2], TWO.predict(X[::2]))
    assert run.metrics == pytest.approx(found)
    assert {"estimator.html", "training_confusion_matrix.png"} <= set(arrived.artifacts(run.run_id))
    loaded = mlflow.sklearn.load_model(f"runs:/{run.run_id}/model")
    assert (loaded.predict(X) == TWO.predict(X)).all()
    (model,) = mlflow.search_logged_models([run.experiment_id], output_format="list")
    assert {metric.key for metric in model.metrics} >= set(found)
    (data,) = mlflow.get_run(run.run_id).inputs.dataset_inputs
    assert data.tags[0].value == "train"


def test_held_out_data_and_a_second_estimator(arrived: Arrived) -> None:
    """Other data give their name to metrics and pictures; a second estimator of a run has its own names."""
    with mlflow.start_run() as active:
        log_estimator(THREE, X3[::2], Y3[::2])
        held_out = log_estimator(DecisionTreeClassifier().fit(X3[::2], Y3[::2]), X3[1::2], Y3[1::2], name="test")
    run = arrived.run(active.info.run_id)
    assert {"training_accuracy_score", "DecisionTreeClassifier/accuracy_score_test"} <= set(run.metrics)
    assert "accuracy_score_test" in held_out
    assert run.params["C"] == "1.0"
    assert run.params["DecisionTreeClassifier/criterion"] == "gini"
    below = arrived.artifacts(active.info.run_id, "DecisionTreeClassifier")
    assert "DecisionTreeClassifier/confusion_matrix_test.png" in below
    contexts = {given.tags[0].value for given in mlflow.get_run(active.info.run_id).inputs.dataset_inputs}
    assert contexts == {"train", "eval"}


def test_beside_autologging(arrived: Arrived, autologging: Callable[..., None]) -> None:
    """What autologging has recorded in the run keeps its names, and the calls made here are none of the user's."""
    autologging(log_models=False, log_plots=False)
    with mlflow.start_run() as active:
        estimator = LogisticRegression(max_iter=500).fit(X3[::2], Y3[::2])
        log_estimator(estimator, X3[1::2], Y3[1::2], name="test")
        log_classifier_evaluation(Y3[1::2], THREE.predict(X3[1::2]), log_plots=False)
        LogisticRegression(C=2, max_iter=500).fit(X3, Y3)
    run = arrived.run(active.info.run_id)
    assert {name: value for name, value in run.params.items() if name.rpartition("/")[2] == "C"} == {
        "C": "1.0",
        "LogisticRegression/C": "1.0",
        "LogisticRegression-2/C": "2",
    }
    assert {"LogisticRegression/accuracy_score_test", "accuracy_score_test"} <= set(run.metrics)
    assert not [name for name in run.metrics if name.endswith(("X", "unknown_dataset"))]


def test_an_estimator_alone(arrived: Arrived) -> None:
    """Without data there are params and the model, without a word about what there is not."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = log_estimator(LogisticRegression(max_iter=500).fit(X3, Y3))
    run = the_only(arrived)
    assert found == run.metrics
    assert "training_accuracy_score" not in found
    assert run.params["max_iter"] == "500"
    assert len(mlflow.sklearn.load_model(f"runs:/{run.run_id}/model").predict(X3)) == len(X3)


def test_a_search(arrived: Arrived) -> None:
    """A search has its results and its best candidates."""
    search = GridSearchCV(DecisionTreeClassifier(random_state=0), {"max_depth": [1, 2]}, cv=2).fit(X3, Y3)
    log_estimator(search, X3, Y3)
    parent = next(run for run in runs(arrived) if "mlflow.parentRunId" not in run.tags)
    assert parent.params["best_max_depth"] == "2"
    assert "cv_results.csv" in arrived.artifacts(parent.run_id)
    assert len(runs(arrived)) == 3


class Homemade(ClassifierMixin, BaseEstimator):
    """Keeps what it has learned where scikit-learn does not look for it."""

    def fit(self, features: Any, targets: Any) -> Homemade:  # noqa: ANN401, ARG002
        """Learn the first class."""
        self.learned = targets[0]
        return self

    def predict(self, features: Any) -> Any:  # noqa: ANN401
        """Predict it."""
        return np.full(len(features), self.learned)


def test_an_estimator_of_ones_own(arrived: Arrived) -> None:
    """One that does not tell that it is fitted is recorded once it is."""
    with pytest.raises(InvalidValueError, match="Homemade is not fitted"):
        log_estimator(Homemade(), X3, Y3)
    found = log_estimator(Homemade().fit(X3, Y3), X3, Y3)
    assert found["training_accuracy_score"] == accuracy_score(Y3, np.zeros_like(Y3))
    assert the_only(arrived).status == "FINISHED"


WRONG: dict[str, tuple[Callable[[], object], str]] = {
    "nothing": (lambda: log_classifier_evaluation(TRUE), "nothing to compare y_true with"),
    "lengths": (lambda: log_classifier_evaluation(TRUE, PREDICTED[1:]), "y_pred has 283 rows and y_true has 284"),
    "lengths of probabilities": (lambda: log_classifier_evaluation(TRUE, y_proba=PROBA[1:]), "y_proba has 283 rows"),
    "lengths of weights": (
        lambda: log_classifier_evaluation(TRUE, PREDICTED, sample_weight=[1]),
        "sample_weight has 1 rows",
    ),
    "weights that are texts": (
        lambda: log_regressor_evaluation([1, 2], [1, 2], sample_weight=["a", "b"]),
        "a finite number for each row",
    ),
    "empty": (lambda: log_classifier_evaluation([], []), r"y_true is a list of shape \(0,\)"),
    "ragged": (lambda: log_classifier_evaluation([[1], [1, 2]], [0, 1]), "y_true is a list that cannot become"),
    "a number": (lambda: log_regressor_evaluation(1.0, 2.0), r"y_true is a float of shape \(\)"),
    "probabilities as classes": (lambda: log_classifier_evaluation(TRUE, PROBA), "probabilities go to y_proba"),
    "numbers as classes": (lambda: log_classifier_evaluation(YR / 7, YR), "for log_regressor_evaluation"),
    "classes as numbers": (lambda: log_regressor_evaluation(["a"], ["b"]), "for\\s+log_classifier_evaluation"),
    "one-hot": (lambda: log_classifier_evaluation(np.eye(3)[Y3], Y3), "argmax"),
    "texts and numbers": (lambda: log_classifier_evaluation(["a", "b"], [0, 1]), "never equal"),
    "scores as probabilities": (
        lambda: log_classifier_evaluation(TRUE, y_proba=TWO.decision_function(X[1::2])),
        "Other scores go to y_score",
    ),
    "columns": (
        lambda: log_classifier_evaluation(["a", "b"], y_proba=np.full((2, 3), 1 / 3)),
        "y_proba has 3 columns, and the classes are 'a', 'b'",
    ),
    "one column of three": (
        lambda: log_classifier_evaluation(Y3, y_proba=np.full(150, 0.5)),
        "one number for each row, as of two classes",
    ),
    "labels": (lambda: log_classifier_evaluation(Y3, Y3, labels=[0, 1]), "labels is 0, 1, and the classes"),
    "labels twice": (lambda: log_classifier_evaluation(TRUE, TRUE, labels=[0, 1, 1]), "Name each class once"),
    "labels of labels": (
        lambda: log_classifier_evaluation(np.eye(3), np.eye(3), labels=[0, 1, 2]),
        "named by the columns of a data frame",
    ),
    "pos_label": (lambda: log_classifier_evaluation(TRUE, PREDICTED, pos_label="yes"), "pos_label is 'yes'"),
    "pos_label of three": (lambda: log_classifier_evaluation(Y3, Y3, pos_label=1), "one of two classes"),
    "name": (lambda: log_classifier_evaluation(TRUE, PREDICTED, name=""), "name is ''"),
    "step": (lambda: log_regressor_evaluation(YR, YR, step=1.5), "step is 1.5"),  # type: ignore[arg-type]
    "shapes": (lambda: log_regressor_evaluation(YR, np.column_stack([YR, YR])), r"y_pred has the shape \(442, 2\)"),
    "not fitted": (lambda: log_estimator(LogisticRegression(), X3, Y3), "LogisticRegression is not fitted"),
    "a class": (lambda: log_estimator(LogisticRegression, X3, Y3), "is no estimator"),  # type: ignore[arg-type]
    "features": (lambda: log_estimator(THREE, X, Y), "LogisticRegression cannot predict from X: ValueError"),
    "targets": (lambda: log_estimator(THREE, X3, Y3[1:]), "y has 149 rows and X has 150"),
    "targets alone": (lambda: log_estimator(THREE, y=Y3), "no X"),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_the_user_did_wrong(
    blank_environment: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, what: str
) -> None:
    """A mistake is raised at once and says what is wrong; nothing is begun, which would need a login."""
    call, text = WRONG[what]
    with pytest.raises(InvalidValueError, match=text):
        call()
    assert caplog.messages == []


def test_a_dead_platform(arrived: Arrived, caplog: pytest.LogCaptureFixture) -> None:
    """Without the platform the metrics are returned all the same, and the run is there later."""
    switch = arrived.proxy.fault(Refuse())
    found = log_regressor_evaluation(YR, YR + 1, log_plots=False)
    switch.clear()
    assert found["mean_absolute_error_test"] == pytest.approx(1)
    assert not caplog.records or all(record.levelname == "WARNING" for record in caplog.records)
    assert the_only(arrived).metrics == pytest.approx(found)


def test_no_login(blank_environment: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Without a login there are the metrics and one warning; with strict tracking the error is raised."""
    assert log_regressor_evaluation([1, 2], [1, 3])["max_error_test"] == 1
    (warning,) = caplog.messages
    assert warning.startswith("The evaluation test is not recorded: MissingSettingsError")
    blank_environment.setenv("MANTIK_STRICT", "1")
    with pytest.raises(MantikError):
        log_regressor_evaluation([1, 2], [1, 3])
    with pytest.raises(MantikError):
        log_estimator(THREE, X3, Y3)


def test_lazily(mantik_environment: dict[str, str], mantik_platform: Platform) -> None:
    """Nobody needs to log in before."""
    assert "MLFLOW_TRACKING_AUTH" not in os.environ
    found = log_classifier_evaluation(TRUE, PREDICTED, log_plots=False)
    assert mantik.flush(60)
    assert os.environ["MLFLOW_TRACKING_AUTH"] == "mantik"
    last = mlflow.last_active_run()
    assert last is not None
    assert mantik_platform.read_back.run(last.info.run_id).metrics == pytest.approx(found)
