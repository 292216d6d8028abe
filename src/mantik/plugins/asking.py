"""What goes straight to the server: after what was written here, with the server's ids, and with an answer at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import TEMPORARILY_UNAVAILABLE

from mantik.delivery.ids import UnresolvedError

if TYPE_CHECKING:
    from mantik.delivery.outbox import Outbox

__all__ = ["SETTLE_SECONDS", "prepared"]

SETTLE_SECONDS = 10.0
"""How long a question that only the server can answer waits for what was written before it."""


def prepared(
    outbox: Outbox, name: str, json_body: str | None, options: dict[str, Any], *, wait: float = SETTLE_SECONDS
) -> tuple[str | None, dict[str, Any]]:
    """Wait for what was written, and return a request with the server's ids in it.

    Args:
        outbox: Where it was written.
        name: Name of the request, for the user.
        json_body: Its body.
        options: What else is passed to MLflow; an ``endpoint`` may hold ids too.
        wait: Seconds to wait at most for what was written.

    Raises:
        MlflowException: The server cannot be asked now, or does not know yet what the request is about.
    """
    outbox.flush(wait, give_up_when_down=True)
    # Asked with a short time limit: MLflow itself would try for minutes where nobody answers.
    if not outbox.answers():
        raise MlflowException(
            f"{name} needs the platform at {outbox.uri}, which cannot be asked now ({outbox.why_down}). "
            f"What was logged is not affected.",
            error_code=TEMPORARILY_UNAVAILABLE,
        )
    translate = outbox.identities.translate
    try:
        if options.get("endpoint"):
            options = {**options, "endpoint": translate(options["endpoint"])}
        return translate(json_body) if json_body else json_body, options
    except UnresolvedError as error:
        raise MlflowException(
            f"{name} needs {error.local_id} to be on the platform, and it is not there yet.",
            error_code=TEMPORARILY_UNAVAILABLE,
        ) from None
