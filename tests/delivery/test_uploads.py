"""Artifacts and their removals on their way to a real platform: in their order, and never one too many."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pytest

from mantik.delivery.journal import JournalWriter
from mantik.delivery.ledger import Counts, entity_of
from mantik.delivery.records import Artifact, Record, Removal, encode
from mantik.delivery.requests import Sender
from mantik.delivery.rest import MlflowApi, UnavailableError
from mantik.delivery.shipper import Shipper
from mantik.delivery.spool import Outgoing
from mantik.testing import LoseAcknowledgement, Refuse, Status

from .sample import begun

if TYPE_CHECKING:
    from pathlib import Path

    from mantik.delivery.ids import Identities
    from mantik.testing import FaultProxy, Platform

FILES = "/api/2.0/mlflow-artifacts/artifacts"


class Uploads:
    """A run on the platform, and a folder from which artifacts are shipped to it."""

    def __init__(self, api: MlflowApi, ids: Identities, path: Path) -> None:
        self._api = api
        self._ids = ids
        self._source = path / "source"
        self.outgoing = Outgoing(path / "outgoing")
        create = begun(ids)
        Sender(api, ids, self.outgoing.staging).send(create)
        self.run_id = ids.server_id(create.local_id)
        self.root = f"mlflow-artifacts:/0/{create.local_id}/artifacts"

    def artifact(self, path: str, content: str) -> Artifact:
        """Stage a file."""
        self._source.write_text(content)
        return Artifact(f"{self.root}/{path}", *self.outgoing.staging.take(self._source))

    def removal(self, path: str) -> Removal:
        """Return the removal of a file or folder; of everything for an empty path."""
        return Removal(f"{self.root}/{path}".rstrip("/"))

    def ship(self, *records: Record) -> Shipper:
        """Record, and ship all that was not shipped yet."""
        writer = JournalWriter(self.outgoing.uploads.journal)
        for record in records:
            writer.append(encode(record))
        writer.close()
        shipper = Shipper(self.outgoing, self.outgoing.uploads, self._api, self._ids, tail="closed")
        while shipper.ship():
            pass
        return shipper


@pytest.fixture
def uploads(api: MlflowApi, ids: Identities, tmp_path: Path) -> Uploads:
    """Return what ships artifacts to a new run."""
    return Uploads(api, ids, tmp_path)


def test_removals_are_made_in_their_place(uploads: Uploads, mantik_platform: Platform) -> None:
    """A file, a folder and everything go when it is their turn; what comes after them is there."""
    held = mantik_platform.read_back
    names = ("a.txt", "b.txt", "folder/c.txt", "folder/deep/d.txt", "folder.txt", "größe & 100%.txt")
    first = [uploads.artifact(name, f"first {name}") for name in names]
    shipper = uploads.ship(*first, uploads.removal("a.txt"), uploads.removal("größe & 100%.txt"))
    assert shipper.refused == {}
    assert shipper.sent[entity_of(first[0])] == Counts(artifacts=6, size=sum(a.size for a in first), others=2)
    assert held.artifacts(uploads.run_id) == ["b.txt", "folder.txt", "folder/c.txt", "folder/deep/d.txt"]
    uploads.ship(uploads.removal("folder"), uploads.artifact("folder/c.txt", "second"))
    assert held.artifacts(uploads.run_id) == ["b.txt", "folder.txt", "folder/c.txt"]
    assert held.download(uploads.run_id, "folder/c.txt") == b"second"
    uploads.ship(uploads.removal(""), uploads.artifact("last.txt", "last"))
    assert held.artifacts(uploads.run_id) == ["last.txt"]
    assert uploads.outgoing.quarantine.count() == 0


@pytest.mark.parametrize("path", ["nothing.txt", "no/folder", ""])
def test_what_is_not_there_is_removed_already(uploads: Uploads, path: str) -> None:
    """A file that never was, and a run without artifacts, are no refusals."""
    shipper = uploads.ship(uploads.removal(path))
    assert (shipper.refused, uploads.outgoing.uploads.waiting()) == ({}, 0)


@pytest.mark.parametrize(
    "answer",
    [
        Status(404, json.dumps({"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "No such artifact"})),
        Status(404, "Not Found"),
        Status(500, json.dumps({"error_code": "INTERNAL_ERROR", "message": "No such file or directory"})),
    ],
    ids=["404", "404 of a proxy", "500"],
)
def test_a_store_that_complains_of_what_is_not_there_holds_up_nothing(
    uploads: Uploads, mantik_proxy: FaultProxy, mantik_platform: Platform, answer: Status
) -> None:
    """Stores say in different ways that there is nothing to remove, and mantik looks before it takes that for more."""
    with mantik_proxy.fault(answer, re.compile(FILES), method="DELETE") as switch:
        shipper = uploads.ship(uploads.removal("never.txt"), uploads.artifact("after.txt", "after"))
    assert (switch.hits, shipper.refused) == (1, {})
    assert mantik_platform.read_back.artifacts(uploads.run_id) == ["after.txt"]


@pytest.mark.parametrize("status", [404, 405, 501])
def test_a_platform_that_removes_nothing_refuses_a_removal(
    uploads: Uploads, mantik_proxy: FaultProxy, mantik_platform: Platform, status: int
) -> None:
    """Where the method is forbidden and the file is there, the removal is kept with the reason and the rest goes on."""
    uploads.ship(uploads.artifact("a.txt", "stays"))
    with mantik_proxy.fault(Status(status, "no"), re.compile(FILES), method="DELETE"):
        uploads.ship(uploads.removal("a.txt"), uploads.artifact("b.txt", "after"))
    assert mantik_platform.read_back.artifacts(uploads.run_id) == ["a.txt", "b.txt"]
    (refusal,) = uploads.outgoing.quarantine.refusals()
    assert (refusal.what, refusal.content) == (f"removal of {uploads.root}/a.txt", ["removal", f"{uploads.root}/a.txt"])
    assert refusal.reason == f"the platform removes no artifacts (HTTP {status})"


@pytest.mark.parametrize("fault", [Refuse(), LoseAcknowledgement(), Status(503), Status(500)])
def test_an_interrupted_removal_is_made_with_the_next_attempt(
    uploads: Uploads, mantik_proxy: FaultProxy, mantik_platform: Platform, fault: Refuse
) -> None:
    """Whatever the first attempt met, the file is gone after the second one, and what waits behind it arrives."""
    uploads.ship(uploads.artifact("a.txt", "short-lived"))
    with (
        mantik_proxy.fault(fault, re.compile(FILES), method="DELETE", times=1) as switch,
        pytest.raises(UnavailableError),
    ):
        uploads.ship(uploads.removal("a.txt"), uploads.artifact("b.txt", "after"))
    assert switch.hits == 1
    uploads.ship()
    assert mantik_platform.read_back.artifacts(uploads.run_id) == ["b.txt"]
    assert uploads.outgoing.quarantine.count() == 0


@pytest.mark.parametrize(
    ("uri", "reason"),
    [
        ("mlflow-artifacts:/", "not among the artifacts"),
        ("mlflow-artifacts:/0", "not among the artifacts"),
        ("mlflow-artifacts:/0/RUN", "not among the artifacts"),
        ("mlflow-artifacts:/0/RUN/artifacts/../../", "leads elsewhere"),
        ("file:///0/RUN/artifacts", "no part in them"),
    ],
)
def test_a_removal_of_more_than_a_run_has_is_refused(
    uploads: Uploads, mantik_proxy: FaultProxy, uri: str, reason: str
) -> None:
    """A record that was changed by hand removes nothing else, and nothing is asked of the platform."""
    uploads.ship(Removal(uri.replace("RUN", uploads.run_id)))
    (refusal,) = uploads.outgoing.quarantine.refusals()
    assert reason in refusal.reason
    assert not [request for request in mantik_proxy.requests if request.method == "DELETE"]


@pytest.mark.parametrize("name", ["file.txt", "m/MLmodel"])
@pytest.mark.parametrize("moment", ["recorded", "marked", "deleted"])
def test_a_superseded_copy_is_passed_over_whenever_its_process_died(
    uploads: Uploads, mantik_platform: Platform, moment: str, name: str
) -> None:
    """With both copies on disk, with a mark beside the older one, and with the mark alone the newer one arrives."""
    older, newer = uploads.artifact(name, "older"), uploads.artifact(name, "newer one")
    if moment == "marked":
        uploads.outgoing.staging.path(f"{older.staged}.gone").touch()
    elif moment == "deleted":
        uploads.outgoing.staging.discard(older.staged)
    shipper = uploads.ship(older, newer)
    assert mantik_platform.read_back.download(uploads.run_id, name) == b"newer one"
    entity = entity_of(newer)
    passed_over = moment != "recorded"
    assert shipper.sent[entity].artifacts == (1 if passed_over else 2)
    assert shipper.settled[entity].artifacts == 2
    assert uploads.outgoing.quarantine.count() == 0
    assert list(uploads.outgoing.staging.path("").iterdir()) == []


def test_a_superseded_copy_of_a_refused_run_is_no_refusal(
    uploads: Uploads, ids: Identities, mantik_platform: Platform
) -> None:
    """What nobody wants any more is not kept for the sake of a run that the platform will not have."""
    refused = begun(ids)
    ids.refuse(refused.local_id, "the experiment is deleted")
    older, newer = (
        Artifact(f"mlflow-artifacts:/0/{refused.local_id}/artifacts/a.txt", a.staged, a.size)
        for a in (uploads.artifact("", "older"), uploads.artifact("", "newer"))
    )
    uploads.outgoing.staging.discard(older.staged)
    assert uploads.ship(older, newer).refused == {refused.local_id: 1}
    assert [refusal.content for refusal in uploads.outgoing.quarantine.refusals()] == [newer.as_list()]


def test_a_removal_that_is_delivered_again_removes_nothing_newer(uploads: Uploads, mantik_platform: Platform) -> None:
    """With the cursor lost a removal is not repeated over a file that was uploaded after it and cannot be again."""
    first = [uploads.artifact(name, "first") for name in ("a.txt", "folder/b.txt", "c.txt")]
    second = [uploads.artifact(name, "second") for name in ("a.txt", "folder/b.txt")]
    removals = [uploads.removal(name) for name in ("a.txt", "folder", "c.txt")]
    uploads.ship(*first, *removals, *second)
    uploads.outgoing.uploads.cursor.path.unlink()
    again = uploads.artifact("c.txt", "waits")
    uploads.ship(again)
    held = mantik_platform.read_back
    assert held.artifacts(uploads.run_id) == ["a.txt", "c.txt", "folder/b.txt"]
    assert [held.download(uploads.run_id, name) for name in ("a.txt", "folder/b.txt")] == [b"second"] * 2
