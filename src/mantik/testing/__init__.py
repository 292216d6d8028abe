"""Test kit: a real platform in a fixture, a reader of what it holds, and a proxy that makes things go wrong.

With mantik installed, pytest knows the fixtures of `mantik.testing.plugin` without any configuration.
Each name below is loaded when it is first used, because pytest imports this package in every session.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mantik.testing.faults import Delay, Hang, Html, LoseAcknowledgement, Redirect, Refuse, Status
    from mantik.testing.platform import Platform
    from mantik.testing.proxy import FaultProxy
    from mantik.testing.readback import ReadBack
    from mantik.testing.waiting import wait_until

__all__ = [
    "Delay",
    "FaultProxy",
    "Hang",
    "Html",
    "LoseAcknowledgement",
    "Platform",
    "ReadBack",
    "Redirect",
    "Refuse",
    "Status",
    "wait_until",
]

_HOMES = {
    "Delay": "faults",
    "FaultProxy": "proxy",
    "Hang": "faults",
    "Html": "faults",
    "LoseAcknowledgement": "faults",
    "Platform": "platform",
    "ReadBack": "readback",
    "Redirect": "faults",
    "Refuse": "faults",
    "Status": "faults",
    "wait_until": "waiting",
}


def __getattr__(name: str) -> object:
    """Load a public name from the module that defines it (PEP 562)."""
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{home}"), name)


def __dir__() -> list[str]:
    """List the public names, loaded or not."""
    return sorted(set(globals()) | set(__all__))
