"""Paths that begin with a tilde."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["at_home"]


def at_home(path: str | os.PathLike[str]) -> Path:
    """Return a path with the home folder in place of ``~`` or ``~user``; where there is none, it stays as it is."""
    # Path.expanduser raises RuntimeError for a user who does not exist.
    return Path(os.path.expanduser(path))  # noqa: PTH111
