"""What the user calls an object: the name of the variable that it was handed over with."""

from __future__ import annotations

import inspect
import sys
from itertools import chain
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from types import FrameType

__all__ = ["variable_name"]

_COMPREHENSIONS = {"<listcomp>", "<setcomp>", "<dictcomp>", "<genexpr>"}

_WITHOUT_ATTRIBUTES = (ModuleType, FunctionType, BuiltinFunctionType, type)
"""Objects in which nobody has data."""

_MOST_ENTRIES = 1000
"""Of a dictionary or an object that is looked into."""

_OURS_ALONE = 3
"""References to a copy of variables that nobody else has: the frame's, the one here, and that of the counting."""


def variable_name(value: object, frame: FrameType | None) -> str | None:
    """Return what the user calls an object.

    Names are found by what they stand for, so notebooks, ``python -c`` and code without source are no different, and
    nothing depends on how a call is written. Of several names for an object the first one counts, as for MLflow; those
    that begin with an underscore count only where there is no other, as a notebook has its results below such names.

    What a function was called with is called as its caller calls it, and so on outwards: in ``evaluate(X_test)`` it is
    ``X_test``, whatever the parameter's name is. The same holds for the variables of comprehensions. Where the caller
    has no name for it, it has the parameter's.

    Where there is no variable, it may be an attribute of one or be in a dictionary: ``self.X_test`` and
    ``splits["X_test"]`` are ``X_test``.

    Args:
        value: The object.
        frame: Of the user's code in which it was used.

    Returns:
        A name, which is an identifier; None where there is none, as for the outcome of an expression.
    """
    parameter: str | None = None
    while frame is not None:
        is_handed, name = _in_frame(value, frame)
        if not is_handed:
            return name or parameter
        parameter = name or parameter
        frame = frame.f_back
    return parameter


def _in_frame(value: object, frame: FrameType) -> tuple[bool, str | None]:
    """Return whether an object came into a frame from outside, and its name there."""
    variables = frame.f_locals
    found = _among(variables, value, frame)
    if (
        sys.version_info < (3, 13)
        and frame.f_code.co_flags & inspect.CO_OPTIMIZED
        and sys.getrefcount(variables) <= _OURS_ALONE
    ):
        # A copy of a function's variables, which Python keeps in the frame from now on: what the user deletes would
        # stay in memory until the function returns. Where somebody else has it, `locals()` has returned it to them.
        variables.clear()
    return found


def _among(variables: Mapping[str, Any], value: object, frame: FrameType) -> tuple[bool, str | None]:
    name = _first(_names(variables, value))
    if frame.f_code.co_name in _COMPREHENSIONS:
        return True, name
    for parameters in _parameters(variables, frame):
        if any(one is value for one in parameters.values()):
            return True, _first(_names(parameters, value))
    if name is None:
        name = _first(chain(_names(frame.f_globals, value), _inside(variables, value), _inside(frame.f_globals, value)))
    return False, name


def _parameters(variables: Mapping[str, Any], frame: FrameType) -> Iterator[Mapping[Any, object]]:
    """Yield what a function was called with: by the names of parameters, as ``*args``, as ``**kwargs``."""
    code = frame.f_code
    count = code.co_argcount + code.co_kwonlyargcount
    yield {name: variables.get(name) for name in code.co_varnames[:count]}
    if code.co_flags & inspect.CO_VARARGS:
        collected = variables.get(code.co_varnames[count])
        count += 1
        if isinstance(collected, tuple):
            yield dict(enumerate(collected))
    if code.co_flags & inspect.CO_VARKEYWORDS:
        keywords = variables.get(code.co_varnames[count])
        if isinstance(keywords, dict):
            yield keywords


def _names(variables: Mapping[Any, object], value: object) -> Iterator[str]:
    """Yield the names of an object."""
    # Another thread may add variables meanwhile.
    for name, one in list(variables.items()):
        if one is value and isinstance(name, str) and name.isidentifier():
            yield name


def _first(names: Iterable[str]) -> str | None:
    """Return the first name; one with an underscore in front only if there is no other."""
    private: str | None = None
    for name in names:
        if not name.startswith("_"):
            return name
        private = private or name
    return private


def _inside(variables: Mapping[str, object], value: object) -> Iterator[str]:
    """Yield the names that an object has in other objects: as an attribute or a key."""
    for variable, holder in list(variables.items()):
        if variable.startswith("__") or isinstance(holder, _WITHOUT_ATTRIBUTES):
            continue
        held: object = holder
        if not isinstance(holder, dict):
            try:
                # `getattr` may run code of the user's.
                held = object.__getattribute__(holder, "__dict__")
            except AttributeError:
                continue
        if isinstance(held, dict) and len(held) <= _MOST_ENTRIES:
            yield from _names(held, value)
