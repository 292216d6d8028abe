"""The registry's store for the claimed platform: it goes straight to the server, after what waits here has arrived."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import TEMPORARILY_UNAVAILABLE
from mlflow.store.model_registry.rest_store import RestStore

from mantik.delivery.ids import UnresolvedError
from mantik.delivery.registry import outbox_for
from mantik.delivery.rest import MlflowApi, RefusedError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable

    from mantik.delivery.outbox import Outbox

__all__ = ["MantikRegistry"]

_UPLOAD_SECONDS = 600.0
"""How long registering a model waits for the model's files: the registry takes no model that is not there."""


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
            outbox.flush(_UPLOAD_SECONDS, give_up_when_down=True)
            # Asked with a short time limit: MLflow itself would try for minutes where nobody answers.
            if not self._answers(outbox):
                raise MlflowException(
                    f"{name} needs the platform at {outbox.uri}, which cannot be asked now "
                    f"({outbox.why_down}). What was logged is not affected: "
                    f"register the model when it has arrived there.",
                    error_code=TEMPORARILY_UNAVAILABLE,
                )
            try:
                json_body = outbox.identities.translate(json_body) if json_body else json_body
            except UnresolvedError as error:
                raise MlflowException(
                    f"{name} needs {error.local_id} to be on the platform, and it is not there yet.",
                    error_code=TEMPORARILY_UNAVAILABLE,
                ) from None
        return super()._call_endpoint(api, json_body, *args, **options)

    def _answers(self, outbox: Outbox) -> bool:
        if not outbox.ships:
            return False
        api = MlflowApi(outbox.uri, outbox.auth)
        try:
            api.call("POST", "experiments/search", {"max_results": 1}, timeout=(5.0, 5.0))
        except UnavailableError:
            return False
        except RefusedError:
            # Even so it answers.
            pass
        finally:
            api.close()
        return True
