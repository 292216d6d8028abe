from __future__ import annotations

import ctypes
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from mantik.delivery import framing
from mantik.delivery.ids import new_id
from mantik.delivery.records import Artifact, Batch, encode
from mantik.delivery.segment import path_of
from mantik.delivery.spool import Outgoing
from mantik.settings import Settings
from tests.forked import run_forked
from tests.scripts import clean_environment
from tests.spools import append, create_run, leave, mantik, stage

if TYPE_CHECKING:
    from mantik.testing import Platform

NOBODY = 65534
LIBC = ctypes.CDLL(None)
PR_CAPBSET_DROP, CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH = 24, 1, 2


@pytest.fixture
def environment(mantik_platform: Platform, tmp_path: Path) -> dict[str, str]:
    """Return the environment of a user of the platform."""
    return clean_environment(mantik_platform.environment(), tmp_path)


@pytest.fixture
def settings(environment: dict[str, str]) -> Settings:
    """Return that user's settings."""
    return Settings.from_environment(environment)


def points(run_id: str, steps: range) -> list[Batch]:
    """Return records with one point each."""
    return [Batch(run_id, [["loss", step / 3, 2000 + step, step]], [], []) for step in steps]


def steps_of(platform: Platform, run_id: str) -> list[int]:
    """Return the steps that the platform has of the points."""
    return [point.step for point in platform.read_back.metric_history(run_id, "loss")]


def contents(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Return every file and folder with its mode, and the bytes of files."""
    return {
        str(path.relative_to(folder)): (path.stat().st_mode, path.read_bytes() if path.is_file() else b"")
        for path in (folder, *folder.rglob("*"))
    }


def test_a_journal_of_a_newer_format_is_left_for_a_newer_mantik(
    mantik_platform: Platform, environment: dict[str, str], settings: Settings
) -> None:
    """What this version can read is sent, also of other folders; the newer segment stays byte for byte."""
    first, other = create_run(mantik_platform), create_run(mantik_platform)
    newer = leave(settings, mantik_platform.url, points(first, range(5)))
    lines = b"mantik-journal 2\n" + framing.encode(encode(points(first, range(5, 6))[0]))
    segment = path_of(newer.points.journal, 2)
    segment.write_bytes(lines)
    readable = leave(settings, mantik_platform.url, points(other, range(5)))
    for _ in range(2):
        done = mantik("sync", environment=environment)
        assert done.returncode == 1
        assert "newer format: mantik-journal 2; this one reads 1" in done.stdout
        assert "Update mantik" in done.stdout
        assert segment.read_bytes() == lines
        assert newer.quarantine.count() == 0
    assert steps_of(mantik_platform, first) == steps_of(mantik_platform, other) == list(range(5))
    assert not readable.path.exists()
    assert mantik("spool", "list", environment=environment).returncode == 0


def test_a_folder_that_does_not_say_whose_it_is_is_left_as_it_is(
    environment: dict[str, str], settings: Settings, tmp_path: Path
) -> None:
    """Each command says in a sentence what is wrong; nothing is changed, and the records can still be read."""
    cases = {
        b'{"format": 2, "platform": "x"}': "of a newer mantik (format 2; this one reads 1)",
        b"": "is missing or damaged",
        b"[]": "is missing or damaged",
        b'{"format": 1, "tracking_uri": 5}': "is missing or damaged",
    }
    words = {}
    for content, reason in cases.items():
        outgoing = leave(settings, "https://platform.example.org", points("a" * 32, range(3)))
        (outgoing.path / "owner.json").write_bytes(content)
        words[outgoing.path.name] = reason
    before = contents(settings.spool)
    synced = mantik("sync", environment=environment)
    assert synced.returncode == 1
    listed = mantik("spool", "list", environment=environment)
    for said in (synced.stdout, listed.stderr):
        for name, reason in words.items():
            assert [reason for line in said.splitlines() if line.startswith(name) and reason in line] == [reason]
    shown = mantik("spool", "show", environment=environment).stdout
    assert (shown.count("of a newer mantik (format 2"), shown.count("is missing or damaged")) == (1, 3)
    first = next(iter(words))
    assert words[first] in mantik("spool", "retry", first, environment=environment).stderr
    # Whether its process still runs cannot be told, and it was at work a moment ago.
    assert "less than five minutes ago" in mantik("spool", "drop", "--yes", first, environment=environment).stderr
    assert contents(settings.spool) == before
    target = tmp_path / "copy"
    assert mantik("spool", "export", first, str(target), environment=environment).returncode == 0
    assert len((target / "records.jsonl").read_text().splitlines()) == 3


def test_a_file_in_the_place_of_the_spool_is_named(environment: dict[str, str], tmp_path: Path) -> None:
    """Every command that needs the spool says what MANTIK_SPOOL is and what to do; the file stays."""
    file = tmp_path / "file"
    file.write_text("in the way")
    for spool in (file, file / "below"):
        environment["MANTIK_SPOOL"] = str(spool)
        for arguments in (("sync",), ("spool", "list"), ("spool", "drop", "--refused", "--yes")):
            done = mantik(*arguments, environment=environment)
            assert done.returncode == 1
            assert done.stderr.startswith(f"Error: The spool {spool} is no folder")
            assert "Set MANTIK_SPOOL to a folder of yours" in done.stderr
        status = mantik("status", environment=environment)
        assert status.returncode == 0
        assert f"The spool {spool} is no folder" in status.stdout
    assert file.read_text() == "in the way"


def test_other_things_in_the_spool_are_never_touched(
    mantik_platform: Platform, environment: dict[str, str], tmp_path: Path
) -> None:
    """A training, a sync and every way to delete leave another folder's contents, modes and all, as they are."""
    spool = tmp_path / "project"
    (spool / "data" / "journal").mkdir(parents=True)
    (spool / "data" / "journal" / "00000001.segment").write_bytes(b"a foreign file of this name")
    (spool / "data" / "kept").touch()
    (spool / "notes.txt").write_text("mine")
    (spool / "link").symlink_to(tmp_path)
    spool.chmod(0o755)
    before = contents(spool)
    environment["MANTIK_SPOOL"] = str(spool)
    output = run_forked(
        """
        import mantik, mlflow

        mantik.init_tracking()
        with mlflow.start_run() as run:
            mlflow.log_metric("loss", 1.0)
        print("RUN", run.info.run_id)
        """,
        environment,
        tmp_path,
    )
    assert steps_of(mantik_platform, output.partition("RUN ")[2].split()[0]) == [0]
    assert mantik("sync", environment=environment).returncode == 0
    listed = mantik("spool", "list", environment=environment)
    assert listed.stdout == ""
    assert "never touched: 3 other things (data, link, notes.txt)" in listed.stderr
    for what in ("--delivered", "--refused"):
        assert mantik("spool", "drop", what, "--yes", environment=environment).returncode == 0
    assert mantik("spool", "drop", "data", "--yes", environment=environment).returncode == 1
    shutil.rmtree(spool / "ids", ignore_errors=True)
    assert contents(spool) == before


def test_a_full_disk_does_not_keep_a_sync_from_making_room(
    mantik_platform: Platform, environment: dict[str, str], settings: Settings
) -> None:
    """Where not one byte can be written, what waits is sent all the same and its room is given back."""
    run_id = create_run(mantik_platform)
    outgoing = leave(settings, mantik_platform.url, points(run_id, range(2_500)))
    done = subprocess.run(
        ["/bin/sh", "-c", f'ulimit -f 0; exec "{sys.executable}" -m mantik sync'],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert steps_of(mantik_platform, run_id) == list(range(2_500))
    assert not outgoing.path.exists()


def nonsense(run_id: str, staged: str) -> dict[str, bytes]:
    """Return what somebody may have made of records by hand, with a sound checksum, and a word of the reason."""
    run = run_id.encode()
    root = b'"mlflow-artifacts:/0/%b/artifacts/a.txt"' % run
    provisional = new_id("run").encode()
    return {
        "no JSON": b"hello",
        "an object": b'{"batch": 1}',
        "an unknown kind": b'["delete-run","%b"]' % run,
        "an unknown call": b'["call","delete-everything","%b",{}]' % run,
        "a call about a path": b'["call","model-tags","..",{"tags":[]}]',
        "a call with NaN": b'["call","inputs","%b",{"run_id":"%b","datasets":[NaN]}]' % (run, run),
        "a deep call": b'["call","inputs","%b",{"x":%b%b}]' % (run, b"[" * 400, b"]" * 400),
        "a bottomless call": b'["call","inputs","%b",{"x":%b%b}]' % (run, b"[" * 200_000, b"]" * 200_000),
        "a path as staged name": b'["artifact",%b,"../../../../secret",6]' % root,
        "the parent as staged name": b'["artifact",%b,"..",6]' % root,
        "a file as artifact URI": b'["artifact","file:///tmp/x","%b",6]' % staged.encode(),
        "a way out in the artifact URI": b'["artifact","mlflow-artifacts:/../../../x","%b",6]' % staged.encode(),
        "a wrong size": b'["artifact",%b,"%b",7]' % (root, staged.encode()),
        "a path as id": b'["create","run","../../../../evil",null,{"experiment_id":"0"}]',
        "a creation of something else": b'["create","dataset","%b",null,{}]' % provisional,
        "a creation of nothing": b'["create","run","%b",null,{}]' % provisional,
        "no numbers": b'["batch","%b",[["loss","high",1,1]],[],[]]' % run,
        "a number for a model": b'["batch","%b",[["loss",1.0,1,1,5,6,7]],[],[]]' % run,
        "a huge number": b'["batch","%b",[["loss",1%b,1,1]],[],[]]' % (run, b"0" * 400),
        "a time beyond all": b'["batch","%b",[["loss",1.0,%b,1]],[],[]]' % (run, b"9" * 30),
        "an end beyond all": b'["update","%b",null,%b,null]' % (run, b"9" * 30),
        "an unknown status": b'["update","%b","NONSENSE",null,null]' % run,
        "a header as experiment": b'["spans","0\\r\\nX: y","AAAA"]',
        "spans that are no base64": b'["spans","0","A"]',
        "spans that are none": b'["spans","0","AAAA"]',
    }


def test_what_was_edited_by_hand_costs_itself_alone(
    mantik_platform: Platform, environment: dict[str, str], settings: Settings, tmp_path: Path
) -> None:
    """Wrong checksums and senseless records are kept with their reasons and lead nowhere else; all the rest arrives."""
    run_id = create_run(mantik_platform)
    secret = settings.home.parent / "secret"
    secret.write_text("secret")
    outgoing = leave(settings, mantik_platform.url, points(run_id, range(10)))
    staged = stage(outgoing, tmp_path, "artifact"[:6])
    edited = nonsense(run_id, staged)
    append(outgoing.points, [*edited.values(), *map(encode, points(run_id, range(10, 20)))])
    sound = stage(outgoing, tmp_path, "hello")
    append(outgoing.uploads, [encode(Artifact(f"mlflow-artifacts:/0/{run_id}/artifacts/b.txt", sound, 5))])
    first = path_of(outgoing.points.journal, 1)
    content = first.read_bytes()
    # The record of step 4 with another value, and its checksum of before.
    first.write_bytes(content.replace(repr(4 / 3).encode(), repr(5 / 3).encode(), 1))
    done = mantik("sync", environment=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    assert steps_of(mantik_platform, run_id) == [step for step in range(20) if step != 4]
    assert mantik_platform.read_back.run(run_id).status == "RUNNING"
    refusals = list(outgoing.quarantine.refusals())
    assert len(refusals) == len(edited) + 1, [(refusal.what, refusal.reason) for refusal in refusals]
    assert all(refusal.reason for refusal in refusals)
    assert refusals[0].reason == "length, checksum or line end is wrong"
    assert secret.read_text() == "secret"
    assert not list(tmp_path.rglob("evil*"))
    shown = mantik("spool", "show", environment=environment).stdout
    for words in (
        "a call 'delete-everything', which this version does not know",
        "'../../../../secret', which is no name of a staged file",
        "which is no provisional id",
    ):
        assert words in shown
    exported = mantik("spool", "export", outgoing.path.name, str(tmp_path / "copy"), environment=environment)
    assert exported.returncode == 0, exported.stderr
    # What cannot be read stays; what the platform refused may be sent again, and comes back with the same reasons.
    assert mantik("spool", "retry", environment=environment).returncode == 0
    assert mantik("sync", environment=environment).returncode == 0
    entries = map(json.loads, mantik("spool", "list", "--json", environment=environment).stdout.splitlines())
    assert sum(entry["refused"] for entry in entries) == len(edited) + 1


def test_a_quarantine_that_was_edited_by_hand_is_kept(
    mantik_platform: Platform, environment: dict[str, str], settings: Settings
) -> None:
    """Lines that cannot be read count as refused, survive a retry and a sync, and are shown as such."""
    run_id = create_run(mantik_platform)
    outgoing = leave(settings, mantik_platform.url, [])
    outgoing.quarantine.add("why", run_id, "metric 'loss'", points(run_id, range(1))[0].as_list())
    lines = b'{"reason": 5}\nhello \xff\n[1]\n{"reason": "r", "run_id": 5, "what": [], "content": null, "at": 1}\n'
    with outgoing.quarantine.path.open("ab") as file:
        file.write(lines)
    done = mantik("spool", "retry", environment=environment)
    assert "1 record taken back; 4 stay" in done.stdout, done.stderr
    assert outgoing.quarantine.path.read_bytes() == lines
    assert mantik("sync", environment=environment).returncode == 0
    assert steps_of(mantik_platform, run_id) == [0]
    assert outgoing.quarantine.path.read_bytes() == lines
    assert "4 lines of that file cannot be read" in mantik("spool", "show", environment=environment).stdout
    assert mantik("status", environment=environment).returncode == 0


def be_bound_by_modes() -> None:
    """Give up what lets root read everybody's files, for the program that comes next."""
    if os.geteuid() == 0:
        for capability in (CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH):
            LIBC.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)


def test_a_spool_that_cannot_be_read_is_another_users(
    environment: dict[str, str], settings: Settings, tmp_path: Path
) -> None:
    """Sync, spool and status say whose it is and what to do, instead of that nothing waits."""
    spool = tmp_path / "hers"
    shutil.copytree(leave(settings, "https://platform.example.org", points("a" * 32, range(3))).path.parent, spool)
    before = contents(spool)
    spool.chmod(0o000)
    if os.geteuid() == 0:
        os.chown(spool, NOBODY, NOBODY)
    for arguments in (["sync"], ["spool", "list"], ["status"]):
        done = subprocess.run(
            [sys.executable, "-m", "mantik", *arguments],
            env={**environment, "MANTIK_SPOOL": str(spool)},
            preexec_fn=be_bound_by_modes,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        said = done.stdout + done.stderr
        assert f"The spool {spool} belongs to the user {spool.owner()} and cannot be read" in said
        assert "Set MANTIK_SPOOL to a folder of yours" in said
        assert "Traceback" not in said
        assert done.returncode == (0 if arguments == ["status"] else 1), said
    spool.chmod(before["."][0] & 0o777)
    assert contents(spool) == before


def test_another_users_folder_is_not_sent_under_ones_own_name(
    mantik_platform: Platform, environment: dict[str, str], settings: Settings
) -> None:
    """Whoever can read it says whose it is, sends, retries and deletes nothing of it, and sends one's own."""
    assert "it belongs to the user root" in (Outgoing(Path("/proc/1")).problem() or "") or os.geteuid() == 0
    hers, mine = create_run(mantik_platform), create_run(mantik_platform)
    outgoing = leave(settings, mantik_platform.url, points(hers, range(3)))
    outgoing.quarantine.add("why", hers, "metric 'loss'", points(hers, range(1))[0].as_list())
    own = leave(settings, mantik_platform.url, points(mine, range(3)))
    if os.geteuid() != 0:
        # Only root can give a folder away.
        return
    os.chown(outgoing.path, NOBODY, NOBODY)
    before = contents(outgoing.path)
    done = mantik("sync", environment=environment)
    assert done.returncode == 1
    assert "it belongs to the user nobody, and only that user can send it" in done.stdout
    assert steps_of(mantik_platform, mine) == list(range(3))
    assert not own.path.exists()
    for arguments in (("retry",), ("drop", "--refused", "--yes"), ("drop", "--yes", outgoing.path.name)):
        refused = mantik("spool", *arguments, environment=environment)
        assert refused.returncode == 1
        assert "it belongs to the user nobody" in refused.stderr
    assert steps_of(mantik_platform, hers) == []
    assert contents(outgoing.path) == before
