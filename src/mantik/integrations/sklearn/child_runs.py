"""The candidates of a search as runs below its own, written from what the search has found."""

from __future__ import annotations

import math
import time
from collections import Counter
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from mlflow.entities import Metric, Param, RunStatus
from mlflow.tracking.context.registry import resolve_tags
from mlflow.utils.mlflow_tags import MLFLOW_AUTOLOGGING, MLFLOW_PARENT_RUN_ID

from mantik.integrations.sklearn.candidates import is_search, param_text
from mantik.integrations.sklearn.parameters import parameters_of, tags_of
from mantik.training.names import mapped
from mantik.training.params import text_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mlflow.entities import RunInfo
    from sklearn.base import BaseEstimator

    from mantik.integrations.sklearn.candidates import Candidates
    from mantik.integrations.sklearn.record import Record

__all__ = ["record_child_runs"]

_LONGEST_NAME = 100
"""Characters. A table of runs shows about 40 of them."""

_LONGEST_VALUE = 24
_NO_METRICS = ("param", "split")
"""How columns begin that are no metrics of a child run: as for MLflow, each fold is too much."""


def record_child_runs(search: BaseEstimator, candidates: Candidates, record: Record, most: int | None) -> None:
    """Create a run for each of the best candidates of a search. Nothing is fitted for it.

    Each has the params that the estimator had, what `cv_results_` says of it as metrics, and takes a part of the time
    of the search: as long as its fits, or shorter where several were fitted at a time. One that failed is FAILED.

    Args:
        search: The fitted search.
        candidates: What it has tried.
        record: The run of the search.
        most: How many runs to create at most; None: one for each candidate, and for each iteration of a halving search.
    """
    rows = candidates.best_first()[:most]
    if not rows:
        return
    seed = getattr(search, "estimator", None)
    params = {} if seed is None else parameters_of(seed, deep=not is_search(seed))
    tags = {**resolve_tags(), **({} if seed is None else tags_of(seed))}
    tags |= {MLFLOW_AUTOLOGGING: "sklearn", MLFLOW_PARENT_RUN_ID: record.run_id}
    names = _names_of(candidates)
    parent = record.client.get_run(record.run_id).info
    spans = _spans_of(candidates, parent, getattr(search, "refit_time_", 0.0))
    # The client's own way to end a run asks the server for it, and prints a link to it.
    store = record.client._tracking_client.store  # noqa: SLF001
    for row in rows:
        began, ended = spans[row]
        name = record.prefix + names[row]
        run_id = record.client.create_run(record.experiment_id, began, tags, name).info.run_id
        record.client.log_batch(
            run_id,
            [Metric(mapped(key), value, ended, 0) for key, value in _metrics_of(candidates, row).items()],
            [Param(mapped(key), text) for key, text in _params_of(params, candidates.params[row]).items()],
        )
        status = RunStatus.FAILED if candidates.has_failed(row) else RunStatus.FINISHED
        store.update_run_info(run_id, status, ended, None)


def _metrics_of(candidates: Candidates, row: int) -> dict[str, float]:
    names = [name for name in candidates.columns if not name.startswith(_NO_METRICS)]
    numbers = {name: candidates.numbers(name)[row] for name in names}
    return {name: value for name, value in numbers.items() if math.isfinite(value)}


def _params_of(seed: Mapping[str, str], candidate: Mapping[str, Any]) -> dict[str, str]:
    """Return all params that an estimator has once it is given those of a candidate."""
    params = dict(seed)
    # What is replaced as a whole comes before what is set inside of it.
    for name, value in sorted(candidate.items()):
        inner = f"{name}__"
        params = {key: text for key, text in params.items() if not key.startswith(inner)}
        if hasattr(value, "get_params") and not isinstance(value, type):
            params |= {inner + key: text for key, text in parameters_of(value, deep=True).items()}
        params[name] = param_text(value)
    return params


def _spans_of(candidates: Candidates, parent: RunInfo, refit_seconds: float) -> list[tuple[int, int]]:
    """Return when each row began and ended, one after the other, in milliseconds since 1970.

    That is made up but for its length: the search does not tell when it tried what. It ended when the run of the search
    did, or now.
    """
    end = parent.end_time or int(time.time() * 1000)
    begin = min(parent.start_time, end)
    nothing = [0.0] * len(candidates.params)
    fits, scores = (candidates.numbers(name) or nothing for name in ("mean_fit_time", "mean_score_time"))
    folds = max(candidates.folds, 1)
    needed = [1000 * folds * (_seconds(fit) + _seconds(score)) for fit, score in zip(fits, scores, strict=True)]
    searched = max(begin, end - refit_seconds * 1000)
    length = min(sum(needed), searched - begin)
    share = length / sum(needed) if length > 0 else 0.0
    first = searched - length
    ends = [int(first + share * passed) for passed in accumulate(needed)]
    return list(zip([int(first), *ends], ends, strict=False))


def _seconds(time_taken: float) -> float:
    return time_taken if math.isfinite(time_taken) and time_taken > 0 else 0.0


def _names_of(candidates: Candidates) -> list[str]:
    """Return a short name of each row, each another: what it was given that others were not."""
    varied = _varied(candidates.params)
    ends = Counter(name.rpartition("__")[2] for name in varied)
    short = {name: name.rpartition("__")[2] if ends[name.rpartition("__")[2]] == 1 else name for name in varied}
    names = [
        ", ".join(f"{short[name]}={_short_text(value)}" for name, value in candidate.items() if name in short)
        for candidate in candidates.params
    ]
    names = [name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 1]}…" for name in names]
    iterations = candidates.numbers("iter")
    if iterations:
        names = [
            f"{name} (iteration {iteration:.0f})".lstrip() for name, iteration in zip(names, iterations, strict=True)
        ]
    counts = Counter(names)
    return [
        name if name and counts[name] == 1 else f"{name} #{row}".lstrip() for row, name in enumerate(names, start=1)
    ]


def _varied(params: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the names of what differs from candidate to candidate, in order."""
    texts: dict[str, set[str]] = {}
    given: Counter[str] = Counter()
    for candidate in params:
        given.update(candidate.keys())
        for name, value in candidate.items():
            texts.setdefault(name, set()).add(text_of(value))
    return [name for name, found in texts.items() if len(found) > 1 or given[name] < len(params)]


def _short_text(value: Any) -> str:  # noqa: ANN401  # whatever a param is
    if isinstance(value, float):
        return f"{value:.4g}"
    if hasattr(value, "get_params") and not isinstance(value, type):
        return type(value).__name__
    text = " ".join(text_of(value).rpartition(".")[2].split()) if callable(value) else " ".join(text_of(value).split())
    return text if len(text) <= _LONGEST_VALUE else f"{text[: _LONGEST_VALUE - 1]}…"
