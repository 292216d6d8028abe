"""What `mantik sync` does with journals whose process is gone."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from mantik.delivery.journal import JournalWriter
from mantik.delivery.records import encode_batch
from mantik.delivery.spool import Outgoing, Owner
from mantik.delivery.sync import survey
from mantik.settings import Settings
from mantik.testing import Delay, FaultProxy, wait_until
from tests.scripts import clean_environment

if TYPE_CHECKING:
    from pathlib import Path

    from mantik.testing import Platform

POINTS = 3000


@pytest.fixture
def environment(mantik_platform: Platform, tmp_path: Path) -> dict[str, str]:
    """Return the environment of a user of the platform."""
    return clean_environment(mantik_platform.environment(), tmp_path)


@pytest.fixture
def settings(environment: dict[str, str]) -> Settings:
    """Return that user's settings."""
    return Settings.from_environment(environment)


def create_run(platform: Platform) -> str:
    """Create a run on the platform and return its id."""
    created = platform.read_back._call("POST", "runs/create", {"experiment_id": "0", "start_time": 1000})  # noqa: SLF001
    return str(created["run"]["info"]["run_id"])


def dead(owner: Owner) -> Owner:
    """Return an owner whose process is gone: its id belongs to another one by now."""
    return replace(owner, started=owner.started - 1)


def left_behind(settings: Settings, uri: str, run_id: str, points: int = POINTS) -> Outgoing:
    """Leave a journal behind as a process does that vanished with a run open."""
    outgoing = Outgoing.create(settings.spool, dead(Owner.here(uri, settings.username, None)))
    writer = JournalWriter(outgoing.points.journal)
    for step in range(points):
        writer.append(encode_batch(run_id, [["loss", step / 3, 2000 + step, step]], [], []))
    writer.close()
    outgoing.open_run(run_id)
    return outgoing


def sync(environment: dict[str, str]) -> subprocess.Popen[str]:
    """Start a sync."""
    return subprocess.Popen(
        [sys.executable, "-m", "mantik", "sync", "--json"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def assert_delivered(platform: Platform, run_id: str, points: int = POINTS) -> None:
    """Check that every point is there once, and that the run was ended at its last point."""
    held = platform.read_back
    history = held.metric_history(run_id, "loss")
    assert [(point.step, point.value) for point in history] == [(step, step / 3) for step in range(points)]
    run = held.run(run_id)
    assert (run.status, run.end_time) == ("KILLED", 2000 + points - 1)


def test_two_syncs_at_once_deliver_everything_once(
    mantik_platform: Platform, environment: dict[str, str], settings: Settings
) -> None:
    """Four syncs that start together share five journals: nothing twice, nothing left, no error."""
    runs = [create_run(mantik_platform) for _ in range(5)]
    for run_id in runs:
        left_behind(settings, mantik_platform.url, run_id)
    with ThreadPoolExecutor(4) as pool:
        done = list(pool.map(lambda _: sync(environment).communicate(timeout=120), range(4)))
    assert all("Traceback" not in errors for _, errors in done), done
    again = sync(environment)
    again.communicate(timeout=120)
    assert again.returncode == 0
    for run_id in runs:
        assert_delivered(mantik_platform, run_id)
    assert list(survey(settings)) == []


@pytest.mark.parametrize("requests", [1, 3, 4])
def test_a_killed_sync_leaves_everything_for_the_next(
    requests: int, mantik_platform: Platform, environment: dict[str, str], settings: Settings
) -> None:
    """A sync that is killed after any of its requests harms nothing: the next one delivers the rest, none twice."""
    run_id = create_run(mantik_platform)
    with FaultProxy(mantik_platform.url) as proxy:
        left_behind(settings, proxy.url, run_id)
        proxy.fault(Delay(0.2))
        first = sync(environment)
        wait_until(lambda: proxy.count("/api/2.0/mlflow/") >= requests, deadline=60, what="it is at work")
        first.send_signal(signal.SIGKILL)
        first.communicate(timeout=60)
        proxy.clear()
        output, errors = sync(environment).communicate(timeout=120)
        assert json.loads(output)["problem"] is None, output + errors
    assert_delivered(mantik_platform, run_id)


def test_a_damaged_journal_is_delivered_as_far_as_it_can_be_read(
    mantik_platform: Platform, environment: dict[str, str], settings: Settings
) -> None:
    """A flipped byte costs the record it is in, which is kept with a reason; everything else arrives."""
    run_id = create_run(mantik_platform)
    outgoing = left_behind(settings, mantik_platform.url, run_id, points=100)
    (segment,) = outgoing.points.journal.glob("*.segment")
    content = bytearray(segment.read_bytes())
    place = content.index(b'"loss"', len(content) // 2)
    content[place + 2] ^= 0x01
    segment.write_bytes(content)
    output, errors = sync(environment).communicate(timeout=120)
    report = json.loads(output)
    assert (report["sent"]["metrics"], report["sent"]["refused"]) == (99, 1), output + errors
    assert len(mantik_platform.read_back.metric_history(run_id, "loss")) == 99
    (refusal,) = outgoing.quarantine.refusals()
    assert "bytes of the journal" in refusal.what
    # It stays until somebody has looked at it, and is not delivered again.
    output, _ = sync(environment).communicate(timeout=120)
    assert json.loads(output)["sent"] == {"metrics": 0, "params": 0, "tags": 0, "updates": 0, "refused": 0}


def test_who_is_alive_is_told_by_more_than_a_process_id(settings: Settings) -> None:
    """A live writer here, one whose id was given to another process, one of an earlier boot, and other machines."""
    here = Owner.here("https://platform.example.org", "ada", None)
    old = 1_000_000_000
    cases = [
        (here, None, True),
        (dead(here), None, False),
        (replace(here, pid=2**22 + 1), None, False),
        (replace(here, boot="another-boot"), None, False),
        (replace(here, host="another-node"), None, True),
        (replace(here, host="another-node"), old, False),
    ]
    for owner, last_sign, live in cases:
        outgoing = Outgoing.create(settings.spool, owner)
        if last_sign is not None:
            os.utime(outgoing.path / "owner.json", (last_sign, last_sign))
        assert outgoing.owner() == owner
        assert outgoing.is_live(owner) is live, owner


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"format": 2}', b'{"format": 1, "tracking_uri": "x"}'])
def test_a_folder_that_does_not_say_whose_it_is_stays_as_it_is(
    content: bytes, mantik_platform: Platform, environment: dict[str, str], settings: Settings
) -> None:
    """A damaged or newer owner.json is one clear sentence; nothing is sent anywhere, nothing is deleted."""
    run_id = create_run(mantik_platform)
    outgoing = left_behind(settings, mantik_platform.url, run_id, points=5)
    (outgoing.path / "owner.json").write_bytes(content)
    process = sync(environment)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "owner.json" in json.loads(output)["problem"]
    assert outgoing.journal.exists()
    assert mantik_platform.read_back.metric_history(run_id, "loss") == []


def test_a_run_that_went_on_elsewhere_is_not_ended(
    mantik_platform: Platform, environment: dict[str, str], settings: Settings
) -> None:
    """A vanished process's run that a live process has open stays RUNNING."""
    run_id = create_run(mantik_platform)
    left_behind(settings, mantik_platform.url, run_id, points=5)
    alive = Outgoing.create(settings.spool, Owner.here(mantik_platform.url, settings.username, None))
    alive.open_run(run_id)
    output, errors = sync(environment).communicate(timeout=60)
    assert json.loads(output)["closed_runs"] == [], output + errors
    assert mantik_platform.read_back.run(run_id).status == "RUNNING"
    assert len(mantik_platform.read_back.metric_history(run_id, "loss")) == 5


def test_a_deleted_run_is_quarantined_and_harms_no_other(
    mantik_platform: Platform, environment: dict[str, str], settings: Settings
) -> None:
    """Records of a run that is gone are kept with the server's reason; those of another run arrive."""
    gone, there = "0" * 32, create_run(mantik_platform)
    outgoing = left_behind(settings, mantik_platform.url, gone, points=10)
    left_behind(settings, mantik_platform.url, there, points=10)
    sync(environment).communicate(timeout=60)
    assert_delivered(mantik_platform, there, points=10)
    reasons = {refusal.reason for refusal in outgoing.quarantine.refusals()}
    assert len(reasons) == 1
    assert "not found" in reasons.pop()


@pytest.mark.parametrize(("moment", "end"), [(1, 1000), (4_000_000_000_000, None)])
def test_a_run_ends_neither_before_its_start_nor_in_the_future(
    moment: int,
    end: int | None,
    mantik_platform: Platform,
    environment: dict[str, str],
    settings: Settings,
) -> None:
    """Points may carry any time; the end of a run that was left open stays between its start and the last sign."""
    run_id = create_run(mantik_platform)
    outgoing = left_behind(settings, mantik_platform.url, run_id, points=0)
    writer = JournalWriter(outgoing.points.journal)
    writer.append(encode_batch(run_id, [["loss", 1.0, moment, 1]], [], []))
    writer.close()
    expected = end if end is not None else outgoing.last_sign()
    sync(environment).communicate(timeout=60)
    assert mantik_platform.read_back.run(run_id).end_time == expected


def test_another_users_password_is_not_used(
    mantik_platform: Platform, environment: dict[str, str], settings: Settings
) -> None:
    """A folder of another platform user is not shipped under the present one's name or password."""
    run_id = create_run(mantik_platform)
    mantik_platform.add_user("hedy", "frequency hopping 1942")
    outgoing = Outgoing.create(settings.spool, dead(Owner.here(mantik_platform.url, "hedy", None)))
    writer = JournalWriter(outgoing.points.journal)
    writer.append(encode_batch(run_id, [["loss", 1.0, 1, 1]], [], []))
    writer.close()
    output, _ = sync(environment).communicate(timeout=60)
    assert "'hedy' is not logged in" in json.loads(output)["problem"]
    assert mantik_platform.read_back.metric_history(run_id, "loss") == []
    hers = {**environment, "MANTIK_USERNAME": "hedy", "MANTIK_PASSWORD": "frequency hopping 1942"}
    sync(hers).communicate(timeout=60)
    assert len(mantik_platform.read_back.metric_history(run_id, "loss")) == 1
