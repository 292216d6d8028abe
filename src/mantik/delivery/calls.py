"""The requests that are recorded as they will be sent: rare ones, each about one entity.

A record names its request instead of spelling out a path, so that a changed file of the spool cannot make mantik send
the user's token and data anywhere else.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import quote

if TYPE_CHECKING:
    from typing import Literal

__all__ = ["CALLS", "Endpoint"]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a request goes.

    Attributes:
        method: HTTP method.
        path: Path below ``/api/2.0/mlflow/``, or from the platform's base if it begins with a slash; ``{about}`` stands
            for the entity.
        words: What it says, for people.
    """

    method: Literal["POST", "PATCH"]
    path: str
    words: str

    def path_for(self, about: str) -> str:
        """Return the path for an entity."""
        return self.path.replace("{about}", quote(about, safe="", errors="backslashreplace"))


CALLS = {
    "inputs": Endpoint("POST", "runs/log-inputs", "inputs of the run"),
    "outputs": Endpoint("POST", "runs/outputs", "outputs of the run"),
    "model-params": Endpoint("POST", "logged-models/{about}/params", "params of the model"),
    "model-tags": Endpoint("PATCH", "logged-models/{about}/tags", "tags of the model"),
    "finalize": Endpoint("PATCH", "logged-models/{about}", "status of the model"),
    "experiment-tag": Endpoint("POST", "experiments/set-experiment-tag", "tag of the experiment"),
    "trace": Endpoint("POST", "/api/3.0/mlflow/traces", "a trace"),
    "trace-tag": Endpoint("PATCH", "traces/{about}/tags", "tag of the trace"),
    "traces-of-run": Endpoint("POST", "traces/link-to-run", "traces of the run"),
    "model-history": Endpoint("POST", "runs/log-model", "model of the run"),
}
"""By the name that records use."""
