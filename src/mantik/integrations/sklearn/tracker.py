"""What becomes of the calls that the hooks tell of."""

from __future__ import annotations

import contextlib
import functools
import inspect
import time
import weakref
from typing import TYPE_CHECKING, Any

import mlflow
from mlflow.utils.autologging_utils import autologging_is_disabled, disable_autologging

from mantik.delivery.registry import outbox_for
from mantik.integrations.sklearn.afterwards import Job
from mantik.integrations.sklearn.batches import Batches
from mantik.integrations.sklearn.data import Data, data_of_call
from mantik.integrations.sklearn.fits import Fit, describe
from mantik.integrations.sklearn.held_out import HeldOut, metric_called
from mantik.integrations.sklearn.listening import caller, silence
from mantik.integrations.sklearn.parameters import tags_of
from mantik.integrations.sklearn.parts import identities_of, parts_of
from mantik.integrations.sklearn.runs import RUNS, Place, mlflow_begun_by
from mantik.integrations.sklearn.validation import record_validation
from mantik.training.boundary import extra, hushed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sklearn.base import BaseEstimator

    from mantik.integrations.sklearn.afterwards import Afterwards
    from mantik.integrations.sklearn.options import Options

__all__ = ["METHODS", "VALIDATIONS", "Tracker"]

_FITS = ("fit", "fit_predict", "fit_transform")
_PREDICTIONS = ("predict", "predict_proba", "predict_log_proba", "decision_function", "transform")

METHODS = (*_FITS, "partial_fit", *_PREDICTIONS, "score", "set_params")
"""The methods of estimators whose calls are of interest."""

VALIDATIONS = (
    "cross_validate",
    "cross_val_score",
    "cross_val_predict",
    "learning_curve",
    "validation_curve",
    "permutation_importance",
)
"""The functions that fit or try estimators themselves."""

_PREPROCESSING = (
    "sklearn.preprocessing.",
    "sklearn.impute.",
    "sklearn.feature_extraction.",
    "sklearn.feature_selection.",
    "sklearn.compose._column_transformer.",
)
"""Modules of estimators that prepare data. As for MLflow, to fit one of them alone is no training."""

_TRACKED_BY_MLFLOW = ("xgboost.", "lightgbm.")


class Tracker:
    """Records the user's own calls, and makes all of them. Any thread may call.

    Attributes:
        options: What the user asked for.
        strict: Raise what goes wrong with tracking before a fit begins, instead of warning.

    Args:
        options: As above.
        afterwards: Who does what takes time.
        strict: As above.
    """

    def __init__(self, options: Options, afterwards: Afterwards, *, strict: bool) -> None:
        self.options = options
        self._afterwards = afterwards
        self.strict = strict
        self._runs = RUNS
        self._batches = Batches(self._runs, self._do)
        self._known: dict[int, HeldOut] = {}
        afterwards.at_end(self._batches.run_ended)

    def method_called(
        self,
        estimator: BaseEstimator,
        method: str,
        call: Callable[..., Any],
        arguments: tuple[Any, ...],
        keywords: dict[str, Any],
    ) -> Any:  # noqa: ANN401
        """Make a call of an estimator's method and record it."""
        if method == "set_params":
            self._afterwards.release(identities_of(estimator))
            return call(*arguments, **keywords)
        if not _is_on():
            return call(*arguments, **keywords)
        if method in _FITS:
            return self._fitted(estimator, call, arguments, keywords)
        if method == "partial_fit":
            return self._fitted_further(estimator, call, arguments, keywords)
        with silence():
            result = call(*arguments, **keywords)
        known = self._known.get(id(estimator))
        if known is not None and known.is_of(estimator):
            with self._extra("A prediction is not noticed"):
                if method == "score":
                    known.scored(call, arguments, keywords, result, caller())
                else:
                    known.predicted(method, call, arguments, keywords, result, caller())
        return result

    def function_called(
        self, name: str, call: Callable[..., Any], arguments: tuple[Any, ...], keywords: dict[str, Any]
    ) -> Any:  # noqa: ANN401
        """Make a call of a function that tries estimators or that measures, and record it."""
        if not _is_on():
            return call(*arguments, **keywords)
        if name in VALIDATIONS:
            return self._validated(name, call, arguments, keywords)
        with silence():
            value = call(*arguments, **keywords)
        with self._extra("A metric is not recorded"):
            metric_called(name, call, arguments, keywords, value, caller())
        return value

    def _fitted(
        self,
        estimator: BaseEstimator,
        call: Callable[..., Any],
        arguments: tuple[Any, ...],
        keywords: dict[str, Any],
    ) -> Any:  # noqa: ANN401
        name = type(estimator).__name__
        self._batches.finish(estimator)
        self._afterwards.release(identities_of(estimator))
        place, fit = None, None
        with self._extra(f"The fit of {name} is not recorded", strict=self.strict):
            place = self._place(estimator)
            if place is not None:
                fit = Fit(estimator, place.record, self.options, _copy(call, arguments, keywords))
                fit.is_beside = mlflow_begun_by() in {"xgboost", "lightgbm"}
                fit.begin()
        with self._ending(place):
            began = time.perf_counter()
            with silence(), _alone(estimator):
                result = call(*arguments, **keywords)
            seconds = time.perf_counter() - began
        if place is not None and fit is not None:
            with self._extra(f"What came of {name} is not recorded"):
                fit.record.metrics({"fit_time": seconds})
                self._do(fit.job(result if call.__name__ == "fit_predict" else None))
                self._know(estimator, place, data_of_call(call, arguments, keywords))
                known = self._known.get(id(estimator))
                if call.__name__ == "fit_predict" and known is not None:
                    known.predicted("fit_predict", call, arguments, keywords, result, caller())
        return result

    def _fitted_further(
        self,
        estimator: BaseEstimator,
        call: Callable[..., Any],
        arguments: tuple[Any, ...],
        keywords: dict[str, Any],
    ) -> Any:  # noqa: ANN401
        name = type(estimator).__name__
        self._afterwards.release(identities_of(estimator))
        batch = None
        if not self._is_left_out(estimator):
            with self._extra(f"The partial fit of {name} is not recorded", strict=self.strict):
                batch = self._batches.begin(estimator, self.options, call, arguments, keywords)
        try:
            with silence(), _alone(estimator):
                result = call(*arguments, **keywords)
        except BaseException as error:
            if batch is not None:
                with self._extra(f"The error of {name} is not recorded"):
                    self._batches.fail(estimator, error)
            raise
        if batch is not None:
            with self._extra(f"The partial fit of {name} is not recorded"), silence():
                self._batches.note(estimator, batch)
                data = data_of_call(call, arguments, keywords)
                if batch.is_first:
                    self._know(estimator, batch.place, data)
                elif data is not None and id(estimator) in self._known:
                    self._known[id(estimator)].trained_on(data)
        return result

    def _validated(
        self, name: str, call: Callable[..., Any], arguments: tuple[Any, ...], keywords: dict[str, Any]
    ) -> Any:  # noqa: ANN401
        try:
            bound = dict(inspect.signature(call).bind(*arguments, **keywords).arguments)
        except TypeError:
            # The call itself will say what is wrong with it.
            return call(*arguments, **keywords)
        estimator = bound["estimator"]
        place = None
        with self._extra(f"{name} is not recorded", strict=self.strict):
            known = self._known.get(id(estimator))
            if name == "permutation_importance" and known is not None and known.is_of(estimator):
                place = Place(self._runs.beside(known.record, name), is_own=False)
            else:
                place = self._runs.place(name, self.options, apart=True)
                if place is not None:
                    place.record.tags({**tags_of(estimator), "mantik.function": name})
        with self._ending(place), silence(), _alone(estimator):
            result = call(*arguments, **keywords)
        if place is not None:
            record = place.record
            with self._extra(f"What came of {name} is not recorded"):
                step = f"What came of {name} is not recorded"
                data = _copy(call, (), bound) if name == "cross_val_predict" else None
                if data is not None and not data.is_sampled:
                    bound["y"] = data.targets
                self._do(
                    Job(
                        record.run_id,
                        [
                            (
                                step,
                                lambda: record_validation(name, estimator, bound, result, record, options=self.options),
                            )
                        ],
                        touches=identities_of(estimator),
                    )
                )
        return result

    def _place(self, estimator: BaseEstimator) -> Place | None:
        if self._is_left_out(estimator):
            return None
        return self._runs.place(type(estimator).__name__, self.options, apart=_prepares(estimator))

    def _is_left_out(self, estimator: BaseEstimator) -> bool:
        return _prepares(estimator) and not self.options.log_preprocessing

    @contextlib.contextmanager
    def _ending(self, place: Place | None) -> Iterator[None]:
        """End a call's own run with its true status, and keep what ended the call."""
        try:
            yield
        except BaseException as error:
            if place is not None:
                with self._extra("The end of a run is not recorded"):
                    place.record.tags({"mantik.error": describe(error)})
                    place.end("FAILED" if isinstance(error, Exception) else "KILLED")
            raise
        if place is not None:
            with self._extra("The end of a run is not recorded"):
                place.end("FINISHED")

    def _know(self, estimator: BaseEstimator, place: Place, data: Data | None) -> None:
        """Notice from now on what is predicted with an estimator."""
        if not self.options.log_post_training_metrics:
            return
        known = HeldOut(place.record, self._reference(estimator), data, self.options, self._do)
        self._known[id(estimator)] = known
        best = getattr(estimator, "best_estimator_", None)
        if best is not None:
            self._known[id(best)] = known.also_of(self._reference(best))

    def _reference(self, estimator: BaseEstimator) -> weakref.ref[BaseEstimator]:
        return weakref.ref(estimator, functools.partial(self._forget, id(estimator)))

    def _forget(self, key: int, _: object) -> None:
        self._known.pop(key, None)

    @contextlib.contextmanager
    def _extra(self, what: str, *, strict: bool = False) -> Iterator[None]:
        """Guard what is done beside a call of the user's."""
        with hushed(hush=self.options.silent), extra(what, strict=strict):
            yield

    def _do(self, job: Job) -> None:
        """Have a job done: later where readers of the run wait for it, at once with a store of MLflow's own."""
        job.silent = self.options.silent
        if outbox_for(mlflow.get_tracking_uri()) is None:
            self._afterwards.do(job)
        else:
            self._afterwards.add(job)


def _is_on() -> bool:
    """Tell whether anything is recorded: not where tracking is disabled or where MLflow's autologging does it."""
    outbox = outbox_for(mlflow.get_tracking_uri())
    return (outbox is None or not outbox.is_disabled) and autologging_is_disabled("sklearn")


def _copy(call: Callable[..., Any], arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Data | None:
    """Return a copy of the data of a call; None where they cannot be copied."""
    data = data_of_call(call, arguments, keywords)
    if data is not None:
        with extra("The data are not looked at", strict=False):
            return data.kept_as_is()
    return None


def _prepares(estimator: BaseEstimator) -> bool:
    return f"{type(estimator).__module__}.".startswith(_PREPROCESSING)


@contextlib.contextmanager
def _alone(estimator: BaseEstimator) -> Iterator[None]:
    """Keep MLflow's autologging of XGBoost and LightGBM out of a fit that is recorded here."""
    if any(type(part).__module__.startswith(_TRACKED_BY_MLFLOW) for part in parts_of(estimator)):
        with disable_autologging():
            yield
    else:
        yield
