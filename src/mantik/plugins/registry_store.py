"""The model registry behind ``http`` and ``https``: for the claimed platform it knows what waits here."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlflow.store.model_registry.rest_store import RestStore

__all__ = ["build_registry_store"]


def build_registry_store(store_uri: str, **_: Any) -> RestStore:  # noqa: ANN401  # what the installed MLflow passes
    """Return the registry's store for a URI; MLflow calls this once per URI and process.

    Args:
        store_uri: The registry URI.
    """
    from mlflow.store.model_registry.rest_store import RestStore
    from mlflow.utils.credentials import get_default_host_creds

    credentials = partial(get_default_host_creds, store_uri)
    try:
        from mantik.delivery.registry import outbox_for
        from mantik.plugins.model_registry import MantikRegistry

        if outbox_for(store_uri) is not None:
            return MantikRegistry(credentials, store_uri)
    except Exception as error:  # noqa: BLE001  # the one guard: whatever is wrong here must not take MLflow away
        import logging

        logging.getLogger(__name__).warning("The model registry goes on without mantik: %s", error)
    return RestStore(credentials)
