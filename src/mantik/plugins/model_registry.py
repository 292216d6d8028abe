"""The registry's store for the claimed platform: it goes straight to the server, after what waits here has arrived."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mlflow.store.model_registry.rest_store import RestStore

from mantik.delivery.registry import outbox_for
from mantik.plugins.asking import SETTLE_SECONDS, prepared

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["MantikRegistry"]

_UPLOAD_SECONDS = 600.0
"""How long a new version of a model waits for the model's files: the registry takes no model that is not there."""


class MantikRegistry(RestStore):
    """MLflow's registry store, which knows provisional ids and says at once where the server cannot be asked.

    Args:
        get_host_creds: MLflow's means to find out how to reach the server.
        uri: The tracking URI.
    """

    def __init__(self, get_host_creds: Callable[[], Any], uri: str) -> None:
        super().__init__(get_host_creds)
        self._uri = uri

    def _call_endpoint(self, api: Any, json_body: str | None = None, *args: Any, **options: Any) -> Any:  # noqa: ANN401
        """Ask the server, after what was written here has arrived, and say at once if it cannot be reached."""
        outbox = outbox_for(self._uri)
        if outbox is not None and outbox.is_disabled:
            # Found is nothing, and done is nothing.
            return options.get("response_proto") or api.Response()
        if outbox is not None:
            name = api.DESCRIPTOR.name
            wait = _UPLOAD_SECONDS if name == "CreateModelVersion" else SETTLE_SECONDS
            json_body, options = prepared(outbox, name, json_body, options, wait=wait)
        return super()._call_endpoint(api, json_body, *args, **options)
