"""Which names a project's files may have, so that they are the same files wherever it is unpacked."""

from __future__ import annotations

import unicodedata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["alike", "name_problem"]

_MOST_BYTES_OF_A_NAME = 255
_MOST_BYTES_OF_A_PATH = 1024
_UNPRINTABLE = frozenset({"Cc", "Cs", "Zl", "Zp"})
"""Control characters, bytes that are no text, and separators of lines and paragraphs."""


def name_problem(path: str) -> str | None:
    """Say why a file cannot be sent under its name; None if it can.

    Args:
        path: Its path in the project, with slashes.
    """
    if any(unicodedata.category(letter) in _UNPRINTABLE for letter in path):
        return "its name holds control characters, or is no text in UTF-8; rename or exclude it"
    if "\\" in path:
        return "its name holds a backslash, which separates folders elsewhere; rename or exclude it"
    longest = max(len(part.encode()) for part in path.split("/"))
    if longest > _MOST_BYTES_OF_A_NAME or len(path.encode()) > _MOST_BYTES_OF_A_PATH:
        return f"its path is too long, expected {_MOST_BYTES_OF_A_PATH} bytes at most; rename or exclude it"
    return None


def alike(paths: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Yield paths that are another one but for upper and lower case or the form of a letter, each with that one.

    Some file systems make one file of two such.
    """
    spellings: dict[str, str] = {}
    for path in paths:
        parts = path.split("/")
        for end in range(1, len(parts) + 1):
            above = "/".join(parts[:end])
            key = unicodedata.normalize("NFC", unicodedata.normalize("NFC", above).casefold())
            known = spellings.setdefault(key, above)
            if known != above:
                yield above, known
                break
