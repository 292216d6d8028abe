from __future__ import annotations

import contextlib
import json
import os
import pty
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from mantik.delivery.ids import Identity, new_id
from mantik.delivery.owner import Owner
from mantik.delivery.records import Artifact, Batch, Create, RunUpdate, encode_batch
from mantik.delivery.spool import Outgoing, identities_of
from mantik.settings import Settings
from tests.scripts import clean_environment
from tests.spools import append, create_run, leave, mantik, stage

if TYPE_CHECKING:
    from pathlib import Path

    from mantik.testing import Platform

PLATFORM = "https://platform.example.org"
RUN = "a" * 32


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Return the environment of a user whose platform nobody can reach."""
    user = {"MANTIK_USERNAME": "ada", "MANTIK_PASSWORD": "analytical engine"}
    return clean_environment({"MLFLOW_TRACKING_URI": "http://127.0.0.1:9", **user}, tmp_path)


@pytest.fixture
def settings(environment: dict[str, str]) -> Settings:
    """Return that user's settings."""
    return Settings.from_environment(environment)


def points(run_id: str, count: int) -> list[Batch]:
    """Return records with one point each."""
    return [Batch(run_id, [["loss", step / 3, 2000 + step, step]], [], []) for step in range(count)]


def folders_by_state(settings: Settings, folder: Path) -> dict[str, Outgoing]:
    """Leave one folder in each state."""
    gone = leave(settings, PLATFORM, [*points(RUN, 3), Batch(RUN, [], [["depth", "3"]], [["kind", "first"]])])
    append(gone.uploads, [])
    name = stage(gone, folder, "hello")
    append(gone.uploads, [b'["artifact","mlflow-artifacts:/0/%b/artifacts/a.txt","%b",5]' % (b"a" * 32, name.encode())])
    running = Outgoing.create(settings.spool, Owner.here(PLATFORM, "ada", None))
    append(running.points, [encode_batch(RUN, [["loss", 1.0, 1, 1]], [], [])])
    offline = Outgoing.create(settings.spool, Owner.here(PLATFORM, None, None, ships=False))
    append(offline.points, [encode_batch(RUN, [["loss", 1.0, 1, 1]], [], [])])
    kept = leave(settings, PLATFORM, [])
    kept.quarantine.add("no such run", RUN, "param 'depth'", Batch(RUN, [], [["depth", "4"]], []).as_list())
    kept.mark_kept("refused")
    return {"gone": gone, "running and sends by itself": running, "running in offline mode": offline, "kept": kept}


def test_list_shows_each_folder_with_its_state_and_what_waits(
    environment: dict[str, str], settings: Settings, tmp_path: Path
) -> None:
    """One line a folder without control characters; the same as JSON, with counts of each kind."""
    folders = folders_by_state(settings, tmp_path)
    done = mantik("spool", "list", environment=environment)
    assert (done.returncode, done.stderr) == (0, "")
    assert "\x1b" not in done.stdout
    lines = {line.split("\t")[0]: line.split("\t") for line in done.stdout.splitlines()}
    assert len(lines) == 4
    for state, outgoing in folders.items():
        assert lines[outgoing.path.name][4] == state
    assert lines[folders["gone"].path.name][5] == "3 points, 1 param, 1 tag, 1 artifact (5 B)"
    assert lines[folders["kept"].path.name][5:7] == ["nothing", "1 refused"]
    listed = [
        json.loads(line) for line in mantik("spool", "list", "--json", environment=environment).stdout.splitlines()
    ]
    found = {entry["name"]: entry for entry in listed}
    gone = found[folders["gone"].path.name]
    assert gone["waiting"] == {
        "metrics": 3, "params": 1, "tags": 1, "changes": 0, "artifacts": 1, "size": 5, "others": 0
    }  # fmt: skip
    assert (gone["platform"], gone["user"], gone["live"], gone["uncounted_bytes"]) == (PLATFORM, "ada", False, 0)
    assert found[folders["kept"].path.name]["refused"] == 1
    assert found[folders["running in offline mode"].path.name]["pid"] == os.getpid()


def test_a_long_journal_is_not_read_for_the_list(environment: dict[str, str], settings: Settings) -> None:
    """Of many megabytes the size is named; `show` counts them."""
    outgoing = leave(settings, PLATFORM, [Batch(RUN, [["loss", 1.0, 1, step] for step in range(400_000)], [], [])])
    (entry,) = [
        json.loads(line) for line in mantik("spool", "list", "--json", environment=environment).stdout.splitlines()
    ]
    assert entry["waiting"]["metrics"] == 0
    assert entry["uncounted_bytes"] == entry["waiting_bytes"] == outgoing.points.waiting()
    assert "400,000 points" in mantik("spool", "show", environment=environment).stdout


def test_on_a_terminal_the_list_is_a_table(environment: dict[str, str], settings: Settings) -> None:
    """A terminal gets headings and aligned columns."""
    leave(settings, PLATFORM, points(RUN, 3))
    child, terminal = pty.fork()
    if child == 0:
        wide = {**environment, "COLUMNS": "200", "TERM": "xterm"}
        os.execve(sys.executable, [sys.executable, "-m", "mantik", "spool", "list"], wide)  # noqa: S606
    screen = b""
    # Reading fails when the last writer has closed the terminal.
    with contextlib.suppress(OSError):
        while part := os.read(terminal, 4096):
            screen += part
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    os.close(terminal)
    assert b"last record" in screen
    assert b"3 points" in screen


def test_show_tells_what_ids_became_and_why_records_were_refused(
    environment: dict[str, str], settings: Settings
) -> None:
    """What waits by run, the server's id of a provisional one, equal reasons once; as JSON all of it."""
    became, waits, refused = (new_id("run") for _ in range(3))
    identities = identities_of(settings.spool)
    for local_id in (became, waits, refused):
        identities.note(Identity(local_id, "run", "", {"experiment_id": "0"}))
    identities.settle(became, "b" * 32, "")
    identities.refuse(refused, "the run cannot be created")
    outgoing = leave(settings, PLATFORM, [*points(became, 2), *points(waits, 1), *points(refused, 1)])
    for number in range(5):
        outgoing.quarantine.add("a param was \x1b[31mchanged", RUN, f"param 'p{number}'", ["batch", RUN, [], [], []])
    shown = mantik("spool", "show", outgoing.path.name, environment=environment).stdout
    assert f"{became}\t2 points\tprovisional: {'b' * 32}" in shown
    assert f"{waits}\t1 point\tprovisional: not on the platform yet" in shown
    assert f"{refused}\t1 point\tprovisional: refused: the run cannot be created" in shown
    assert shown.count("changed") == 1
    assert "\x1b" not in shown
    assert str(outgoing.path) in shown
    entry = json.loads(mantik("spool", "show", "--json", environment=environment).stdout)
    assert entry["by_run"][became]["metrics"] == 2
    assert [refusal["what"] for refusal in entry["refusals"]] == [f"param 'p{number}'" for number in range(5)]
    assert entry["refusals"][0]["content"] == ["batch", RUN, [], [], []]


def test_a_folder_is_named_by_name_beginning_or_path(environment: dict[str, str], settings: Settings) -> None:
    """Anything unambiguous will do; what is not is said with the way to the names."""
    first, second = leave(settings, PLATFORM, points(RUN, 1)), leave(settings, PLATFORM, points(RUN, 2))
    for name in (first.path.name, first.path.name[:-2], str(first.path), f"{first.path}/"):
        shown = mantik("spool", "show", name, environment=environment)
        assert shown.stdout.splitlines()[0] == first.path.name, shown.stderr
    for name in (first.path.name[:4], "no-such-folder", ""):
        done = mantik("spool", "show", name, environment=environment)
        assert done.returncode == 1
        assert "'mantik spool list' names all of them" in done.stderr
    assert second.path.exists()


def test_what_was_refused_arrives_after_a_retry(
    mantik_platform: Platform, environment: dict[str, str], settings: Settings, tmp_path: Path
) -> None:
    """A whole run was refused because of its experiment; the cause is put right, and all of it arrives, once."""
    environment |= mantik_platform.environment()
    held = mantik_platform.read_back
    created = held._call("POST", "experiments/create", {"name": f"retry {tmp_path}"})  # noqa: SLF001
    experiment = {"experiment_id": created["experiment_id"]}
    held._call("POST", "experiments/delete", experiment)  # noqa: SLF001
    local_id = new_id("run")
    body = {**experiment, "start_time": 1000, "tags": [{"key": "mantik.op_id", "value": local_id.rpartition("-")[2]}]}
    root = f"mlflow-artifacts:/{experiment['experiment_id']}/{local_id}/artifacts"
    identities_of(settings.spool).note(Identity(local_id, "run", root, body))
    outgoing = leave(
        settings, mantik_platform.url, [Create("run", local_id, None, body), *points(local_id, 20)]
    )  # fmt: skip
    append(outgoing.points, [encode_batch(local_id, [], [["depth", "3"]], [["kind", "x"]]), b"[]"])
    name = stage(outgoing, tmp_path, "hello")
    append(outgoing.uploads, [b'["artifact","%b/sub/a.txt","%b",5]' % (root.encode(), name.encode())])
    append(outgoing.points, [json.dumps(RunUpdate(local_id, "FINISHED", 5000, None).as_list()).encode()])
    assert mantik("sync", environment=environment).returncode == 0
    (entry,) = [
        json.loads(line) for line in mantik("spool", "list", "--json", environment=environment).stdout.splitlines()
    ]
    assert (entry["state"], entry["refused"]) == ("kept", 26)

    held._call("POST", "experiments/restore", experiment)  # noqa: SLF001
    done = mantik("spool", "retry", environment=environment)
    assert "25 records taken back; 1 stay" in done.stdout, done.stderr
    assert [refusal.what for refusal in outgoing.quarantine.refusals()] == ["a record"]
    assert sorted(os.listdir(outgoing.quarantine.folder)) == ["records.jsonl"]  # noqa: PTH208
    assert mantik("sync", environment=environment).returncode == 0
    (run,) = held.runs(f"retry {tmp_path}")
    assert (run.status, run.end_time, run.params, run.tags["kind"]) == ("FINISHED", 5000, {"depth": "3"}, "x")
    assert [point.step for point in held.metric_history(run.run_id, "loss")] == list(range(20))
    assert held.download(run.run_id, "sub/a.txt") == b"hello"
    # Only what nobody can read is left.
    listed = mantik("spool", "list", environment=environment).stdout
    assert [line.split("\t")[0] for line in listed.splitlines()] == [outgoing.path.name]


def test_a_folder_that_was_kept_for_its_refusals_goes_with_them(
    mantik_platform: Platform, environment: dict[str, str], settings: Settings
) -> None:
    """After a retry in which nothing stays, and a sync, the spool is empty; a run of a vanished process is ended."""
    environment |= mantik_platform.environment()
    run_id = create_run(mantik_platform)
    mantik_platform.read_back._call("POST", "runs/delete", {"run_id": run_id})  # noqa: SLF001
    outgoing = leave(settings, mantik_platform.url, points(run_id, 5))
    mantik("sync", environment=environment)
    assert outgoing.quarantine.count() == 5
    assert mantik_platform.read_back.metric_history(run_id, "loss") == []
    mantik_platform.read_back._call("POST", "runs/restore", {"run_id": run_id})  # noqa: SLF001
    assert "5 records taken back." in mantik("spool", "retry", outgoing.path.name, environment=environment).stdout
    assert not outgoing.path.exists()
    assert mantik("sync", environment=environment).returncode == 0
    assert len(mantik_platform.read_back.metric_history(run_id, "loss")) == 5
    assert mantik("spool", "list", environment=environment).stdout == ""


def test_nothing_of_a_running_process_is_retried_or_dropped(
    environment: dict[str, str], settings: Settings, tmp_path: Path
) -> None:
    """Both say why, and leave its folder byte for byte as it is; `drop --refused` passes it by."""
    running = folders_by_state(settings, tmp_path)["running and sends by itself"]
    running.quarantine.add("why", RUN, "param 'x'", Batch(RUN, [], [["x", "1"]], []).as_list())
    before = {path: path.read_bytes() for path in running.path.rglob("*") if path.is_file()}
    for arguments in (("retry", running.path.name), ("drop", "--yes", running.path.name)):
        done = mantik("spool", *arguments, environment=environment)
        assert done.returncode == 1
        assert "its process is still running" in done.stderr
    assert mantik("spool", "drop", "--refused", "--yes", environment=environment).returncode == 0
    assert {path: path.read_bytes() for path in running.path.rglob("*") if path.is_file()} == before


def test_export_is_a_copy_that_people_can_read(environment: dict[str, str], settings: Settings, tmp_path: Path) -> None:
    """Records by name, refusals, damage and artifacts by path; nothing is overwritten and nothing else is written."""
    outgoing = leave(settings, PLATFORM, [Batch(RUN, [["loss", float("nan"), 2000, 1]], [["depth", "3"]], [])])
    names = [stage(outgoing, tmp_path, text) for text in ("inside", "escaping", "refused")]
    root = f"mlflow-artifacts:/0/{RUN}/artifacts"
    uris = (f"{root}/sub/a.txt", f"{root}/../../../../escape.txt", f"{root}/b.txt")
    artifacts = [Artifact(uri, name, 6) for uri, name in zip(uris, names, strict=True)]
    append(outgoing.uploads, [json.dumps(artifact.as_list()).encode() for artifact in artifacts[:2]])
    outgoing.keep_refused(names[2])
    outgoing.quarantine.add("no room", RUN, "artifact b.txt", artifacts[2].as_list())
    (segment,) = outgoing.points.journal.iterdir()
    with segment.open("ab") as file:
        file.write(b"damage\n")
    before = {path: path.read_bytes() for path in outgoing.path.rglob("*") if path.is_file()}
    target = tmp_path / "out" / "copy"
    done = mantik("spool", "export", outgoing.path.name, str(target), environment=environment)
    assert done.returncode == 0, done.stderr
    batch, damage, *files = [json.loads(line) for line in (target / "records.jsonl").read_text().splitlines()]
    assert batch == {
        "record": "batch",
        "run_id": RUN,
        "metrics": [{"key": "loss", "value": "NaN", "timestamp": 2000, "step": 1}],
        "params": [{"key": "depth", "value": "3"}],
        "tags": [],
        "delivered": False,
    }
    assert (damage["record"], damage["bytes"]) == ("damage", 7)
    assert [line["uri"] for line in files] == list(uris[:2])
    assert json.loads((target / "quarantine.jsonl").read_text())["reason"] == "no room"
    copied = {
        str(path.relative_to(target / "artifacts")): path.read_text() for path in (target / "artifacts").rglob("*.txt")
    }
    assert copied == {
        f"{RUN}/_/_/_/_/escape.txt": "escaping",
        f"{RUN}/sub/a.txt": "inside",
        f"{RUN}/b.txt": "refused",
    }
    assert len(list(tmp_path.rglob("escape.txt"))) == 1
    again = mantik("spool", "export", outgoing.path.name, str(target), environment=environment)
    assert again.returncode == 1
    assert "is there already" in again.stderr
    assert {path: path.read_bytes() for path in outgoing.path.rglob("*") if path.is_file()} == before


def test_drop_says_what_is_lost_and_asks(environment: dict[str, str], settings: Settings) -> None:
    """Without a yes nothing is deleted; with one, exactly what was named."""
    folder, other = leave(settings, PLATFORM, points(RUN, 3)), leave(settings, PLATFORM, points(RUN, 1))
    folder.quarantine.add("why", RUN, "param 'x'", [])
    for answer in (None, "n\n"):
        done = mantik("spool", "drop", folder.path.name, environment=environment, stdin=answer)
        assert done.returncode == 1
        assert "3 points that the platform does not have and 1 refused record will be lost" in done.stderr
        assert folder.points.waiting() > 0
    assert mantik("spool", "drop", folder.path.name, environment=environment, stdin="y\n").returncode == 0
    assert not folder.path.exists()
    assert other.points.waiting() > 0
    assert mantik("spool", "drop", environment=environment).returncode == 2


def test_drop_refused_and_delivered_leave_what_waits(environment: dict[str, str], settings: Settings) -> None:
    """`--refused` deletes refusals and keeps journals; `--delivered` deletes folders of which nothing is missing."""
    waits, delivered, refused = (leave(settings, PLATFORM, points(RUN, number)) for number in (3, 0, 0))
    for outgoing in (waits, refused):
        outgoing.quarantine.add("why", RUN, "param 'x'", [])
    delivered.mark_kept("delivered")
    refused.mark_kept("refused")
    assert mantik("spool", "drop", "--delivered", "--yes", environment=environment).returncode == 0
    assert [outgoing.path.exists() for outgoing in (waits, delivered, refused)] == [True, False, True]
    assert mantik("spool", "drop", "--refused", "--yes", environment=environment).returncode == 0
    assert [outgoing.path.exists() for outgoing in (waits, refused)] == [True, False]
    assert waits.quarantine.count() == 0
    assert waits.points.waiting() > 0
    assert "nothing to delete" in mantik("spool", "drop", "--delivered", "--yes", environment=environment).stderr


def test_status_shows_the_spool_also_while_the_platform_is_out_of_reach(
    environment: dict[str, str], settings: Settings, tmp_path: Path
) -> None:
    """What waits, what was refused and why, mode and limit, and the commands that help; the exit code is as ever."""
    folders = folders_by_state(settings, tmp_path)
    environment |= {"MANTIK_SPOOL_LIMIT": "2G"}
    done = mantik("status", environment=environment)
    assert (done.returncode, done.stderr) == (1, "")
    text = " ".join(done.stdout.split())
    for words in (
        "Tracking would not work",
        "mode online",
        str(settings.spool),
        "of 2.0 GB",
        "4 points, 1 param, 1 tag, 1 artifact (5 B)",
        "Refused: param 'depth' (1 record): no such run",
        "mantik sync",
        "mantik spool show",
    ):
        assert words in text, done.stdout
    report = json.loads(mantik("status", "--json", environment=environment).stdout)
    assert report["works"] is False
    spool = report["spool"]
    assert (report["mode"], spool["limit_bytes"], spool["folders"], spool["running"]) == ("online", 2 * 10**9, 4, 2)
    assert spool["reasons"] == [{"reason": "no such run", "count": 1, "examples": ["param 'depth'"]}]
    assert 0 < spool["waiting_bytes"] < spool["used_bytes"] < 10_000
    (folders["kept"].path / "owner.json").write_text(json.dumps({"format": 2}))
    assert "of a newer mantik (format 2" in mantik("status", environment=environment).stdout


def test_a_retried_run_of_a_vanished_process_is_ended_at_its_last_record(
    mantik_platform: Platform, environment: dict[str, str], settings: Settings, tmp_path: Path
) -> None:
    """A run that nobody ended and the platform refused at first ends as KILLED when its process wrote last."""
    environment |= mantik_platform.environment()
    held = mantik_platform.read_back
    created = held._call("POST", "experiments/create", {"name": f"late {tmp_path}"})  # noqa: SLF001
    experiment = {"experiment_id": created["experiment_id"]}
    held._call("POST", "experiments/delete", experiment)  # noqa: SLF001
    local_id = new_id("run")
    body = {**experiment, "start_time": 1000, "tags": [{"key": "mantik.op_id", "value": local_id.rpartition("-")[2]}]}
    identities_of(settings.spool).note(Identity(local_id, "run", "mlflow-artifacts:/x", body))
    first = leave(settings, mantik_platform.url, [Create("run", local_id, None, body)])
    first.open_run(local_id)
    # A child process logged to the same run.
    second = leave(settings, mantik_platform.url, points(local_id, 4))
    for outgoing in (first, second):
        (segment,) = outgoing.points.journal.iterdir()
        os.utime(segment, (1_600_000_000, 1_600_000_000))
    mantik("sync", environment=environment)
    assert (first.quarantine.count(), second.quarantine.count()) == (1, 4)
    held._call("POST", "experiments/restore", experiment)  # noqa: SLF001
    # Of the child's folder alone: the run that it needs is created too.
    mantik("spool", "retry", second.path.name, environment=environment)
    mantik("sync", environment=environment)
    (run,) = held.runs(f"late {tmp_path}")
    assert (run.status, run.end_time) == ("KILLED", 1_600_000_000_000)
    assert len(held.metric_history(run.run_id, "loss")) == 4
    mantik("spool", "retry", environment=environment)
    assert mantik("sync", environment=environment).returncode == 0
    assert len(held.runs(f"late {tmp_path}")) == 1
    assert replace(run) == held.run(run.run_id)
