"""An independent reader of what a platform holds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

import requests

from mantik.exceptions import LoginRefusedError, PlatformUnreachableError, UnexpectedAnswerError
from mantik.testing.holdings import Experiment, LoggedModel, ModelVersion, Point, RegisteredModel, Run

if TYPE_CHECKING:
    from collections.abc import Iterator

    from typing_extensions import Self

__all__ = ["ReadBack"]

_TIMEOUT_SECONDS = (5.0, 60.0)
_PAGE = 1000
_HISTORY_PAGE = 25000
# The largest page that MLflow's search for logged models accepts in every 3.x server.
_MODELS_PAGE = 50


class ReadBack:
    """Reads what a platform holds with plain HTTP requests, so that a test does not ask the code under test.

    It shares no code and no state with mantik's or MLflow's client: it has a login of its own, kept in memory, ignores
    proxies, `~/.netrc` and the environment, and follows no redirects. It never writes. Every call asks the platform
    anew; each collection is complete, all of its pages are followed. Deleted experiments and runs are left out.

    One thread at a time may use an object.

    Every method that reads raises `PlatformUnreachableError` if nobody answers (within 5 s for the connection, 60 s for
    data), `LoginRefusedError` if the platform does not accept the user, and `UnexpectedAnswerError` for any other
    answer than the wanted one.

    Args:
        url: The platform's base URL, such as `http://127.0.0.1:5000`.
        username: A user of the platform.
        password: The user's password.
    """

    def __init__(self, url: str, username: str, password: str) -> None:
        self._url = url.rstrip("/")
        self._username = username
        self._password = password
        self._token = ""
        self._session = requests.Session()
        # Otherwise a proxy or ~/.netrc of the machine would come between, and replace the token.
        self._session.trust_env = False

    def __repr__(self) -> str:
        """Show where and who, not the password."""
        return f"ReadBack(url={self._url!r}, username={self._username!r}, password='***')"

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the connections."""
        self.close()

    def close(self) -> None:
        """Close the connections; the next call opens new ones."""
        self._session.close()

    def experiments(self) -> list[Experiment]:
        """Return all experiments."""
        found = self._pages("POST", "experiments/search", "experiments", {"max_results": _PAGE})
        return [_experiment(item) for item in found]

    def experiment(self, name: str) -> Experiment:
        """Return the experiment with this name.

        Raises:
            LookupError: There is none, or it is deleted.
        """
        for experiment in self.experiments():
            if experiment.name == name:
                return experiment
        raise LookupError(f"the platform {self._url} holds no experiment with the name {name!r}")

    def runs(self, experiment: str) -> list[Run]:
        """Return the runs of an experiment, the latest first.

        Args:
            experiment: The experiment's name, or else its id. One that does not exist has no runs: so a test can wait
                for the first run without waiting for the experiment before.
        """
        known = self.experiments()
        ids = [item.experiment_id for item in known if item.name == experiment] or [
            item.experiment_id for item in known if item.experiment_id == experiment
        ]
        if not ids:
            return []
        found = self._pages("POST", "runs/search", "runs", {"experiment_ids": ids, "max_results": _PAGE})
        return [_run(item) for item in found]

    def run(self, run_id: str) -> Run:
        """Return one run.

        Raises:
            LookupError: The platform holds no such run.
        """
        try:
            return _run(self._call("GET", "runs/get", {"run_id": run_id})["run"])
        except UnexpectedAnswerError as error:
            if error.status == requests.codes.not_found:
                raise LookupError(f"the platform {self._url} holds no run with the id {run_id!r}") from error
            raise

    def metric_history(self, run_id: str, key: str) -> list[Point]:
        """Return every value of a metric in the platform's order: by time, then step; none for an unknown metric."""
        query = {"run_id": run_id, "metric_key": key, "max_results": _HISTORY_PAGE}
        found = self._pages("GET", "metrics/get-history", "metrics", query)
        return [Point(int(item.get("step", 0)), int(item["timestamp"]), _number(item)) for item in found]

    def artifacts(self, run_id: str, path: str = "") -> list[str]:
        """Return the paths of all files below a folder of the run's artifacts, at any depth, sorted.

        Args:
            run_id: The run.
            path: A folder, relative to the run's artifacts; default: all of them.
        """
        query = {"run_id": run_id, **({"path": path} if path else {})}
        files: list[str] = []
        for item in self._pages("GET", "artifacts/list", "files", query):
            files += self.artifacts(run_id, item["path"]) if item.get("is_dir") else [item["path"]]
        return sorted(files)

    def download(self, run_id: str, path: str) -> bytes:
        """Return the content of one artifact.

        Args:
            run_id: The run.
            path: The file, relative to the run's artifacts.

        Raises:
            LookupError: The run or the file is not there.
            ValueError: The run's artifacts are not behind the platform's artifact proxy.
        """
        uri = urlsplit(self.run(run_id).artifact_uri)
        if uri.scheme != "mlflow-artifacts":
            raise ValueError(f"artifacts at {uri.scheme}: are not served by the platform; only mlflow-artifacts: are")
        where = quote(f"{uri.path.strip('/')}/{path}")
        try:
            return self._send("GET", f"/api/2.0/mlflow-artifacts/artifacts/{where}").content
        except UnexpectedAnswerError as error:
            if error.status == requests.codes.not_found:
                raise LookupError(f"the run {run_id!r} has no artifact {path!r}") from error
            raise

    def logged_models(self, experiment_id: str) -> list[LoggedModel]:
        """Return the logged models of an experiment, given by its id."""
        query = {"experiment_ids": [experiment_id], "max_results": _MODELS_PAGE}
        return [_logged_model(item) for item in self._pages("POST", "logged-models/search", "models", query)]

    def registered_models(self) -> list[RegisteredModel]:
        """Return the model registry: every registered model with its versions."""
        models = list(self._pages("GET", "registered-models/search", "registered_models", {"max_results": _PAGE}))
        versions = list(self._pages("GET", "model-versions/search", "model_versions", {"max_results": _PAGE}))
        return [_registered_model(item, versions) for item in models]

    def _pages(self, method: str, endpoint: str, key: str, query: dict[str, Any]) -> Iterator[dict[str, Any]]:
        token: str | None = ""
        while token is not None:
            page = self._call(method, endpoint, {**query, **({"page_token": token} if token else {})})
            yield from page.get(key, [])
            token = page.get("next_page_token") or None

    def _call(self, method: str, endpoint: str, query: dict[str, Any]) -> dict[str, Any]:
        answer = self._send(method, f"/api/2.0/mlflow/{endpoint}", query)
        return _json_object(answer)

    def _send(self, method: str, path: str, query: dict[str, Any] | None = None) -> requests.Response:
        if not self._token:
            self._login()
        answer = self._request(method, path, query)
        if answer.status_code == requests.codes.unauthorized:
            self._login()
            answer = self._request(method, path, query)
        if answer.status_code != requests.codes.ok:
            raise _unexpected(answer)
        return answer

    def _login(self) -> None:
        self._token = ""
        user = {"username": self._username, "password": self._password}
        answer = self._request("POST", "/api/mantik/tokens/create", user)
        if answer.status_code == requests.codes.unauthorized:
            raise LoginRefusedError(f"the platform {self._url} refused the user {self._username!r}: {answer.text}")
        if answer.status_code != requests.codes.created:
            raise _unexpected(answer)
        self._token = str(_json_object(answer)["AccessToken"])

    def _request(self, method: str, path: str, query: dict[str, Any] | None) -> requests.Response:
        url = self._url + path
        try:
            return self._session.request(
                method,
                url,
                headers={"Authorization": f"Bearer {self._token}"} if self._token else {},
                params=query if method == "GET" else None,
                json=query if method == "POST" else None,
                timeout=_TIMEOUT_SECONDS,
                allow_redirects=False,
            )
        except (requests.ConnectionError, requests.Timeout) as error:
            raise PlatformUnreachableError(f"no answer from {url}: {type(error).__name__}", url) from error


def _unexpected(answer: requests.Response) -> UnexpectedAnswerError:
    url = str(answer.url).partition("?")[0]
    return UnexpectedAnswerError(f"{url} answered {answer.status_code}: {answer.text[:500]}", url, answer.status_code)


def _json_object(answer: requests.Response) -> dict[str, Any]:
    try:
        content = answer.json()
    except requests.JSONDecodeError as error:
        raise _unexpected(answer) from error
    if not isinstance(content, dict):
        raise _unexpected(answer)
    return content


def _pairs(items: list[dict[str, str]]) -> dict[str, str]:
    # The platform leaves an empty value out.
    return {item["key"]: item.get("value", "") for item in items}


def _number(item: dict[str, Any]) -> float:
    # "NaN", "Infinity" and "-Infinity" arrive as texts or as bare words, zero may be left out: float() takes them all.
    return float(item.get("value", 0.0))


def _metrics(items: list[dict[str, Any]]) -> dict[str, float]:
    return {item["key"]: _number(item) for item in items}


def _experiment(item: dict[str, Any]) -> Experiment:
    return Experiment(
        experiment_id=item["experiment_id"],
        name=item["name"],
        artifact_location=item.get("artifact_location", ""),
        lifecycle_stage=item.get("lifecycle_stage", ""),
        tags=_pairs(item.get("tags", [])),
    )


def _run(item: dict[str, Any]) -> Run:
    info, data = item["info"], item.get("data", {})
    return Run(
        run_id=info["run_id"],
        name=info.get("run_name", ""),
        experiment_id=info["experiment_id"],
        status=info["status"],
        start_time=int(info["start_time"]),
        end_time=int(info["end_time"]) if info.get("end_time") else None,
        artifact_uri=info["artifact_uri"],
        lifecycle_stage=info.get("lifecycle_stage", ""),
        params=_pairs(data.get("params", [])),
        tags=_pairs(data.get("tags", [])),
        metrics=_metrics(data.get("metrics", [])),
    )


def _logged_model(item: dict[str, Any]) -> LoggedModel:
    info, data = item["info"], item.get("data", {})
    return LoggedModel(
        model_id=info["model_id"],
        name=info.get("name", ""),
        experiment_id=info["experiment_id"],
        source_run_id=info.get("source_run_id", ""),
        status=info.get("status", ""),
        artifact_uri=info.get("artifact_uri", ""),
        params=_pairs(data.get("params", [])),
        tags=_pairs(info.get("tags", [])),
        metrics=_metrics(data.get("metrics", [])),
    )


def _registered_model(item: dict[str, Any], versions: list[dict[str, Any]]) -> RegisteredModel:
    own = sorted(
        (entry for entry in versions if entry["name"] == item["name"]), key=lambda entry: int(entry["version"])
    )
    return RegisteredModel(
        name=item["name"],
        tags=_pairs(item.get("tags", [])),
        versions=tuple(
            ModelVersion(
                version=str(entry["version"]),
                run_id=entry.get("run_id", ""),
                source=entry.get("source", ""),
                status=entry.get("status", ""),
            )
            for entry in own
        ),
    )
