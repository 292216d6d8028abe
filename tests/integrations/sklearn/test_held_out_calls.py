"""What is recorded of scores, predictions and metrics after a fit: beside MLflow's autologging, with the same names."""

from __future__ import annotations

import functools
import gc
import json
import os
import pickle
import sys
import weakref
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import sklearn.metrics
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import (
    accuracy_score,
    classification_report,
    confusion_matrix,
    log_loss,
    precision_recall_fscore_support,
    roc_auc_score,
    silhouette_score,
)
from sklearn.model_selection import GridSearchCV
from sklearn.preprocessing import FunctionTransformer

from mantik.integrations.sklearn.data import Data
from mantik.integrations.sklearn.held_out import metric_called
from tests.integrations.sklearn.held_out_trials import Trials, Watch, classes, fitted, measure, predict, score

if TYPE_CHECKING:
    from mantik.testing import Platform
    from tests.integrations.arrivals import Arrived
    from tests.integrations.trainings import Trainings

HEAD = """
import numpy as np
import sklearn.metrics
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

random = np.random.default_rng(0)
X_train, X_test, X_val = (random.normal(size=(40, 3)) for _ in range(3))
y_train, y_test, y_val = ((X[:, 0] + X[:, 1] > 0).astype(int) for X in (X_train, X_test, X_val))
accuracy_score, f1_score, log_loss = (getattr(sklearn.metrics, n) for n in ("accuracy_score", "f1_score", "log_loss"))
"""

SCRIPTS = {
    "classifier": """
model = LogisticRegression().fit(X_train, y_train)
model.score(X_train, y_train)
model.score(X_test, y_test)
model.score(X_val, y=y_val)
model.score(X_test, y_test)
y_pred = model.predict(X_test)
accuracy_score(y_test, y_pred)
accuracy_score(y_test, y_pred, normalize=False)
f1_score(y_pred=y_pred, y_true=y_test, average="macro", labels=[0, 1])
log_loss(y_test, model.predict_proba(X_val))
accuracy_score(y_val, model.predict(X_val))
accuracy_score(y_test, y_val)
X = X_test + 0
first = model.predict(X)
X = X_val + 0
second = model.predict(X)
accuracy_score(y_val, second)
accuracy_score(y_test, first)
unknown = model.predict(X_test[:20])
accuracy_score(y_test[:20], unknown)
accuracy_score(y_test[20:], unknown)
""",
    "pipeline": """
model = make_pipeline(StandardScaler(), LogisticRegression()).fit(X_train, y_train)
def evaluate(features, labels):
    accuracy_score(labels, model.predict(features))
    return model.score(features, labels)
evaluate(X_test, y_test)
for X, y in ((X_val, y_val), (X_test, y_test)):
    evaluate(X, y)
""",
    "regressor": """
model = Ridge().fit(X_train, X_train @ [1.0, 2.0, 3.0])
truth = X_test @ [1.0, 2.0, 2.0]
y_pred = model.predict(X_test)
sklearn.metrics.mean_squared_error(truth, y_pred)
sklearn.metrics.r2_score(truth, y_pred)
sklearn.metrics.r2_score(y_pred, truth)
model.score(X_test, truth)
""",
}

BY_MLFLOW = """
import json, mlflow, mantik

mantik.init_tracking()
mlflow.sklearn.autolog(log_models=False, log_datasets=False, silent=True)
runs = {}
for name, script in json.loads(SCRIPTS).items():
    with mlflow.start_run() as run:
        exec(compile(script, "<script>", "exec"), {})
    runs[name] = run.info.run_id
assert mantik.flush(60)
print("RUNS" + json.dumps(runs))
"""


class Seen(np.ndarray):
    """An array of which one can tell whether it and its copies are gone."""

    alive: ClassVar[weakref.WeakValueDictionary[int, Seen]] = weakref.WeakValueDictionary()

    def __array_finalize__(self, _: object) -> None:
        """Note that there is one more."""
        Seen.alive[id(self)] = self


class Slotted(ClassifierMixin, BaseEstimator):
    """An estimator with slots that answers in a type of choice."""

    __slots__ = ("answer",)

    def __init__(self, answer: Any = list) -> None:  # noqa: ANN401
        self.answer = answer

    def predict(self, X: Any) -> Any:  # noqa: ANN401, N803  # scikit-learn's name
        """Return classes by the first column."""
        return self.answer((np.asarray(X)[:, 0] > 0).astype(int))


@pytest.fixture
def trials(arrived: Arrived) -> Trials:
    """Return runs on the platform."""
    return Trials(arrived)


@pytest.fixture(scope="module")
def by_mlflow(
    mantik_platform: Platform, trainings: Trainings, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, str]:
    """Return the runs of the scripts by MLflow's autologging."""
    home = tmp_path_factory.mktemp("mlflow")
    scripts = json.dumps({name: HEAD + script for name, script in SCRIPTS.items()})
    output = trainings.run(f"SCRIPTS = {scripts!r}\n{BY_MLFLOW}", mantik_platform.environment(), home).output
    found: dict[str, str] = json.loads(output.rpartition("RUNS")[2].splitlines()[0])
    return found


@pytest.mark.parametrize("name", SCRIPTS)
def test_the_same_names_as_mlflow(
    trials: Trials, by_mlflow: dict[str, str], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A script that MLflow's autologging records has the same metrics with the same values, told in the same way."""
    theirs = trials.arrived.run(by_mlflow[name]).metrics
    info = trials.arrived.content(by_mlflow[name], "metric_info.json").decode()
    Watch(functools.partial(trials.held_out, log_plots=False)).put(monkeypatch)
    exec(compile(HEAD + SCRIPTS[name], "<script>", "exec"), {})  # noqa: S102  # as the other process does
    ours = trials.metrics()
    assert {key: ours.get(key) for key in json.loads(info)} == {key: theirs[key] for key in json.loads(info)}
    assert trials.content("metric_info.json") == info
    assert len(json.loads(info)) >= 4


def test_an_evaluation(trials: Trials) -> None:
    """Held-out data whose targets are known get all metrics, pictures and an input of the run; once, however often."""
    model, training = fitted()
    held_out = trials.held_out(model, training)
    X_test, y_test = classes()  # noqa: N806
    accuracy = score(held_out, model, X_test, y_test)
    y_pred = predict(held_out, model, X_test)
    measure(accuracy_score, y_test, y_pred)
    found = trials.metrics()
    assert found["accuracy_score_X_test"] == found["LogisticRegression_score_X_test"] == accuracy
    assert {"f1_score_X_test", "log_loss_X_test", "roc_auc_X_test", "score_X_test"} <= {*found}
    assert {"confusion_matrix_X_test.png", "roc_curve_X_test.png", "precision_recall_curve_X_test.png"} <= {
        *trials.files()
    }
    assert sorted(trials.info()) == ["LogisticRegression_score_X_test", "accuracy_score_X_test"]
    inputs = trials.client.get_run(trials.run_id).inputs.dataset_inputs
    assert [tag.value for one in inputs for tag in one.tags] == ["eval"]


def test_metrics_that_the_user_has(trials: Trials) -> None:
    """A metric that the user's own call has recorded is not recorded again for nobody."""
    model, training = fitted()
    held_out = trials.held_out(model, training, log_plots=False)
    X_test, y_test = classes()  # noqa: N806
    count = measure(accuracy_score, y_test, predict(held_out, model, X_test), normalize=False)
    assert trials.metrics()["accuracy_score_X_test"] == count > 1
    assert trials.points("accuracy_score_X_test") == [(0, count)]


def test_training_data(trials: Trials) -> None:
    """Training data, the same or a copy, are named after their variable and get no pictures a second time."""
    model, training = fitted()
    held_out = trials.held_out(model, training)
    X_train, copied, frame = training.features, training.features.copy(), pd.DataFrame(training.features.copy())  # noqa: N806
    for features in (X_train, copied):
        score(held_out, model, features, training.targets)
    measure(accuracy_score, training.targets, predict(held_out, model, frame.to_numpy()))
    X_train[0] = 9
    score(held_out, model, X_train, training.targets)
    assert sorted(trials.metrics()) == [
        "LogisticRegression_score-2_copied",
        "LogisticRegression_score-3_X_train",
        "LogisticRegression_score_X_train",
        "accuracy_score_unknown_dataset",
    ]
    assert trials.files() == ["metric_info.json"]


def test_data_that_the_user_changes(trials: Trials) -> None:
    """What is evaluated are the data as they were in the call, and the prediction as the function got it."""
    model, training = fitted()
    held_out = trials.held_out(model, training, log_plots=False, wait=True)
    X_test, y_test = classes()  # noqa: N806
    y_pred = predict(held_out, model, X_test)
    y_pred[:10] = 1 - y_pred[:10]
    worse = measure(accuracy_score, y_test, y_pred)
    expected = sklearn.metrics.recall_score(y_test, y_pred, average="weighted")
    X_test[:], y_test[:], y_pred[:] = 0, 1, 0
    assert trials.metrics()["recall_score_X_test"] == expected == worse < 0.9


def test_memory(trials: Trials) -> None:
    """Data, their copies, predictions and the estimator are gone once the user has let go of them and jobs are done."""
    model, training = fitted()
    held_out = trials.held_out(model, training)
    gone = weakref.ref(model)

    def use(model: Any) -> None:  # noqa: ANN401
        X_test, y_test = (values.view(Seen) for values in classes())  # noqa: N806
        score(held_out, model, X_test, y_test)
        measure(accuracy_score, y_test, predict(held_out, model, X_test).view(Seen))
        measure(log_loss, y_test, predict(held_out, model, X_test, "predict_proba"))
        assert len(Seen.alive) >= 3

    use(model)
    del model
    assert "log_loss_X_test" in trials.metrics()
    gc.collect()
    assert len(Seen.alive) == 0
    assert gone() is None


def test_what_is_gone(trials: Trials) -> None:
    """Of data and an estimator that are gone the predictions are evaluated alone."""
    y_test = classes()[1]

    def predicted() -> Any:  # noqa: ANN401
        model, training = fitted()
        return predict(trials.held_out(model, training), model, classes()[0] + 0)

    y_pred = predicted()
    gc.collect()
    measure(accuracy_score, y_test, y_pred)
    assert "f1_score_unknown_dataset" in trials.metrics()
    assert "confusion_matrix_unknown_dataset.png" in trials.files()


def test_columns_of_probabilities(trials: Trials) -> None:
    """The probabilities of the greater of two classes are a prediction, too, and draw the curves."""
    model, training = fitted()
    held_out = trials.held_out(model, training)
    X_test, y_test = classes()  # noqa: N806
    scores = predict(held_out, model, X_test, "predict_proba")[:, 1]
    expected = measure(roc_auc_score, y_test, scores)
    assert trials.metrics()["roc_auc_score_X_test"] == expected
    assert trials.info() == {"roc_auc_score_X_test": "roc_auc_score(y_true=y_test, y_score=scores)"}
    assert "roc_curve_X_test.png" in trials.files()


def test_what_targets_are_not(trials: Trials) -> None:
    """Where targets are a comparison, or stand where predictions do, the number is recorded and nothing evaluated."""
    model, training = fitted()
    held_out = trials.held_out(model, training)
    X_test, y_test = classes()  # noqa: N806
    probabilities = predict(held_out, model, X_test, "predict_proba")
    y_pred = predict(held_out, model, X_test)
    measure(roc_auc_score, y_test == 1, probabilities[:, 1])
    measure(roc_auc_score, y_test == 0, probabilities[:, 0])
    measure(accuracy_score, y_pred, y_test)
    assert len(trials.metrics()) == 3
    assert trials.files() == ["metric_info.json"]


def test_parts_of_predictions(trials: Trials) -> None:
    """Some rows of a prediction are no prediction of the data, nor is what only lies in the same memory."""

    class Buffered(Slotted):
        """Answers in parts of one array."""

        def predict(self, X: Any) -> Any:  # noqa: ANN401, N803
            """Return a view."""
            return buffer[: len(X)]

    buffer, model = np.zeros(100, dtype=int), Buffered()
    held_out = trials.held_out(model)
    X_test, X_val, y_test = classes()[0], classes(seed=2)[0], classes()[1]  # noqa: N806
    y_pred = predict(held_out, model, X_test)
    measure(accuracy_score, y_test[:9], y_pred[:9])
    measure(accuracy_score, y_test, y_pred[:])
    other = predict(held_out, model, X_val)
    measure(accuracy_score, y_test, y_pred[:])
    measure(accuracy_score, y_test, other)
    again = predict(held_out, model, X_val)
    measure(accuracy_score, y_test, again[:])
    assert sorted(trials.info()) == ["accuracy_score-2_X_val", "accuracy_score_X_test"]


def test_results_that_are_no_numbers(trials: Trials) -> None:
    """Reports become texts, arrays and dictionaries JSON; what is neither, or is large, is left out."""
    model, training = fitted()
    held_out = trials.held_out(model, training, log_plots=False, prefix="LogisticRegression/")
    X_test, y_test = classes()  # noqa: N806
    y_pred = predict(held_out, model, X_test)
    report = measure(classification_report, y_test, y_pred)
    matrix = measure(confusion_matrix, y_test, y_pred)
    measure(classification_report, y_test, y_pred, output_dict=True)
    parts = measure(precision_recall_fscore_support, y_test, y_pred)
    for value in (True, np.True_, 1j, np.zeros(200_000), {"a": object()}, None, sp.csr_matrix((2, 2))):
        metric_called("accuracy_score", accuracy_score, (y_test, y_pred), {}, value, sys._getframe())  # noqa: SLF001
    matrix_before = matrix.tolist()
    matrix[:] = 0
    folder = "LogisticRegression"
    assert trials.files() == [
        f"{folder}/classification_report-2_X_test.json",
        f"{folder}/classification_report_X_test.txt",
        f"{folder}/confusion_matrix_X_test.json",
        f"{folder}/precision_recall_fscore_support_X_test.json",
    ]
    assert trials.content(f"{folder}/classification_report_X_test.txt") == report
    assert json.loads(trials.content(f"{folder}/confusion_matrix_X_test.json")) == matrix_before
    assert json.loads(trials.content(f"{folder}/classification_report-2_X_test.json"))["accuracy"] > 0.5
    kept = json.loads(trials.content(f"{folder}/precision_recall_fscore_support_X_test.json"))
    assert kept == [part.tolist() for part in parts]
    assert f"{folder}/accuracy_score_X_test" in trials.metrics()


@pytest.mark.parametrize("answer", [list, tuple, np.asarray, pd.Series, lambda values: values.view(Seen)])
def test_estimators_and_answers_of_any_kind(trials: Trials, answer: Any) -> None:  # noqa: ANN401
    """Lists, tuples, series and subclasses are predictions; frames, lists and sparse matrices are data."""
    model = Slotted(answer)
    held_out = trials.held_out(model, log_plots=False)
    array, y_test = classes()
    frame, rows, sparse = pd.DataFrame(array), array.tolist(), sp.csr_matrix(array)
    for features in (frame, rows):
        y_pred = predict(held_out, model, features)
        assert type(y_pred) is type(model.answer(np.zeros(1)))
        measure(accuracy_score, y_test, y_pred)
    score(held_out, LogisticRegression().fit(*classes(seed=0)), sparse, y_test)
    assert sorted(trials.info()) == ["Slotted_score_sparse", "accuracy_score-2_rows", "accuracy_score_frame"]


def test_copies_of_estimators(trials: Trials) -> None:
    """What is cloned or unpickled is another estimator, and carries nothing of ours."""
    model, training = fitted()
    before = pickle.dumps(model)
    held_out = trials.held_out(model, training)
    assert held_out.is_of(model)
    assert pickle.dumps(model) == before
    assert not any(held_out.is_of(other) for other in (clone(model), pickle.loads(before), None))  # noqa: S301


def test_the_best_estimator_of_a_search(trials: Trials) -> None:
    """A search and what it has found name data and count calls together, and evaluate data once."""
    search, training = fitted(GridSearchCV(LogisticRegression(), {"C": [0.1, 1]}, cv=2))
    best = search.best_estimator_
    held_out = trials.held_out(search, training, log_plots=False)
    of_best = held_out.also_of(weakref.ref(best))
    X_test, y_test = classes()  # noqa: N806
    X_val = classes(seed=2)[0]  # noqa: N806
    score(held_out, search, X_test, y_test)
    score(of_best, best, X_test, y_test)
    measure(accuracy_score, y_test, predict(held_out, search, X_test))
    measure(accuracy_score, y_test, predict(of_best, best, X_val))
    assert (of_best.is_of(best), of_best.is_of(search), held_out.is_of(search)) == (True, False, True)
    assert of_best.record is held_out.record
    assert trials.info() == {
        "GridSearchCV_score_X_test": "GridSearchCV.score(X=X_test, y=y_test)",
        "LogisticRegression_score_X_test": "LogisticRegression.score(X=X_test, y=y_test)",
        "accuracy_score-2_X_val": "accuracy_score(y_true=y_test, y_pred=<ndarray>)",
        "accuracy_score_X_test": "accuracy_score(y_true=y_test, y_pred=<ndarray>)",
    }


def test_without_targets(trials: Trials) -> None:
    """Scores and metrics of those who know no targets are recorded, and an answer that is the question is none."""
    features = classes()[0]
    X_new = classes(seed=2)[0]  # noqa: N806
    clusters, same = KMeans(2, n_init=1, random_state=0).fit(features), FunctionTransformer().fit(features)
    held_out = trials.held_out(clusters, log_plots=False)
    other = held_out.also_of(weakref.ref(same))
    assert predict(other, same, X_new, "transform") is X_new
    measure(silhouette_score, X_new, predict(held_out, clusters, X_new))
    score(held_out, clusters, X_new)
    reduced = PCA(2).fit(features)
    of_reduced = held_out.also_of(weakref.ref(reduced))
    score(of_reduced, reduced, X_new)
    assert sorted(trials.metrics()) == ["KMeans_score_X_new", "PCA_score_X_new", "silhouette_score_X_new"]
    assert trials.info()["silhouette_score_X_new"] == "silhouette_score(X=X_new, labels=<ndarray>)"


def test_large_data(trials: Trials) -> None:
    """Of large data some rows are evaluated, with what the estimator says of those, and the run says how many."""
    model = LogisticRegression().fit(classes(seed=0)[0].repeat(10, axis=1), classes(seed=0)[1])
    held_out = trials.held_out(model, log_plots=False, log_datasets=False)
    features, y_test = classes(300_000)
    X_test = features.repeat(10, axis=1)  # noqa: N806
    accuracy = measure(accuracy_score, y_test, predict(held_out, model, X_test))
    found = trials.metrics()
    kept, _, rows = trials.tags()["mantik.evaluated_rows.X_test"].partition(" of ")
    assert (found["accuracy_score_X_test"], rows) == (accuracy, "300000")
    assert found["score_X_test"] == pytest.approx(accuracy, abs=0.01)
    assert 200_000 < int(kept) < 300_000


def test_many_data(trials: Trials) -> None:
    """Ten data sets of a fit are evaluated, equal ones once; of others only what is asked for is recorded."""
    model, training = fitted()
    held_out = trials.held_out(model, training, wait=True)
    for seed in (1, 1, *range(2, 14)):
        X, y = classes(seed=seed)  # noqa: N806
        score(held_out, model, X, y)
    assert sum(job.size > 0 for job in trials.jobs) == 10
    assert len(trials.jobs) == 11
    trials.jobs = trials.jobs[:1]
    assert {f"LogisticRegression_score-{at}_X-{at}" for at in range(2, 15)} < {*trials.metrics()}


def test_many_calls(trials: Trials, caplog: pytest.LogCaptureFixture) -> None:
    """Of a function that is called without end the first thousand calls are recorded, which is said once."""
    model, training = fitted()
    held_out = trials.held_out(model, training, log_plots=False, wait=True)
    X_test, y_test = classes()  # noqa: N806
    y_pred = predict(held_out, model, X_test)
    for at in range(1010):
        metric_called("f1_score", sklearn.metrics.f1_score, (y_test, y_pred), {}, at, sys._getframe())  # noqa: SLF001
    info = trials.info()
    assert caplog.text.count("f1_score was called 1000 times after a fit. Further calls are not recorded.") == 1
    assert len(info) == 1000
    assert trials.metrics()["f1_score-1000_X_test"] == 999


def test_many_datasets(trials: Trials) -> None:
    """Whoever predicts without end, as one that answers requests, is left alone after the first thousand."""
    model, training = fitted()
    held_out = trials.held_out(model, training, wait=True)
    answer = np.zeros(1)
    for at in range(1001):
        request = np.full((1, 3), at)
        held_out.predicted("predict", model.predict, (request,), {}, answer, sys._getframe())  # noqa: SLF001
    answer = predict(held_out, model, np.zeros((1, 3)))
    measure(accuracy_score, [1], answer)
    assert trials.jobs == []


def test_threads(trials: Trials) -> None:
    """Calls of many threads get a name each."""
    model, training = fitted()
    held_out = trials.held_out(model, training, log_plots=False)
    y_test = classes()[1]

    def work(seed: int) -> None:
        X = classes(seed=seed)[0]  # noqa: N806
        for _ in range(5):
            measure(accuracy_score, y_test, predict(held_out, model, X))

    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(work, range(1, 9))) == [None] * 8
    info = trials.info()
    assert len(info) == 40
    assert {name.partition("_score")[2].partition("_")[0] for name in info} == {"", *(f"-{at}" for at in range(2, 41))}
    assert {name.rpartition("_")[2] for name in info} == {"X", *(f"X-{at}" for at in range(2, 9))}
    assert {*info} <= {*trials.metrics()}


def test_a_forked_process(trials: Trials) -> None:
    """A forked process writes what it has done itself, and its parent the rest."""
    model, training = fitted()
    held_out = trials.held_out(model, training, wait=True)
    X_train, y_train = training.features, training.targets  # noqa: N806
    score(held_out, model, X_train, y_train)
    child = os.fork()
    if not child:
        score(held_out, model, X_train, y_train)
        written = len(trials.jobs) == 2 and held_out._notes._metrics.keys() == {"LogisticRegression_score-2_X_train"}  # noqa: SLF001
        os._exit(0 if written else 1)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert sorted(trials.metrics()) == ["LogisticRegression_score_X_train"]


def test_data_of_a_partial_fit(trials: Trials) -> None:
    """Data of a further `partial_fit` are training data from then on."""
    model, training = fitted()
    held_out = trials.held_out(model, training)
    X_batch, y_batch = classes()  # noqa: N806
    held_out.trained_on(Data(X_batch, y_batch, rows=len(X_batch), kept=len(X_batch)))
    score(held_out, model, X_batch.copy(), y_batch)
    assert trials.files() == ["metric_info.json"]
