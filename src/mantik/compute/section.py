"""One mapping of a backend configuration, read key by key: casts as the contract has them, mistakes with their path."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mantik.compute.mistakes import meant, shown

if TYPE_CHECKING:
    from collections.abc import Callable

    from mantik.compute.mistakes import Mistakes

__all__ = ["Section"]

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_CONTROL_BUT_LINES = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")
_INTEGER = re.compile(r"[+-]?[0-9]{1,18}", re.ASCII)
_BOOLEANS = {"true": True, "false": False}


class Section:
    """The keys and values of one mapping.

    A key that is not known is a mistake at once; a value of None counts as not given.

    Args:
        content: The mapping.
        place: Its path in the file; empty for the file as a whole.
        known: All keys that it may have.
        mistakes: Where to say what is wrong.
        hint: What else to say of an unknown key that is near to none of the known ones.
    """

    def __init__(
        self,
        content: Mapping[Any, Any],
        place: str,
        known: Sequence[str],
        mistakes: Mistakes,
        hint: Callable[[str], str | None] = lambda _: None,
    ) -> None:
        self._content = content
        self._place = place
        self._known = known
        self._mistakes = mistakes
        for key in content:
            if key not in known:
                nearest = meant(str(key), known)
                advice = f"did you mean {nearest}?" if nearest else hint(str(key)) or f"expected {_listed(known)}"
                self.refuse(str(key), f"is unknown; {advice}")

    def refuse(self, key: str, text: str) -> None:
        """Say what is wrong with the value of a key."""
        self._mistakes.add(self.path_of(key), text)

    def path_of(self, key: str) -> str:
        """Return the path of a key in the file."""
        key = shown(key)[1:-1] if not key.isprintable() else key
        return f"{self._place}.{key}" if self._place else key

    def value(self, *keys: str) -> tuple[str, Any]:
        """Return what a key holds.

        Args:
            keys: The key, and the older names of it.

        Returns:
            The name under which it is there, and the value; None if it is not there.
        """
        given = [key for key in keys if self._content.get(key) is not None]
        if len(given) > 1:
            self.refuse(given[1], f"is the same as {given[0]}, which is there as well; keep one of them")
        key = given[0] if given else keys[0]
        return key, self._content.get(key)

    def text(self, *keys: str, pattern: str | None = None, expected: str = "a text") -> str | None:
        """Return a text; numbers are cast.

        Args:
            keys: The key, and the older names of it.
            pattern: What the whole text has to look like.
            expected: The same in words, with an example.
        """
        key, value = self.value(*keys)
        if value is None:
            return None
        text = as_text(value)
        if text is None or not text.strip() or _CONTROL.search(text):
            self.refuse(key, f"{shown(value)} is no text, expected {expected}")
            return None
        if pattern is not None and not re.fullmatch(pattern, text.strip()):
            self.refuse(key, f"{shown(text)} cannot be used, expected {expected}")
            return None
        return text if pattern is None else text.strip()

    def whole(self, *keys: str, least: int = 1) -> int | None:
        """Return a whole number; texts that are one are cast."""
        key, value = self.value(*keys)
        if value is None:
            return None
        number = _as_whole(value)
        if number is None or not least <= number <= 10**9:
            self.refuse(key, f"{shown(value)} is no whole number from {least} on")
            return None
        return number

    def quantity(self, *keys: str, read: Callable[[str], int | None], kind: str, expected: str) -> int | None:
        """Return a number with a unit.

        Args:
            keys: The key, and the older names of it.
            read: Reads the text.
            kind: What it is, e.g. ``duration``.
            expected: What was expected, with an example.
        """
        key, value = self.value(*keys)
        if value is None:
            return None
        text = as_text(value)
        number = read(text) if text is not None else None
        if number is None:
            problem = "has no unit" if text is not None and _INTEGER.fullmatch(text) else f"is no {kind}"
            self.refuse(key, f"{shown(value)} {problem}, expected {expected}")
        return number

    def flag(self, key: str) -> bool:
        """Return a boolean; false where it is not there."""
        _, value = self.value(key)
        flag = _BOOLEANS.get(value.strip().lower()) if isinstance(value, str) else value
        if flag is None and value is None:
            return False
        if not isinstance(flag, bool):
            self.refuse(key, f"{shown(value)} is no boolean, expected true or false")
            return False
        return flag

    def texts(self, *keys: str, expected: str) -> tuple[str, ...]:
        """Return a list of texts; a single one counts as a list of one.

        Args:
            keys: The key, and the older names of it.
            expected: What was expected, with an example.
        """
        key, value = self.value(*keys)
        if value is None:
            return ()
        several = isinstance(value, Sequence) and not isinstance(value, str)
        found = []
        for number, item in enumerate(value if several else [value]):
            text = as_text(item)
            if text is None or not text.strip() or _CONTROL_BUT_LINES.search(text):
                self.refuse(f"{key}[{number}]" if several else key, f"{shown(item)} is no text, expected {expected}")
            else:
                found.append(text)
        return tuple(found)

    def mapping(self, *keys: str, expected: str) -> tuple[str, Mapping[Any, Any] | None]:
        """Return the name under which a mapping is there, and the mapping.

        Args:
            keys: The key, and the older names of it.
            expected: What was expected, with an example.
        """
        key, value = self.value(*keys)
        if value is None:
            return key, None
        if not isinstance(value, Mapping):
            self.refuse(key, f"{shown(value)} is no mapping, expected {expected}")
            return key, None
        return key, value


def as_text(value: object) -> str | None:
    """Cast a text or a number to a text; anything else is none.

    A boolean is none either: nobody can tell whether ``true`` was to become ``true``, ``True`` or ``1``.
    """
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    try:
        return str(value)
    except ValueError:
        # Python writes no integer of thousands of digits.
        return None


def _as_whole(value: object) -> int | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, str) and _INTEGER.fullmatch(value.strip()):
        return int(value)
    return None


def _listed(known: Sequence[str]) -> str:
    return f"one of {', '.join(known)}"
