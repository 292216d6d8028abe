"""How much of a disk files take."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["size_of"]


def size_of(folder: Path) -> int:
    """Return the bytes of all files in a folder."""
    total = 0
    for root, _, files in os.walk(folder):
        for name in files:
            # Delivered and removed meanwhile.
            with contextlib.suppress(OSError):
                total += os.lstat(os.path.join(root, name)).st_size  # noqa: PTH118  # many files, called often
    return total
