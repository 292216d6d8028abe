from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from mantik.exceptions import ConfigurationError, PlatformUnreachableError, UnexpectedAnswerError
from mantik.testing import wait_until
from tests.compute.serving import Answer

if TYPE_CHECKING:
    from pathlib import Path

    from mantik.compute import ComputeBackendClient
    from tests.compute.stand_in import StandIn

FILES = {"train.py": b"print()", "out/model.pt": b"\0" * 3000, "out/deep/a b?#é.txt": b"x", "mantik.log": b""}


@pytest.fixture
def job(service: StandIn) -> str:
    """Make a job with files."""
    job_id = service.add_job(state="SUCCEEDED")
    service.files[job_id] = FILES
    return job_id


def files_in(folder: Path) -> dict[str, bytes]:
    """Return all files of a folder."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_everything(client: ComputeBackendClient, job: str, tmp_path: Path) -> None:
    """Without a path the whole working folder is fetched, into a folder of the job's name, and nothing else is left."""
    assert client.download(job, to=tmp_path / "new") == tmp_path / "new" / job
    assert files_in(tmp_path / "new" / job) == FILES
    assert [path.name for path in (tmp_path / "new").iterdir()] == [job]


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("train.py", b"print()"),
        ("./out/model.pt", b"\0" * 3000),
        ("out/deep/a b?#é.txt", b"x"),
        ("out/deep/", {"a b?#é.txt": b"x"}),
    ],
)
def test_a_part(path: str, expected: object, client: ComputeBackendClient, job: str, tmp_path: Path) -> None:
    """A file or a folder is fetched under its own name."""
    fetched = client.download(job, path, str(tmp_path))
    assert fetched == tmp_path / path.rstrip("/").rpartition("/")[2]
    assert (files_in(fetched) if fetched.is_dir() else fetched.read_bytes()) == expected


def test_nothing_is_overwritten(client: ComputeBackendClient, job: str, tmp_path: Path) -> None:
    """What is here stays, and nothing is fetched."""
    (tmp_path / "train.py").write_text("mine", encoding="utf-8")
    with pytest.raises(ConfigurationError, match=r"train\.py is there already; nothing was downloaded"):
        client.download(job, "train.py", tmp_path)
    assert (tmp_path / "train.py").read_text(encoding="utf-8") == "mine"


def test_a_link_that_leads_nowhere_stays(client: ComputeBackendClient, job: str, tmp_path: Path) -> None:
    """A link is something that is here already, whatever it leads to."""
    (tmp_path / "train.py").symlink_to("nowhere")
    with pytest.raises(ConfigurationError, match=r"train\.py is there already; nothing was downloaded"):
        client.download(job, "train.py", tmp_path)
    assert (tmp_path / "train.py").is_symlink()


def test_what_comes_meanwhile_is_not_overwritten(
    service: StandIn, client: ComputeBackendClient, job: str, tmp_path: Path
) -> None:
    """A file that somebody makes while another one of its name is fetched stays."""
    arrived = threading.Event()
    place = f"/compute-backend/jobs/{job}/files/train.py"
    service.script(place, Answer(200, b"print()", wait_for=arrived))
    with ThreadPoolExecutor() as pool:
        fetched = pool.submit(client.download, job, "train.py", tmp_path)
        wait_until(lambda: service.asked_for(place))
        (tmp_path / "train.py").write_text("mine", encoding="utf-8")
        arrived.set()
        with pytest.raises(ConfigurationError, match="is there already"):
            fetched.result(60)
    assert files_in(tmp_path) == {"train.py": b"mine"}


def test_an_interrupted_download_leaves_nothing(
    service: StandIn, client: ComputeBackendClient, job: str, tmp_path: Path
) -> None:
    """A file that breaks off is not there afterwards, and neither are those before it."""
    service.script(f"/compute-backend/jobs/{job}/files/out/model.pt", Answer(200, b"\0", {"Content-Length": "3000"}))
    with pytest.raises(PlatformUnreachableError):
        client.download(job, to=tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert files_in(client.download(job, to=tmp_path)) == FILES


@pytest.mark.parametrize("path", ["/etc/passwd", "../x", "out/../../x", "..", "out/.."])
def test_a_path_out_of_the_folder_is_not_asked_for(
    path: str, service: StandIn, client: ComputeBackendClient, job: str, tmp_path: Path
) -> None:
    """Only what is in the working folder can be fetched."""
    with pytest.raises(ConfigurationError, match="is not in the job's working folder"):
        client.download(job, path, tmp_path)
    assert service.asked == []


def test_a_path_that_is_not_there_names_what_is(client: ComputeBackendClient, job: str, tmp_path: Path) -> None:
    """A mistyped name is answered with what is beside it."""
    with pytest.raises(ConfigurationError, match=r"There is no 'modl.pt' in out, but: deep, model.pt"):
        client.download(job, "out/modl.pt", tmp_path)


@pytest.mark.parametrize("name", ["..", ".", "", "a/..", "a\0b", 7])
def test_a_service_names_no_file_elsewhere(
    name: object, service: StandIn, client: ComputeBackendClient, job: str, tmp_path: Path
) -> None:
    """A name from the service that leads out of the folder is refused."""
    listing = {"files": [{"path": name, "size": 0, "is_dir": False}]}
    service.script(f"/compute-backend/jobs/{job}/files", Answer(200, listing))
    with pytest.raises(UnexpectedAnswerError, match="which is no file of a job"):
        client.download(job, to=tmp_path / "here")
    assert [path.name for path in tmp_path.iterdir()] == ["here"]


def test_only_the_last_part_of_a_name_counts(
    service: StandIn, client: ComputeBackendClient, job: str, tmp_path: Path
) -> None:
    """A path from the service that goes elsewhere ends up in the folder that was asked for."""
    listing = {"files": [{"path": "../../../train.py", "size": 0, "is_dir": False}]}
    service.script(f"/compute-backend/jobs/{job}/files", Answer(200, listing))
    assert files_in(client.download(job, to=tmp_path / "here")) == {"train.py": b"print()"}


def test_a_place_that_cannot_be_written(client: ComputeBackendClient, job: str, tmp_path: Path) -> None:
    """A file where the folder was to be is one sentence."""
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match=r"cannot be written \(.+\)\."):
        client.download(job, "train.py", tmp_path / "file" / "deeper")
