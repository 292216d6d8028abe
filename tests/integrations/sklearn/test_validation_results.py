"""What is recorded of the functions that try estimators on parts of the data, read back from the platform."""

from __future__ import annotations

import io
import threading
import warnings
from typing import TYPE_CHECKING, Any

import mlflow
import numpy as np
import pandas as pd
import pytest
from sklearn.cluster import KMeans
from sklearn.datasets import load_diabetes, load_iris
from sklearn.dummy import DummyClassifier
from sklearn.inspection import permutation_importance
from sklearn.linear_model import Ridge, RidgeClassifierCV
from sklearn.metrics import accuracy_score, log_loss, make_scorer, mean_absolute_error, roc_auc_score
from sklearn.model_selection import (
    GroupKFold,
    KFold,
    LeaveOneOut,
    RepeatedKFold,
    cross_val_predict,
    cross_val_score,
    cross_validate,
    learning_curve,
    validation_curve,
)
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from sklearn.tree import DecisionTreeClassifier

from mantik.integrations.sklearn.options import Options
from mantik.integrations.sklearn.parameters import parameters_of
from mantik.integrations.sklearn.record import Record
from mantik.integrations.sklearn.validation import record_validation
from mantik.training.writer import RunWriter

if TYPE_CHECKING:
    from collections.abc import Callable

    from sklearn.base import BaseEstimator

    from tests.integrations.arrivals import Arrived

PLAIN = Options(log_plots=False)
X, Y = load_iris(return_X_y=True)
FRAME, LABELS = load_iris(return_X_y=True, as_frame=True)
DISEASE, PROGRESS = load_diabetes(return_X_y=True)


class Sometimes(DecisionTreeClassifier):
    """Cannot be fitted where the first sample is not among the data."""

    def fit(self, features: Any, *arguments: Any, **options: Any) -> Sometimes:  # noqa: ANN401
        """Raise, or fit."""
        if not (np.asarray(features) == X[0]).all(axis=1).any():
            raise ValueError("the first sample is not there")
        return super().fit(features, *arguments, **options)


def recorded(
    function: Callable[..., Any],
    estimator: BaseEstimator,
    prefix: str = "",
    options: Options | None = PLAIN,
    **arguments: Any,  # noqa: ANN401
) -> tuple[str, Any]:
    """Call a function, record what it returned, and return the run's id with that."""
    client = mlflow.MlflowClient()
    run_id = client.create_run("0").info.run_id
    record = Record(run_id, "0", prefix, client, RunWriter(client, run_id, known_params={}), threading.Lock())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = function(estimator, **arguments)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        bound = {"estimator": estimator, **arguments}
        record_validation(function.__name__, estimator, bound, result, record, options=options)
    return run_id, result


def table(arrived: Arrived, run_id: str, name: str) -> pd.DataFrame:
    """Return what a table holds."""
    return pd.read_csv(io.BytesIO(arrived.content(run_id, name)))


def pictures(arrived: Arrived, run_id: str) -> set[str]:
    """Return the names of the pictures of a run, without ending."""
    return {path.removesuffix(".png") for path in arrived.artifacts(run_id) if path.endswith(".png")}


def curve(values: Any, steps: Any = None) -> list[tuple[int, float]]:  # noqa: ANN401
    """Return the points of a curve."""
    return list(zip(range(len(values)) if steps is None else steps, map(float, values), strict=True))


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]) -> Any:  # noqa: ANN401
    """Nothing is said, whatever is recorded."""
    yield
    assert caplog.text == ""
    assert capsys.readouterr().out == ""


def test_cross_validate(arrived: Arrived) -> None:
    """Scores and times of all folds are a table, their means and deviations metrics, and the scores curves."""
    estimator = make_pipeline(StandardScaler(), DecisionTreeClassifier(random_state=0))
    run_id, result = recorded(
        cross_validate,
        estimator,
        X=FRAME,
        y=LABELS,
        options=None,
        cv=KFold(4, shuffle=True, random_state=0),
        scoring=["accuracy", "f1_macro"],
        return_train_score=True,
        return_estimator=True,
        return_indices=True,
    )
    run, keys = arrived.run(run_id), [key for key in result if key not in {"estimator", "indices"}]
    for key in keys:
        assert run.metrics[f"{key}_mean"] == result[key].mean()
        assert run.metrics[f"{key}_std"] == result[key].std()
    for key in ("test_accuracy", "train_f1_macro"):
        assert arrived.points(run_id, key) == curve(result[key])
    assert run.metrics["n_failed_folds"] == 0
    assert run.params == {
        **parameters_of(estimator, deep=True),
        "cv": "KFold(n_splits=4, random_state=0, shuffle=True)",
        "scoring": "['accuracy', 'f1_macro']",
        "n_splits": "4",
    }
    pd.testing.assert_frame_equal(
        table(arrived, run_id, "cross_validation.csv"), pd.DataFrame({"fold": range(4), **{k: result[k] for k in keys}})
    )
    assert len(pictures(arrived, run_id)) == 1


def test_cross_val_score(arrived: Arrived) -> None:
    """The scores that are returned have the names that they have in `cross_validate`."""
    run_id, scores = recorded(cross_val_score, GaussianNB(), X=X, y=Y)
    run = arrived.run(run_id)
    assert run.metrics["test_score_mean"] == scores.mean()
    assert arrived.points(run_id, "test_score") == curve(scores)
    assert run.params["n_splits"] == "5"
    assert list(table(arrived, run_id, "cross_validation.csv")["test_score"]) == list(scores)


def test_folds_that_fail(arrived: Arrived) -> None:
    """A fold without a score is counted and empty in the table; there is no mean, as scikit-learn has none."""
    run_id, result = recorded(cross_validate, Sometimes(), X=X, y=Y, cv=KFold(3))
    run = arrived.run(run_id)
    assert run.metrics["n_failed_folds"] == 1
    assert "test_score_mean" not in run.metrics
    assert "fit_time_mean" in run.metrics
    assert arrived.points(run_id, "test_score") == curve(result["test_score"])[1:]
    assert list(table(arrived, run_id, "cross_validation.csv")["test_score"].isna()) == [True, False, False]


@pytest.mark.parametrize(
    ("options", "text", "folds"),
    [
        ({"cv": ((train, test) for train, test in KFold(3, shuffle=True).split(X))}, "<genexpr>", 3),
        ({"cv": list(KFold(3, shuffle=True).split(X))}, "3 given splits", 3),
        ({"cv": GroupKFold(2), "groups": np.arange(150) % 5}, "GroupKFold(n_splits=2", 2),
        ({"cv": LeaveOneOut()}, "LeaveOneOut()", 150),
    ],
    ids=["generator", "list", "groups", "leave one out"],
)
def test_ways_to_split(arrived: Arrived, options: dict[str, Any], text: str, folds: int) -> None:
    """Whatever makes the folds, they are counted, and what makes them is a param."""
    run_id, scores = recorded(cross_val_score, GaussianNB(), X=X, y=Y, **options)
    run = arrived.run(run_id)
    assert run.params["cv"].startswith(text)
    assert run.params["n_splits"] == str(folds)
    assert run.metrics["test_score_mean"] == scores.mean()


def test_very_many_folds(arrived: Arrived) -> None:
    """Of very many folds all are in the table and in the mean, and 1000 are points of the curve."""
    features, targets = np.arange(1200.0).reshape(600, 2), np.arange(600) % 2
    cv = RepeatedKFold(n_splits=2, n_repeats=501)
    run_id, scores = recorded(cross_val_score, DummyClassifier(), X=features, y=targets, cv=cv)
    assert len(table(arrived, run_id, "cross_validation.csv")) == 1002
    assert arrived.run(run_id).metrics["test_score_mean"] == scores.mean()
    assert arrived.points(run_id, "test_score") == curve(scores[:1000])


def test_names_that_are_taken(arrived: Arrived) -> None:
    """Where the estimator has a param of the same name, the setting of the call has the function's before it."""
    estimator = RidgeClassifierCV(cv=2)
    run_id, _ = recorded(cross_val_score, estimator, X=X, y=Y, cv=3, scoring=make_scorer(accuracy_score))
    params = arrived.run(run_id).params
    assert (params["cv"], params["cross_val_score/cv"], params["n_splits"]) == ("2", "3", "3")
    assert params["cross_val_score/scoring"].startswith("make_scorer(accuracy_score")


def test_a_later_call_in_a_run(arrived: Arrived) -> None:
    """What is not the first in its run is below its own names."""
    run_id, _ = recorded(cross_validate, GaussianNB(), "cross_validate/", X=X, y=Y, cv=2)
    run = arrived.run(run_id)
    names = (*run.params, *run.metrics, *arrived.artifacts(run_id))
    assert all(name.startswith("cross_validate/") for name in names)
    assert "cross_validate/test_score_mean" in names


def test_predictions_of_classes(arrived: Arrived) -> None:
    """Out-of-fold predictions are measured and drawn as held-out ones are, with names of their own."""
    run_id, predicted = recorded(cross_val_predict, SVC(), X=X, y=Y, cv=3, options=None)
    run = arrived.run(run_id)
    assert run.metrics["accuracy_score_cv"] == accuracy_score(Y, predicted)
    assert run.params["n_splits"] == "3"
    assert "confusion_matrix_cv" in pictures(arrived, run_id)
    assert all(name.endswith("_cv") for name in (*run.metrics, *pictures(arrived, run_id)))


@pytest.mark.parametrize("method", ["predict_proba", "predict_log_proba", "decision_function"])
def test_probabilities_of_folds(arrived: Arrived, method: str) -> None:
    """From probabilities and decisions the predictions follow, also of an estimator that has seen all the data."""
    names = np.array(["setosa", "versicolor", "virginica"])
    estimator = SVC() if method == "decision_function" else DecisionTreeClassifier(max_depth=2, random_state=0)
    estimator.fit(X, names[Y])
    run_id, result = recorded(cross_val_predict, estimator, X=X, y=names[Y], method=method)
    run = arrived.run(run_id)
    assert run.metrics["accuracy_score_cv"] == accuracy_score(names[Y], names[result.argmax(axis=1)])
    if method != "decision_function":
        probabilities = np.exp(result) if method == "predict_log_proba" else result
        assert run.metrics["log_loss_cv"] == pytest.approx(log_loss(Y, probabilities))


def test_decisions_between_two_classes(arrived: Arrived) -> None:
    """Of two classes the sign of a decision says which one it is."""
    targets = np.where(Y == 1, "yes", "no")
    run_id, result = recorded(cross_val_predict, SVC(), X=X, y=targets, method="decision_function")
    assert arrived.run(run_id).metrics["accuracy_score_cv"] == ((result > 0) == (Y == 1)).mean()


@pytest.mark.parametrize("method", ["predict", "predict_proba"])
def test_predictions_of_several_labels(arrived: Arrived, method: str) -> None:
    """Of labels that are there or not there is an array of probabilities each, which are taken together."""
    targets = np.stack([X[:, 0] > 6, X[:, 2] > 3], axis=1).astype(int)
    folds = {"cv": GroupKFold(3), "groups": np.arange(150)}
    run_id, result = recorded(cross_val_predict, KNeighborsClassifier(), X=X, y=targets, method=method, **folds)
    run = arrived.run(run_id)
    assert (run.params["n_splits"], run.params["n_neighbors"]) == ("3", "5")
    if method == "predict":
        assert run.metrics["accuracy_score_cv"] == (result == targets).all(axis=1).mean()
    else:
        positive = np.stack([result[at][:, 1] for at in (0, 1)], axis=1)
        expected = roc_auc_score(targets, positive, average="weighted")
        assert run.metrics["roc_auc_cv"] == pytest.approx(expected)


def test_frames_of_pandas(arrived: Arrived) -> None:
    """Data frames with texts for targets are taken."""
    targets = LABELS.map({0: "setosa", 1: "versicolor", 2: "virginica"})
    run_id, result = recorded(cross_val_predict, GaussianNB(), X=FRAME, y=targets)
    assert arrived.run(run_id).metrics["accuracy_score_cv"] == (result == targets).mean()


def test_without_pictures(arrived: Arrived) -> None:
    """Nothing is drawn where no pictures are asked for."""
    run_id, _ = recorded(cross_val_score, GaussianNB(), X=X, y=Y, options=PLAIN)
    assert arrived.artifacts(run_id) == ["cross_validation.csv"]


def test_predictions_of_numbers(arrived: Arrived) -> None:
    """Predictions of a regressor are measured as such."""
    run_id, predicted = recorded(cross_val_predict, Ridge(), X=DISEASE, y=pd.Series(PROGRESS))
    expected = mean_absolute_error(PROGRESS, predicted)
    assert arrived.run(run_id).metrics["mean_absolute_error_cv"] == pytest.approx(expected)


def test_predictions_of_clusters(arrived: Arrived) -> None:
    """Numbers of clusters that differ from fold to fold are not measured; the params are there."""
    run_id, _ = recorded(cross_val_predict, KMeans(2, n_init=1, random_state=0), X=X)
    assert arrived.run(run_id).metrics == {}
    assert arrived.run(run_id).params["n_clusters"] == "2"


def test_a_learning_curve(arrived: Arrived) -> None:
    """The mean scores are curves over the numbers of samples, and the scores of all folds are in the table."""
    run_id, (sizes, train, test, fit_times, _) = recorded(
        learning_curve, GaussianNB(), options=None, X=X, y=Y, cv=3, shuffle=True, random_state=0, return_times=True
    )
    assert arrived.points(run_id, "test_score_mean") == curve(test.mean(axis=1), sizes)
    assert arrived.points(run_id, "train_score_std") == curve(train.std(axis=1), sizes)
    found = table(arrived, run_id, "learning_curve.csv")
    assert list(found["train_size"]) == list(sizes)
    np.testing.assert_array_equal(found[[f"test_score_fold_{fold}" for fold in range(3)]], test)
    np.testing.assert_array_equal(found["fit_time_mean"], fit_times.mean(axis=1))
    run = arrived.run(run_id)
    assert (run.params["cv"], run.params["n_splits"], run.params["random_state"]) == ("3", "3", "0")
    assert pictures(arrived, run_id) == {"learning_curve"}


def test_a_validation_curve(arrived: Arrived) -> None:
    """The mean scores are curves over the values of the param, the best of which is told."""
    values = np.logspace(-4, 1, 4)
    run_id, (train, test) = recorded(
        validation_curve, SVC(), options=None, X=X, y=Y, param_name="gamma", param_range=values, cv=3
    )
    run, means = arrived.run(run_id), test.mean(axis=1)
    assert arrived.points(run_id, "test_score_mean") == curve(means)
    assert run.metrics["best_cv_score"] == means.max()
    assert run.params["best_gamma"] == str(values[means.argmax()])
    assert run.params["param_name"] == "gamma"
    found = table(arrived, run_id, "validation_curve.csv")
    assert list(found["gamma"]) == list(values)
    np.testing.assert_array_equal(found["train_score_mean"], train.mean(axis=1))
    assert pictures(arrived, run_id) == {"validation_curve"}


def test_values_that_are_no_numbers(arrived: Arrived) -> None:
    """A param may have texts for values."""
    values = ["linear", "rbf"]
    run_id, (_, test) = recorded(
        validation_curve, SVC(), options=None, X=X, y=Y, param_name="kernel", param_range=values, cv=3
    )
    assert list(table(arrived, run_id, "validation_curve.csv")["kernel"]) == values
    assert arrived.run(run_id).params["best_kernel"] == values[test.mean(axis=1).argmax()]
    assert pictures(arrived, run_id) == {"validation_curve"}


def test_permutation_importance(arrived: Arrived) -> None:
    """The importance of each feature is a metric and a line of the table, the most important one first."""
    estimator = DecisionTreeClassifier(random_state=0).fit(FRAME.rename(columns=lambda name: name[:-5]), LABELS)
    features = FRAME.rename(columns=lambda name: name[:-5])
    run_id, result = recorded(
        permutation_importance, estimator, options=None, X=features, y=LABELS, n_repeats=3, random_state=0
    )
    run, means = arrived.run(run_id), dict(zip(features.columns, result.importances_mean, strict=True))
    assert run.metrics == {f"permutation_importance/{name}": mean for name, mean in means.items()}
    assert (run.params["n_repeats"], run.params["max_depth"]) == ("3", "None")
    found = table(arrived, run_id, "permutation_importance.csv")
    assert list(found.columns) == ["feature", "importance_mean", "importance_std"]
    assert list(found["importance_mean"]) == sorted(means.values(), reverse=True)
    assert dict(zip(found["feature"], found["importance_mean"], strict=True)) == means
    assert len(pictures(arrived, run_id)) == 1


def test_importance_for_several_scorers(arrived: Arrived) -> None:
    """With several scorers each has metrics, lines and a picture of its own; features without names have numbers."""
    estimator = GaussianNB().fit(X, Y)
    scorers = ["accuracy", "f1_macro"]
    run_id, result = recorded(
        permutation_importance,
        estimator,
        "permutation_importance/",
        options=None,
        X=X,
        y=Y,
        scoring=scorers,
        n_repeats=2,
    )
    run = arrived.run(run_id)
    for scorer in scorers:
        mean = result[scorer].importances_mean[3]
        assert run.metrics[f"permutation_importance/{scorer}/x3"] == mean
    # The fit that the estimator comes from has recorded its params.
    assert "permutation_importance/var_smoothing" not in run.params
    found = table(arrived, run_id, "permutation_importance/permutation_importance.csv")
    assert list(found["scorer"]) == ["accuracy"] * 4 + ["f1_macro"] * 4
    assert len(pictures(arrived, run_id)) == 2


def test_importance_of_very_many_features(arrived: Arrived) -> None:
    """Of very many features all are in the table, and 300 are metrics."""
    random = np.random.default_rng(0)
    features, targets = random.normal(size=(60, 400)), np.arange(60) % 2
    estimator = GaussianNB().fit(features, targets)
    run_id, result = recorded(permutation_importance, estimator, X=features, y=targets, n_repeats=1)
    assert len(table(arrived, run_id, "permutation_importance.csv")) == 400
    metrics = arrived.run(run_id).metrics
    assert len(metrics) == 300
    assert min(map(abs, metrics.values())) == np.sort(np.abs(result.importances_mean))[100]
