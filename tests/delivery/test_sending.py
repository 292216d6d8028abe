"""What delivery asks of a real platform: everything once, whatever is asked twice, and reasons for what is refused."""

from __future__ import annotations

import json
import re
import time
from typing import TYPE_CHECKING, Any

import pytest

from mantik.delivery.creation import OPERATION_TAG, Creator, WaitingError
from mantik.delivery.ids import Identities, Identity, UnresolvedError, operation_of
from mantik.delivery.journal import JournalWriter
from mantik.delivery.records import Artifact, Batch, Call, Create, RunUpdate, encode
from mantik.delivery.requests import Sender
from mantik.delivery.rest import MlflowApi, RefusedError, UnavailableError
from mantik.delivery.shipper import Shipper
from mantik.delivery.spool import Outgoing
from mantik.delivery.staging import Staging
from mantik.testing import LoseAcknowledgement, Refuse, Status

from .sample import begun

if TYPE_CHECKING:
    from pathlib import Path

    from mantik.testing import FaultProxy, Platform

NO_ENDPOINT = Status(404, json.dumps({"error_code": "ENDPOINT_NOT_FOUND", "message": "Not Found"}))


@pytest.fixture
def sender(api: MlflowApi, ids: Identities, tmp_path: Path) -> Sender:
    """Send as a shipper does."""
    return Sender(api, ids, Staging(tmp_path / "staged"))


def runs_of(api: MlflowApi, create: Create, view: str = "ACTIVE_ONLY") -> list[str]:
    """Return the server's ids of all runs of one provisional id."""
    query = f"tags.`{OPERATION_TAG}` = '{operation_of(create.local_id)}'"
    search = {"experiment_ids": ["0"], "filter": query, "run_view_type": view}
    return [run["info"]["run_id"] for run in api.call("POST", "runs/search", search).get("runs", ())]


def test_a_run_that_is_created_twice_is_there_once(api: MlflowApi, ids: Identities, sender: Sender) -> None:
    """Repeated by the same sender, and by one that knows nothing of the first, creation finds what is there."""
    create = begun(ids)
    sender.send(create)
    sender.send(create)
    forgetful = Identities(None)
    forgetful.note(Identity(create.local_id, "run", "", create.body))
    Creator(api, forgetful).create(create)
    assert runs_of(api, create) == [ids.server_id(create.local_id)] == [forgetful.server_id(create.local_id)]


def test_a_lost_acknowledgement_makes_no_second_run(
    api: MlflowApi, ids: Identities, sender: Sender, mantik_proxy: FaultProxy
) -> None:
    """Where the server created a run and the answer was lost, the next attempt finds that run."""
    create = begun(ids)
    with (
        mantik_proxy.fault(LoseAcknowledgement(), "/api/2.0/mlflow/runs/create", times=1) as lost,
        pytest.raises(UnavailableError) as caught,
    ):
        sender.send(create)
    assert lost.hits == 1
    assert caught.value.unanswered
    assert len(runs_of(api, create)) == 1
    sender.send(create)
    assert runs_of(api, create) == [ids.server_id(create.local_id)]


def test_a_request_that_was_not_answered_just_now_is_not_repeated_at_once(
    api: MlflowApi, ids: Identities, sender: Sender
) -> None:
    """While the server may still be at work on the first request, creation waits; afterwards it asks."""
    create = begun(ids, asked_at=time.time())
    with pytest.raises(WaitingError):
        sender.send(create)
    assert runs_of(api, create) == []
    sender.send(Create("run", create.local_id, time.time() - 60, create.body))
    assert len(runs_of(api, create)) == 1


def test_a_run_that_a_late_request_made_is_deleted_when_the_run_ends(
    api: MlflowApi, ids: Identities, sender: Sender
) -> None:
    """Of two runs of one operation the one that was written to stays, however often the end is sent."""
    create = begun(ids, asked_at=time.time() - 60)
    sender.send(create)
    mine = ids.server_id(create.local_id)
    api.call("POST", "runs/create", create.body)
    assert len(runs_of(api, create)) == 2
    sender.send(RunUpdate(create.local_id, "RUNNING", None, None))
    assert len(runs_of(api, create)) == 2
    for _ in range(2):
        sender.send(RunUpdate(create.local_id, "FINISHED", 1_700_000_001_000, None))
    assert runs_of(api, create) == [mine]
    assert len(runs_of(api, create, "DELETED_ONLY")) == 1


def test_what_belongs_to_a_refused_run_says_why(ids: Identities, sender: Sender) -> None:
    """A run that the server will not create is refused once, and all that belongs to it with the same reason."""
    create = begun(ids)
    body = {**create.body, "experiment_id": "987654321"}
    ids.note(Identity(create.local_id, "run", "", body))
    for request in (create, Batch(create.local_id, [["a", 1.0, 1, 1]], [], []), create):
        with pytest.raises(RefusedError, match="987654321"):
            sender.send(request)
    assert ids.refusal(create.local_id) is not None
    with pytest.raises(UnresolvedError):
        ids.server_id(create.local_id)


def test_what_waits_for_a_run_that_is_not_there_waits(ids: Identities, sender: Sender) -> None:
    """Points of a run that nobody has created yet are neither refused nor lost."""
    create = begun(ids)
    batch = Batch(create.local_id, [["a", 1.0, 1, 1]], [], [])
    with pytest.raises(WaitingError, match=create.local_id):
        sender.send(batch)
    sender.send(create)
    assert sender.send(batch) == []


def test_params_and_outputs_of_models_may_be_sent_again(api: MlflowApi, ids: Identities, tmp_path: Path) -> None:
    """Redelivered by a sync that was interrupted, they are no refusals and there once."""
    outgoing = Outgoing(tmp_path / "outgoing")
    run, model = begun(ids), begun(ids, "model")
    records = [
        run,
        model,
        Call("model-params", model.local_id, {"model_id": model.local_id, "params": [{"key": "p", "value": "1"}]}),
        Call("outputs", run.local_id, {"run_id": run.local_id, "models": [{"model_id": model.local_id, "step": 0}]}),
        Call("finalize", model.local_id, {"model_id": model.local_id, "status": "LOGGED_MODEL_READY"}),
        Batch(run.local_id, [["a", float("nan"), 1, 1], ["a", 1.0, 1, 2, model.local_id, None, None]], [], []),
    ]
    writer = JournalWriter(outgoing.points.journal)
    for record in records:
        writer.append(encode(record))
    writer.close()
    for _ in range(2):
        shipper = Shipper(outgoing, outgoing.points, api, ids, tail="closed", keep=True)
        while shipper.ship():
            pass
        outgoing.points.cursor.path.unlink()
        assert shipper.refused == {}
    run_id, model_id = ids.server_id(run.local_id), ids.server_id(model.local_id)
    outputs = api.call("GET", "runs/get", {"run_id": run_id})["run"]["outputs"]["model_outputs"]
    assert [output["model_id"] for output in outputs] == [model_id]
    held = api.call("GET", f"logged-models/{model_id}", {})["model"]
    assert held["info"]["status"] == "LOGGED_MODEL_READY"
    assert held["data"]["params"] == [{"key": "p", "value": "1"}]


def test_a_server_without_logged_models_refuses_them(
    api: MlflowApi, ids: Identities, sender: Sender, mantik_proxy: FaultProxy
) -> None:
    """An older server's word that it has no such endpoint is a refusal, once it is known to be an MLflow server."""
    model = begun(ids, "model")
    with mantik_proxy.fault(NO_ENDPOINT, re.compile(r"/api/2\.0/mlflow/logged-models")):
        for request in (model, Call("finalize", model.local_id, {"status": "LOGGED_MODEL_READY"})):
            with pytest.raises(RefusedError, match="logged-models"):
                sender.send(request)
    assert ids.refusal(model.local_id) is not None
    other = begun(ids, "model")
    with mantik_proxy.fault(NO_ENDPOINT), pytest.raises(UnavailableError):
        sender.send(other)
    assert ids.refusal(other.local_id) is None


def test_an_empty_file_and_a_file_with_ids_arrive(
    ids: Identities, sender: Sender, tmp_path: Path, mantik_platform: Platform
) -> None:
    """A file without a byte is a file, and a model's description names the server's ids."""
    create = begun(ids)
    sender.send(create)
    run_id = ids.server_id(create.local_id)
    root = f"mlflow-artifacts:/0/{create.local_id}/artifacts"
    staging = Staging(tmp_path / "staged")
    for name, content in (("empty", b""), ("m/MLmodel", f"run_id: {create.local_id}\n\udce9".encode(errors="replace"))):
        (tmp_path / "source").write_bytes(content)
        staged, size = staging.take(tmp_path / "source")
        sender.send(Artifact(f"{root}/{name}", staged, size))
        assert sender.uploaded() == [staged]
    assert mantik_platform.read_back.download(run_id, "empty") == b""
    assert mantik_platform.read_back.download(run_id, "m/MLmodel").startswith(f"run_id: {run_id}\n".encode())
    with pytest.raises(RefusedError, match="gone"):
        sender.send(Artifact(f"{root}/lost", "00000099", 1))


def test_a_poison_that_is_found_during_an_outage_is_in_quarantine_once(
    api: MlflowApi, ids: Identities, tmp_path: Path, mantik_proxy: FaultProxy
) -> None:
    """Interrupted in the middle of the search for a bad param, delivery goes on there and refuses it once."""
    outgoing = Outgoing(tmp_path / "outgoing")
    create = begun(ids)
    params = [["p0", "1"], ["bad\x07key", "x"], ["p2", "1"], ["p3", "1"]]
    writer = JournalWriter(outgoing.points.journal)
    for record in (create, Batch(create.local_id, [], params, [])):
        writer.append(encode(record))
    writer.close()
    shipper = Shipper(outgoing, outgoing.points, api, ids, tail="closed")
    attempts = 0
    while True:
        # Each attempt may send one more batch than the one before, then the platform is away.
        before = sum("log-batch" in request.path for request in mantik_proxy.requests)
        switch = mantik_proxy.fault(_AfterOne(), "/api/2.0/mlflow/runs/log-batch")
        done = _ships(shipper)
        switch.clear()
        if done:
            break
        attempts += 1
        assert sum("log-batch" in request.path for request in mantik_proxy.requests) > before
        assert attempts < 50
    assert attempts > 2
    refusals = list(outgoing.quarantine.refusals())
    assert [refusal.what for refusal in refusals] == ["param 'bad\\x07key'"]
    assert shipper.refused == {create.local_id: 1}
    assert shipper.sent[create.local_id].params == 3
    run = api.call("GET", "runs/get", {"run_id": ids.server_id(create.local_id)})["run"]
    assert sorted(param["key"] for param in run["data"]["params"]) == ["p0", "p2", "p3"]


def _ships(shipper: Shipper) -> bool:
    """Ship everything; tell whether nothing came in between."""
    try:
        while shipper.ship():
            pass
    except UnavailableError:
        return False
    return True


class _AfterOne:
    """Every request but the first one of this fault is refused."""

    def __init__(self) -> None:
        self._passed = False

    def happen(self, exchange: Any) -> None:  # noqa: ANN401  # the proxy's exchange
        """Forward once."""
        if self._passed:
            Refuse().happen(exchange)
        else:
            self._passed = True
            exchange.forward()


def test_a_request_on_which_the_server_fails_is_halved_until_the_bad_one_is_alone(
    api: MlflowApi, ids: Identities, tmp_path: Path, mantik_proxy: FaultProxy
) -> None:
    """Of many params of which one makes a server fail that is well otherwise, all others arrive."""
    outgoing = Outgoing(tmp_path / "outgoing")
    create = begun(ids)
    writer = JournalWriter(outgoing.points.journal)
    params = [[f"p{number}", "x" * 5000 if number == 21 else "1"] for number in range(40)]
    for record in (create, Batch(create.local_id, [], params, [])):
        writer.append(encode(record))
    writer.close()
    shipper = Shipper(outgoing, outgoing.points, api, ids, tail="closed")
    with mantik_proxy.fault(_FailOnLarge(4000), "/api/2.0/mlflow/runs/log-batch"):
        attempts = 0
        while not _ships(shipper):
            attempts += 1
            assert attempts < 30
    assert [refusal.what for refusal in outgoing.quarantine.refusals()] == ["param 'p21'"]
    run = api.call("GET", "runs/get", {"run_id": ids.server_id(create.local_id)})["run"]
    assert len(run["data"]["params"]) == 39


class _FailOnLarge:
    """A server that fails on requests of more bytes than a number, as the poison of a test makes them."""

    def __init__(self, most: int) -> None:
        self._most = most

    def happen(self, exchange: Any) -> None:  # noqa: ANN401  # the proxy's exchange
        """Look at the length of the body."""
        if int(exchange.headers["Content-Length"]) > self._most:
            Status(500, "Internal Server Error").happen(exchange)
        else:
            exchange.forward()
