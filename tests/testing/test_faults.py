from __future__ import annotations

import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
import requests

from mantik.testing import Delay, FaultProxy, Hang, Html, LoseAcknowledgement, Redirect, Refuse, Status

from .upstream import BLOCK

if TYPE_CHECKING:
    from mantik.testing.faults import Exchange

    from .upstream import Upstream


def test_status_answers_in_the_platforms_place(
    proxy: FaultProxy, upstream: Upstream, session: requests.Session
) -> None:
    """Code, text and headers are those of the fault, and the platform hears nothing, even of a large body."""
    fault = Status(429, '{"error_code": "BUSY"}', {"Retry-After": "1", "content-type": "application/json"})
    with proxy.fault(fault):
        answer = session.post(f"{proxy.url}/x", data=BLOCK * 16, timeout=10)

    assert (answer.status_code, answer.json()) == (429, {"error_code": "BUSY"})
    assert answer.headers["Retry-After"] == "1"
    assert answer.headers["Content-Type"] == "application/json"
    assert upstream.received == []
    request = proxy.requests[0]
    assert (request.status, request.upstream_status, request.fault) == (429, None, fault)
    assert request.body_size == 16 * len(BLOCK)


def test_delay_passes_on_later(proxy: FaultProxy, upstream: Upstream, session: requests.Session) -> None:
    """The request arrives, after the time."""
    start = time.monotonic()
    with proxy.fault(Delay(0.3)):
        answer = session.post(f"{proxy.url}/x", data=b"body", timeout=10)

    assert time.monotonic() - start >= 0.3
    assert answer.status_code == 200
    assert upstream.received[0].size == 4


def test_clearing_a_delay_ends_it(proxy: FaultProxy, session: requests.Session) -> None:
    """A request that waits goes on when its fault is cleared."""
    switch = proxy.fault(Delay(3600))
    with ThreadPoolExecutor() as pool:
        answer = pool.submit(session.get, proxy.url, timeout=20)
        proxy.wait_for(1)
        switch.clear()

        assert answer.result(10).status_code == 200


def test_hang_takes_the_request_and_keeps_silent(
    proxy: FaultProxy, upstream: Upstream, session: requests.Session
) -> None:
    """The client waits until its own patience ends; the platform hears nothing."""
    with proxy.fault(Hang()), pytest.raises(requests.ReadTimeout):
        session.post(f"{proxy.url}/x", data=BLOCK * 16, timeout=0.3)

    assert upstream.received == []
    assert proxy.requests[0].body_size == 16 * len(BLOCK)
    assert proxy.requests[0].status is None


@pytest.mark.parametrize("release", ["clear", "stop"])
def test_a_hanging_request_is_let_go(upstream: Upstream, session: requests.Session, release: str) -> None:
    """Clearing the faults or stopping the proxy closes what hangs, and leaves no thread."""
    proxy = FaultProxy(upstream.url).start()
    proxy.fault(Hang(), times=1)
    with ThreadPoolExecutor() as pool:
        answer = pool.submit(session.get, proxy.url, timeout=20)
        proxy.wait_for(1)
        getattr(proxy, release)()

        assert isinstance(answer.exception(10), requests.ConnectionError)
    proxy.stop()
    assert upstream.received == []
    assert not [thread for thread in threading.enumerate() if "fault-proxy" in thread.name]


def test_a_lost_acknowledgement_was_work_done_once(
    proxy: FaultProxy, upstream: Upstream, session: requests.Session
) -> None:
    """The platform did the work exactly once and answered; the client knows nothing."""
    with proxy.fault(LoseAcknowledgement()), pytest.raises(requests.ConnectionError):
        session.post(f"{proxy.url}/x", data=b"body", timeout=10)

    assert [request.size for request in upstream.received] == [4]
    assert (proxy.requests[0].status, proxy.requests[0].upstream_status) == (None, 200)


def test_refuse_closes_at_once(proxy: FaultProxy, upstream: Upstream, session: requests.Session) -> None:
    """The connection ends without an answer, and the platform hears nothing."""
    with proxy.fault(Refuse()), pytest.raises(requests.ConnectionError):
        session.post(f"{proxy.url}/x", data=b"body", timeout=10)

    assert upstream.received == []
    assert (proxy.requests[0].status, proxy.requests[0].upstream_status) == (None, None)


@pytest.mark.parametrize("status", [200, 403])
def test_html_is_a_page(proxy: FaultProxy, session: requests.Session, status: int) -> None:
    """The answer is a page for people, with the status asked for."""
    with proxy.fault(Html(status)):
        answer = session.get(f"{proxy.url}/api", timeout=10)

    assert answer.status_code == status
    assert answer.headers["Content-Type"].startswith("text/html")
    assert "<form" in answer.text


def test_redirect_sends_elsewhere(proxy: FaultProxy, session: requests.Session) -> None:
    """The answer is a redirect that asks for the body again."""
    with proxy.fault(Redirect("http://localhost:1/x")):
        answer = session.post(f"{proxy.url}/x", data=b"body", allow_redirects=False, timeout=10)

    assert (answer.status_code, answer.headers["Location"]) == (307, "http://localhost:1/x")


def test_a_fault_happens_only_to_the_requests_that_are_meant(proxy: FaultProxy, session: requests.Session) -> None:
    """Path prefix, pattern and method narrow a fault."""
    proxy.fault(Status(501), "/api/")
    proxy.fault(Status(502), re.compile(r"/log-\w+$"), method="POST")

    def status(method: str, path: str) -> int:
        return session.request(method, proxy.url + path, timeout=10).status_code

    assert status("GET", "/api/runs") == 501
    assert status("POST", "/x/log-batch") == 502
    assert status("GET", "/x/log-batch") == 200
    assert status("GET", "/x/api/") == 200


def test_a_fault_happens_as_often_as_asked(proxy: FaultProxy, session: requests.Session) -> None:
    """After its times a fault is over; the one before it shows again."""
    proxy.fault(Status(500), times=2)
    switch = proxy.fault(Status(503), times=1)

    statuses = [session.get(proxy.url, timeout=10).status_code for _ in range(4)]

    assert statuses == [503, 500, 500, 200]
    assert switch.hits == 1


def test_clear_switches_every_fault_off(proxy: FaultProxy, session: requests.Session) -> None:
    """After clearing, requests pass."""
    proxy.fault(Status(500))
    proxy.fault(Refuse(), "/x")
    proxy.clear()

    assert session.get(f"{proxy.url}/x", timeout=10).status_code == 200


def test_times_holds_for_requests_at_the_same_time(proxy: FaultProxy) -> None:
    """Concurrent requests do not share one time."""
    proxy.fault(Status(503), times=5)

    def status(_: int) -> int:
        return requests.get(proxy.url, timeout=10, proxies={"http": ""}).status_code

    with ThreadPoolExecutor(8) as pool:
        statuses = sorted(pool.map(status, range(20)))

    assert statuses == [200] * 15 + [503] * 5


def test_a_fault_of_ones_own_can_be_given(proxy: FaultProxy, session: requests.Session) -> None:
    """Any object that says what happens to an exchange is a fault."""

    class Teapot:
        def happen(self, exchange: Exchange) -> None:
            exchange.answer(418, b"short and stout", {})

    with proxy.fault(Teapot()):
        assert session.get(proxy.url, timeout=10).status_code == 418
