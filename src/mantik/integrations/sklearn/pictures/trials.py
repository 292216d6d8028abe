"""What a search has tried, as rows of numbers and names that can be drawn."""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Real
from typing import TYPE_CHECKING, Any

import numpy as np

from mantik.integrations.sklearn.candidates import candidates_of
from mantik.integrations.sklearn.pictures.axes import padded
from mantik.integrations.sklearn.pictures.wording import joined, number, setting, short, short_names
from mantik.training.params import text_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mantik.integrations.sklearn.candidates import Candidates

__all__ = ["Param", "Trials", "trials_of"]

_ABSENT = "not set"
_MOST_TOLD = 2
"""Params whose values a title has room for."""

_FAR = 3.0
"""Times the range of the middle half of scores that one may lie below it to be on the scale."""

_WIDE = 30.0
"""From the least to the greatest value; over more, a param is drawn on a logarithmic axis."""


@dataclass(frozen=True, slots=True)
class Param:
    """A param that has more than one value among the candidates.

    Attributes:
        name: The last part of what it is called.
        places: Where each trial is along its axis, of shape (trials,): its value, or the place of its value in `names`.
        names: Its values in their order, as texts; None where they are numbers.
        is_log: Whether they are numbers of very different sizes.
    """

    name: str
    places: np.ndarray
    names: list[str] | None
    is_log: bool = False

    @property
    def values(self) -> np.ndarray:
        """The places that there are, in their order."""
        return np.unique(self.places)

    def text(self, place: float) -> str:
        """Return what a place is called."""
        return setting(place) if self.names is None else self.names[int(place)]


@dataclass(frozen=True, slots=True)
class Trials:
    """The candidates of a search that have a score, each once; of a halving search in their last iteration.

    Attributes:
        params: Those that vary, in the order in which they are given.
        scores: The mean of the folds, of shape (trials,).
        deviations: Their standard deviation.
        best: The trial that the search has chosen, or the one with the greatest score.
        scorer: What the score is.
        folds: How many folds each was tried on; 0 where that is not known.
        failed: How many have no score.
    """

    params: list[Param]
    scores: np.ndarray
    deviations: np.ndarray
    best: int
    scorer: str
    folds: int
    failed: int

    @property
    def score_label(self) -> str:
        """What is along an axis of scores."""
        return f"Mean {self.scorer} of {self.folds} folds" if self.folds else f"Mean {self.scorer}"

    @property
    def limits(self) -> tuple[float, float]:
        """The scores that a scale is from and to: without those that are so bad that all others would be the same."""
        lower, upper = np.percentile(self.scores, [25, 75])
        low, high = max(float(self.scores.min()), float(lower - _FAR * (upper - lower))), float(self.scores.max())
        return padded([low, high], share=0)

    @property
    def summary(self) -> str:
        """How many there are, and what the best is, in words."""
        count = len(self.scores)
        best = f"best, in orange: {self.text(self.scores[self.best])}"
        if len(self.params) <= _MOST_TOLD:
            with_params = (f"{param.name} {param.text(param.places[self.best])}" for param in self.params)
            best = f"{best} with {' and '.join(with_params)}"
        failed = f"{self.failed:,} without a score" if self.failed else ""
        return joined(f"{count:,} candidate{'s' * (count != 1)}", best, failed)

    @property
    def beyond(self) -> str:
        """How many scores are not on the scale, in words; empty where all are."""
        below = int(np.sum(self.scores < self.limits[0]))
        return f"{below:,} below {self.text(self.limits[0])}" if below else ""

    def text(self, score: float) -> str:
        """Return a score with as many digits as tell the scores from each other."""
        low, high = self.limits
        digits = 3 + math.floor(math.log10(max(abs(low), abs(high)) / (high - low)))
        return number(score, min(max(digits, 3), 6))


def trials_of(search: Any) -> Trials | None:  # noqa: ANN401  # any search
    """Return what a search has tried; None where it does not tell, or nothing has a score."""
    candidates = candidates_of(search)
    scores = None if candidates is None else np.array(candidates.numbers(f"mean_test_{candidates.scorer}"))
    if candidates is None or scores is None or not len(scores):
        return None
    last = _last_iterations(candidates)
    rows = [row for row in last if np.isfinite(scores[row])]
    if not rows:
        return None
    deviations = np.array(candidates.numbers(f"std_test_{candidates.scorer}") or [math.nan] * len(scores))
    chosen = candidates.best if candidates.best in rows else rows[int(np.argmax(scores[rows]))]
    names = dict.fromkeys(name for row in rows for name in candidates.params[row])
    params = [_param(name, [candidates.params[row] for row in rows], list(names)) for name in names]
    return Trials(
        [param for param in params if len(param.values) > 1],
        scores[rows],
        np.nan_to_num(deviations[rows]),
        rows.index(chosen),
        scorer_of(search, candidates),
        candidates.folds,
        len(last) - len(rows),
    )


def scorer_of(search: Any, candidates: Candidates) -> str:  # noqa: ANN401
    """Return what a search scores by, in words."""
    if candidates.scorer != "score":
        return short(candidates.scorer)
    scoring = getattr(search, "scoring", None)
    return short(scoring) if isinstance(scoring, str) else "score"


def _last_iterations(candidates: Candidates) -> list[int]:
    """Return one row of each candidate: of a halving search that of the last iteration it was in."""
    iterations = candidates.numbers("iter")
    if not iterations:
        return list(range(len(candidates.params)))
    last: dict[str, int] = {}
    for row in sorted(range(len(iterations)), key=iterations.__getitem__):
        last[text_of(dict(candidates.params[row]))] = row
    return sorted(last.values())


def _param(name: str, params: Sequence[Any], names: Sequence[str]) -> Param:
    given = [each.get(name, _ABSENT) for each in params]
    title = _title(name, names)
    if all(isinstance(value, Real) and not isinstance(value, bool | np.bool_) for value in given):
        numbers = np.array([float(value) for value in given])
        if np.isfinite(numbers).all():
            is_log = bool(numbers.min() > 0 and numbers.max() / numbers.min() >= _WIDE)
            return Param(title, numbers, None, is_log)
    texts = [text_of(value) for value in given]
    distinct = list(dict.fromkeys(texts))
    places = {text: at for at, text in enumerate(distinct)}
    return Param(title, np.array([float(places[text]) for text in texts]), short_names(distinct, 18))


def _title(name: str, names: Sequence[str]) -> str:
    """Return the part of a param's name that tells it from the others: without the steps, if that does."""
    last = name.rpartition("__")[2]
    return short(last if [other.rpartition("__")[2] for other in names].count(last) == 1 else name, 22)
