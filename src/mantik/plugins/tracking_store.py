"""The store behind ``http`` and ``https``: durable for the claimed platform, MLflow's own for all others."""

from __future__ import annotations

import atexit
import sys
import weakref
from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlflow.store.tracking.rest_store import RestStore

__all__ = ["build_store"]


def build_store(store_uri: str, artifact_uri: str | None = None, **_: Any) -> RestStore:  # noqa: ANN401, ARG001
    """Return the store for a tracking URI; MLflow calls this once per URI and process.

    Args:
        store_uri: The tracking URI.
        artifact_uri: Passed by MLflow, used by stores of files alone.
    """
    from mlflow.store.tracking.rest_store import RestStore
    from mlflow.utils.credentials import get_default_host_creds

    credentials = partial(get_default_host_creds, store_uri)
    try:
        from mantik.delivery.registry import outbox_for
        from mantik.plugins.store import MantikStore

        if outbox_for(store_uri) is not None:
            return MantikStore(credentials, store_uri)
    except Exception as error:  # noqa: BLE001  # the one guard: whatever is wrong here must not take MLflow away
        import logging

        logging.getLogger(__name__).warning("Tracking goes on without durable delivery: %s", error)
    return RestStore(credentials)


def _deliver_the_rest() -> None:
    registry = sys.modules.get("mantik.delivery.registry")
    if registry is not None and registry.all_outboxes():
        from mantik.delivery.ending import close_all
        from mantik.plugins.progress import flush_visibly

        close_all(flush_visibly)


def _nothing() -> None:
    """Finalize nothing."""


# Python removes temporary folders at exit, in use or not, by a handler that comes with the first finalizer. So one is
# made before the next handler is registered: what is done beside the training keeps its folders until it is done.
weakref.finalize(build_store, _nothing)

# MLflow loads this module before it registers its own exit handler, and handlers run in reverse: so the end of a run
# that MLflow records at exit is delivered too.
atexit.register(_deliver_the_rest)
