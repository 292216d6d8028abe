"""How each kind of record is sent to the server."""

from __future__ import annotations

import base64
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from mantik.delivery.calls import CALLS
from mantik.delivery.creation import Creator, WaitingError
from mantik.delivery.ids import UnresolvedError, is_provisional
from mantik.delivery.ledger import entity_of
from mantik.delivery.records import Artifact, Batch, Call, Create, Removal, RunUpdate, Spans
from mantik.delivery.rest import MlflowApi, RefusedError, UnavailableError

if TYPE_CHECKING:
    from mantik.delivery.ids import Identities
    from mantik.delivery.records import MetricItem, TextItem
    from mantik.delivery.staging import Staging
    from mantik.delivery.window import Request

__all__ = ["Sender", "assumed_root", "halves", "is_there_already"]

PARAM_CHARACTERS = 6000
TAG_CHARACTERS = 8000
"""What MLflow keeps of a value (`utils/validation.py`); longer ones it cuts without a word."""

_ASSUMED = re.compile(r"mlflow-artifacts:/mantik-run/([\w-]+)/artifacts")
_NO_IDS = frozenset({"", ".", ".."})
"""In a path they would make a request one for something else."""

_MODEL_FILE = "/MLmodel"
_MODEL_FILE_BYTES = 16 * 1024 * 1024
_OPEN_STATUSES = frozenset({"RUNNING", "SCHEDULED"})
_STATUSES = _OPEN_STATUSES | {None, "FINISHED", "FAILED", "KILLED"}


def assumed_root(run_id: str) -> str:
    """Return an artifact URI for a run of the server that could not be asked where its artifacts are."""
    return f"mlflow-artifacts:/mantik-run/{run_id}/artifacts"


class Sender:
    """Sends requests. One thread at a time may use it.

    Args:
        api: The server.
        identities: What provisional ids stand for.
        staging: Where the files of artifacts are.
        patient: Wait for what a provisional id of another process stands for, should nobody here know it yet: a network
            file system may show it late.
    """

    def __init__(self, api: MlflowApi, identities: Identities, staging: Staging, *, patient: bool = True) -> None:
        self._api = api
        self._patient = patient
        self._identities = identities
        self._staging = staging
        self._creator = Creator(api, identities)
        self._roots: dict[str, str] = {}
        self._uploaded: list[str] = []
        self._superseded: list[Artifact] = []

    def send(self, request: Request) -> list[Batch]:
        """Send a request.

        Returns:
            What the server keeps the beginning of only, whole.

        Raises:
            RefusedError: The server will not take it.
            UnavailableError: It may take it later.
        """
        try:
            if isinstance(request, Batch):
                return self._batch(request)
            self._other(request)
        except UnresolvedError as error:
            refusal = self._identities.refusal(error.local_id)
            if refusal is not None:
                # Where it is about something else, such as the model of one of many points, the rest may do well.
                own = error.local_id == entity_of(request)
                raise RefusedError(refusal, code="OWNER_REFUSED" if own else "") from None
            if not self._patient and self._identities.get(error.local_id) is None:
                raise RefusedError(
                    f"{error.local_id} began in another spool, and nobody here knows what became of it. Sync that "
                    f"spool, or put its files together with this one, then: mantik spool retry",
                    code="OWNER_REFUSED" if error.local_id == entity_of(request) else "",
                ) from None
            raise WaitingError(f"{error}, and another process holds what creates it") from None
        return []

    def uploaded(self) -> list[str]:
        """Return the staged files that were uploaded since the last call."""
        done, self._uploaded = self._uploaded, []
        return done

    def superseded(self) -> list[Artifact]:
        """Return the artifacts that were left out since the last call, because their files are not wanted any more."""
        left_out, self._superseded = self._superseded, []
        return left_out

    def is_well(self) -> bool:
        """Tell whether the server answers what every MLflow server can answer."""
        try:
            self._api.call("POST", "experiments/search", {"max_results": 1})
        except (RefusedError, UnavailableError):
            return False
        return True

    @staticmethod
    def words(request: Request) -> str:
        """Say in a few words what a request is."""
        if isinstance(request, Artifact):
            return f"artifact {request.uri}"
        if isinstance(request, Removal):
            return f"removal of {request.uri}"
        if isinstance(request, Create):
            return f"the {request.kind} itself"
        return CALLS[request.name].words if isinstance(request, Call) else "spans of traces"

    def _batch(self, batch: Batch) -> list[Batch]:
        ids, run_id = self._identities, batch.run_id
        params = [[key, ids.translate(value)] for key, value in batch.params]
        tags = [[key, ids.translate(value)] for key, value in batch.tags]
        self._api.log_batch(
            ids.server_id(run_id),
            [self._metric(item) for item in batch.metrics],
            _cut(params, PARAM_CHARACTERS),
            _cut(tags, TAG_CHARACTERS),
        )
        return [
            *(Batch(run_id, [], [item], []) for item in params if len(item[1]) > PARAM_CHARACTERS),
            *(Batch(run_id, [], [], [item]) for item in tags if len(item[1]) > TAG_CHARACTERS),
        ]

    def _metric(self, item: MetricItem) -> MetricItem:
        if len(item) > 4 and item[4] is not None and is_provisional(item[4]):  # noqa: PLR2004  # the model's id
            if self._identities.refusal(item[4]) is not None:
                # The run has the point even where the server will not have the model.
                return [*item[:4], None, *item[5:]]
            return [*item[:4], self._identities.server_id(item[4]), *item[5:]]
        return item

    def _other(self, request: RunUpdate | Create | Call | Spans | Artifact | Removal) -> None:
        if isinstance(request, RunUpdate):
            if request.status not in _STATUSES:
                # A server would do nothing about it, and say nothing.
                raise RefusedError(f"a run's status {request.status!r} is none that MLflow has")
            self._api.update_run(replace(request, run_id=self._identities.server_id(request.run_id)))
            if request.status not in _OPEN_STATUSES:
                self._creator.settle_doubts(request.run_id)
        elif isinstance(request, Create):
            self._creator.create(request)
        elif isinstance(request, Call):
            self._call(request)
        elif isinstance(request, Spans):
            try:
                spans = base64.b64decode(request.request)
            except ValueError:
                raise RefusedError("the spans are no base64: the record was changed") from None
            self._api.send_spans(self._creator.experiment_id(request.experiment_id), spans)
        elif isinstance(request, Removal):
            self._removal(request)
        else:
            self._artifact(request)

    def _call(self, call: Call) -> None:
        endpoint = CALLS[call.name]
        body = call.body
        if call.name in {"experiment-tag", "trace"}:
            # An experiment that nobody recorded anything else for has to be created for this.
            self._create_experiments_in(body)
        about = self._identities.server_id(call.about)
        if about in _NO_IDS:
            raise RefusedError(f"it is about {about!r}, which is no id")
        self._api.call_if_known(endpoint.method, endpoint.path_for(about), self._identities.translate_all(body))
        if call.name == "finalize":
            self._creator.settle_doubts(call.about)

    def _create_experiments_in(self, content: Any) -> None:  # noqa: ANN401  # any JSON
        if isinstance(content, dict):
            if isinstance(content.get("experiment_id"), str):
                self._creator.experiment_id(content["experiment_id"])
            for item in content.values():
                self._create_experiments_in(item)

    def _artifact(self, artifact: Artifact) -> None:
        if self._staging.is_discarded(artifact.staged):
            self._superseded.append(artifact)
            return
        uri = self._destination(artifact.uri)
        path = self._staging.path(artifact.staged)
        try:
            size = path.stat().st_size
            if size != artifact.size:
                raise RefusedError(f"its copy has {size} of {artifact.size} bytes: the disk lost the rest")
            with path.open("rb") as file:
                if artifact.uri.endswith(_MODEL_FILE) and size <= _MODEL_FILE_BYTES:
                    # The one file in which MLflow writes the ids of run and model.
                    text = file.read().decode("utf-8", errors="surrogateescape")
                    self._api.put_artifact(uri, self._identities.translate(text).encode(errors="surrogateescape"))
                else:
                    self._api.put_artifact(uri, file)
        except FileNotFoundError:
            if not self._staging.is_discarded(artifact.staged):
                raise RefusedError("its copy is gone from the spool") from None
            # A moment ago.
            self._superseded.append(artifact)
        else:
            self._uploaded.append(artifact.staged)

    def _removal(self, removal: Removal) -> None:
        if not entity_of(removal):
            # All runs of an experiment are below one folder.
            raise RefusedError(f"{removal.uri!r} is not among the artifacts of a run, model or trace")
        self._api.remove_artifact(self._destination(removal.uri))

    def _destination(self, uri: str) -> str:
        """Return where an artifact is on the server.

        Raises:
            RefusedError: It is nowhere where the server would let mantik put or remove it.
            UnresolvedError: The run or model is not there yet.
            UnavailableError: The server has to be asked, and cannot be now.
        """
        uri = self._translated(uri)
        if ".." in uri.split("/"):
            raise RefusedError(f"its artifact URI {uri!r} leads elsewhere")
        if not uri.startswith("mlflow-artifacts:"):
            raise RefusedError(f"the platform keeps artifacts of this run at {uri}, where mantik has no part in them")
        return uri

    def _translated(self, uri: str) -> str:
        assumed = _ASSUMED.match(uri)
        if assumed is None:
            return self._identities.translate(uri)
        run_id = self._identities.server_id(assumed[1])
        if run_id not in self._roots:
            answer = self._api.call("GET", "runs/get", {"run_id": run_id})
            self._roots[run_id] = answer["run"]["info"]["artifact_uri"]
        return self._roots[run_id] + uri[assumed.end() :]


def halves(request: Request) -> tuple[Request, ...]:
    """Split a request into two that say the same together; empty where it holds one thing."""
    if isinstance(request, Batch):
        if len(request.metrics) + len(request.params) + len(request.tags) < 2:  # noqa: PLR2004
            return ()
        metrics, params, tags = (len(items) // 2 for items in (request.metrics, request.params, request.tags))
        return (
            Batch(request.run_id, request.metrics[:metrics], request.params[:params], request.tags[:tags]),
            Batch(request.run_id, request.metrics[metrics:], request.params[params:], request.tags[tags:]),
        )
    if isinstance(request, Call):
        for name in ("params", "tags", "models", "datasets"):
            items = request.body.get(name)
            if isinstance(items, list) and len(items) > 1:
                middle = len(items) // 2
                return tuple(
                    replace(request, body={**request.body, name: part}) for part in (items[:middle], items[middle:])
                )
    return ()


def is_there_already(error: RefusedError) -> bool:
    """Tell whether a server refused something because it has it.

    Servers up to 3.14 say so about NaN and infinities, and all about model metrics, model params and outputs of runs,
    in the words of their database.
    """
    text = str(error)
    return error.code == "BAD_REQUEST" and (
        "UNIQUE constraint" in text or "IntegrityError" in text or "duplicate key" in text
    )


def _cut(items: list[TextItem], characters: int) -> list[TextItem]:
    return [[key, value if len(value) <= characters else value[:characters]] for key, value in items]
