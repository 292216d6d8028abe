"""Lightning's two packages, ``lightning.pytorch`` and ``pytorch_lightning``: the same code under two names.

Both are usually installed together, and the classes of one are not those of the other. The adapter is built on the one
that the user has imported, and is registered with the other, so that `isinstance` says yes in both.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

from mantik.exceptions import MissingExtraError

if TYPE_CHECKING:
    from types import ModuleType

__all__ = ["chosen", "rank", "register"]

_PACKAGES = ("lightning.pytorch", "pytorch_lightning")


def chosen() -> ModuleType:
    """Return the package that the adapter is built on: the one in use, or else the first that is installed.

    Raises:
        MissingExtraError: None is installed.
    """
    missing: ModuleNotFoundError | None = None
    loaded = [name for name in _PACKAGES if name in sys.modules]
    for name in (*loaded, *_PACKAGES):
        try:
            import_module(f"{name}.loggers")
            return import_module(name)
        except ModuleNotFoundError as error:  # noqa: PERF203  # of two packages
            if not name.startswith(str(error.name)):
                # Lightning itself is there, but lacks something.
                raise
            missing = error
    raise MissingExtraError("MantikLogger", "lightning", "lightning") from missing


def rank() -> int:
    """Return the rank of this process among those of its training; 0 where it is alone."""
    from lightning_utilities.core.rank_zero import rank_zero_only

    # Set by Lightning as soon as it can be known; the same for both packages.
    return int(getattr(rank_zero_only, "rank", 0) or 0)


def register(logger: type) -> None:
    """Let `isinstance` and `issubclass` of every package that is in use take a class for an ``MLFlowLogger``."""
    for name in _PACKAGES:
        loggers: Any = sys.modules.get(f"{name}.loggers")
        if loggers is not None and not issubclass(logger, loggers.MLFlowLogger):
            loggers.MLFlowLogger.register(logger)
