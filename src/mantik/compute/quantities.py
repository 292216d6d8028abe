"""Durations and sizes as a backend configuration writes them: ``12h``, ``12GiB``."""

from __future__ import annotations

import re

__all__ = ["duration_in", "duration_text", "size_in", "size_text"]

_DURATION = re.compile(r"\s*([0-9]{1,9})\s*([smhd])\s*", re.IGNORECASE | re.ASCII)
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_SIZE = re.compile(r"\s*([0-9]{1,15}(?:\.[0-9]{1,9})?)\s*(?:([kmgt])(i?)(b?)|b)\s*", re.IGNORECASE | re.ASCII)
_POWERS = {"k": 1, "m": 2, "g": 3, "t": 4}


def duration_in(text: str) -> int | None:
    """Read a whole number with one unit of s, m, h, d.

    Returns:
        Seconds; None if the text is no duration or a duration of nothing.
    """
    parts = _DURATION.fullmatch(text)
    return int(parts[1]) * _SECONDS[parts[2].lower()] or None if parts else None


def duration_text(seconds: int) -> str:
    """Write a duration with the largest unit that keeps it a whole number."""
    unit = next(unit for unit in ("d", "h", "m", "s") if seconds % _SECONDS[unit] == 0)
    return f"{seconds // _SECONDS[unit]}{unit}"


def size_in(text: str) -> int | None:
    """Read a number with a unit.

    ``KiB``, ``MiB``, ``GiB``, ``TiB`` and the short ``K``, ``M``, ``G``, ``T`` are powers of 1024, as batch systems
    mean them; ``kB``, ``MB``, ``GB``, ``TB`` are powers of 1000; ``B`` are bytes.

    Returns:
        Bytes; None if the text is no size or a size of nothing.
    """
    parts = _SIZE.fullmatch(text)
    if parts is None:
        return None
    number, unit, binary, byte = parts.groups()
    base = 1000 if byte and not binary else 1024
    # A fraction of a huge number is exact enough in floating point; a whole one stays whole.
    whole, _, fraction = number.partition(".")
    scale = base ** _POWERS[unit.lower()] if unit else 1
    return int(whole) * scale + int(float(f"0.{fraction or 0}") * scale) or None


def size_text(size: int) -> str:
    """Write a size with the largest binary unit that keeps it a whole number."""
    for unit in ("t", "g", "m", "k"):
        scale = 1024 ** _POWERS[unit]
        if size % scale == 0:
            return f"{size // scale}{unit.upper()}iB"
    return f"{size}B"
