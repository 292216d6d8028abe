"""Creates what training began without the server: runs, models and experiments, each exactly once.

MLflow's server makes up a new id for every request to create something, so the same request must not be done twice.
Each carries the provisional id as a tag, and before anything is created the server is asked whether it is there.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from mantik.delivery.ids import Identity, is_provisional, operation_of
from mantik.delivery.rest import RefusedError, UnavailableError

if TYPE_CHECKING:
    from mantik.delivery.ids import Identities
    from mantik.delivery.records import Create
    from mantik.delivery.rest import MlflowApi

__all__ = ["OPERATION_TAG", "SETTLING_SECONDS", "Creator", "WaitingError"]

OPERATION_TAG = "mantik.op_id"
"""Tag of every run and model that mantik created: which request did it."""

SETTLING_SECONDS = 15.0
"""A request that nobody answered may still be at work on the server for so long; until then it is not repeated."""


class WaitingError(UnavailableError):
    """The server is well, but something else has to be there first."""


class Creator:
    """Creates what records ask for. One thread at a time may use it.

    Args:
        api: The server.
        identities: What provisional ids stand for.
    """

    def __init__(self, api: MlflowApi, identities: Identities) -> None:
        self._api = api
        self._identities = identities
        self._asked: set[str] = set()
        self._doubtful: set[str] = set()

    def create(self, record: Create) -> None:
        """Create what a record asks for, unless it is there.

        Raises:
            RefusedError: The server will not have it; what belongs to it cannot be delivered either.
            UnavailableError: The server cannot be asked now.
            OSError: It cannot be kept which id the server gave.
        """
        identity = self._identities.get(record.local_id)
        if identity is None:
            # The spool's file is gone, and what was recorded under this id is not.
            identity = Identity(record.local_id, record.kind, "", record.body)
            self._identities.note_if_room(identity)
        if identity.server_id is not None:
            return
        self._create(identity, record.asked_at)

    def experiment_id(self, any_id: str) -> str:
        """Return the server's id of an experiment, after creating it where that was left for later.

        Raises:
            RefusedError: The server will not have it.
            UnavailableError: The server cannot be asked now, or nobody here knows the provisional id.
        """
        if not is_provisional(any_id):
            return any_id
        identity = self._identities.get(any_id)
        if identity is None:
            raise WaitingError(f"the experiment {any_id} was chosen by a process whose spool is elsewhere")
        if identity.server_id is None:
            self._create(identity)
        return self._identities.server_id(any_id)

    def settle_doubts(self, local_id: str) -> None:
        """Delete what a request that nobody answered created after all, beside what a later one created.

        Raises:
            UnavailableError: The server cannot be asked now.
        """
        if local_id not in self._doubtful:
            return
        identity = self._identities.get(local_id)
        if identity is not None and identity.server_id is not None:
            experiment = self.experiment_id(str(identity.body["experiment_id"]))
            for server_id, _ in self._find(identity, experiment):
                if server_id != identity.server_id:
                    self._delete(identity, server_id)
        self._doubtful.discard(local_id)

    def _create(self, identity: Identity, asked_at: float | None = None) -> None:
        if identity.refused is not None:
            raise RefusedError(identity.refused)
        try:
            _require(identity, "name" if identity.kind == "experiment" else "experiment_id")
            if identity.kind == "experiment":
                found = self._experiment(identity.body)
            else:
                body = {**identity.body, "experiment_id": self.experiment_id(str(identity.body["experiment_id"]))}
                there = self._find(identity, body["experiment_id"])
                if not there:
                    self._let_settle(identity, asked_at)
                found = there[0] if there else self._ask(identity, body)
        except RefusedError as error:
            self._identities.refuse(identity.local_id, f"the {identity.kind} cannot be created: {error}")
            raise
        except (KeyError, TypeError, AttributeError) as error:
            # JSON of somebody else's, such as a proxy's.
            raise UnavailableError(f"the answer is not MLflow's ({error!r} in it)") from None
        self._identities.settle(identity.local_id, *found)

    def _let_settle(self, identity: Identity, asked_at: float | None) -> None:
        """Wait where the server may still be at work on what another process asked for, or training itself."""
        if identity.local_id not in self._asked:
            asked_at = max(filter(None, (asked_at, identity.asked_at)), default=None)
        if asked_at is not None:
            self._doubtful.add(identity.local_id)
            if 0 <= time.time() - asked_at < SETTLING_SECONDS:
                raise WaitingError("the platform may still be at work on an earlier request")

    def _ask(self, identity: Identity, body: dict[str, Any]) -> tuple[str, str]:
        content = self._identities.translate_all(body)
        # On disk before the request: whoever asks may be killed before the answer.
        self._asked.add(identity.local_id)
        self._identities.note_if_room(replace(identity, asked_at=time.time()))
        try:
            if identity.kind == "run":
                return _run(self._api.call("POST", "runs/create", content)["run"])
            return _model(self._api.call_if_known("POST", "logged-models", content)["model"])
        except UnavailableError as error:
            if error.unanswered:
                self._doubtful.add(identity.local_id)
            else:
                self._identities.note_if_room(identity)
            raise

    def _find(self, identity: Identity, experiment_id: str) -> list[tuple[str, str]]:
        query = {"max_results": 10, "filter": f"tags.`{OPERATION_TAG}` = '{operation_of(identity.local_id)}'"}
        if identity.kind == "run":
            query |= {"experiment_ids": [experiment_id], "run_view_type": "ALL"}
            return [_run(run) for run in self._api.call("POST", "runs/search", query).get("runs", ())]
        query |= {"experiment_ids": [experiment_id]}
        found = self._api.call_if_known("POST", "logged-models/search", query)
        return [_model(model) for model in found.get("models", ())]

    def _delete(self, identity: Identity, server_id: str) -> None:
        if identity.kind == "run":
            self._api.call("POST", "runs/delete", {"run_id": server_id})
        else:
            self._api.call("DELETE", f"logged-models/{server_id}", {})

    def _experiment(self, body: dict[str, Any]) -> tuple[str, str]:
        by_name = {"experiment_name": body["name"]}
        try:
            found = self._api.call("GET", "experiments/get-by-name", by_name)["experiment"]
        except RefusedError as error:
            if error.code != "RESOURCE_DOES_NOT_EXIST":
                raise
        else:
            return found["experiment_id"], found.get("artifact_location", "")
        try:
            self._api.call("POST", "experiments/create", body)
        except RefusedError as error:
            # Another process was quicker.
            if error.code != "RESOURCE_ALREADY_EXISTS":
                raise
        found = self._api.call("GET", "experiments/get-by-name", by_name)["experiment"]
        return found["experiment_id"], found.get("artifact_location", "")


def _require(identity: Identity, field: str) -> None:
    if not isinstance(identity.body.get(field), str):
        raise RefusedError(f"the request for it has no {field}: the spool was changed by hand")


def _run(run: dict[str, Any]) -> tuple[str, str]:
    return run["info"]["run_id"], run["info"].get("artifact_uri", "")


def _model(model: dict[str, Any]) -> tuple[str, str]:
    return model["info"]["model_id"], model["info"].get("artifact_uri", "")
