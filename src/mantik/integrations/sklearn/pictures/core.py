"""The estimator that features end up in, inside of pipelines, searches and selections, and their names there."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse
from sklearn.pipeline import Pipeline

from mantik.integrations.sklearn.evaluation import attempted
from mantik.integrations.sklearn.pictures.wording import feature_titles

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Core", "core_of"]

_INSIDE = ("best_estimator_", "regressor_", "estimator_")
"""Where a search, a target's transformation and a selection of features or thresholds have what they have fitted."""


@dataclass(frozen=True, slots=True)
class Core:
    """An estimator that is fitted to features.

    Attributes:
        estimator: The estimator.
        names: Of the features that it is given; None where they are not known.
    """

    estimator: Any
    names: Sequence[object] | None

    @property
    def importances(self) -> np.ndarray | None:
        """How important it says each feature is, of shape (features,)."""
        found = attempted(lambda: np.asarray(self.estimator.feature_importances_, dtype=float))
        return found if found is not None and found.ndim == 1 and found.size else None

    @property
    def coefficients(self) -> np.ndarray | None:
        """What it multiplies each feature by, of shape (classes or outputs, features); one row for two classes."""
        found = attempted(lambda: self.estimator.coef_)
        if found is None:
            return None
        if scipy.sparse.issparse(found):
            found = found.toarray()
        found = attempted(lambda: np.atleast_2d(np.asarray(found, dtype=float)))
        return found if found is not None and found.ndim == 2 and found.size else None  # noqa: PLR2004  # a matrix


def core_of(estimator: Any, names: Sequence[object] | None) -> Core:  # noqa: ANN401  # whatever has been fitted
    """Return the estimator that features end up in.

    Args:
        estimator: A fitted one.
        names: Of the features that it is given; None where they are not known.
    """
    while True:
        core = Core(estimator, names)
        if isinstance(estimator, Pipeline) and estimator.steps:
            if _is_nothing(estimator.steps[-1][1]):
                if len(estimator.steps) == 1:
                    return core
                estimator = estimator[:-1]
            else:
                names = _after(estimator[:-1], names) if len(estimator.steps) > 1 else names
                estimator = estimator.steps[-1][1]
            continue
        inner = next(
            (found for name in _INSIDE if (found := attempted(partial(getattr, estimator, name))) is not None), None
        )
        if inner is None or _tells(estimator):
            return core
        names = _selected(estimator, names)
        estimator = inner


def _tells(estimator: Any) -> bool:  # noqa: ANN401
    """Tell whether an estimator itself says something of features, without asking what, which may take long."""
    held = vars(estimator) if hasattr(estimator, "__dict__") else {}
    return any(name in held or hasattr(type(estimator), name) for name in ("feature_importances_", "coef_"))


def _selected(estimator: Any, names: Sequence[object] | None) -> Sequence[object] | None:  # noqa: ANN401
    """Return the names of those features that are left where an elimination fits what it has to these."""
    support = attempted(lambda: np.asarray(estimator.support_, dtype=bool))
    if support is None or support.ndim != 1:
        return names
    known = names if names is not None else feature_titles(None, len(support))
    return [name for name, kept in zip(known, support, strict=False) if kept]


def _after(steps: Pipeline, names: Sequence[object] | None) -> Sequence[object] | None:
    """Return the names of features behind the first steps of a pipeline; None where these do not tell."""
    given = None if names is None else np.array(names, dtype=object)
    found = attempted(lambda: steps.get_feature_names_out(given))
    if found is None and given is not None:
        # They may have been fitted to features with other names, or none.
        found = attempted(steps.get_feature_names_out)
    return None if found is None else list(found)


def _is_nothing(step: object) -> bool:
    return step is None or isinstance(step, str)
