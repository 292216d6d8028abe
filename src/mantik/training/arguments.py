"""What calls that log media are given: one thing or several of a kind, each with what belongs to it."""

from __future__ import annotations

import operator
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mantik.exceptions import InvalidValueError

__all__ = ["as_file", "as_list", "as_step", "captions_for", "each"]


def as_file(value: object, what: str, key: str) -> Path | None:
    """Return the path of a file; None where the value is no path.

    Args:
        value: Anything.
        what: Which one it is, for the error, e.g. ``audio 3``.
        key: What the training calls it, for the error.

    Raises:
        InvalidValueError: There is no such file.
    """
    if not isinstance(value, (str, os.PathLike)):
        return None
    path = Path(os.fsdecode(value))
    if not path.is_file():
        raise InvalidValueError(f"{what} of {key!r} is {str(value)!r}, which is no file.", key)
    return path


def as_list(things: object, key: str, several: int) -> list[Any]:
    """Return the things one by one, where one alone may be given, too.

    Args:
        things: A list, a tuple, an iterator, one thing, or an array of things: then its first axis is that of a list.
        key: What the training calls them, for the error.
        several: The number of axes with which an array holds several things.

    Raises:
        InvalidValueError: They are in no order, such as those of a dict, or there is None.
    """
    if things is None or isinstance(things, (dict, set)):
        raise InvalidValueError(
            f"{key!r} is given as {type(things).__name__}. Give one thing to log, or a list of them.", key
        )
    if isinstance(things, (list, tuple, Iterator)):
        return list(things)
    if getattr(things, "ndim", None) == several:
        # An array of some framework.
        several_things: Any = things
        return list(several_things)
    return [things]


def as_step(step: object, key: str) -> int | None:
    """Return the step as a number; None where there is none.

    Raises:
        InvalidValueError: It is no whole number.
    """
    if step is None:
        return None
    try:
        return operator.index(step)  # type: ignore[arg-type]  # what is none raises
    except TypeError:
        raise InvalidValueError(f"The step of {key!r} is {step!r}, which is no whole number.", key) from None


def each(value: Any, count: int, what: str, key: str) -> list[Any]:  # noqa: ANN401
    """Return what belongs to each of several things, where one value may stand for all.

    Args:
        value: One for all, or a list of as many as there are things.
        count: The number of things.
        what: The name of the argument, for the error.
        key: What the training calls the things, for the error.

    Raises:
        InvalidValueError: The list has another length.
    """
    if not isinstance(value, (list, tuple)):
        return [value] * count
    if len(value) != count:
        raise InvalidValueError(
            f"{what} has {len(value)} elements, but {count} are to be logged as {key!r}. Give one for each.", key
        )
    return list(value)


def captions_for(captions: object, count: int, key: str) -> list[str] | None:
    """Return the caption of each thing; None where there are none.

    Raises:
        InvalidValueError: There are more or fewer than things.
    """
    if captions is None:
        return None
    if not isinstance(captions, (list, tuple)):
        captions = [captions]
    return [str(caption) for caption in each(captions, count, "captions", key)]
