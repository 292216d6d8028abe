"""What an estimator says of itself: its params as texts, its class, and its picture as a page."""

from __future__ import annotations

import html
import inspect
import logging
from functools import partial
from typing import TYPE_CHECKING, Any

from mantik.integrations.sklearn.attempt import attempted
from mantik.integrations.sklearn.candidates import is_search
from mantik.integrations.sklearn.parts import undrawn
from mantik.training.params import text_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sklearn.base import BaseEstimator

__all__ = ["html_of", "parameters_of", "tags_of"]

_logger = logging.getLogger(__name__)

_MOST_PARAMS = 2_000
_MOST_CHARACTERS = 6_000
"""Of a value; MLflow holds no more of one (`utils/validation.py`)."""
_MOST_ITEMS = 2_000
"""Of a collection; the text of a longer one takes time, and would be cut."""


def parameters_of(estimator: BaseEstimator, *, deep: bool) -> dict[str, str]:
    """Return an estimator's params as MLflow's autologging records them: by name, as texts.

    The texts are those of `mantik.training.params.text_of`, so that arrays are told by shape and type, functions by
    name, and nothing has an address in it. Values of more than 6,000 characters are cut, collections of more than 2,000
    items are told by their size. Never raises: an estimator
    that cannot say what its params are is asked for the attributes that its constructor names.

    Args:
        estimator: The estimator, which is not changed.
        deep: Also the params of what is in it, such as the steps of a pipeline, as ``step__param``. Those of a search
            are left out even then, because the search varies them: the best ones are recorded as ``best_*``.

    Returns:
        At most 2,000; of more, those that are nested least.
    """
    values = _values(estimator, deep=deep and not is_search(estimator))
    names = list(values)
    if len(names) > _MOST_PARAMS:
        _logger.warning(
            "%s has %d params, of which the first %d are recorded. The page estimator.html shows all.",
            type(estimator).__name__,
            len(names),
            _MOST_PARAMS,
        )
        # The order is that of the estimator, as sorting keeps it.
        names = sorted(names, key=lambda name: name.count("__"))[:_MOST_PARAMS]
    return {name: _text(values[name]) for name in names}


def tags_of(estimator: BaseEstimator) -> dict[str, str]:
    """Return the tags with which MLflow's autologging says what was trained."""
    kind = type(estimator)
    return {"estimator_name": kind.__name__, "estimator_class": f"{kind.__module__}.{kind.__name__}"}


def html_of(estimator: BaseEstimator) -> str:
    """Return scikit-learn's picture of an estimator as a whole page in UTF-8, which loads nothing from elsewhere.

    One that cannot be drawn, because its own code fails at it, is told by its params instead.
    """
    from sklearn.utils import estimator_html_repr

    body = attempted(lambda: str(estimator_html_repr(estimator)))
    if body is None:
        lines = (f"{name} = {text}" for name, text in parameters_of(estimator, deep=True).items())
        body = f"<pre>{html.escape(chr(10).join(lines))}</pre>"
    title = html.escape(type(estimator).__name__)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f"<title>{title}</title>\n</head>\n<body>\n{body}\n</body>\n</html>\n"
    )


def _values(estimator: BaseEstimator, *, deep: bool) -> Mapping[str, Any]:
    # Where a part of it cannot be asked, the estimator itself still can.
    for depth in (True, False) if deep else (False,):
        found: dict[str, Any] | None = attempted(partial(_asked, estimator, depth))
        if found is not None:
            return found
    held = attempted(lambda: dict(vars(estimator))) or {}
    named = attempted(lambda: list(inspect.signature(type(estimator)).parameters)) or []
    return {name: held[name] for name in named if name in held}


def _asked(estimator: BaseEstimator, deep: bool) -> dict[str, Any]:  # noqa: FBT001  # as scikit-learn has it
    with undrawn(estimator):
        return dict(estimator.get_params(deep=deep))


def _text(value: object) -> str:
    if isinstance(value, list | tuple | set | frozenset | dict) and len(value) > _MOST_ITEMS:
        return f"{type(value).__name__} of {len(value)} items"
    text = text_of(value)
    return text if len(text) <= _MOST_CHARACTERS else f"{text[: _MOST_CHARACTERS - 3]}..."
