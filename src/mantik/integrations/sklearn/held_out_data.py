"""The data that an estimator is tried on after a fit: what they are called, and whether they are new."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mantik.integrations.sklearn.fingerprints import fingerprint
from mantik.integrations.sklearn.identities import Identities
from mantik.integrations.sklearn.metric_calls import indexed
from mantik.integrations.sklearn.variable_names import variable_name

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

    from mantik.integrations.sklearn.data import Data

__all__ = ["Dataset", "Datasets"]

_UNKNOWN = "unknown_dataset"
"""The name of data without a variable, as MLflow has it."""

_MOST_DATASETS = 1000
"""Of one fit that are told apart. Whoever predicts more often than that answers requests."""

_MOST_EVALUATED = 10
"""Of one fit that are evaluated beyond what the user asks for."""

_MOST_TRAINED_ON = 100
"""Data of one fit that are known to be training data: the last batches."""


@dataclass(slots=True, eq=False)
class Dataset:
    """Data that an estimator is tried on. They belong to the user, and are not kept.

    Attributes:
        name: What they are called in the run.
        features: Returns them as long as there are any.
        rows: How many samples there are; None: unknown.
        fingerprint: What tells them from others.
        is_new: Whether they have not been evaluated yet, and may be.
    """

    name: str
    features: Callable[[], Any]
    rows: int | None
    fingerprint: int | None
    is_new: bool = True


class Datasets:
    """The data of one fit. Any thread may call."""

    def __init__(self) -> None:
        self._datasets: Identities[Dataset] = Identities()
        self._count: Counter[str] = Counter()
        self._trained_on: deque[int] = deque(maxlen=_MOST_TRAINED_ON)
        self._training: Identities[bool] = Identities(most_kept=0)
        self._evaluated: list[int | None] = []

    def train(self, data: Data) -> None:
        """Know data for training data: by what is in them, and, while the user has them, by identity."""
        if data.features is None:
            return
        found = fingerprint(data)
        with Identities.lock:
            self._training.put(data.features, value=True)
            if found is not None:
                self._trained_on.append(found)

    def find(self, data: Data, frame: FrameType | None) -> Dataset | None:
        """Return what is known of data; None of none, and of more than can be told apart.

        Data have the name of their variable, or ``unknown_dataset``, and keep it. Other data of the same name have it
        with a number: ``X_test-2``.

        Args:
            data: As the user has them.
            frame: Of the user's code.
        """
        features = data.features
        known = None if features is None else self._datasets.get(features)
        if features is None or known is not None or self._is_full():
            return known
        name = variable_name(features, frame) or _UNKNOWN
        found = fingerprint(data)
        with Identities.lock:
            known = self._datasets.get(features)
            if known is None:
                known = Dataset(indexed(name, self._count[name]), _nothing, data.rows, found)
                self._count[name] += 1
                known.features = self._datasets.put(features, known)
            return known

    def claim(self, dataset: Dataset) -> bool:
        """Tell whether data are to be evaluated, which whoever asks first does.

        They are if neither they nor equal ones have been, and if they are no training data.
        """
        with Identities.lock:
            is_new, dataset.is_new = dataset.is_new, False
            found = dataset.fingerprint
            if not is_new or self._training.get(dataset.features()):
                return False
            if found is not None and (found in self._trained_on or found in self._evaluated):
                return False
            if len(self._evaluated) >= _MOST_EVALUATED:
                return False
            self._evaluated.append(found)
            return True

    def _is_full(self) -> bool:
        with Identities.lock:
            return self._count.total() >= _MOST_DATASETS


def _nothing() -> None:
    return None
