"""What is recorded of searches for parameters, read back from the platform."""

from __future__ import annotations

import io
import threading
import warnings
from typing import TYPE_CHECKING, Any

import mlflow
import numpy as np
import pandas as pd
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.datasets import load_iris
from sklearn.dummy import DummyClassifier
from sklearn.experimental import enable_halving_search_cv  # noqa: F401  # the halving searches
from sklearn.feature_selection import RFECV
from sklearn.linear_model import LogisticRegressionCV
from sklearn.model_selection import (
    GridSearchCV,
    HalvingGridSearchCV,
    HalvingRandomSearchCV,
    RandomizedSearchCV,
    cross_validate,
)
from sklearn.model_selection._search import BaseSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, LinearSVC
from sklearn.tree import DecisionTreeClassifier

import mantik
from mantik.integrations.sklearn.options import Options
from mantik.integrations.sklearn.parameters import parameters_of
from mantik.integrations.sklearn.record import Record
from mantik.integrations.sklearn.search import is_search, record_search
from mantik.testing import Status
from mantik.training.writer import RunWriter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from mantik.testing.holdings import Run
    from tests.integrations.arrivals import Arrived

CHILDREN = Options(max_tuning_runs=None, log_plots=False)
NONE = Options(max_tuning_runs=0, log_plots=False)
X, Y = load_iris(return_X_y=True)
DEPTHS = {"max_depth": [1, 2, None], "criterion": ["gini", "entropy"]}


class Tried(BaseSearchCV):
    """A search of one's own: two rounds, the second one around what the first one found."""

    def __init__(self, estimator: BaseEstimator, *, cv: int) -> None:
        super().__init__(estimator, cv=cv)

    def _run_search(self, evaluate_candidates: Callable[[Iterable[Mapping[str, Any]]], Mapping[str, Any]]) -> None:
        found = evaluate_candidates([{"max_depth": 1}, {"max_depth": 3}])
        best = found["params"][int(np.argmax(found["mean_test_score"]))]
        evaluate_candidates([{"max_depth": best["max_depth"] + 1}])


class Lists(BaseEstimator, ClassifierMixin):
    """A search that is not derived from scikit-learn's, with lists for results and nothing that is optional."""

    def __init__(self, estimator: BaseEstimator, depths: list[int]) -> None:
        self.estimator = estimator
        self.depths = depths

    def fit(self, features: Any, targets: Any) -> Lists:  # noqa: ANN401
        """Try each depth."""
        means = [
            float(cross_validate(self.estimator.set_params(max_depth=depth), features, targets)["test_score"].mean())
            for depth in self.depths
        ]
        self.cv_results_ = {"params": [{"max_depth": depth} for depth in self.depths], "mean_test_score": means}
        self.best_score_ = max(means)
        self.best_params_ = self.cv_results_["params"][means.index(self.best_score_)]
        return self


class Fails(DecisionTreeClassifier):
    """Cannot be fitted with a depth of 2."""

    def fit(self, *arguments: Any, **options: Any) -> Fails:  # noqa: ANN401
        """Raise, or fit."""
        if self.max_depth == 2:
            raise ValueError("no trees of depth 2")
        return super().fit(*arguments, **options)


def begin(prefix: str = "") -> Record:
    """Begin a run, and return what records a fit in it."""
    client = mlflow.MlflowClient()
    run_id = client.create_run("0").info.run_id
    return Record(run_id, "0", prefix, client, RunWriter(client, run_id, known_params={}), threading.Lock())


def recorded(search: Any, options: Options = NONE, prefix: str = "") -> str:  # noqa: ANN401
    """Fit a search, record what it found, and return the run's id."""
    record = begin(prefix)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        search.fit(X, Y)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        record_search(search, record, options)
    return record.run_id


def row_of(run: Run, search: Any) -> int:  # noqa: ANN401
    """Return which candidate a child run is of, by its params."""
    given = search.cv_results_["params"]
    return next(
        row for row, params in enumerate(given) if all(run.params[key] == str(value) for key, value in params.items())
    )


def children(arrived: Arrived, run_id: str) -> dict[str, Run]:
    """Return the child runs of a run by name, the first first."""
    found = [run for run in arrived.runs("0") if run.tags.get("mlflow.parentRunId") == run_id]
    assert len({run.name for run in found}) == len(found)
    return {run.name: run for run in found}


def table(arrived: Arrived, run_id: str) -> pd.DataFrame:
    """Return what ``cv_results.csv`` holds, as texts."""
    content = arrived.content(run_id, "cv_results.csv")
    return pd.read_csv(io.BytesIO(content), dtype=str, keep_default_na=False)


def assert_same(found: Any, expected: Any) -> None:  # noqa: ANN401
    """Compare numbers that were texts in between, where an empty one is NaN."""
    np.testing.assert_array_equal(np.array([text or "nan" for text in found], dtype=float), np.asarray(expected, float))


def test_a_grid(arrived: Arrived, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]) -> None:
    """The best params, the score, the counts and all results are those of the search, and nothing is said."""
    search = GridSearchCV(DecisionTreeClassifier(random_state=0), DEPTHS, cv=3, return_train_score=True)
    run_id = recorded(search, Options(max_tuning_runs=2))
    run = arrived.run(run_id)
    assert run.params == {f"best_{name}": str(value) for name, value in search.best_params_.items()}
    assert run.metrics == {
        "best_cv_score": search.best_score_,
        "n_candidates": 6,
        "n_splits": 3,
        "n_failed_fits": 0,
        "refit_time": search.refit_time_,
    }
    found, results = table(arrived, run_id), search.cv_results_
    assert list(found.columns) == list(results)
    assert list(found["params"]) == [str(params) for params in results["params"]]
    # Other than with pandas, what is None is told from what is not there.
    assert list(found["param_max_depth"]) == ["1", "2", "None"] * 2
    for name in set(results) - {"params", "param_max_depth", "param_criterion"}:
        assert_same(found[name], results[name])
    assert any(path.endswith(".png") for path in arrived.artifacts(run_id))
    assert caplog.text == ""
    assert capsys.readouterr().out == ""


def test_child_runs(arrived: Arrived) -> None:
    """The best candidates are runs of their own, with all their params and all that was measured of them."""
    seed = make_pipeline(StandardScaler(), DecisionTreeClassifier(random_state=0))
    depths = {f"decisiontreeclassifier__{name}": values for name, values in DEPTHS.items()}
    search = GridSearchCV(seed, depths, cv=3)
    run_id = recorded(search, Options(max_tuning_runs=4, log_plots=False))
    results, found = search.cv_results_, children(arrived, run_id)
    ranks = sorted(results["rank_test_score"])[:4]
    assert sorted(run.metrics["rank_test_score"] for run in found.values()) == ranks
    measured = {key for key in results if not key.startswith(("param", "split"))}
    for name, run in found.items():
        row = row_of(run, search)
        given = {key: str(value) for key, value in results["params"][row].items()}
        assert name == ", ".join(f"{key.rpartition('__')[2]}={value}" for key, value in given.items())
        assert run.params == parameters_of(seed, deep=True) | given
        assert run.metrics == {key: results[key][row] for key in measured}
        assert run.status == "FINISHED"
        assert run.tags["estimator_name"] == "Pipeline"
        assert run.tags["estimator_class"] == "sklearn.pipeline.Pipeline"
        assert run.tags["mlflow.autologging"] == "sklearn"
        assert run.tags["mlflow.user"] == arrived.platform.username
        assert run.tags["mlflow.source.type"] == "LOCAL"


def test_the_time_of_child_runs(arrived: Arrived) -> None:
    """Child runs follow one another in the order of the candidates, within the time of the run of the search."""
    record = begin()
    search = GridSearchCV(DecisionTreeClassifier(), DEPTHS, cv=3).fit(X, Y)
    record.client.set_terminated(record.run_id)
    record_search(search, record, CHILDREN)
    parent = arrived.run(record.run_id)
    found = sorted(children(arrived, record.run_id).values(), key=lambda run: row_of(run, search))
    moments = [parent.start_time]
    for run in found:
        moments += [run.start_time, run.end_time or 0]
    moments.append(parent.end_time or 0)
    assert moments == sorted(moments)
    assert moments[-2] > moments[1]


def test_no_child_runs(arrived: Arrived) -> None:
    """None are created where none are asked for."""
    run_id = recorded(GridSearchCV(DecisionTreeClassifier(), DEPTHS, cv=3), NONE)
    assert children(arrived, run_id) == {}
    assert arrived.artifacts(run_id) == ["cv_results.csv"]


def test_a_random_search(arrived: Arrived) -> None:
    """All candidates are child runs, also those whose values look the same in a short name."""
    values = [0.1, 0.10000001, 0.5]
    search = RandomizedSearchCV(DecisionTreeClassifier(), {"ccp_alpha": values}, n_iter=3, cv=3, random_state=0)
    found = children(arrived, recorded(search, CHILDREN))
    assert sorted(float(run.params["ccp_alpha"]) for run in found.values()) == values
    assert {name.partition(" ")[0] for name in found} == {"ccp_alpha=0.1", "ccp_alpha=0.5"}


@pytest.mark.parametrize("kind", [HalvingGridSearchCV, HalvingRandomSearchCV])
def test_a_halving_search(arrived: Arrived, kind: Any) -> None:  # noqa: ANN401
    """Each iteration of a candidate is a line and a child run; the best of the last iteration is the best of all."""
    depths = {"max_depth": [1, 2, 3, 4]}
    search = kind(DecisionTreeClassifier(random_state=0), depths, cv=3, min_resources=30, factor=2, random_state=0)
    run_id = recorded(search, CHILDREN)
    results, lines = search.cv_results_, table(arrived, run_id)
    rounds = len(results["params"])
    assert rounds > len(set(map(str, results["params"])))
    assert_same(lines["iter"], results["iter"])
    assert_same(lines["n_resources"], results["n_resources"])
    found = children(arrived, run_id)
    assert sorted((run.metrics["iter"], run.metrics["n_resources"]) for run in found.values()) == sorted(
        zip(results["iter"], results["n_resources"], strict=True)
    )
    assert arrived.run(run_id).metrics["n_candidates"] == search.n_candidates_[0]
    (best,) = children(arrived, recorded(search, Options(max_tuning_runs=1, log_plots=False))).values()
    assert best.metrics["iter"] == search.n_iterations_ - 1
    assert best.metrics["mean_test_score"] == search.best_score_
    assert best.name == f"max_depth={search.best_params_['max_depth']} (iteration {search.n_iterations_ - 1})"


SCORERS = {"accuracy": "accuracy", "f1 macro": "f1_macro"}


@pytest.mark.parametrize("refit", [False, "f1 macro"])
def test_several_scorers(arrived: Arrived, refit: Any) -> None:  # noqa: ANN401
    """The score of the best candidate by each scorer is a metric, and the child runs are the best by the first one.

    Or by the one that the search refits by.
    """
    search = GridSearchCV(DecisionTreeClassifier(random_state=0), DEPTHS, cv=3, scoring=SCORERS, refit=refit)
    run_id = recorded(search, Options(max_tuning_runs=3, log_plots=False))
    results, run = search.cv_results_, arrived.run(run_id)
    for scorer in SCORERS:
        means = results[f"mean_test_{scorer}"]
        assert run.metrics[f"best_cv_{scorer}"] == (means[search.best_index_] if refit else max(means))
        assert_same(table(arrived, run_id)[f"rank_test_{scorer}"], results[f"rank_test_{scorer}"])
    assert ("best_cv_score" in run.metrics) is bool(refit)
    assert set(run.params) == ({"best_max_depth", "best_criterion"} if refit else set())
    name = f"rank_test_{refit or 'accuracy'}"
    found = children(arrived, run_id).values()
    assert sorted(child.metrics[name] for child in found) == sorted(results[name])[:3]


def test_a_choice_of_ones_own(arrived: Arrived) -> None:
    """Where the user's function chooses, the score and the first child run are of what it has chosen."""
    search = GridSearchCV(DecisionTreeClassifier(), DEPTHS, cv=3, refit=lambda found: found["rank_test_score"].argmax())
    run_id = recorded(search, Options(max_tuning_runs=1, log_plots=False))
    worst = search.cv_results_["mean_test_score"][search.best_index_]
    assert worst == min(search.cv_results_["mean_test_score"])
    assert arrived.run(run_id).metrics["best_cv_score"] == worst
    (child,) = children(arrived, run_id).values()
    assert row_of(child, search) == search.best_index_


def test_candidates_that_fail(arrived: Arrived) -> None:
    """A candidate without a score is FAILED and has none as a metric; the failed fits are counted."""
    run_id = recorded(GridSearchCV(Fails(), DEPTHS, cv=3), CHILDREN)
    for run in children(arrived, run_id).values():
        fails = run.params["max_depth"] == "2"
        assert run.status == ("FAILED" if fails else "FINISHED")
        assert ("mean_test_score" in run.metrics) is not fails
    assert arrived.run(run_id).metrics["n_failed_fits"] == 6
    assert list(table(arrived, run_id)["mean_test_score"] == "") == [False, True, False] * 2


def test_a_search_of_ones_own(arrived: Arrived) -> None:
    """A class derived from scikit-learn's base of all searches is recorded as theirs are."""
    search = Tried(DecisionTreeClassifier(random_state=0), cv=3)
    assert is_search(search)
    run_id = recorded(search, CHILDREN)
    found = children(arrived, run_id)
    assert set(found) == {"max_depth=1", "max_depth=3", f"max_depth={search.cv_results_['params'][2]['max_depth']}"}
    assert arrived.run(run_id).metrics["best_cv_score"] == search.best_score_


def test_a_search_of_others(arrived: Arrived) -> None:
    """One that has scikit-learn's attributes and not its class is recorded as far as it tells."""
    search = Lists(DecisionTreeClassifier(random_state=0), [1, 3])
    run_id = recorded(search, CHILDREN)
    assert is_search(search)
    run, means = arrived.run(run_id), search.cv_results_["mean_test_score"]
    assert run.metrics == {"best_cv_score": max(means), "n_candidates": 2}
    assert run.params == {"best_max_depth": "3"}
    found = children(arrived, run_id)
    assert [found[name].metrics for name in ("max_depth=1", "max_depth=3")] == [
        {"mean_test_score": mean} for mean in means
    ]


@pytest.mark.parametrize(
    "estimator", [RFECV(DecisionTreeClassifier(), cv=3), LogisticRegressionCV(Cs=2, cv=2), DummyClassifier()]
)
def test_no_search(estimator: Any) -> None:  # noqa: ANN401
    """What has results of its cross-validation but no candidates is no search."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        estimator.fit(X, Y)
    assert not is_search(estimator)


def test_estimators_as_params(arrived: Arrived) -> None:
    """A candidate that replaces a step has the params of the new one, and none of that which it replaces."""
    seed = make_pipeline(StandardScaler(), SVC(kernel="poly"))
    grid = [
        {"svc": [LinearSVC(random_state=0)], "svc__C": [0.5, 2.0], "standardscaler": ["passthrough"]},
        {"svc__C": [0.25]},
    ]
    run_id = recorded(GridSearchCV(seed, grid, cv=3), CHILDREN)
    found = children(arrived, run_id)
    assert set(found) == {
        "standardscaler=passthrough, svc=LinearSVC, C=0.5",
        "standardscaler=passthrough, svc=LinearSVC, C=2",
        "C=0.25",
    }
    linear, poly = found["standardscaler=passthrough, svc=LinearSVC, C=2"].params, found["C=0.25"].params
    assert (linear["svc__C"], linear["svc__loss"], linear["standardscaler"]) == ("2.0", "squared_hinge", "passthrough")
    assert not {"svc__kernel", "standardscaler__with_mean"} & set(linear)
    assert (poly["svc__C"], poly["svc__kernel"]) == ("0.25", "poly")
    lines = table(arrived, run_id)
    assert list(lines["param_svc"]) == ["LinearSVC(random_state=0)"] * 2 + [""]


def test_a_search_in_a_search(arrived: Arrived) -> None:
    """Of a search that is searched over, the params of what it searches for are left out."""
    inner = GridSearchCV(DecisionTreeClassifier(random_state=0), {"max_depth": [1, 2]}, cv=3)
    found = children(arrived, recorded(GridSearchCV(inner, {"cv": [2, 3]}, cv=3), CHILDREN))
    assert set(found) == {"cv=2", "cv=3"}
    assert "param_grid" in found["cv=2"].params
    assert "estimator__max_depth" not in found["cv=2"].params


def test_a_later_fit_of_a_run(arrived: Arrived) -> None:
    """Of a fit that is not the first one of its run all is below its own names, child runs too."""
    search = GridSearchCV(DecisionTreeClassifier(random_state=0), {"max_depth": [1, 2]}, cv=3)
    run_id = recorded(search, Options(max_tuning_runs=None), prefix="GridSearchCV-2/")
    run = arrived.run(run_id)
    assert all(name.startswith("GridSearchCV-2/") for name in (*run.params, *run.metrics, *arrived.artifacts(run_id)))
    assert set(children(arrived, run_id)) == {"GridSearchCV-2/max_depth=1", "GridSearchCV-2/max_depth=2"}


def test_without_the_platform(arrived: Arrived) -> None:
    """A search that is recorded while the platform is away is there with its child runs once that is back."""
    arrived.proxy.fault(Status(429))
    search = GridSearchCV(DecisionTreeClassifier(random_state=0), DEPTHS, cv=3)
    local_id = recorded(search, CHILDREN)
    arrived.proxy.clear()
    assert mantik.flush(60)
    (run_id,) = [run.server_id for run in mantik.receipt().runs if run.run_id == local_id]
    assert run_id not in {None, local_id}
    found = children(arrived, str(run_id))
    assert sorted(run.metrics["rank_test_score"] for run in found.values()) == sorted(
        search.cv_results_["rank_test_score"]
    )
    assert {run.status for run in found.values()} == {"FINISHED"}


def test_what_cannot_be_recorded(arrived: Arrived, caplog: pytest.LogCaptureFixture) -> None:
    """Results that make no sense are left out with one warning, and the rest is recorded."""
    search = GridSearchCV(DecisionTreeClassifier(random_state=0), DEPTHS, cv=3).fit(X, Y)
    search.cv_results_ = 3
    record = begin()
    record_search(search, record, CHILDREN)
    assert arrived.run(record.run_id).metrics["best_cv_score"] == search.best_score_
    assert caplog.text.count("The candidates of GridSearchCV are not known: AttributeError") == 1
