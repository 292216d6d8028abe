"""What a search for parameters has found, in its run."""

from __future__ import annotations

import math
from numbers import Real
from typing import TYPE_CHECKING

from mantik.integrations.sklearn import pictures as gallery
from mantik.integrations.sklearn.candidates import candidates_of, is_search, param_text
from mantik.integrations.sklearn.child_runs import record_child_runs
from mantik.integrations.sklearn.table import as_csv
from mantik.training.boundary import extra
from mantik.training.params import text_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sklearn.base import BaseEstimator

    from mantik.integrations.sklearn.candidates import Candidates
    from mantik.integrations.sklearn.options import Options
    from mantik.integrations.sklearn.record import Record

__all__ = ["is_search", "record_search"]


def record_search(search: BaseEstimator, record: Record, options: Options) -> None:
    """Record what a fitted search has found: the best params and their score, all results, pictures, child runs.

    Params are ``best_<name>``. Metrics are ``best_cv_score``, ``best_cv_<scorer>`` of each scorer where there are
    several, ``n_candidates``, ``n_splits``, ``n_failed_fits`` and ``refit_time``, as far as the search tells. What
    cannot be recorded is left out with a warning, and takes nothing else with it.

    Args:
        search: The search: of scikit-learn, or another one that has its attributes.
        record: Where it is recorded.
        options: How many child runs, and whether pictures.
    """
    name = type(search).__name__
    candidates = None
    with extra(f"The candidates of {name} are not known", strict=False):
        candidates = candidates_of(search)
    with extra(f"The best params of {name} are not recorded", strict=False):
        best = getattr(search, "best_params_", None) or {}
        record.params({f"best_{param}": param_text(value) for param, value in best.items()})
    with extra(f"The scores of {name} are not recorded", strict=False):
        record.metrics(_metrics_of(search, candidates))
    if candidates is not None:
        with extra(f"cv_results.csv of {name} is not there", strict=False):
            record.text(as_csv(_columns_of(candidates)), "cv_results.csv")
    if options.log_plots:
        with extra(f"Pictures of {name} are not there", strict=False):
            for picture in gallery.pictures_of_search(search):
                with extra(f"The picture {picture.name} is not there", strict=False):
                    record.picture(picture)
    if candidates is not None:
        with extra(f"Child runs of {name} are not there", strict=False):
            record_child_runs(search, candidates, record, options.max_tuning_runs)


def _metrics_of(search: BaseEstimator, candidates: Candidates | None) -> dict[str, float]:
    """Return the numbers about a search as a whole; NaN where one is not known."""
    metrics = {
        "best_cv_score": _number(getattr(search, "best_score_", None)),
        "refit_time": _number(getattr(search, "refit_time_", None)),
    }
    if candidates is None:
        return metrics
    metrics["n_candidates"] = candidates.distinct
    if candidates.folds:
        metrics |= {"n_splits": candidates.folds, "n_failed_fits": candidates.failed_fits}
    scorers = candidates.scorers
    if len(scorers) > 1 or "score" not in scorers:
        metrics |= {f"best_cv_{scorer}": candidates.score_of(scorer) for scorer in scorers}
    elif math.isnan(metrics["best_cv_score"]):
        # The search leaves it to the user what is best.
        metrics["best_cv_score"] = candidates.score_of("score")
    return metrics


def _columns_of(candidates: Candidates) -> dict[str, Sequence[object]]:
    """Return the columns of `cv_results_`, with texts of params: one may be None, which is not to be without it."""
    columns = dict(candidates.columns)
    for name in columns:
        param = name.removeprefix("param_")
        if name == "params":
            columns[name] = [text_of(dict(params)) for params in candidates.params]
        elif param != name:
            columns[name] = [text_of(params[param]) if param in params else None for params in candidates.params]
    return columns


def _number(value: object) -> float:
    return float(value) if isinstance(value, Real) else math.nan
