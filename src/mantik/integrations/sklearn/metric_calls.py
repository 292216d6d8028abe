"""Calls of metric functions: what their results are called in the run, in MLflow's way, and what is kept of them."""

from __future__ import annotations

import inspect
import json
import logging
from collections import Counter
from typing import TYPE_CHECKING, Any, TypeGuard

import numpy as np

from mantik.integrations.sklearn.variable_names import variable_name

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from types import FrameType

__all__ = ["MetricCalls", "call_text", "indexed", "is_number", "kept", "named_arguments", "text_of_kept"]

_logger = logging.getLogger(__name__)

_MOST_CALLS = 1000
"""Of one function that are told apart; those of a loop over thresholds or requests have no end."""

_LONGEST_TEXT = 32

_MOST_ELEMENTS = 100_000
"""Of arrays that are kept."""


class MetricCalls:
    """Names of the results of one fit. One thread at a time may call."""

    def __init__(self) -> None:
        self._count: Counter[tuple[str, bool]] = Counter()
        self._texts: dict[str, str] = {}

    def name(self, function: str, dataset: str, *, is_metric: bool = True) -> str | None:
        """Return what the result of one more call is called: ``accuracy_score-2_X_test`` for the second one.

        Args:
            function: The name of the function.
            dataset: What the data are called.
            is_metric: Whether it is a number; what is kept as an artifact is counted by itself, as MLflow counts
                numbers only.

        Returns:
            The name; None after so many calls that one more tells nothing.
        """
        count = self._count[function, is_metric]
        self._count[function, is_metric] += 1
        if count == _MOST_CALLS:
            _logger.warning("%s was called %d times after a fit. Further calls are not recorded.", function, count)
        if count >= _MOST_CALLS:
            return None
        return f"{indexed(function, count)}_{dataset}"

    def tell(self, name: str, text: str) -> None:
        """Note how a metric has come about."""
        self._texts[name] = text

    def has(self, name: str) -> bool:
        """Tell whether a metric has come about by a call."""
        return name in self._texts

    def as_json(self) -> str:
        """Return the calls by the names of their metrics, as the ``metric_info.json`` of MLflow."""
        return json.dumps(dict(sorted(self._texts.items())), indent=2)


def indexed(name: str, index: int) -> str:
    """Return the name of one of several: with ``-2`` for the second. No identifier has a hyphen."""
    return name if index == 0 else f"{name}-{index + 1}"


def named_arguments(
    function: Callable[..., Any], arguments: Sequence[Any], keywords: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the arguments of a call by name, in the order of the call.

    Args:
        function: What was called; a method is bound.
        arguments: Positional ones.
        keywords: Those by name.
    """
    try:
        names = list(inspect.signature(function).parameters)
    except (TypeError, ValueError):
        # Written in C.
        names = [f"argument_{at}" for at in range(len(arguments))]
    return {**dict(zip(names, arguments, strict=False)), **keywords}


def call_text(function: str, arguments: Mapping[str, Any], frame: FrameType | None) -> str:
    """Return a call as text, such as ``accuracy_score(y_true=y_test, y_pred=y_pred)``.

    Args:
        function: The name of the function.
        arguments: Its arguments by name.
        frame: Of the user's code that called it.
    """
    texts = [f"{name}={_text(value, frame)}" for name, value in arguments.items()]
    return f"{function}({', '.join(texts)})"


def is_number(value: object) -> TypeGuard[float]:
    """Tell whether a value can be a metric."""
    if isinstance(value, (bool, np.complexfloating)):
        return False
    return isinstance(value, (int, float, np.number))


def kept(value: Any) -> tuple[str, Any] | None:  # noqa: ANN401
    """Return what is kept of a result that is no number, as it is now.

    Args:
        value: What a metric function has returned: a text, an array, several of them, a dictionary.

    Returns:
        The ending of an artifact's name and what it holds, which `text_of_kept` writes out; None of anything else, and
        of large arrays.
    """
    if isinstance(value, str):
        return ".txt", value
    if not isinstance(value, (np.ndarray, dict, list, tuple)):
        return None
    try:
        return ".json", _frozen(value)
    except TypeError:
        return None


def text_of_kept(value: Any) -> str:  # noqa: ANN401  # what `kept` has returned
    """Return what is kept as text."""
    return value if isinstance(value, str) else json.dumps(value, default=lambda array: array.tolist())


def _text(value: Any, frame: FrameType | None) -> str:  # noqa: ANN401
    if isinstance(value, str):
        return repr(value if len(value) <= _LONGEST_TEXT else f"{value[:_LONGEST_TEXT]}...")
    if value is None or np.isscalar(value):
        return repr(value)
    return variable_name(value, frame) or f"<{type(value).__name__}>"


def _frozen(value: Any) -> Any:  # noqa: ANN401
    """Return a copy that nobody changes.

    Raises:
        TypeError: It is not made of numbers, texts and arrays alone, or is large.
    """
    if isinstance(value, np.ndarray) and value.size <= _MOST_ELEMENTS and not value.dtype.hasobject:
        return value.copy()
    if isinstance(value, np.generic):
        return value.item()
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, dict) and len(value) <= _MOST_ELEMENTS:
        return {str(key): _frozen(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)) and len(value) <= _MOST_ELEMENTS:
        return [_frozen(one) for one in value]
    raise TypeError(f"a {type(value).__name__} is not kept")
