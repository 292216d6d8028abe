"""Artifacts: copied before the call returns, read back at once, uploaded whole beside everything else."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import TYPE_CHECKING

import mlflow
import pytest
from mlflow.artifacts import download_artifacts, list_artifacts, load_text
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow.store.artifact.mlflow_artifacts_repo import MlflowArtifactsRepository

import mantik
from mantik.plugins.artifacts import MantikArtifacts
from mantik.testing import Delay, FaultProxy, LoseAcknowledgement, Refuse, Status, wait_until
from tests.durability.training import server_id
from tests.forked import fork_script, run_forked, run_mantik
from tests.scripts import clean_environment

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mantik.testing import Platform

FILES = "/api/2.0/mlflow-artifacts/artifacts"
NAMES = [
    "plain.txt",
    "with space.txt",
    "größe-日本.txt",
    "100%.txt",
    "a+b.txt",
    "q&a=1.txt",
    "semi;colon.txt",
]

FINISH_SECONDS = 30.0


@pytest.fixture
def run_id(tracked: FaultProxy) -> Iterator[str]:
    """Return the id of an active run."""
    with mlflow.start_run() as run:
        yield run.info.run_id


def write(folder: Path, name: str, content: str) -> Path:
    """Write a file, with the folders it needs."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8")
    return path


def tree(folder: Path) -> dict[str, str]:
    """Return every file below a folder with its content."""
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def test_what_was_logged_is_what_the_file_held_at_the_call(
    tracked: FaultProxy, mantik_platform: Platform, run_id: str, tmp_path: Path
) -> None:
    """A file that is rewritten, and one that is deleted, right after the call arrive as they were."""
    switch = tracked.fault(Refuse(), path=FILES)
    changed, gone = write(tmp_path, "changed.txt", "before"), write(tmp_path, "gone.txt", "was here")
    mlflow.log_artifact(str(changed))
    mlflow.log_artifact(str(gone))
    with changed.open("r+") as file:
        file.write("after!")
    gone.unlink()
    switch.clear()
    assert mantik.flush(FINISH_SECONDS)
    assert mantik_platform.read_back.download(run_id, "changed.txt") == b"before"
    assert mantik_platform.read_back.download(run_id, "gone.txt") == b"was here"


@pytest.mark.parametrize("away", [False, True], ids=["there", "away"])
def test_folders_arrive_as_they_are(
    tracked: FaultProxy, mantik_platform: Platform, run_id: str, tmp_path: Path, *, away: bool
) -> None:
    """Nested folders, empty files and names of all kinds are read back at once and arrive byte by byte."""
    content = {f"{folder}{name}": f"content of {name}" for folder in ("", "deep/er ü/") for name in NAMES}
    content["deep/empty.txt"] = ""
    for name, text in content.items():
        write(tmp_path / "source", name, text)
    switch = tracked.fault(Refuse()) if away else None
    mlflow.log_artifacts(str(tmp_path / "source"), "logged here")
    target = tmp_path / "downloaded"
    assert tree(Path(download_artifacts(run_id=run_id, artifact_path="logged here", dst_path=str(target)))) == content
    if switch is not None:
        switch.clear()
    assert mantik.flush(FINISH_SECONDS)
    held = mantik_platform.read_back
    paths = held.artifacts(run_id)
    assert sorted(path.removeprefix("logged here/") for path in paths) == sorted(content)
    for path in paths:
        assert held.download(run_id, path).decode() == content[path.removeprefix("logged here/")]
    again = Path(download_artifacts(run_id=run_id, artifact_path="logged here", dst_path=str(tmp_path / "again")))
    assert tree(again) == content


@pytest.mark.parametrize("away", [False, True], ids=["there", "away"])
def test_artifacts_are_read_right_after_the_call(tracked: FaultProxy, run_id: str, *, away: bool) -> None:
    """A file can be listed, loaded and replaced at once, whether the platform answers or not."""
    if away:
        tracked.fault(Refuse())
    mlflow.log_text("first", "notes/one.txt")
    assert load_text(f"runs:/{run_id}/notes/one.txt") == "first"
    mlflow.log_text("second, longer", "notes/one.txt")
    mlflow.log_dict({"a": [1]}, "notes/deep/two.json")
    assert load_text(f"runs:/{run_id}/notes/one.txt") == "second, longer"
    assert [(file.path, file.is_dir) for file in list_artifacts(run_id=run_id)] == [("notes", True)]
    found = [(file.path, file.is_dir, file.file_size) for file in list_artifacts(run_id=run_id, artifact_path="notes")]
    assert found == [("notes/deep", True, None), ("notes/one.txt", False, 14)]
    assert list_artifacts(run_id=run_id, artifact_path="notes/one.txt") == []
    assert list_artifacts(run_id=run_id, artifact_path="nowhere") == []


def test_a_file_that_is_neither_here_nor_to_be_had_is_said_at_once(tracked: FaultProxy, run_id: str) -> None:
    """During an outage reading an artifact that does not wait here names the file and the platform."""
    mlflow.log_text("uploaded", "there.txt")
    assert mantik.flush(FINISH_SECONDS)
    tracked.fault(Refuse())
    mlflow.log_text("waits", "here.txt")
    # The first attempt to ask notices the outage.
    list_artifacts(run_id=run_id)
    with pytest.raises(mlflow.MlflowException, match=r"there\.txt"):
        load_text(f"runs:/{run_id}/there.txt")
    assert load_text(f"runs:/{run_id}/here.txt") == "waits"


def test_a_file_that_is_not_there_is_the_users_own_error(run_id: str, tmp_path: Path) -> None:
    """Logging what does not exist, and a path out of the run, raise from the call."""
    with pytest.raises((mlflow.MlflowException, OSError)):
        mlflow.log_artifact(str(tmp_path / "nothing.txt"))
    with pytest.raises(mlflow.MlflowException, match="Invalid artifact path"):
        mlflow.log_artifact(str(write(tmp_path, "a.txt", "")), "../elsewhere")
    assert list_artifacts(run_id=run_id) == []


def test_a_name_that_the_platform_refuses_is_kept_with_its_reason(
    tracked: FaultProxy, mantik_platform: Platform, run_id: str
) -> None:
    """MLflow's server takes no `#` in a path: that file stays here, the receipt says why, and the others arrive."""
    mlflow.log_text("refused", "#1.txt")
    mlflow.log_text("taken", "1.txt")
    assert mantik.flush(FINISH_SECONDS)
    receipt = mantik.receipt()
    assert receipt.refused == 1
    assert receipt.refusals[0].what.endswith("/#1.txt")
    assert receipt.refusals[0].reason == "Invalid path"
    assert mantik_platform.read_back.artifacts(run_id) == ["1.txt"]


def test_a_slow_upload_delays_no_point(tracked: FaultProxy, mantik_platform: Platform, run_id: str) -> None:
    """Points, params and tags are on the platform while an artifact's upload is still under way."""
    with tracked.fault(Delay(120), path=FILES, method="PUT") as slow:
        mlflow.log_text("large", "large.txt")
        wait_until(lambda: slow.hits, deadline=FINISH_SECONDS, what="the upload's beginning")
        mlflow.log_metric("loss", 0.5)
        mlflow.log_param("depth", 3)
        held = mantik_platform.read_back
        wait_until(lambda: held.run(run_id).metrics == {"loss": 0.5}, deadline=FINISH_SECONDS, what="the point")
        assert held.run(run_id).params == {"depth": "3"}
        assert held.artifacts(run_id) == []
    assert mantik.flush(FINISH_SECONDS)
    assert held.artifacts(run_id) == ["large.txt"]


@pytest.mark.parametrize(
    "fault",
    [Refuse(), LoseAcknowledgement(), Status(503), Status(500), Status(429, headers={"Retry-After": "1"}), Status(401)],
    ids=["dropped", "unacknowledged", "503", "500", "429", "401"],
)
def test_an_interrupted_upload_starts_again(
    tracked: FaultProxy, mantik_platform: Platform, run_id: str, fault: Refuse
) -> None:
    """Whatever the first attempt met, the file arrives whole with the next one."""
    content = "0123456789abcdef" * 70_000
    switch = tracked.fault(fault, path=FILES, method="PUT", times=1)
    mlflow.log_text(content, "file.txt")
    assert mantik.flush(FINISH_SECONDS)
    assert switch.hits == 1
    assert mantik_platform.read_back.download(run_id, "file.txt").decode() == content


def test_a_process_that_is_killed_in_the_middle_of_an_upload_loses_nothing(
    mantik_platform: Platform, mantik_proxy: FaultProxy, tmp_path: Path
) -> None:
    """After `kill -9` with half a file on the wire, a sync uploads the whole of it."""
    environment = clean_environment(
        {**mantik_platform.environment(), "MLFLOW_TRACKING_URI": mantik_proxy.url}, tmp_path
    )
    # The proxy takes the head of the request and leaves the body in the pipe, where 30 MB have no room.
    slow = mantik_proxy.fault(Delay(120), path=FILES, method="PUT")
    process = fork_script(
        """
        import os, sys
        import mantik, mlflow

        mantik.init_tracking()
        run = mlflow.start_run()
        open("large.bin", "wb").write(os.urandom(1000) * 30_000)
        mlflow.log_artifact("large.bin")
        mlflow.log_text("small", "small.txt")
        print(run.info.run_id, flush=True)
        sys.stdin.read()
        """,
        environment,
        tmp_path,
    )
    try:
        wait_until(lambda: slow.hits, deadline=60, what="the upload's beginning")
    finally:
        process.send_signal(signal.SIGKILL)
    output, _ = process.communicate(timeout=30)
    run_id = output.split()[-1]
    slow.clear()
    synced = run_mantik("sync", environment=environment)
    assert synced.returncode == 0, synced.stdout + synced.stderr
    held = mantik_platform.read_back
    assert held.artifacts(run_id) == ["large.bin", "small.txt"]
    assert held.download(run_id, "large.bin") == (tmp_path / "large.bin").read_bytes()
    assert held.run(run_id).status == "KILLED"


def test_a_large_file_is_not_read_into_memory(mantik_platform: Platform, tmp_path: Path) -> None:
    """Staging and uploading a file of 200 MB takes less than 50 MB of memory."""
    output = run_forked(
        """
        import os, resource
        import mantik, mlflow

        def peak():
            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024

        mantik.init_tracking()
        with mlflow.start_run() as run:
            mlflow.log_text("small", "small.txt")
            mantik.flush(30)
            with open("large.bin", "wb") as file:
                for _ in range(200):
                    file.write(os.urandom(1000) * 1000)
            before = peak()
            mlflow.log_artifact("large.bin")
            assert mantik.flush(120)
            print("GREW", peak() - before, "RUN", run.info.run_id)
        """,
        clean_environment(mantik_platform.environment(), tmp_path),
        tmp_path,
    )
    grown, _, run_id = output.partition("GREW ")[2].split()[:3]
    assert int(grown) < 50
    (stored,) = mantik_platform.data.rglob(f"{run_id}/artifacts/large.bin")
    assert stored.stat().st_size == 200_000_000
    stored.unlink()


def test_artifacts_of_other_servers_are_left_to_mlflow(tracked: FaultProxy, mantik_platform: Platform) -> None:
    """Only the claimed platform's artifacts are staged: a foreign host, and a foreign server, have MLflow's own."""
    assert type(get_artifact_repository("mlflow-artifacts:/0/abc/artifacts")) is MantikArtifacts
    host = tracked.url.removeprefix("http://")
    assert type(get_artifact_repository(f"mlflow-artifacts://{host}/0/abc/artifacts")) is MantikArtifacts
    assert type(get_artifact_repository("mlflow-artifacts://example.org/0/abc/artifacts")) is MlflowArtifactsRepository
    foreign = get_artifact_repository("mlflow-artifacts:/0/abc/artifacts", tracking_uri=mantik_platform.url)
    assert type(foreign) is MlflowArtifactsRepository


@pytest.mark.parametrize("away", [False, True], ids=["there", "away"])
def test_what_was_removed_is_not_seen_any_more(
    tracked: FaultProxy, mantik_platform: Platform, run_id: str, *, away: bool
) -> None:
    """Files and folders, uploaded or not, are gone for whoever lists and reads, at once and with any platform."""
    repository = get_artifact_repository(mlflow.get_artifact_uri())
    for name in ("old.txt", "stays.txt", "old/one.txt", "old/deep/two.txt"):
        mlflow.log_text(f"first {name}", name)
    assert mantik.flush(FINISH_SECONDS)
    switch = tracked.fault(Refuse()) if away else None
    for name in ("new.txt", "old/three.txt", "folder/four.txt"):
        mlflow.log_text(name, name)
    for name in ("old.txt", "old", "new.txt", "folder/", "never.txt"):
        repository.delete_artifacts(name)
    listed = {file.path for file in repository.list_artifacts()}
    # During an outage nobody can tell what the platform has.
    assert listed - {"stays.txt"} == set()
    assert repository.list_artifacts("old") == repository.list_artifacts("folder") == []
    for name in ("old.txt", "old/one.txt", "new.txt", "folder/four.txt"):
        with pytest.raises(mlflow.MlflowException):
            load_text(f"runs:/{run_id}/{name}")
    mlflow.log_text("second", "old/one.txt")
    assert [file.path for file in repository.list_artifacts("old")] == ["old/one.txt"]
    assert load_text(f"runs:/{run_id}/old/one.txt") == "second"
    if switch is not None:
        switch.clear()
    assert mantik.flush(FINISH_SECONDS)
    held = mantik_platform.read_back
    assert held.artifacts(run_id) == ["old/one.txt", "stays.txt"]
    assert held.download(run_id, "old/one.txt") == b"second"
    assert {file.path for file in repository.list_artifacts()} == {"old", "stays.txt"}
    assert mantik.receipt().is_complete


def test_everything_of_a_run_can_be_removed(tracked: FaultProxy, mantik_platform: Platform, run_id: str) -> None:
    """Without a path all goes that was logged before, and nothing that is logged after it."""
    repository = get_artifact_repository(mlflow.get_artifact_uri())
    mlflow.log_text("uploaded", "folder/one.txt")
    assert mantik.flush(FINISH_SECONDS)
    mlflow.log_text("waits", "two.txt")
    repository.delete_artifacts()
    assert repository.list_artifacts() == []
    mlflow.log_text("later", "three.txt")
    assert mantik.flush(FINISH_SECONDS)
    assert mantik_platform.read_back.artifacts(run_id) == ["three.txt"]


@pytest.mark.parametrize("path", ["../elsewhere", "a/../../b", "/absolute", "a//b", "/", "."])
def test_a_removal_out_of_the_run_is_the_users_own_error(tracked: FaultProxy, run_id: str, path: str) -> None:
    """A path that leads elsewhere raises from the call, and nothing is recorded."""
    repository = get_artifact_repository(mlflow.get_artifact_uri())
    with pytest.raises(mlflow.MlflowException, match="Invalid artifact path"):
        repository.delete_artifacts(path)
    assert mantik.receipt().runs[0].waiting.others == 0


CHECKPOINTS = """
    import os, sys
    import mantik, mlflow
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    mantik.init_tracking()
    run = mlflow.start_run()
    repository = get_artifact_repository(mlflow.get_artifact_uri())
    print("RUN", run.info.run_id, flush=True)
    for epoch in range(10_000):
        mlflow.log_text(f"{epoch} " * 10_000, "last.ckpt")
        mlflow.log_text(f"{epoch} " * 10_000, f"best/{epoch}.ckpt")
        if epoch:
            repository.delete_artifacts(f"best/{epoch - 1}.ckpt")
        print("EPOCH", epoch, flush=True)
    """


@pytest.mark.parametrize("mode", ["online", "offline"])
def test_what_a_killed_training_replaced_and_removed_is_not_sent(
    mantik_platform: Platform, mantik_proxy: FaultProxy, tmp_path: Path, mode: str
) -> None:
    """Killed in the middle of an outage, a training has a few copies on disk; a sync brings the newest ones alone."""
    settings = {**mantik_platform.environment(), "MLFLOW_TRACKING_URI": mantik_proxy.url, "MANTIK_MODE": mode}
    environment = clean_environment(settings, tmp_path)
    switch = mantik_proxy.fault(Refuse())
    process = fork_script(CHECKPOINTS, environment, tmp_path)
    said = ""
    while "EPOCH 100\n" not in said:
        line = process.stdout.readline()
        assert line, said
        said += line
    process.send_signal(signal.SIGKILL)
    said += process.communicate(timeout=30)[0]
    last = max(int(line.split()[1]) for line in said.splitlines() if line.startswith("EPOCH "))
    (staged,) = (tmp_path / ".mantik" / "spool").glob("*/staged")
    copies = [path for path in staged.iterdir() if path.stat().st_size]
    # Three of one name, two of the other one, and one that was just being made.
    assert len(copies) <= 6
    switch.clear()
    synced = run_mantik("sync", environment=environment)
    assert synced.returncode == 0, synced.stdout + synced.stderr
    assert "refused" not in synced.stdout
    run_id = server_id(mantik_platform, said.partition("RUN ")[2].split()[0])
    newest = mantik_platform.read_back.download(run_id, "last.ckpt").split()
    assert len(newest) == 10_000
    assert set(newest) <= {b"%d" % last, b"%d" % (last + 1)}
    best = mantik_platform.read_back.artifacts(run_id, "best")
    assert f"best/{last}.ckpt" in best or f"best/{last + 1}.ckpt" in best
    # A removal that was just about to be recorded was not.
    assert set(best) <= {f"best/{last}.ckpt", f"best/{last + 1}.ckpt"}
    assert not staged.exists()
