"""Every estimator of scikit-learn is fitted with and without autologging: the same results, and a run for each."""

# ruff: noqa: ANN401  # estimators take and return anything

from __future__ import annotations

import logging
import os
import pickle
import random
import warnings
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from unittest import SkipTest

import numpy as np
import pytest
from scipy import sparse
from sklearn.base import clone
from sklearn.utils import all_estimators, get_tags
from sklearn.utils._test_common.instance_generator import _construct_instances
from sklearn.utils.validation import check_is_fitted

import mantik
from mantik.integrations.sklearn.candidates import is_search

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from sklearn.base import BaseEstimator

    from tests.integrations.arrivals import Arrived

LEFT_OUT = {
    "FrozenEstimator": "it holds a fitted estimator, and to fit it does nothing",
}
"""The estimators that are not fitted here, and why."""

RANDOM = np.random.default_rng(0)
FEATURES = RANDOM.random((30, 3))
TEXTS = ["red green", "green blue", "blue red grey"] * 10

WHOLE = int(os.environ.get("WHOLE_ESTIMATORS", "10"))
"""Of so many one is recorded with model and pictures; `make torture` records all so."""

PARTS = 4
_LATER = () if WHOLE == 1 else (pytest.mark.thorough,)

OUTCOMES = ("predict", "transform", "predict_proba", "decision_function", "score_samples")
FITTED = ("labels_", "embedding_", "row_labels_", "rows_")


@dataclass
class Case:
    """An estimator with data that suit it."""

    name: str
    estimator: BaseEstimator
    features: Any
    targets: Any
    problems: list[str] = field(default_factory=list)

    def fitted(self) -> tuple[BaseEstimator, dict[str, Any]]:
        """Fit a copy with a fixed seed; return it and what it makes of the data."""
        np.random.seed(7)  # noqa: NPY002  # what estimators without a seed of their own draw from
        random.seed(7)
        model = clone(self.estimator)
        with warnings.catch_warnings():
            # What scikit-learn has to say of such small data.
            warnings.simplefilter("ignore")
            model.fit(self.features, *([] if self.targets is None else [self.targets]))
            outcome = {name: getattr(model, name)(self.features) for name in OUTCOMES if hasattr(model, name)}
        outcome |= {name: getattr(model, name) for name in FITTED if hasattr(model, name)}
        return model, {**outcome, "the generator": np.random.random(3)}  # noqa: NPY002


def cases() -> Iterator[Case]:
    """Yield all estimators that can be fitted."""
    for name, kind in all_estimators():
        try:
            estimator = next(iter(_construct_instances(kind)))
        except SkipTest:
            assert name in LEFT_OUT, name
            continue
        yield Case(name, estimator, *data_for(name, estimator))


def data_for(name: str, estimator: BaseEstimator) -> tuple[Any, Any]:
    """Return features and targets that suit an estimator."""
    binary = (FEATURES[:, 0] > 0.5).astype(int)
    special = {
        "IsotonicRegression": (FEATURES[:, 0], FEATURES[:, 1]),
        "KernelCenterer": (FEATURES @ FEATURES.T, None),
        "LabelBinarizer": (binary, None),
        "LabelEncoder": (binary, None),
        "MissingIndicator": (np.where(FEATURES > 0.5, np.nan, FEATURES), None),
        "MultiLabelBinarizer": ([(1, 2), (2,)] * 15, None),
    }
    if name in special:
        return special[name]
    tags = get_tags(estimator)
    features: Any = FEATURES
    if tags.input_tags.three_d_array:
        features = RANDOM.random((4, 20, 20))
    elif tags.input_tags.string and not tags.input_tags.two_d_array:
        features = TEXTS
    elif tags.input_tags.dict:
        features = [{"a": 1.0, "b": 2.0}] * 30
    targets: Any = FEATURES @ [1.0, 2.0, 3.0] if tags.estimator_type == "regressor" else binary
    if tags.target_tags.multi_output and not tags.target_tags.single_output:
        targets = np.c_[targets, 1 - targets]
    return features, targets


def same(first: Any, second: Any) -> bool:
    """Tell whether two outcomes are the same to the last bit, NaN and all."""
    if isinstance(first, tuple | list):
        return len(first) == len(second) and all(same(one, other) for one, other in zip(first, second, strict=True))
    if sparse.issparse(first):
        first, second = first.toarray(), second.toarray()
    return bool(np.array_equal(first, second, equal_nan=np.asarray(first).dtype.kind == "f"))


@pytest.mark.parametrize("part", [0, *(pytest.param(part, marks=_LATER) for part in range(1, PARTS))])
def test_every_estimator(
    part: int, arrived: Arrived, autologging: Callable[..., None], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Results are equal to the last bit, estimators can be cloned and pickled, each fit is a run with its params."""
    with warnings.catch_warnings():
        # Of estimators that are deprecated, and of the one that cannot be made.
        warnings.simplefilter("ignore")
        every = list(cases())
    assert len(every) >= 150
    every = every[part::PARTS]
    expected = {case.name: case.fitted()[1] for case in every}
    with caplog.at_level(logging.WARNING):
        for whole in (False, True):
            autologging(log_preprocessing=True, log_models=whole, log_plots=whole)
            for case in [case for number, case in enumerate(every) if (number % WHOLE == 0) is whole]:
                model, outcome = case.fitted()
                wrong = [name for name, value in outcome.items() if not same(value, expected[case.name][name])]
                if wrong or outcome.keys() != expected[case.name].keys():
                    case.problems.append(f"other results: {wrong}")
                check_is_fitted(model)
                clone(model)
                pickle.loads(pickle.dumps(model))  # noqa: S301  # ours
        assert mantik.flush(280)
    runs = [run for run in arrived.runs(tmp_path.name) if "mlflow.parentRunId" not in run.tags]
    assert len(runs) == len(every)
    found = {run.tags["estimator_name"]: run for run in runs}
    for case in every:
        run = found.get(case.name)
        if run is None or run.status != "FINISHED":
            case.problems.append(f"the run is {run}")
            continue
        # Of a search the params of what it tries are in its child runs.
        deep = not is_search(case.estimator)
        missing = {name for name in case.estimator.get_params(deep=deep) if name not in run.params}
        if missing:
            case.problems.append(f"missing params: {missing}")
    assert {case.name: case.problems for case in every if case.problems} == {}
    assert [record.getMessage() for record in caplog.records if record.name.startswith("mantik")] == []
    assert mantik.receipt().refused == 0
