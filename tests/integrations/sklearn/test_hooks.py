# ruff: noqa: ANN401  # estimators take and return anything
"""What stands between the user's calls and scikit-learn, and that it shows nowhere."""

from __future__ import annotations

import inspect
import pickle
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import cloudpickle
import numpy as np
import pytest
import sklearn.metrics
from joblib import Parallel, delayed
from sklearn.base import BaseEstimator, TransformerMixin, clone, is_classifier
from sklearn.ensemble import StackingClassifier, VotingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score  # before there are hooks
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils import all_estimators
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import has_fit_parameter

from mantik.integrations.sklearn.hooks import Hooks
from mantik.integrations.sklearn.listening import silence

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

METHODS = ("fit", "fit_predict", "fit_transform", "partial_fit", "predict", "transform", "score", "set_params")
X = np.random.default_rng(0).normal(size=(40, 3))
Y = (X[:, 0] > 0).astype(int)


class Noting:
    """Makes calls and notes which there were."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def method_called(  # noqa: D102
        self,
        estimator: Any,
        method: str,
        call: Callable[..., Any],
        arguments: tuple[Any, ...],
        keywords: dict[str, Any],
    ) -> Any:
        self.calls.append(f"{type(estimator).__name__}.{method}")
        with silence():
            return call(*arguments, **keywords)

    def function_called(  # noqa: D102
        self, name: str, call: Callable[..., Any], arguments: tuple[Any, ...], keywords: dict[str, Any]
    ) -> Any:
        self.calls.append(name)
        with silence():
            return call(*arguments, **keywords)


@pytest.fixture
def noted() -> Iterator[list[str]]:
    """The calls of the user's own, as they are told of."""
    noting = Noting()
    hooks = Hooks(METHODS, {"accuracy_score": accuracy_score, "log_loss": sklearn.metrics.log_loss}, noting)
    hooks.put()
    yield noting.calls
    hooks.take_away()


def test_calls_of_the_user_are_told_of(noted: list[str]) -> None:
    """Each call that the program makes itself is told of once, and what an estimator calls inside is not."""
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(X, Y)
    model.predict(X)
    model.score(X, Y)
    assert noted == ["Pipeline.fit", "Pipeline.predict", "Pipeline.score"]


def test_functions_imported_before_are_told_of(noted: list[str]) -> None:
    """A metric function that was imported before there were hooks is told of."""
    assert accuracy_score(Y, Y) == 1.0
    assert noted == ["accuracy_score"]


def test_functions_stay_what_they_are(noted: list[str]) -> None:
    """A metric function has the identity, name, signature and pickle that it had, and checks its arguments."""
    assert sklearn.metrics.accuracy_score is accuracy_score
    assert pickle.loads(pickle.dumps(accuracy_score)) is accuracy_score  # noqa: S301
    assert list(inspect.signature(accuracy_score).parameters) == ["y_true", "y_pred", "normalize", "sample_weight"]
    with pytest.raises(ValueError, match="normalize"):
        accuracy_score(Y, Y, normalize="yes")


def test_signatures_are_as_before() -> None:
    """Every method of every estimator has the signature that it had, in the class and bound to an estimator."""
    kinds = [kind for _, kind in all_estimators()]

    def signatures() -> dict[tuple[type, str], inspect.Signature]:
        return {
            (kind, name): inspect.signature(getattr(kind, name))
            for kind in kinds
            for name in METHODS
            if callable(getattr(kind, name, None))
        }

    before = signatures()
    bound = inspect.signature(LogisticRegression().fit)
    hooks = Hooks(METHODS, {}, Noting())
    hooks.put()
    try:
        assert signatures() == before
        assert inspect.signature(LogisticRegression().fit) == bound
        assert has_fit_parameter(LogisticRegression(), "sample_weight")
    finally:
        hooks.take_away()


def test_everything_is_left_as_it_was() -> None:
    """When the hooks are taken away, each class holds the very objects that it held before."""
    kinds = {owner for _, kind in all_estimators() for owner in kind.__mro__ if owner is not object}
    before = {kind: {name: vars(kind).get(name) for name in (*METHODS, "__init_subclass__")} for kind in kinds}
    hooks = Hooks(METHODS, {"accuracy_score": accuracy_score}, noting := Noting())
    hooks.put()
    hooks.put_again()
    hooks.take_away()
    for kind, methods in before.items():
        for name, method in methods.items():
            assert vars(kind).get(name) is method, (kind, name)
    LogisticRegression().fit(X, Y)
    accuracy_score(Y, Y)
    assert noting.calls == []


def test_classes_made_later_are_told_of(noted: list[str]) -> None:
    """A class that is made while there are hooks is told of, also where scikit-learn wraps its methods."""

    class Halved(TransformerMixin, BaseEstimator):
        def fit(self, features: Any, targets: Any = None) -> Halved:  # noqa: ARG002
            return self

        def transform(self, features: Any) -> Any:
            return features / 2

        def fit_transform(self, features: Any, targets: Any = None) -> Any:  # noqa: ARG002
            return features / 2

    assert (Halved().fit_transform(X) == X / 2).all()
    assert (Halved().fit(X).transform(X) == X / 2).all()
    assert noted == ["Halved.fit_transform", "Halved.fit", "Halved.transform"]


def test_inherited_methods_are_told_of_once(noted: list[str]) -> None:
    """A subclass that calls the method of its base is told of once, under its own name."""

    class Mine(LogisticRegression):
        def fit(self, features: Any, targets: Any) -> Mine:
            return super().fit(features, targets)

    Mine().fit(X, Y)
    assert noted == ["Mine.fit"]


def test_conditional_methods_stay_conditional(noted: list[str]) -> None:
    """A method that an estimator has under a condition alone is there and not there as before."""

    class Moody(BaseEstimator):
        def __init__(self, can: bool = False) -> None:  # noqa: FBT001, FBT002  # scikit-learn's form
            self.can = can

        @available_if(lambda self: self.can)
        def predict(self, features: Any) -> Any:
            return features

    assert not hasattr(Moody(), "predict")
    assert Moody(can=True).predict(1) == 1
    assert not hasattr(GridSearchCV(LogisticRegression(), {}, refit=False), "fit_transform")
    assert noted == ["Moody.predict"]


def test_estimators_are_what_they_are(noted: list[str]) -> None:
    """Cloning, pickling, the kind, a bound method and its documentation are what they are without hooks."""
    model = LogisticRegression().fit(X, Y)
    assert clone(model).get_params() == model.get_params()
    assert (pickle.loads(pickle.dumps(model)).coef_ == model.coef_).all()  # noqa: S301
    assert is_classifier(model)
    assert pickle.loads(pickle.dumps(model.predict))(X).tolist() == model.predict(X).tolist()  # noqa: S301
    assert model.fit == model.fit
    assert model.fit.__self__ is model
    assert (model.fit.__doc__ or "").strip().startswith("Fit the model")
    assert repr(model.fit).startswith("<bound method")


def test_a_class_by_value_holds_nothing_of_ours(noted: list[str]) -> None:
    """A class of a script is pickled by value as it is, so that it loads where mantik is not installed."""
    namespace: dict[str, Any] = {"__name__": "__main__", "BaseEstimator": BaseEstimator}
    code = "class Mine(BaseEstimator):\n    def fit(self, X, y=None):\n        self.n_ = len(X)\n        return self\n"
    exec(code, namespace)  # noqa: S102  # as a script has it
    data = cloudpickle.dumps(namespace["Mine"]().fit(X))
    assert noted == ["Mine.fit"]
    assert b"mantik" not in data
    program = "import pickle, sys; print(pickle.loads(sys.stdin.buffer.read()).fit([1, 2]).n_, 'mantik' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], input=data, capture_output=True, check=True)
    assert done.stdout.split() == [b"2", b"False"]


@pytest.mark.parametrize("backend", ["loky", "threading"])
def test_workers_are_silent(noted: list[str], backend: str) -> None:
    """What workers of a search do is not told of, in processes and in threads."""
    from joblib import parallel_config

    with parallel_config(backend=backend):
        GridSearchCV(LogisticRegression(), {"C": [0.1, 1, 10]}, n_jobs=2, cv=2).fit(X, Y)
        VotingClassifier([("a", LogisticRegression()), ("b", LogisticRegression(C=2))], n_jobs=2).fit(X, Y)
        StackingClassifier([("a", LogisticRegression())], n_jobs=2, cv=2).fit(X, Y)
    assert noted == ["GridSearchCV.fit", "VotingClassifier.fit", "StackingClassifier.fit"]


def test_threads_of_the_user_are_told_of(noted: list[str]) -> None:
    """Fits in threads that the program starts itself, joblib's too, are told of, also while another one fits."""
    threads = [threading.Thread(target=LogisticRegression().fit, args=(X, Y)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    Parallel(n_jobs=2, backend="threading")(delayed(lambda: LogisticRegression().fit(X, Y))() for _ in range(3))
    assert noted == ["LogisticRegression.fit"] * 7


def test_routing_of_metadata_is_as_before(noted: list[str]) -> None:
    """Metadata are requested and routed as without hooks, also for a class that is made later."""
    import sklearn

    class Weighed(LogisticRegression):
        def fit(self, features: Any, targets: Any, sample_weight: Any = None, colour: Any = None) -> Weighed:
            self.colour_ = colour
            return super().fit(features, targets, sample_weight)

    with sklearn.config_context(enable_metadata_routing=True):
        model = Weighed().set_fit_request(sample_weight=True, colour=True).set_score_request(sample_weight=False)
        search = GridSearchCV(model, {"C": [1.0]}, cv=2).fit(X, Y, sample_weight=np.ones(40), colour="blue")
    assert search.best_estimator_.colour_ == "blue"
    assert noted[-1] == "GridSearchCV.fit"


def test_hooks_that_come_back_are_none() -> None:
    """A hook that something puts back after it was taken away tells of nothing; a later one stands in its place."""
    first = Hooks(("fit",), {}, old := Noting())
    first.put()
    stale = vars(LogisticRegression)["fit"]
    first.take_away()
    plain = vars(LogisticRegression)["fit"]
    LogisticRegression.fit = stale  # type: ignore[method-assign]
    try:
        LogisticRegression().fit(X, Y)
        again = Hooks(("fit",), {}, new := Noting())
        again.put()
        LogisticRegression().fit(X, Y)
        again.take_away()
    finally:
        LogisticRegression.fit = plain
    assert (old.calls, new.calls) == ([], ["LogisticRegression.fit"])
