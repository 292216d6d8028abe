"""Collects what is wrong with a project, so that its author reads all of it at once."""

from __future__ import annotations

import reprlib
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import TYPE_CHECKING

from mantik.exceptions import ProjectError

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Mistakes", "meant", "shown"]


@dataclass(slots=True)
class Mistakes:
    """What was found so far.

    Attributes:
        found: One sentence for each, with its place in front.
    """

    found: list[str] = field(default_factory=list)

    def add(self, place: str, text: str) -> None:
        """Add a mistake.

        Args:
            place: Where it is, e.g. ``Resources.Runtime`` or a file's name; empty where the text says it.
            text: What is wrong, what was expected, what to do.
        """
        self.found.append(f"{place}: {text}" if place else text)

    def has(self, place: str) -> bool:
        """Tell whether something is wrong at a place."""
        return any(mistake.startswith(f"{place}: ") for mistake in self.found)

    def raise_if_any(self, subject: str) -> None:
        """Raise all of them in one error.

        Args:
            subject: The beginning of the message, e.g. ``The run cannot be submitted``.

        Raises:
            ProjectError: There is at least one.
        """
        if not self.found:
            return
        if len(self.found) == 1:
            raise ProjectError(f"{subject}: {self.found[0]}", tuple(self.found))
        lines = "".join(f"\n  - {mistake}" for mistake in self.found)
        raise ProjectError(f"{subject}, for {len(self.found)} reasons:{lines}", tuple(self.found))


def shown(value: object) -> str:
    """Show a value from a file in a message: short, in one line, however deep or long it is."""
    limits = reprlib.Repr()
    limits.maxstring = limits.maxother = 60
    return limits.repr(value)


def meant(key: str, known: Iterable[str]) -> str | None:
    """Return the known key that a mistyped one is nearest to, if one is near."""
    by_lower = {name.casefold(): name for name in known}
    nearest = get_close_matches(key.casefold(), by_lower, n=1)
    return by_lower[nearest[0]] if nearest else None
