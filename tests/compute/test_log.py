from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as some

from mantik.compute.log import _Lines
from mantik.exceptions import PlatformUnreachableError
from mantik.testing import wait_until
from tests.compute.serving import Answer

if TYPE_CHECKING:
    from mantik.compute import ComputeBackendClient
    from tests.compute.stand_in import StandIn


def test_a_log_is_read_line_by_line(service: StandIn, client: ComputeBackendClient) -> None:
    """Lines keep their ends, a progress bar's too; the last one may have none; what is no text is replaced."""
    job_id = service.add_job(state="RUNNING")
    service.logs[job_id] = "ä\r\n 1%\r 2%\r\nbroken \ufffd\n".encode().replace("\ufffd".encode(), b"\xff") + b"end"
    assert list(client.logs(job_id)) == ["ä\r\n", " 1%\r", " 2%\r\n", "broken \ufffd\n", "end"]
    assert list(client.logs(service.add_job())) == []


def test_a_log_is_followed_to_its_end(service: StandIn, client: ComputeBackendClient) -> None:
    """Following gives each byte once while the job goes on, and ends with it."""
    job_id = service.add_job(state="QUEUED")
    seen: list[str] = []
    thread = threading.Thread(target=lambda: seen.extend(client.logs(job_id, follow=True, poll=0.001)))
    thread.start()
    expected = ""
    for state, text in (("QUEUED", ""), ("RUNNING", "one\ntw"), ("RUNNING", "o\n"), ("SUCCEEDED", "three")):
        service.logs[job_id] = (expected := expected + text).encode()
        service.jobs[job_id]["state"] = state
        wait_until(lambda: "".join(seen) == expected)
    thread.join()
    assert seen[-1] == "three"


def test_an_outage_is_sat_out(service: StandIn, client: ComputeBackendClient, caplog: pytest.LogCaptureFixture) -> None:
    """A log that breaks off in the middle of a character is gone on with from there, once the service is back."""
    job_id = service.add_job(state="SUCCEEDED")
    log = "grün\nrot\n".encode()
    service.logs[job_id] = log
    broken = Answer(200, log[:3], {"Content-Length": str(len(log)), "Mantik-Job-State": "RUNNING"})
    half = Answer(200, log[:3], {"Mantik-Job-State": "RUNNING"})
    service.script(f"/compute-backend/jobs/{job_id}/logs", broken, half, None, Answer(503, b"<html>"))
    assert list(client.logs(job_id, follow=True, poll=0.001)) == ["grün\n", "rot\n"]
    offsets = [asked.query["offset"] for asked in service.asked_for(f"/compute-backend/jobs/{job_id}/logs")]
    assert offsets == ["0", "0", "3", "3", "3", str(len(log))]
    assert len(caplog.records) == 4


def test_without_following_an_outage_is_an_error(service: StandIn, client: ComputeBackendClient) -> None:
    """Reading a log once says that there is no answer."""
    job_id = service.add_job()
    service.script(f"/compute-backend/jobs/{job_id}/logs", None)
    with pytest.raises(PlatformUnreachableError):
        list(client.logs(job_id))


@given(some.text("aä\r\n", max_size=30), some.lists(some.integers(1, 5)))
def test_lines_do_not_depend_on_how_bytes_arrive(text: str, sizes: list[int]) -> None:
    """Any pieces of a log give the lines of the whole."""
    content, reader, lines = text.encode(), _Lines(), []
    for size in sizes:
        lines += reader.feed(content[:size])
        content = content[size:]
    lines += [*reader.feed(content), *reader.rest(is_end=True)]
    assert lines == text.splitlines(keepends=True)


def test_a_line_without_an_end_does_not_fill_the_memory() -> None:
    """A line of more than a megabyte is given in parts."""
    reader = _Lines()
    parts = [part for _ in range(3) for part in reader.feed(b"x" * 2**20)] + list(reader.rest(is_end=True))
    assert len(parts) > 1
    assert "".join(parts) == "x" * 3 * 2**20
