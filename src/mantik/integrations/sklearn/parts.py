"""What an estimator is made of, found without asking it: some change what they hold when they are asked."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sklearn.base import BaseEstimator

__all__ = ["identities_of", "parts_of", "undrawn"]

_MOST_PARTS = 10_000


def parts_of(estimator: BaseEstimator) -> list[Any]:
    """Return an estimator and all estimators among its params, at whatever depth: steps, seeds, members."""
    return [part for part in _held(estimator) if hasattr(part, "get_params")]


def identities_of(estimator: BaseEstimator) -> frozenset[int]:
    """Return the identities of an estimator and of those that it is made of."""
    return frozenset(id(part) for part in parts_of(estimator))


@contextlib.contextmanager
def undrawn(estimator: BaseEstimator) -> Iterator[None]:
    """Leave the generators that an estimator was given as they are, whatever is drawn from them inside.

    Those of XGBoost draw a seed when they are asked for their params.
    """
    states = [(one, one.get_state()) for one in _held(estimator) if isinstance(one, np.random.RandomState)]
    try:
        yield
    finally:
        for generator, state in states:
            generator.set_state(state)


def _held(estimator: BaseEstimator) -> list[Any]:
    """Return an estimator, its params, theirs, and what is in lists and tuples among them."""
    found: dict[int, Any] = {}
    waiting: list[Any] = [estimator]
    while waiting and len(found) < _MOST_PARTS:
        one = waiting.pop()
        if id(one) in found:
            continue
        if isinstance(one, list | tuple):
            # Those of estimators and their names; long ones are data.
            waiting += [item for item in one[:100] if not isinstance(item, str | int | float)]
        else:
            found[id(one)] = one
            if hasattr(one, "get_params") and not isinstance(one, type):
                waiting += _params(one)
    return list(found.values())


def _params(estimator: Any) -> list[Any]:  # noqa: ANN401
    """Return the values of an estimator's params: by their names they are none of what it has learned."""
    held = getattr(estimator, "__dict__", {})
    return [value for name, value in held.items() if not name.startswith("_") and not name.endswith("_")]
