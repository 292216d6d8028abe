"""MLflow's REST API as the shipper uses it: one request, one verdict.

MLflow's own client is not used: it retries for minutes inside one call, and importing it takes a second.
"""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

import requests

from mantik.auth.transport import reason_of
from mantik.exceptions import MantikError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mantik.auth.bearer import BearerAuth
    from mantik.delivery.records import MetricItem, RunUpdate, TextItem

__all__ = ["MlflowApi", "RefusedError", "UnavailableError"]

_TIMEOUT = (5.0, 120.0)
"""Connect and read, in seconds. The server needs up to a minute to recognise 1000 points that it has already."""

_VERDICTS = frozenset({400, 403, 404, 409, 413, 422})
"""Statuses with which a server judges the request itself. All others say something about the server or the moment."""

_NO_VERDICTS = frozenset({"ENDPOINT_NOT_FOUND"})
"""Error codes that speak of the server all the same: another one may stand at this address for a while."""


class RefusedError(MantikError):
    """The server judged the request: it would say the same again.

    Attributes:
        status: HTTP status code.
        code: MLflow's error code, such as ``INVALID_PARAMETER_VALUE``.
    """

    def __init__(self, message: str, status: int = 0, code: str = "") -> None:
        """Keep status and code beside the text."""
        super().__init__(message)
        self.status = status
        self.code = code


class UnavailableError(MantikError):
    """The server could not be asked, or did not answer as an MLflow server: the same request may do well later.

    Attributes:
        retry_after: Seconds that the server asks to wait, if it does.
    """

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        """Keep the server's wish beside the text."""
        super().__init__(message)
        self.retry_after = retry_after


class MlflowApi:
    """One platform's MLflow REST API. One thread at a time may use an object.

    Args:
        tracking_uri: The normalised tracking URI.
        auth: What puts the token on requests.
    """

    def __init__(self, tracking_uri: str, auth: BearerAuth) -> None:
        self._base = f"{tracking_uri}/api/2.0/mlflow"
        self._session = requests.Session()
        # As for token requests: nothing for this machine goes through a proxy.
        self._session.trust_env = not auth.origin.is_loopback
        self._session.auth = auth

    def close(self) -> None:
        """Close the connections."""
        self._session.close()

    def log_batch(
        self,
        run_id: str,
        metrics: Sequence[MetricItem] = (),
        params: Sequence[TextItem] = (),
        tags: Sequence[TextItem] = (),
    ) -> None:
        """Send what training wrote to one run; at most 1000 metrics, 100 params and 100 tags.

        Raises:
            RefusedError: The server will not take it.
            UnavailableError: It may take it later.
        """
        self.call(
            "POST",
            "runs/log-batch",
            {
                "run_id": run_id,
                "metrics": [_metric(item) for item in metrics],
                "params": [{"key": key, "value": value} for key, value in params],
                "tags": [{"key": key, "value": value} for key, value in tags],
            },
        )

    def update_run(self, update: RunUpdate) -> None:
        """Send a change of a run.

        Raises:
            RefusedError: The server will not take it.
            UnavailableError: It may take it later.
        """
        fields = {"status": update.status, "end_time": update.end_time, "run_name": update.run_name}
        known = {name: value for name, value in fields.items() if value is not None}
        self.call("POST", "runs/update", {"run_id": update.run_id, **known})

    def call(
        self,
        method: str,
        path: str,
        content: Mapping[str, Any],
        *,
        timeout: tuple[float, float] = _TIMEOUT,
    ) -> dict[str, Any]:
        """Send one request and return the JSON object of the answer.

        Args:
            method: ``GET`` or ``POST``.
            path: Path below ``/api/2.0/mlflow/``.
            content: Query of a GET, JSON body of a POST.
            timeout: Seconds to connect and to read.

        Raises:
            RefusedError: The server judged the request.
            UnavailableError: The server could not be asked, or did not answer as an MLflow server.
        """
        problem = ""
        try:
            answer = self._session.request(
                method,
                f"{self._base}/{path}",
                params=content if method == "GET" else None,
                # Bare NaN would make MLflow drop the rest of the request in silence: _metric writes it as a text.
                data=json.dumps(content, allow_nan=False) if method != "GET" else None,
                headers={"Content-Type": "application/json"},
                timeout=timeout,
                allow_redirects=False,
            )
        except requests.RequestException as error:
            problem = reason_of(error)
        except MantikError as error:
            # There is no token: the platform cannot be asked, now.
            problem = str(error)
        else:
            return _verdict(answer)
        raise UnavailableError(problem)


def _verdict(answer: requests.Response) -> dict[str, Any]:
    try:
        content = answer.json()
    except ValueError:
        content = None
    if answer.ok and isinstance(content, dict):
        return content
    code = content.get("error_code") if isinstance(content, dict) else None
    if isinstance(content, dict) and code and answer.status_code in _VERDICTS and code not in _NO_VERDICTS:
        words = " ".join(str(content.get("message", "")).split())
        raise RefusedError(words or str(code), answer.status_code, str(code))
    if answer.status_code == 413:  # noqa: PLR2004  # a proxy's verdict comes without MLflow's JSON
        raise RefusedError("the request is larger than the server takes", 413, "TOO_LARGE")
    raise UnavailableError(f"HTTP {answer.status_code}", _seconds(answer.headers.get("Retry-After")))


def _seconds(text: str | None) -> float | None:
    return float(text) if text is not None and text.isdigit() else None


def _metric(item: MetricItem) -> dict[str, Any]:
    value = item[1]
    metric = {
        "key": item[0],
        "value": value if math.isfinite(value) else _named(value),
        "timestamp": item[2],
        "step": item[3],
    }
    if len(item) > 4:  # noqa: PLR2004  # the short form ends with the step
        names = ("model_id", "dataset_name", "dataset_digest")
        metric |= {name: part for name, part in zip(names, item[4:], strict=True) if part is not None}
    return metric


def _named(value: float) -> str:
    if math.isnan(value):
        return "NaN"
    return "Infinity" if value > 0 else "-Infinity"
