"""MLflow tracking behind a token-secured platform.

Importing this package imports nothing else: no framework, not mlflow, not requests. Each public name is loaded when it
is first used.
"""

from __future__ import annotations

# Type checkers take this name for true. Importing it from typing would take longer than all the rest of this module.
TYPE_CHECKING = False

if TYPE_CHECKING:
    from mantik.compute.client import ComputeBackendClient as ComputeBackendClient
    from mantik.exceptions import MantikError as MantikError
    from mantik.integrations.autolog import autolog as autolog
    from mantik.integrations.keras import MantikCallback as MantikCallback
    from mantik.integrations.lightning import MantikLogger as MantikLogger
    from mantik.integrations.sklearn.autologging import sklearn_autolog as sklearn_autolog
    from mantik.tracking import Environment as Environment
    from mantik.tracking import flush as flush
    from mantik.tracking import init_tracking as init_tracking
    from mantik.tracking import receipt as receipt

__version__ = "1.0.0.dev0"

__all__ = [
    "ComputeBackendClient",
    "Environment",
    "MantikCallback",
    "MantikError",
    "MantikLogger",
    "__version__",
    "autolog",
    "flush",
    "init_tracking",
    "receipt",
    "sklearn_autolog",
]

_HOMES = {
    "ComputeBackendClient": "mantik.compute.client",
    "Environment": "mantik.tracking",
    "MantikCallback": "mantik.integrations.keras",
    "MantikError": "mantik.exceptions",
    "MantikLogger": "mantik.integrations.lightning",
    "autolog": "mantik.integrations.autolog",
    "flush": "mantik.tracking",
    "init_tracking": "mantik.tracking",
    "receipt": "mantik.tracking",
    "sklearn_autolog": "mantik.integrations.sklearn.autologging",
}


def __getattr__(name: str) -> object:
    """Load a public name from the module that defines it (PEP 562)."""
    home = _HOMES.get(name)
    if home is None:
        message = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(message)
    from importlib import import_module

    return getattr(import_module(home), name)


def __dir__() -> list[str]:
    """List the public names, loaded or not."""
    return sorted(set(globals()) | set(__all__))
