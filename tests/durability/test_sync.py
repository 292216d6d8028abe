"""What `mantik sync` does with journals whose process is gone."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from mantik.delivery.creation import OPERATION_TAG
from mantik.delivery.ids import Identity, new_id, operation_of
from mantik.delivery.journal import JournalWriter
from mantik.delivery.owner import Owner
from mantik.delivery.records import Artifact, Create, encode, encode_batch
from mantik.delivery.spool import Outgoing, identities_of
from mantik.delivery.sync import survey
from mantik.settings import Settings
from mantik.testing import Delay, FaultProxy, Status, wait_until
from tests.forked import fork_mantik, fork_script, run_forked
from tests.scripts import clean_environment, run_script

if TYPE_CHECKING:
    from mantik.testing import Platform
    from tests.forked import Forked

POINTS = 3000

LAST_WRITE = 1_700_000_000.0
"""When the journals of these tests were written last, in seconds since 1970."""

NOTHING = {"metrics": 0, "params": 0, "tags": 0, "changes": 0, "artifacts": 0, "size": 0, "others": 0, "refused": 0}


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
    last_written_at(outgoing, LAST_WRITE)
    outgoing.open_run(run_id)
    return outgoing


def last_written_at(outgoing: Outgoing, moment: float) -> None:
    """Let both journals have been written last at a moment, in seconds since 1970."""
    for segment in outgoing.path.glob("*/*.segment"):
        os.utime(segment, (moment, moment))


def left_behind_provisional(settings: Settings, uri: str, *, points: int = 10) -> tuple[Outgoing, str]:
    """Leave a journal behind as a process does that vanished without having met the platform."""
    local_id = new_id("run")
    tags = [{"key": OPERATION_TAG, "value": operation_of(local_id)}]
    body = {"experiment_id": "0", "start_time": 1000, "run_name": "left behind", "tags": tags}
    identities_of(settings.spool).note(Identity(local_id, "run", f"mlflow-artifacts:/0/{local_id}/artifacts", body))
    outgoing = Outgoing.create(settings.spool, dead(Owner.here(uri, settings.username, None, ships=False)))
    writer = JournalWriter(outgoing.points.journal)
    writer.append(encode(Create("run", local_id, None, body)))
    for step in range(points):
        writer.append(encode_batch(local_id, [["loss", step / 3, 2000 + step, step]], [], []))
    writer.close()
    last_written_at(outgoing, LAST_WRITE)
    outgoing.open_run(local_id)
    return outgoing, local_id


def server_id_of(settings: Settings, local_id: str) -> str:
    """Return the platform's id of a run that began without it."""
    return identities_of(settings.spool).server_id(local_id)


def sync(environment: dict[str, str], *arguments: str) -> Forked:
    """Start a sync."""
    return fork_mantik("sync", "--json", *arguments, environment=environment)


def assert_delivered(platform: Platform, run_id: str, points: int = POINTS) -> None:
    """Check that every point is there once, at its time, and that the run was ended when its journal was."""
    held = platform.read_back
    history = held.metric_history(run_id, "loss")
    expected = [(step, step / 3, 2000 + step) for step in range(points)]
    assert [(point.step, point.value, point.timestamp) for point in history] == expected
    run = held.run(run_id)
    assert (run.status, run.end_time) == ("KILLED", int(LAST_WRITE * 1000))


def test_two_syncs_at_once_deliver_everything_once(
    mantik_platform: Platform, environment: dict[str, str], settings: Settings
) -> None:
    """Four syncs that start together share five journals: nothing twice, nothing left, no error."""
    runs = [create_run(mantik_platform) for _ in range(5)]
    for run_id in runs:
        left_behind(settings, mantik_platform.url, run_id, points=1200)
    with ThreadPoolExecutor(4) as pool:
        done = list(pool.map(lambda _: sync(environment).communicate(timeout=120), range(4)))
    assert all("Traceback" not in errors for _, errors in done), done
    again = sync(environment)
    again.communicate(timeout=120)
    assert again.returncode == 0
    for run_id in runs:
        assert_delivered(mantik_platform, run_id, points=1200)
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
    assert output == ""
    assert outgoing.quarantine.count() == 1


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
    assert outgoing.points.journal.exists()
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


@pytest.mark.parametrize(("written", "end"), [(0.5, 1000), (7.25, 7250)])
def test_a_run_that_was_left_open_ends_when_its_journal_was_written_last(
    written: float,
    end: int,
    mantik_platform: Platform,
    environment: dict[str, str],
    settings: Settings,
) -> None:
    """Points may carry any time; the file system tells the end of a run that was left open, never before its start."""
    run_id = create_run(mantik_platform)
    outgoing = left_behind(settings, mantik_platform.url, run_id, points=0)
    writer = JournalWriter(outgoing.points.journal)
    writer.append(encode_batch(run_id, [["loss", 1.0, 4_000_000_000_000, 1]], [], []))
    writer.close()
    last_written_at(outgoing, written)
    sync(environment).communicate(timeout=60)
    held = mantik_platform.read_back
    assert held.run(run_id).end_time == end
    assert [point.timestamp for point in held.metric_history(run_id, "loss")] == [4_000_000_000_000]


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


def test_a_process_that_nobody_waits_for_is_gone(settings: Settings) -> None:
    """A killed training whose parent never asks for its end, as in many containers, does not count as alive."""
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    started = Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()[19]
    owner = replace(Owner.here("https://platform.example.org", "ada", None), pid=child.pid, started=int(started))
    outgoing = Outgoing.create(settings.spool, owner)
    assert outgoing.is_live(owner)
    child.kill()
    wait_until(lambda: not outgoing.is_live(owner), what="its death is noticed")
    assert Path(f"/proc/{child.pid}").exists()
    assert child.wait(10) == -signal.SIGKILL


def test_a_run_is_chosen_by_either_of_its_ids(
    mantik_platform: Platform, environment: dict[str, str], settings: Settings
) -> None:
    """Only folders that speak of the given run are sent, whether they know it by the platform's id or by their own."""
    other, chosen = create_run(mantik_platform), create_run(mantik_platform)
    waits = left_behind(settings, mantik_platform.url, other, points=10)
    left_behind(settings, mantik_platform.url, chosen, points=10)
    _, local_id = left_behind_provisional(settings, mantik_platform.url)
    for run_id, closed in ((chosen, chosen), (local_id, local_id)):
        output, errors = sync(environment, run_id).communicate(timeout=60)
        assert json.loads(output)["closed_runs"] == [closed], output + errors
    server_id = server_id_of(settings, local_id)
    # Another process logged to the same run, and knew its provisional id alone.
    late = Outgoing.create(settings.spool, dead(Owner.here(mantik_platform.url, settings.username, None)))
    writer = JournalWriter(late.points.journal)
    writer.append(encode_batch(local_id, [["late", 1.0, 1, 1]], [], []))
    writer.close()
    output, errors = sync(environment, server_id).communicate(timeout=60)
    assert json.loads(output)["sent"] == {**NOTHING, "metrics": 1}, output + errors
    assert_delivered(mantik_platform, chosen, points=10)
    assert_delivered(mantik_platform, server_id, points=10)
    assert mantik_platform.read_back.run(server_id).metrics["late"] == 1.0
    assert mantik_platform.read_back.metric_history(other, "loss") == []
    assert [state.outgoing.path for state in survey(settings)] == [waits.path]


def test_the_receipts_command_sends_the_files_of_a_model_too(
    mantik_platform: Platform, environment: dict[str, str], settings: Settings, tmp_path: Path
) -> None:
    """Where nothing but a model's files wait, the command with the run's id that the receipt names sends them."""
    with FaultProxy(mantik_platform.url) as proxy:
        proxy.fault(Status(503), path="/api/2.0/mlflow-artifacts/", method="PUT")
        output = run_forked(
            """
            import mantik, mlflow, mlflow.pyfunc

            class Model(mlflow.pyfunc.PythonModel):
                def predict(self, context, model_input: list[str]) -> list[str]:
                    return model_input

            mantik.init_tracking()
            with mlflow.start_run() as run:
                mlflow.pyfunc.log_model(name="model", python_model=Model(), pip_requirements=[])
            print("RUN", run.info.run_id)
            """,
            {**environment, "MLFLOW_TRACKING_URI": proxy.url, "MANTIK_EXIT_TIMEOUT": "2"},
            tmp_path,
        )
        proxy.clear()
        (command,) = [line for line in output.splitlines() if " mantik sync " in line]
        done, errors = sync(environment, command.split()[-1]).communicate(timeout=60)
    assert json.loads(done)["sent"]["artifacts"] > 1, output + done + errors
    assert list(survey(settings)) == []


def test_what_is_kept_is_sent_once(
    mantik_platform: Platform, environment: dict[str, str], settings: Settings, tmp_path: Path
) -> None:
    """With --keep segments and staged files stay, and the next sync has nothing to send and nothing to say."""
    run_id = create_run(mantik_platform)
    outgoing = left_behind(settings, mantik_platform.url, run_id, points=10)
    (tmp_path / "note.txt").write_text("kept")
    staged, size = outgoing.staging.take(tmp_path / "note.txt")
    writer = JournalWriter(outgoing.uploads.journal)
    writer.append(encode(Artifact(f"mlflow-artifacts:/0/{run_id}/artifacts/note.txt", staged, size)))
    writer.close()
    last_written_at(outgoing, LAST_WRITE)
    output, errors = sync(environment, "--keep").communicate(timeout=60)
    sent = json.loads(output)["sent"]
    assert sent == {**NOTHING, "metrics": 10, "artifacts": 1, "size": 4}, output + errors
    with FaultProxy(mantik_platform.url) as proxy:
        again = {**environment, "MLFLOW_TRACKING_URI": proxy.url}
        for arguments in (("--keep",), ()):
            assert sync(again, *arguments).communicate(timeout=60) == ("", "")
        assert proxy.requests == []
    assert_delivered(mantik_platform, run_id, points=10)
    assert mantik_platform.read_back.download(run_id, "note.txt") == b"kept"
    assert list(outgoing.points.journal.glob("*.segment"))
    assert list(outgoing.uploads.journal.glob("*.segment"))
    assert outgoing.staging.path(staged).read_text() == "kept"


def test_folders_that_need_each_other_are_sent_by_one_sync(
    mantik_platform: Platform, environment: dict[str, str], settings: Settings
) -> None:
    """Points of a run that a later folder creates wait for it and arrive in the same sync; ids are remembered."""
    owner = replace(dead(Owner.here(mantik_platform.url, settings.username, None)), created_at=1.0)
    first = Outgoing.create(settings.spool, owner)
    _, local_id = left_behind_provisional(settings, mantik_platform.url)
    writer = JournalWriter(first.points.journal)
    writer.append(encode_batch(local_id, [["other", 2.0, 1, 1]], [], []))
    writer.close()
    assert next(survey(settings)).outgoing == first
    process = sync(environment)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 0, output + errors
    assert sum(json.loads(line)["sent"]["metrics"] for line in output.splitlines()) == 11
    server_id = server_id_of(settings, local_id)
    assert_delivered(mantik_platform, server_id, points=10)
    assert mantik_platform.read_back.run(server_id).metrics["other"] == 2.0
    # What the ids became is no folder of records, and stays.
    assert list(survey(settings)) == []
    assert [entry.name for entry in settings.spool.iterdir()] == ["ids"]
    assert sync(environment).communicate(timeout=60) == ("", "")


def test_a_sync_imports_no_mlflow(
    mantik_platform: Platform, environment: dict[str, str], settings: Settings, tmp_path: Path
) -> None:
    """Records of every common kind are sent without the second that importing MLflow takes."""
    _, local_id = left_behind_provisional(settings, mantik_platform.url)
    run_script(
        """
        import sys
        from mantik.cli.commands import mantik

        try:
            mantik(["sync"])
        except SystemExit as end:
            assert not end.code
        assert "requests" in sys.modules
        assert not [name for name in sys.modules if name.partition(".")[0] == "mlflow"]
        """,
        environment,
        tmp_path,
    )
    assert_delivered(mantik_platform, server_id_of(settings, local_id), points=10)


def test_a_watching_sync_sends_what_an_offline_process_records(
    mantik_platform: Platform, environment: dict[str, str], settings: Settings, tmp_path: Path
) -> None:
    """While a process in offline mode goes on, its records arrive; its run stays open and its folder stays there."""
    code = """
        import sys
        import mantik, mlflow

        mantik.init_tracking()
        with mlflow.start_run() as run:
            print("RUN", run.info.run_id, flush=True)
            for step in range(100):
                if step == 50:
                    mlflow.log_text("first", "first.txt")
                    print("HALF", flush=True)
                    sys.stdin.readline()
                mlflow.log_metric("loss", step / 3, step=step, timestamp=2000 + step)
            mlflow.log_text("second", "second.txt")
        """
    training = fork_script(code, {**environment, "MANTIK_MODE": "offline"}, tmp_path)
    local_id = next(line for line in training.stdout if line.startswith("RUN ")).split()[1]
    assert "HALF\n" in training.stdout
    watching = sync(environment, "--watch")
    held = mantik_platform.read_back

    def arrived(name: str) -> bool:
        identity = identities_of(settings.spool).get(local_id)
        server_id = identity.server_id if identity is not None else None
        return server_id is not None and name in held.artifacts(server_id)

    wait_until(lambda: arrived("first.txt"), deadline=30, what="the first half")
    server_id = server_id_of(settings, local_id)
    assert [point.step for point in held.metric_history(server_id, "loss")] == list(range(50))
    assert held.run(server_id).status == "RUNNING"
    (state,) = survey(settings)
    assert state.live
    output, _ = training.communicate("\n", timeout=60)
    assert training.returncode == 0, output
    sent = 0
    while sent < 100:
        sent += json.loads(watching.stdout.readline())["sent"]["metrics"]
    assert sent == 100
    watching.send_signal(signal.SIGINT)
    assert watching.communicate(timeout=30) == ("", "")
    assert watching.returncode == 0
    assert list(survey(settings)) == []
    history = [(point.step, point.value, point.timestamp) for point in held.metric_history(server_id, "loss")]
    assert history == [(step, step / 3, 2000 + step) for step in range(100)]
    assert held.artifacts(server_id) == ["first.txt", "second.txt"]
    assert held.run(server_id).status == "FINISHED"
