"""What Lightning asks for when somebody makes a Trainer: callbacks of other packages.

This module is loaded in every process that makes a Trainer with mantik installed, so it imports nothing.
"""

from __future__ import annotations

import sys
from typing import Any

__all__ = ["callbacks"]


class _Unannounced(list[Any]):
    """Callbacks that Lightning takes without a line on the console, which each rank would print."""

    def __bool__(self) -> bool:
        return False


def callbacks() -> list[Any]:
    """Return the callback that tells the `MantikLogger` of a Trainer what a logger alone is not told.

    Where nobody has imported `MantikLogger` there is none, and no Trainer is changed.
    """
    adapter: Any = sys.modules.get("mantik.integrations.lightning")
    return _Unannounced() if adapter is None else _Unannounced([adapter.trainer_events()])
