"""Names for MLflow: those that it cannot hold are mapped, the same way in every process and attempt."""

from __future__ import annotations

import hashlib
import re
from functools import cache, lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Container

__all__ = ["NameMap", "distinct", "mapped"]

_LONGEST = 250
"""Characters of a key; ``MAX_ENTITY_KEY_LENGTH`` of every MLflow that is supported."""

_HEX_DIGITS = 8


@lru_cache(maxsize=10_000)
def mapped(name: str) -> str:
    """Return the name under which MLflow holds a metric or a param.

    A name that the MLflow here accepts stays as it is. Any other becomes a readable replacement, a hyphen, and 8 hex
    digits of a hash of the original: ``val/acc@1`` becomes ``val/acc_at_1-4739979c``. The digits keep two originals
    apart whose readable parts are the same. The outcome depends on nothing but the name and on what MLflow accepts,
    which differs in one character only: a colon is none for MLflow on Windows, nor for old ones anywhere.

    Args:
        name: What the training calls it; of any length, and with any characters.

    Returns:
        A name of at most 250 characters that MLflow accepts; mapping it again changes nothing.
    """
    return name if _is_accepted(name) else _replacement(name, name)


def distinct(name: str, taken: Container[str]) -> str:
    """Return a name that is not among those taken: itself, or a replacement as of `mapped`.

    Which one it becomes depends on its text and on how many of the same text came before, so what comes in the same
    order gets the same names in every process and attempt.
    """
    free, count = name, 1
    while free in taken:
        count += 1
        free = _replacement(name, f"{name}#{count}")
    return free


class NameMap:
    """The names of one run, and which of them had to be mapped.

    Any thread may ask for names; `take_new` is for one thread at a time. A copy in another process (pickle, fork) goes
    its own way, and maps alike.
    """

    __slots__ = ("_known", "_new")

    def __init__(self) -> None:
        self._known: dict[str, str] = {}
        self._new: dict[str, str] = {}

    @property
    def has_new(self) -> bool:
        """Whether there is something to take."""
        return bool(self._new)

    def name_of(self, original: str) -> str:
        """Return the name that stands for it, as of `mapped`; in one look-up once it is known."""
        name = self._known.get(original)
        if name is None:
            name = mapped(original)
            if name != original:
                self._new[name] = original
            self._known[original] = name
        return name

    def take_new(self) -> dict[str, str]:
        """Return, and forget, what was mapped since the last call: originals by the names that stand for them."""
        # One by one, so that nothing is lost that another thread adds meanwhile.
        return {name: self._new.pop(name) for name in list(self._new)}


def _is_accepted(name: str) -> bool:
    # Of params MLflow demands the same.
    from mlflow.exceptions import MlflowException
    from mlflow.utils.validation import _validate_metric_name

    try:
        _validate_metric_name(name)
    except MlflowException:
        return False
    return len(name) <= _LONGEST


@cache
def _unacceptable() -> re.Pattern[str]:
    """Match the characters that MLflow does not accept in names."""
    return re.compile(r"[^/\w.\- :]" if _is_accepted("a:b") else r"[^/\w.\- ]")


def _replacement(name: str, origin: str) -> str:
    """Return a readable form of a name with digits that say what it is made from."""
    text = name.replace("@", "_at_").replace("%", "_percent")
    text = _unacceptable().sub("_", text)
    # MLflow takes names for paths: none is empty, absolute, leads up or has a second spelling.
    steps = [step.lstrip(".") for step in text.split("/")]
    text = "/".join(step for step in steps if step)[: _LONGEST - 1 - _HEX_DIGITS]
    # Names may hold lone surrogates.
    digits = hashlib.sha256(origin.encode(errors="surrogatepass")).hexdigest()[:_HEX_DIGITS]
    return f"{text.rstrip('/') or 'unnamed'}-{digits}"
