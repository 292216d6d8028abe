"""Fits of the user's own: one run each, or one place each in a run, and a training that is as it would be without."""

# ruff: noqa: ANN401  # estimators take and return anything

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import mlflow
import numpy as np
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.cluster import DBSCAN, MiniBatchKMeans
from sklearn.compose import make_column_transformer
from sklearn.datasets import load_breast_cancer, load_diabetes
from sklearn.decomposition import PCA
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression, SGDClassifier
from sklearn.metrics import silhouette_score
from sklearn.model_selection import (
    GridSearchCV,
    cross_val_score,
    cross_validate,
    learning_curve,
    permutation_test_score,
)
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import mantik

if TYPE_CHECKING:
    from collections.abc import Callable

    from mantik.testing.holdings import Run
    from tests.integrations.arrivals import Arrived

X, Y = load_breast_cancer(return_X_y=True, as_frame=True)
X, Y = StandardScaler().set_output(transform="pandas").fit_transform(X.iloc[:120, :5]), Y.iloc[:120]


class Constant(ClassifierMixin, BaseEstimator):
    """A classifier of the user's own, which calls MLflow while it is fitted."""

    def __init__(self, label: int = 0, error: BaseException | None = None) -> None:
        self.label = label
        self.error = error

    def fit(self, features: Any, targets: Any) -> Constant:
        """Learn the classes."""
        mlflow.log_metric("seen", len(features))
        if self.error is not None:
            raise self.error
        self.classes_ = np.unique(targets)
        return self

    def predict(self, features: Any) -> Any:
        """Say the same of all."""
        return np.full(len(features), self.label)


def runs_of(arrived: Arrived) -> list[Run]:
    """Return the runs of the test's experiment, the first first."""
    experiment_id = mlflow.tracking.fluent._get_experiment_id()  # noqa: SLF001  # what is active
    return arrived.runs(mlflow.get_experiment(experiment_id).name)


def names(arrived: Arrived) -> list[str]:
    """Return the estimators of the runs, the first first."""
    return [run.tags["estimator_name"] for run in runs_of(arrived)]


def test_a_fit_is_a_run(arrived: Arrived, autologging: Callable[..., None]) -> None:
    """A fit outside of a run becomes a run, with MLflow's names for params, metrics, tags and artifacts."""
    autologging(log_input_examples=True, extra_tags={"team": "blue"})
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.5)).fit(X, Y)
    active = mlflow.last_active_run()
    assert active is not None
    run = arrived.run(active.info.run_id)
    assert mlflow.active_run() is None
    assert run.status == "FINISHED"
    assert run.params["logisticregression__C"] == "0.5"
    assert run.params["standardscaler"] == "StandardScaler()"
    assert run.tags["estimator_class"] == "sklearn.pipeline.Pipeline"
    assert run.tags["mlflow.autologging"] == "sklearn"
    assert run.tags["team"] == "blue"
    assert run.metrics["training_score"] == pytest.approx(model.score(X, Y))
    assert run.metrics["training_accuracy_score"] == run.metrics["training_score"]
    assert 0.5 < run.metrics["training_roc_auc"] <= 1
    assert run.metrics["fit_time"] > 0
    files = arrived.artifacts(run.run_id)
    assert {"estimator.html", "training_confusion_matrix.png", "training_roc_curve.png", "coefficients.png"} <= {*files}
    loaded = mlflow.sklearn.load_model(f"runs:/{run.run_id}/model")
    assert loaded.predict(X).tolist() == model.predict(X).tolist()


def test_a_model_is_there_right_after_the_fit(arrived: Arrived, autologging: Callable[..., None]) -> None:
    """Who reads the run after the fit finds what is written afterwards: model, metrics and files."""
    autologging()
    with mlflow.start_run() as run:
        model = LogisticRegression(max_iter=500).fit(X, Y)
    assert mlflow.sklearn.load_model(f"runs:/{run.info.run_id}/model").coef_.tolist() == model.coef_.tolist()
    assert "training_score" in mlflow.get_run(run.info.run_id).data.metrics
    assert any(file.path == "estimator.html" for file in mlflow.MlflowClient().list_artifacts(run.info.run_id))
    (found,) = mlflow.search_runs([run.info.experiment_id], output_format="list")
    assert found.data.metrics["training_score"] == model.score(X, Y)
    del arrived


def test_fits_in_one_run_have_places_of_their_own(arrived: Arrived, autologging: Callable[..., None]) -> None:
    """The first fit of a run has the plain names, each later one a name space, and no param conflicts."""
    autologging(log_plots=False)
    with mlflow.start_run() as active:
        LogisticRegression(C=1.0, max_iter=500).fit(X, Y)
        LogisticRegression(C=2.0, max_iter=500).fit(X, Y)
        RandomForestClassifier(n_estimators=5).fit(X, Y)
        LogisticRegression(C=3.0, max_iter=500).fit(X, Y)
    run = arrived.run(active.info.run_id)
    found = {name: value for name, value in run.params.items() if name.rpartition("/")[2] in {"C", "n_estimators"}}
    assert found == {
        "C": "1.0",
        "LogisticRegression/C": "2.0",
        "RandomForestClassifier/n_estimators": "5",
        "LogisticRegression-2/C": "3.0",
    }
    assert {"training_score", "LogisticRegression/training_score", "RandomForestClassifier/training_score"} <= {
        *run.metrics
    }
    assert "mantik.param_drift" not in run.tags
    assert "LogisticRegression/estimator.html" in arrived.artifacts(run.run_id, "LogisticRegression")
    assert mantik.receipt().refused == 0


@pytest.mark.parametrize(
    ("error", "status"), [(ValueError("too odd"), "FAILED"), (KeyboardInterrupt("enough"), "KILLED")]
)
def test_a_fit_that_fails(
    arrived: Arrived, autologging: Callable[..., None], error: BaseException, status: str
) -> None:
    """An error of a fit reaches the user as it is; the run ends with its true status and the error as a tag."""
    autologging()
    with pytest.raises(type(error)) as raised:
        Constant(error=error).fit(X, Y)
    assert raised.value is error
    (run,) = runs_of(arrived)
    assert run.status == status
    assert run.tags["mantik.error"] == f"{type(error).__name__}: {error}"
    assert mlflow.active_run() is None


def test_a_fit_that_fails_leaves_the_users_run_open(arrived: Arrived, autologging: Callable[..., None]) -> None:
    """A failed fit in a run of the user's is told of there, and the run is the user's to end."""
    autologging()
    with mlflow.start_run() as active:
        with pytest.raises(ValueError, match="odd"):
            Constant(error=ValueError("odd")).fit(X, Y)
        LogisticRegression(max_iter=500).fit(X, Y)
    run = arrived.run(active.info.run_id)
    assert run.status == "FINISHED"
    assert run.tags["mantik.error"] == "ValueError: odd"


def test_own_estimators(arrived: Arrived, autologging: Callable[..., None]) -> None:
    """A class of the user's is tracked, and what it logs while it is fitted lands in the same run."""
    autologging()
    Constant(label=1).fit(X, Y)
    (run,) = runs_of(arrived)
    assert run.params["label"] == "1"
    assert run.metrics["seen"] == len(X)
    assert run.metrics["training_accuracy_score"] == pytest.approx((Y == 1).mean())


def test_what_prepares_data_is_no_training(arrived: Arrived, autologging: Callable[..., None]) -> None:
    """A scaler that is fitted by itself is not recorded, as with MLflow, unless that is asked for; PCA is."""
    autologging(log_plots=False, log_models=False)
    StandardScaler().fit(X)
    make_column_transformer((StandardScaler(), ["mean radius"])).fit_transform(X)
    PCA(2).fit_transform(X)
    assert names(arrived) == ["PCA"]
    autologging(log_plots=False, log_models=False, log_preprocessing=True)
    with mlflow.start_run() as active:
        StandardScaler(with_mean=False).fit(X)
        LogisticRegression(max_iter=500).fit(X, Y)
    run = arrived.run(active.info.run_id)
    assert run.params["StandardScaler/with_mean"] == "False"
    assert "C" in run.params


def test_exclusive(arrived: Arrived, autologging: Callable[..., None]) -> None:
    """With `exclusive` nothing is recorded in a run of the user's, and fits outside of one as ever."""
    autologging(exclusive=True, log_plots=False, log_models=False)
    with mlflow.start_run() as active:
        LogisticRegression(max_iter=500).fit(X, Y)
    LogisticRegression(max_iter=500).fit(X, Y)
    assert arrived.run(active.info.run_id).params == {}
    assert len(runs_of(arrived)) == 2


def test_off_is_off(arrived: Arrived, autologging: Callable[..., None]) -> None:
    """After `disable=True` nothing is recorded any more; on again, it is, once."""
    autologging(log_plots=False, log_models=False)
    autologging(log_plots=False, log_models=False)
    mantik.sklearn_autolog(disable=True)
    LinearRegression().fit(X, Y)
    autologging(log_plots=False, log_models=False)
    LogisticRegression(max_iter=500).fit(X, Y)
    assert names(arrived) == ["LogisticRegression"]


def test_mlflows_own_autologging_wins_where_it_is_switched_on_later(
    arrived: Arrived, autologging: Callable[..., None]
) -> None:
    """Who calls `mlflow.sklearn.autolog()` afterwards gets MLflow's, and one run for a fit."""
    autologging()
    mlflow.sklearn.autolog(log_models=False)
    LinearRegression().fit(X, Y)
    (run,) = runs_of(arrived)
    assert "fit_time" not in run.metrics
    assert "training_r2_score" in run.metrics


def test_batches(arrived: Arrived, autologging: Callable[..., None]) -> None:
    """All calls of `partial_fit` of an estimator in a run make a point each; the model is kept at its end."""
    autologging()
    model = SGDClassifier(loss="log_loss", random_state=0)
    with mlflow.start_run() as active:
        for _ in range(3):
            for first in range(0, 120, 40):
                model.partial_fit(X[first : first + 40], Y[first : first + 40], classes=[0, 1])
    run = arrived.run(active.info.run_id)
    assert arrived.points(run.run_id, "samples_seen") == [(step, 40.0 * step) for step in range(1, 10)]
    assert arrived.steps(run.run_id, "training_score") == list(range(1, 10))
    assert run.params["loss"] == "log_loss"
    assert mlflow.sklearn.load_model(f"runs:/{run.run_id}/model").coef_.tolist() == model.coef_.tolist()


def test_batches_outside_of_a_run(arrived: Arrived, autologging: Callable[..., None]) -> None:
    """`partial_fit` outside of a run keeps one run open, beside others, and a `fit` of the estimator ends it."""
    autologging(log_plots=False)
    model = MiniBatchKMeans(2, random_state=0)
    for first in range(0, 120, 40):
        model.partial_fit(X[first : first + 40])
        LinearRegression().fit(X, Y)
    (growing,) = [run for run in runs_of(arrived) if run.status == "RUNNING"]
    assert arrived.steps(growing.run_id, "training_score") == [1, 2, 3]
    model.fit(X)
    assert arrived.run(growing.run_id).status == "FINISHED"
    assert len(runs_of(arrived)) == 5


def test_a_failed_batch(arrived: Arrived, autologging: Callable[..., None]) -> None:
    """A call of `partial_fit` that fails ends the run as FAILED; the next one begins another."""
    autologging(log_plots=False)
    model = SGDClassifier()
    model.partial_fit(X, Y, classes=[0, 1])
    with pytest.raises(ValueError, match="feature names"):
        model.partial_fit(X.iloc[:, :2], Y)
    model.partial_fit(X, Y)
    assert [run.status for run in runs_of(arrived)] == ["FAILED", "RUNNING"]


@pytest.mark.parametrize("backend", ["loky", pytest.param("threading", marks=pytest.mark.thorough)])
def test_workers_record_nothing(arrived: Arrived, autologging: Callable[..., None], backend: str) -> None:
    """A search, a cross-validation and a forest with two workers are one run each, with the right children."""
    from joblib import parallel_config

    autologging(log_plots=False, log_models=False, max_tuning_runs=None)
    with parallel_config(backend=backend):
        GridSearchCV(LogisticRegression(max_iter=500), {"C": [0.1, 1.0, 10.0]}, n_jobs=2, cv=2).fit(X, Y)
        cross_validate(LogisticRegression(max_iter=500), X, Y, n_jobs=2, cv=3)
        RandomForestClassifier(n_estimators=8, n_jobs=2).fit(X, Y)
    runs = runs_of(arrived)
    children = [run for run in runs if "mlflow.parentRunId" in run.tags]
    parents = [run for run in runs if run not in children]
    assert [run.tags["estimator_name"] for run in parents] == [
        "GridSearchCV",
        "LogisticRegression",
        "RandomForestClassifier",
    ]
    assert sorted(run.params["C"] for run in children) == ["0.1", "1.0", "10.0"]
    assert {run.tags["mlflow.parentRunId"] for run in children} == {parents[0].run_id}
    assert {run.status for run in runs} == {"FINISHED"}


@pytest.mark.parametrize("backend", ["loky", pytest.param("threading", marks=pytest.mark.thorough)])
def test_batches_in_workers(arrived: Arrived, autologging: Callable[..., None], backend: str) -> None:
    """What a learning curve calls in its workers is the curve's, and a `partial_fit` of the user's is a run."""
    from joblib import parallel_config

    autologging(log_plots=False, log_models=False)
    with parallel_config(backend=backend):
        learning_curve(SGDClassifier(), X, Y, cv=2, n_jobs=2, train_sizes=[0.5, 1.0], exploit_incremental_learning=True)
        SGDClassifier(n_jobs=2).partial_fit(X, Y, classes=[0, 1])
    first, second = runs_of(arrived)
    assert first.tags["mantik.function"] == "learning_curve"
    assert arrived.points(first.run_id, "test_score_mean")
    assert arrived.points(second.run_id, "samples_seen") == [(1, 120.0)]


def test_functions_beside_a_fit(arrived: Arrived, autologging: Callable[..., None]) -> None:
    """A cross-validation in a run has a name space, so that the fit after it has the plain names."""
    autologging(log_plots=False, log_models=False)
    with mlflow.start_run() as active:
        scores = cross_val_score(LogisticRegression(max_iter=500, C=3), X, Y, cv=3)
        LogisticRegression(max_iter=500, C=4).fit(X, Y)
    run = arrived.run(active.info.run_id)
    assert run.params["C"] == "4"
    assert run.params["cross_val_score/C"] == "3"
    assert run.metrics["cross_val_score/test_score_mean"] == pytest.approx(scores.mean())
    assert [value for _, value in arrived.points(run.run_id, "cross_val_score/test_score")] == scores.tolist()


def test_a_function_that_is_not_recorded(arrived: Arrived, autologging: Callable[..., None]) -> None:
    """Fits inside of a function that is not known here are the user's: each is a run."""
    autologging(log_plots=False, log_models=False)
    permutation_test_score(LogisticRegression(max_iter=500), X, Y, cv=2, n_permutations=1)
    assert set(names(arrived)) <= {"LogisticRegression"}


def test_held_out_data(arrived: Arrived, autologging: Callable[..., None]) -> None:
    """Data that the model has not seen are evaluated when it is scored on them, under their name."""
    autologging()
    X_test, y_test = X[90:], Y[90:]  # noqa: N806  # the names are part of what is recorded
    model = LogisticRegression(max_iter=500).fit(X[:90], Y[:90])
    active = mlflow.last_active_run()
    assert active is not None
    score = model.score(X_test, y_test)
    run = arrived.run(active.info.run_id)
    assert run.metrics["LogisticRegression_score_X_test"] == score
    assert run.metrics["accuracy_score_X_test"] == score
    assert "confusion_matrix_X_test.png" in arrived.artifacts(run.run_id)


def test_clusterers(arrived: Arrived, autologging: Callable[..., None]) -> None:
    """`fit_predict` of a clusterer is recorded with what suits it."""
    autologging()
    labels = DBSCAN(eps=1).fit_predict(X)
    (run,) = runs_of(arrived)
    assert run.metrics["training_n_clusters"] == len(set(labels) - {-1})


def test_data_are_looked_at_as_they_were(arrived: Arrived, autologging: Callable[..., None]) -> None:
    """Data that change after the fit are evaluated as they were, and an estimator before it is fitted anew."""
    autologging()
    features, targets = load_diabetes(return_X_y=True)
    model = LinearRegression().fit(features, targets)
    expected = model.score(features, targets)
    features *= 0
    targets[:] = 1
    model.fit(features, targets)
    first, second = runs_of(arrived)
    assert first.metrics["training_score"] == pytest.approx(expected)
    assert second.metrics["training_mean_squared_error"] == pytest.approx(0)


def test_threads(arrived: Arrived, autologging: Callable[..., None]) -> None:
    """Fits in threads of the program's own are a run each."""
    autologging(log_plots=False, log_models=False)
    models = [LogisticRegression(max_iter=500, C=c) for c in range(1, 7)]
    threads = [threading.Thread(target=model.fit, args=(X, Y)) for model in models]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    runs = runs_of(arrived)
    assert sorted(run.params["C"] for run in runs) == ["1", "2", "3", "4", "5", "6"]
    assert all("training_score" in run.metrics for run in runs)


def test_nothing_is_said(
    arrived: Arrived,
    autologging: Callable[..., None],
    capfd: pytest.CaptureFixture[str],
    recwarn: pytest.WarningsRecorder,
) -> None:
    """A fit that goes well says nothing on the console but MLflow's link, and warns of nothing."""
    autologging()
    LogisticRegression(max_iter=500).fit(X, Y)
    assert mantik.flush(60)
    output = capfd.readouterr()
    assert output.err == ""
    assert len(output.out.splitlines()) == 2
    assert [str(warning.message) for warning in recwarn] == []
    del arrived


def test_metrics_of_clusters(arrived: Arrived, autologging: Callable[..., None]) -> None:
    """A metric of the labels that `fit_predict` returned is recorded, also when the estimator is gone."""
    autologging(log_plots=False, log_models=False)
    labels = MiniBatchKMeans(3, random_state=0).fit_predict(X)
    score = silhouette_score(X, labels)
    (run,) = runs_of(arrived)
    assert run.metrics["silhouette_score_X"] == score


@pytest.mark.parametrize("silent", [False, True])
def test_silence(
    arrived: Arrived, autologging: Callable[..., None], caplog: pytest.LogCaptureFixture, *, silent: bool
) -> None:
    """What cannot be recorded is said, unless silence was asked for; the rest of the fit is recorded."""
    autologging(log_plots=False, silent=silent)
    model = Constant()
    model.held_ = threading.Lock()
    model.fit(X, Y)
    (run,) = runs_of(arrived)
    assert run.metrics["training_accuracy_score"] == pytest.approx((Y == 0).mean())
    assert ("The model of Constant is not logged" in caplog.text) != silent
