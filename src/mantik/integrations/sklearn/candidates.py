"""What a search for parameters has tried, whatever kind of search it was."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any

from mantik.training.params import text_of

if TYPE_CHECKING:
    from sklearn.base import BaseEstimator

__all__ = ["Candidates", "candidates_of", "is_search", "param_text"]

_MOST_CHARACTERS = 6_000
"""Of a param; MLflow holds no more of one (`utils/validation.py`)."""


@dataclass(frozen=True, slots=True)
class Candidates:
    """The candidates of a search, one row each; of a halving search one row for each iteration of each.

    Attributes:
        params: What each was given, by name.
        columns: All columns of `cv_results_`, each with a cell for each row. An empty cell is None.
        scorer: By which scorer the search ranks: ``score`` where there is one only.
        best: The row that the search has chosen; None where it has chosen none.
    """

    params: Sequence[Mapping[str, Any]]
    columns: Mapping[str, Sequence[Any]]
    scorer: str
    best: int | None

    @property
    def scorers(self) -> list[str]:
        """The names of all scorers."""
        return _scorers_in(self.columns)

    @property
    def folds(self) -> int:
        """How many folds each was tried on."""
        return len(self._folds())

    @property
    def failed_fits(self) -> int:
        """How many of all the fits have no score: those that raised, where `error_score` is NaN."""
        return sum(math.isnan(score) for fold in self._folds() for score in self.numbers(fold))

    @property
    def distinct(self) -> int:
        """How many there are, each counted once however many iterations it survived."""
        iterations = self.numbers("iter")
        return iterations.count(min(iterations)) if iterations else len(self.params)

    def numbers(self, column: str) -> list[float]:
        """Return a column as numbers, one a row; none where there is no such column.

        What is no number is NaN.
        """
        return [float(cell) if isinstance(cell, Real) else math.nan for cell in self.columns.get(column, ())]

    def score_of(self, scorer: str) -> float:
        """Return the mean score of the row that the search has chosen; without that, of the one that does best."""
        means = self.numbers(f"mean_test_{scorer}")
        if self.best is not None:
            return means[self.best]
        return max((mean for mean in means if not math.isnan(mean)), default=math.nan)

    def has_failed(self, row: int) -> bool:
        """Tell whether a row has no score, because one of its fits has none."""
        means = self.numbers(f"mean_test_{self.scorer}")
        return bool(means) and math.isnan(means[row])

    def best_first(self) -> list[int]:
        """Return the rows by rank: first the one that was chosen, and of a halving search the last iteration.

        Scores of earlier iterations, which had less data, are not comparable with it.
        """
        last_first = [-iteration for iteration in self.numbers("iter")] or [0.0] * len(self.params)
        ranks = self.numbers(f"rank_test_{self.scorer}") or [-mean for mean in self.numbers(f"mean_test_{self.scorer}")]
        ranks = [math.inf if math.isnan(rank) else rank for rank in ranks] or [0.0] * len(self.params)
        return sorted(range(len(self.params)), key=lambda row: (row != self.best, last_first[row], ranks[row]))

    def _folds(self) -> list[str]:
        of_fold = re.compile(rf"split\d+_test_{re.escape(self.scorer)}")
        return [name for name in self.columns if of_fold.fullmatch(name)]


def is_search(estimator: BaseEstimator) -> bool:
    """Tell whether an estimator searches for the parameters of another one.

    Searches of others than scikit-learn that are not derived from its own are known by what they have found, once they
    are fitted.
    """
    if isinstance(estimator, _search_class()):
        return True
    held = vars(estimator) if hasattr(estimator, "__dict__") else {}
    found = held.get("cv_results_")
    # Elimination of features has results too, but no candidates.
    return "best_estimator_" in held or (isinstance(found, Mapping) and "params" in found)


def candidates_of(search: BaseEstimator) -> Candidates | None:
    """Return what a fitted search has tried; None where it does not tell."""
    found = getattr(search, "cv_results_", None)
    if found is None:
        return None
    columns = {str(name): _listed(cells) for name, cells in found.items()}
    rows = len(columns["params"]) if "params" in columns else max(map(len, columns.values()), default=0)
    columns = {name: (cells + [None] * rows)[:rows] for name, cells in columns.items()}
    scorers = _scorers_in(columns)
    asked = getattr(search, "refit", None)
    chosen = getattr(search, "best_index_", None)
    best = int(chosen) if isinstance(chosen, Integral) else -1
    return Candidates(
        params=_params_in(columns, rows),
        columns=columns,
        scorer=asked if isinstance(asked, str) and asked in scorers else next(iter(scorers), "score"),
        best=best if 0 <= best < rows else None,
    )


def param_text(value: object) -> str:
    """Return the text of what a candidate was given for a param."""
    text = text_of(value)
    return text if len(text) <= _MOST_CHARACTERS else f"{text[: _MOST_CHARACTERS - 3]}..."


def _search_class() -> type | tuple[type, ...]:
    try:
        from sklearn.model_selection._search import BaseSearchCV
    except ImportError:
        # It is no part of scikit-learn's public interface.
        return ()
    found: type = BaseSearchCV
    return found


def _scorers_in(columns: Mapping[str, Any]) -> list[str]:
    return [name.removeprefix("mean_test_") for name in columns if name.startswith("mean_test_")]


def _params_in(columns: Mapping[str, Sequence[Any]], rows: int) -> list[Mapping[str, Any]]:
    if "params" in columns:
        return [cell if isinstance(cell, Mapping) else {} for cell in columns["params"]]
    named = {name.removeprefix("param_"): cells for name, cells in columns.items() if name.startswith("param_")}
    return [{name: cells[row] for name, cells in named.items() if cells[row] is not None} for row in range(rows)]


def _listed(cells: Any) -> list[Any]:  # noqa: ANN401  # an array, masked or not, a list, a column of pandas
    """Return a column as a list of Python's own objects, with None for what is masked."""
    listed = cells.tolist() if hasattr(cells, "tolist") else cells
    return list(listed) if isinstance(listed, Iterable) and not isinstance(listed, str) else []
