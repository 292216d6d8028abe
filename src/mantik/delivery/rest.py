"""MLflow's REST API as the shipper uses it: one request, one verdict.

MLflow's own client is not used: it retries for minutes inside one call, and importing it takes a second.
"""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any, BinaryIO
from urllib.parse import quote

import requests
from urllib3.exceptions import NewConnectionError

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

_ENDPOINT_NOT_FOUND = "ENDPOINT_NOT_FOUND"
"""An error code that speaks of the server: another one may stand at this address for a while, or it is an old one."""

_ARTIFACTS = "/api/2.0/mlflow-artifacts/artifacts/"
_ARTIFACT_SCHEME = "mlflow-artifacts:"


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
        unanswered: Whether the server may have taken the request and done what it says.
        status: HTTP status code; 0 where there was no answer.
        code: MLflow's error code, where there is one.
    """

    def __init__(
        self,
        message: str,
        retry_after: float | None = None,
        *,
        unanswered: bool = False,
        status: int = 0,
        code: str = "",
    ) -> None:
        """Keep what else is known beside the text."""
        super().__init__(message)
        self.status = status
        self.retry_after = retry_after
        self.unanswered = unanswered
        self.code = code


class MlflowApi:
    """One platform's MLflow REST API. One thread at a time may use an object.

    Args:
        tracking_uri: The normalised tracking URI.
        auth: What puts the token on requests.
    """

    def __init__(self, tracking_uri: str, auth: BearerAuth) -> None:
        self.uri = tracking_uri
        self._base = f"{tracking_uri}/api/2.0/mlflow/"
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
            method: ``GET``, ``POST`` or ``PATCH``.
            path: Path below ``/api/2.0/mlflow/``, or from the platform's base if it begins with a slash.
            content: Query of a GET, JSON body of the others.
            timeout: Seconds to connect and to read.

        Raises:
            RefusedError: The server judged the request.
            UnavailableError: The server could not be asked, or did not answer as an MLflow server.
        """
        answer = self._answer(
            method,
            self.uri + path if path.startswith("/") else self._base + path,
            timeout,
            params=content if method == "GET" else None,
            # Bare NaN would make MLflow drop the rest of the request in silence: _metric writes it as a text.
            data=json.dumps(content, allow_nan=False) if method != "GET" else None,
            headers={"Content-Type": "application/json"},
        )
        return _verdict(answer)

    def call_if_known(self, method: str, path: str, content: Mapping[str, Any]) -> dict[str, Any]:
        """Send a request that an older server does not know.

        Raises:
            RefusedError: The server judged the request, or is an MLflow server that has no such endpoint.
            UnavailableError: The server could not be asked, or did not answer as an MLflow server.
        """
        try:
            return self.call(method, path, content)
        except UnavailableError as error:
            # MLflow 2 has a web page to say so.
            if error.status != 404:  # noqa: PLR2004
                raise
        # That may be a server that is just starting, or another one for a while. If what every MLflow server has is
        # there, it is the one.
        self.call("POST", "experiments/search", {"max_results": 1})
        raise RefusedError(f"the platform's MLflow has no {path}", 404, _ENDPOINT_NOT_FOUND)

    def put_artifact(self, uri: str, content: bytes | BinaryIO) -> None:
        """Store an artifact.

        Args:
            uri: Its whole artifact URI, ``mlflow-artifacts:/...``.
            content: What to store; a file is streamed from its present position.

        Raises:
            RefusedError: The server will not take it.
            UnavailableError: It may take it later.
        """
        answer = self._answer("PUT", self._address_of(uri), _TIMEOUT, data=content)
        if answer.ok and not answer.content.strip():
            return
        is_json = "json" in answer.headers.get("Content-Type", "")
        if answer.status_code == 400 and is_json and '"error_code"' not in answer.text:  # noqa: PLR2004
            # FastAPI's own way to say no, without MLflow's error code.
            raise RefusedError(f"the platform refuses the path or the file: {answer.text[:500]}", 400)
        # An older server answers with an object, a sign-in page of the network with anything else.
        _verdict(answer)

    def remove_artifact(self, uri: str) -> None:
        """Remove an artifact, or a folder with all that is in it; one that is not there is fine.

        Args:
            uri: Its whole artifact URI, ``mlflow-artifacts:/...``.

        Raises:
            RefusedError: The server will not do it.
            UnavailableError: It may do it later.
        """
        try:
            answer = self._answer("DELETE", self._address_of(uri), _TIMEOUT)
            if not answer.ok or answer.content.strip():
                _verdict(answer)
        except RefusedError as error:
            if error.status != 404:  # noqa: PLR2004  # gone already
                raise
        except UnavailableError as error:
            # Some stores fail where there is nothing to remove, and a proxy in between may forbid the method.
            forbidden = error.status in {404, 405, 501}
            if not forbidden and error.status != 500:  # noqa: PLR2004
                raise
            if not self._has_artifact(uri):
                return
            if not forbidden:
                raise
            raise RefusedError(f"the platform removes no artifacts (HTTP {error.status})", error.status) from None

    def _has_artifact(self, uri: str) -> bool:
        """Ask the server whether something is at an artifact URI.

        Raises:
            RefusedError: The server will not tell.
            UnavailableError: It may tell later.
        """
        folder, _, name = _path_of(uri).rstrip("/").rpartition("/")
        answer = self.call("GET", _ARTIFACTS.rstrip("/"), {"path": folder})
        return any(file.get("path", "").rpartition("/")[2] == name for file in answer.get("files", ()))

    def _address_of(self, uri: str) -> str:
        # A file's name may hold bytes that are no text: they are written out, instead of ending the delivery.
        return self.uri + _ARTIFACTS + quote(_path_of(uri), errors="backslashreplace")

    def send_spans(self, experiment_id: str, request: bytes) -> None:
        """Send spans of traces, as OpenTelemetry's protocol has them.

        Raises:
            RefusedError: The server will not take them.
            UnavailableError: It may take them later.
        """
        headers = {"Content-Type": "application/x-protobuf", "x-mlflow-experiment-id": experiment_id}
        answer = self._answer("POST", f"{self.uri}/v1/traces", _TIMEOUT, data=request, headers=headers)
        if answer.ok and not answer.headers.get("Content-Type", "").startswith("text/html"):
            return
        if answer.status_code in _VERDICTS | {405, 501}:
            # What every MLflow server has tells whether it is one, and so too old for this.
            self.call("POST", "experiments/search", {"max_results": 1})
            raise RefusedError(f"the platform does not take spans (HTTP {answer.status_code})", answer.status_code)
        raise UnavailableError(f"HTTP {answer.status_code}", _seconds(answer.headers.get("Retry-After")))

    def _answer(self, method: str, url: str, timeout: tuple[float, float], **request: Any) -> requests.Response:  # noqa: ANN401
        problem, unanswered = "", False
        try:
            return self._session.request(method, url, timeout=timeout, allow_redirects=False, **request)
        except requests.exceptions.ConnectTimeout:
            problem = f"no connection within {timeout[0]:g} s"
        except requests.exceptions.ReadTimeout:
            problem, unanswered = f"no answer within {timeout[1]:g} s", True
        except requests.RequestException as error:
            problem, unanswered = reason_of(error), not _never_arrived(error)
        except MantikError as error:
            # There is no token: the platform cannot be asked, now.
            problem = str(error)
        # Raised outside the except block: a chained error would carry the request, and with it the token.
        raise UnavailableError(problem, unanswered=unanswered)


def _path_of(uri: str) -> str:
    return uri.removeprefix(_ARTIFACT_SCHEME).lstrip("/")


def _never_arrived(error: requests.RequestException) -> bool:
    """Tell whether a request cannot have reached the server: nobody was there to take it."""
    outer = error.args[0] if error.args else None
    return isinstance(getattr(outer, "reason", None), NewConnectionError)


def _verdict(answer: requests.Response) -> dict[str, Any]:
    try:
        content = answer.json()
    except ValueError:
        content = None
    if answer.ok and isinstance(content, dict):
        return content
    code = content.get("error_code") if isinstance(content, dict) else None
    if isinstance(content, dict) and code and code != _ENDPOINT_NOT_FOUND and answer.status_code in _VERDICTS:
        words = " ".join(str(content.get("message", "")).split())
        raise RefusedError(words or str(code), answer.status_code, str(code))
    if answer.status_code == 413:  # noqa: PLR2004  # a proxy's verdict comes without MLflow's JSON
        raise RefusedError("the request is larger than the server takes", 413, "TOO_LARGE")
    raise UnavailableError(
        f"HTTP {answer.status_code}",
        _seconds(answer.headers.get("Retry-After")),
        # A gateway answers so as well for a server that does what it was asked, later than the gateway likes.
        unanswered=answer.status_code >= 500,  # noqa: PLR2004
        status=answer.status_code,
        code=str(code or ""),
    )


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
