from __future__ import annotations

import hashlib
import re
import threading
from typing import TYPE_CHECKING

import pytest
import requests

from mantik.testing import FaultProxy, Status, wait_until

from .upstream import BLOCK

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .upstream import Upstream

TWENTY_MEGABYTES = 320 * len(BLOCK)
SHA256_OF_TWENTY_MEGABYTES = hashlib.sha256(BLOCK * 320).hexdigest()


def blocks_once_seen(upstream: Upstream) -> Iterator[bytes]:
    """Give 20 MB, all but the first block only after the first has arrived upstream."""
    yield BLOCK
    wait_until(lambda: upstream.bytes_seen, what="the first block")
    for _ in range(319):
        yield BLOCK


class SizedBody:
    """A body of known length that is made while it is sent."""

    def __init__(self, upstream: Upstream) -> None:
        self._blocks = blocks_once_seen(upstream)

    def __len__(self) -> int:
        """Return the length, which makes `requests` send it instead of chunks."""
        return TWENTY_MEGABYTES

    def __iter__(self) -> Iterator[bytes]:
        """Return the blocks."""
        return self._blocks

    def read(self, _: int) -> bytes:
        """Return the next block."""
        return next(self._blocks, b"")


def test_a_sized_upload_of_20_mb_is_streamed(proxy: FaultProxy, upstream: Upstream, session: requests.Session) -> None:
    """The first block reaches the platform before the client has produced the second, and all bytes arrive."""
    answer = session.put(f"{proxy.url}/file", data=SizedBody(upstream), timeout=20)

    assert answer.text == f"{TWENTY_MEGABYTES} {SHA256_OF_TWENTY_MEGABYTES}"
    assert upstream.received[0].headers["Content-Length"] == str(TWENTY_MEGABYTES)
    assert proxy.requests[0].body_size == TWENTY_MEGABYTES


def test_a_chunked_upload_of_20_mb_is_streamed(
    proxy: FaultProxy, upstream: Upstream, session: requests.Session
) -> None:
    """A chunked body arrives chunked, piece by piece, and is counted without its framing."""
    answer = session.put(f"{proxy.url}/file", data=blocks_once_seen(upstream), timeout=20)

    assert answer.text == f"{TWENTY_MEGABYTES} {SHA256_OF_TWENTY_MEGABYTES}"
    assert upstream.received[0].headers["Transfer-Encoding"] == "chunked"
    assert proxy.requests[0].body_size == TWENTY_MEGABYTES


def test_a_download_of_20_mb_arrives_whole(proxy: FaultProxy, session: requests.Session) -> None:
    """A large answer comes through unchanged."""
    answer = session.get(f"{proxy.url}/large", timeout=20)

    assert hashlib.sha256(answer.content).hexdigest() == SHA256_OF_TWENTY_MEGABYTES


def test_an_answer_is_streamed(proxy: FaultProxy, upstream: Upstream, session: requests.Session) -> None:
    """The first part of a chunked answer is with the client before the platform has sent the second."""
    with session.get(f"{proxy.url}/chunked", stream=True, timeout=20) as answer:
        parts = answer.iter_content(None)
        first = next(parts)
        upstream.go_on.set()

        assert [first, *parts] == [b"first ", b"second"]


def test_the_client_connection_is_kept(proxy: FaultProxy, session: requests.Session) -> None:
    """Requests with bodies, answers without, and faults leave one connection and one thread."""
    with proxy.fault(Status(503), path="/broken"):
        for path in ("/a", "/no-content", "/broken", "/b"):
            session.post(f"{proxy.url}{path}", data=b"x" * 1000, timeout=10)
    session.head(f"{proxy.url}/c", timeout=10)
    session.get(f"{proxy.url}/d", timeout=10)
    handlers = [thread for thread in threading.enumerate() if re.match(r"mantik-fault-proxy-\d", thread.name)]

    assert len(proxy.requests) == 6
    assert len(handlers) == 1


def test_the_host_header_arrives_as_sent(proxy: FaultProxy, session: requests.Session) -> None:
    """The platform sees the address that the client used, which its host and origin checks compare."""
    answer = session.get(f"{proxy.url}/", timeout=10)

    assert f"http://{answer.headers['X-Host']}" == proxy.url
    assert answer.headers["Set-Cookie"] == "a=1"


def test_an_answer_without_length_ends_where_the_platform_ends_it(proxy: FaultProxy, session: requests.Session) -> None:
    """A body that ends with the connection arrives whole."""
    assert session.get(f"{proxy.url}/until-close", timeout=10).text == "until the end"


def test_an_answer_that_is_torn_arrives_torn(proxy: FaultProxy, session: requests.Session) -> None:
    """The proxy does not complete what the platform left incomplete."""
    with pytest.raises(requests.exceptions.ChunkedEncodingError):
        session.get(f"{proxy.url}/torn", timeout=10)


def test_a_platform_that_is_down_is_a_502(proxy: FaultProxy, upstream: Upstream, session: requests.Session) -> None:
    """Nobody listening upstream is answered as a gateway would."""
    upstream.__exit__()

    answer = session.post(f"{proxy.url}/x", data=b"body", timeout=10)

    assert answer.status_code == 502
    assert proxy.requests[0].upstream_status is None


def test_stop_closes_a_request_that_the_platform_does_not_answer(upstream: Upstream) -> None:
    """Stopping takes no heed of a platform that is still thinking; no thread is left."""
    before = set(threading.enumerate())
    proxy = FaultProxy(upstream.url).start()
    thread, errors = in_background(f"{proxy.url}/never")
    wait_until(lambda: upstream.received, what="the request upstream")

    proxy.stop()
    thread.join(10)

    assert isinstance(errors[0], requests.ConnectionError)
    assert not [thread for thread in set(threading.enumerate()) - before if "fault-proxy" in thread.name]


def test_stop_closes_idle_connections(upstream: Upstream, session: requests.Session) -> None:
    """A kept connection does not delay stopping, and stopping twice is harmless."""
    with FaultProxy(upstream.url) as proxy:
        url = proxy.url
        session.get(url, timeout=10)
    proxy.stop()

    assert not [thread for thread in threading.enumerate() if "fault-proxy" in thread.name]
    with pytest.raises(requests.ConnectionError):
        session.get(url, timeout=10)
    assert len(proxy.requests) == 1


def test_the_authorization_is_known_but_not_shown(proxy: FaultProxy, session: requests.Session) -> None:
    """A test can tell which token was sent; a log of the records cannot."""
    session.get(proxy.url, headers={"Authorization": "Bearer secret-token"}, timeout=10)
    request = proxy.requests[0]

    assert request.authorization == "Bearer secret-token"
    assert request.scheme == "Bearer"
    assert request.fingerprint == hashlib.sha256(b"Bearer secret-token").hexdigest()
    assert "secret-token" not in repr(request)


def test_requests_are_counted_by_path_and_method(proxy: FaultProxy, session: requests.Session) -> None:
    """A text counts as a prefix, a pattern is searched, the query is part of both."""
    session.get(f"{proxy.url}/api/runs/get?run_id=7", timeout=10)
    session.post(f"{proxy.url}/api/runs/log-batch", data=b"12345", timeout=10)
    session.post(f"{proxy.url}/other", timeout=10)

    assert proxy.count() == 3
    assert proxy.count("/api/") == 2
    assert proxy.count("/api/", method="post") == 1
    assert proxy.count(re.compile(r"run_id=\d$")) == 1
    assert proxy.count("runs") == 0
    assert (proxy.requests[0].path, proxy.requests[0].query) == ("/api/runs/get", "run_id=7")
    assert [request.status for request in proxy.requests] == [200, 200, 200]


def test_a_request_can_be_waited_for(proxy: FaultProxy) -> None:
    """Waiting ends when so many requests have come, or when one is as wanted."""
    threads = [in_background(f"{proxy.url}/{number}")[0] for number in range(3)]

    assert len(proxy.wait_for(3)) == 3
    assert len(proxy.wait_for(1, "/2")) == 1
    assert proxy.wait_for(lambda request: request.status == 200)[0].method == "GET"
    for thread in threads:
        thread.join(10)


def test_waiting_in_vain_names_what_came(proxy: FaultProxy, session: requests.Session) -> None:
    """The error of a wait that ended without success lists the requests."""
    session.get(f"{proxy.url}/something-else", timeout=10)

    with pytest.raises(TimeoutError, match=r"0 of 1 expected requests .*(?s:.*)/something-else"):
        proxy.wait_for(1, "/wanted", deadline=0.05)


@pytest.mark.parametrize("url", ["https://localhost:1", "http://localhost:1/base", "localhost:5000", "http://a@b:1"])
def test_only_a_plain_base_url_is_accepted(url: str) -> None:
    """An upstream with TLS, path or user is said to be wrong at once."""
    with pytest.raises(ValueError, match="http://host:port"):
        FaultProxy(url)


def in_background(url: str) -> tuple[threading.Thread, list[requests.RequestException]]:
    """GET a URL in a thread; its error, if any, is in the list when the thread has ended."""
    errors: list[requests.RequestException] = []

    def get() -> None:
        with requests.Session() as session:
            session.trust_env = False
            try:
                session.get(url, timeout=20)
            except requests.RequestException as error:
                errors.append(error)

    thread = threading.Thread(target=get)
    thread.start()
    return thread, errors
