"""The compute backend over HTTP: one request, one answer, its refusals in its own words."""

from __future__ import annotations

import contextlib
import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import requests

from mantik.auth.bearer import BearerAuth
from mantik.auth.login import GivenToken
from mantik.auth.transport import CONNECT_TIMEOUT_SECONDS, reason_of
from mantik.compute.multipart import Form
from mantik.compute.patience import POLL_SECONDS
from mantik.compute.refusal import NO_SUCH_ROUTE, body_of, object_in, reason_in, refusal, site_of
from mantik.exceptions import (
    ComputeBackendError,
    MantikError,
    PlatformUnreachableError,
    SubmissionError,
    UnexpectedAnswerError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import BinaryIO

    from mantik.auth.login import TokenSource
    from mantik.auth.urls import Origin
    from mantik.secret import Secret

__all__ = ["Package", "Service", "quoted"]

_logger = logging.getLogger(__name__)

_READ_SECONDS = 60.0
_UPLOAD_SECONDS = (60.0, 300.0)
"""To hand over the next piece of an upload, and to wait until what was uploaded is unpacked and answered."""

_LOOK_SECONDS = 60.0
"""How long a job is looked for whose submission got no answer: as long as it may take to unpack it."""

_LIMIT_HEADER = "Mantik-Archive-Limit"
_KEY_HEADER = "Idempotency-Key"
_NO_ANSWER = frozenset({502, 504})
"""What a proxy says when the service behind it did not answer, or not in time."""


@dataclass(frozen=True, slots=True)
class Package:
    """A packed project on its way.

    Attributes:
        experiment_id: Where its run is to be.
        job_id: What its job is to be called, so that it can be looked for should the answer get lost; empty for an
            early service, which would call it otherwise.
        fields: Makes the form's fields for a token, so that form and header hold the same one.
        archive: The packed project.
        size: Its bytes.
        progress: Is told how many bytes were handed over, and of how many.
    """

    experiment_id: int
    job_id: str
    fields: Callable[[Secret], Mapping[str, str]]
    archive: BinaryIO
    size: int
    progress: Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Service:
    """The compute backend of one platform.

    Attributes:
        url: Its base URL, without a trailing slash.
        origin: The only scheme, host and port that get the token.
        source: Where tokens come from.
        secrets: What no message may repeat, should an answer do so.
    """

    url: str
    origin: Origin
    source: TokenSource
    secrets: tuple[Secret, ...] = ()

    def get(self, path: str, /, **query: str | int) -> dict[str, Any]:
        """Ask for something and return the object of the answer.

        Args:
            path: Path below the base URL, quoted where it has to be.
            query: The query.

        Raises:
            MantikError: There is no token, no answer, or a refusal.
        """
        with self.stream(path, **query) as answer:
            return self._object_in(answer)

    def post(self, path: str) -> dict[str, Any]:
        """Ask for something to be done and return the object of the answer.

        Args:
            path: Path below the base URL, quoted where it has to be.

        Raises:
            MantikError: There is no token, no answer, or a refusal.
        """
        with self._answer("POST", path) as answer:
            self._refuse(answer)
            return self._object_in(answer)

    @contextlib.contextmanager
    def stream(self, path: str, /, **query: str | int) -> Iterator[requests.Response]:
        """Ask for something and return an answer whose body is still to be read.

        What goes wrong while it is read becomes an error of mantik as well.

        Args:
            path: Path below the base URL, quoted where it has to be.
            query: The query.

        Raises:
            MantikError: There is no token, no answer, or a refusal.
        """
        with self._answer("GET", path, params=query) as answer:
            self._refuse(answer)
            yield answer

    def archive_limit(self) -> int | None:
        """Ask whether jobs are taken, before anything is uploaded.

        Returns:
            How many bytes an archive may have, where the service says so. An early platform has no such route: there
            only the upload itself can tell.

        Raises:
            SubmissionError: They are not.
            MantikError: There is no token, or no answer.
        """
        with self._answer("GET", "jobs", params={"offset": 0, "limit": 1}) as answer:
            if answer.status_code in NO_SUCH_ROUTE:
                return None
            self._refuse(answer, SubmissionError)
            limit = answer.headers.get(_LIMIT_HEADER, "")
            return int(limit) if limit.isdecimal() else None

    def submit(self, package: Package) -> requests.Response:
        """Upload a project; once more with a new token should the first one be refused.

        Args:
            package: What to send.

        Returns:
            The answer, which is a success; if it got lost, what the service says of the job.

        Raises:
            SubmissionError: The service did not take it.
            PlatformUnreachableError: The upload was interrupted, or there was no answer, at least none of the service
                itself.
            MantikError: There is no token.
        """
        token = self.source.token()
        answer = self._send(package, token)
        if answer.status_code == requests.codes.unauthorized:
            fresh = self.source.renew(token)
            if fresh != token:
                answer = self._send(package, fresh)
        self._refuse(answer, SubmissionError)
        return answer

    def _send(self, package: Package, token: Secret) -> requests.Response:
        package.archive.seek(0)
        form = Form(
            package.fields(token),
            "mlproject_zip",
            package.archive,
            package.size,
            lambda sent: package.progress(sent, len(form)),
        )
        url, site, problem = f"{self.url}/submit/{package.experiment_id}", site_of(self.url), ""
        headers = {"Content-Type": form.content_type, "Accept": "application/json"}
        if package.job_id:
            headers[_KEY_HEADER] = package.job_id
        with self._session(GivenToken(token)) as session:
            try:
                answer = session.post(
                    url,
                    data=form,
                    headers=headers,
                    timeout=_UPLOAD_SECONDS,
                    allow_redirects=False,
                )
            except requests.RequestException as error:
                problem = _reason_of(error, _UPLOAD_SECONDS)
            else:
                if answer.status_code not in _NO_ANSWER or not form.is_sent:
                    return answer
                problem = f"HTTP {answer.status_code}: {reason_in(answer, self.secrets)}"
        # Raised outside the except block: a chained error would carry the request, and with it token and passwords.
        if form.is_sent:
            unanswered = f"{site} got the whole project but gave no answer ({problem})."
            found = self._job(package.job_id, unanswered) if package.job_id else None
            if found is not None:
                return found
            raise PlatformUnreachableError(
                f"{unanswered} The job may have been submitted all the same: look with 'mantik runs list' before you "
                "submit it again.",
                url,
            )
        raise PlatformUnreachableError(
            f"The upload to {site} was interrupted ({problem}). Nothing was submitted, because a project is taken "
            "only once it is there as a whole: submit it again.",
            url,
        )

    def _job(self, job_id: str, why: str) -> requests.Response | None:
        """Look for a job that may have been submitted; None if nothing is known of it for as long as that may take."""
        _logger.warning("%s Looking for up to %g s whether there is a job.", why, _LOOK_SECONDS)
        deadline = time.monotonic() + _LOOK_SECONDS
        while True:
            with contextlib.suppress(MantikError), self.stream(f"jobs/{job_id}") as answer:
                if object_in(answer.content) is not None:
                    return answer
            if time.monotonic() >= deadline:
                return None
            time.sleep(POLL_SECONDS)

    @contextlib.contextmanager
    def _answer(
        self, method: str, path: str, params: Mapping[str, str | int] | None = None
    ) -> Iterator[requests.Response]:
        url, timeout, problem = f"{self.url}/{path}", (CONNECT_TIMEOUT_SECONDS, _READ_SECONDS), ""
        with self._session(self.source) as session:
            try:
                with session.request(
                    method,
                    url,
                    params=params,
                    headers={"Accept": "application/json"},
                    timeout=timeout,
                    allow_redirects=False,
                    stream=True,
                ) as answer:
                    yield answer
                    return
            except requests.RequestException as error:
                problem = _reason_of(error, timeout)
        # Whoever reads the answer meanwhile still holds the first error, and Python would show both.
        raise PlatformUnreachableError(
            f"The compute backend at {self.url} cannot be reached: {problem}.", url
        ) from None

    def _session(self, source: TokenSource) -> requests.Session:
        session = requests.Session()
        # As for token requests: nothing for this machine goes through a proxy. An auth object keeps .netrc out.
        session.trust_env = not self.origin.is_loopback
        session.auth = BearerAuth(self.origin, source)
        return session

    def _object_in(self, answer: requests.Response) -> dict[str, Any]:
        content = object_in(body_of(answer))
        if content is not None:
            return content
        raise UnexpectedAnswerError(
            f"{answer.url} answered (HTTP {answer.status_code}) with something that no compute backend says: either a "
            "sign-in page of the network (captive portal), or another service.",
            answer.url.partition("?")[0],
            answer.status_code,
        )

    def _refuse(self, answer: requests.Response, kind: type[ComputeBackendError] = ComputeBackendError) -> None:
        """Raise what an answer says if it is no success."""
        if not 200 <= answer.status_code < 300:  # noqa: PLR2004  # the class of RFC 9110
            raise refusal(answer, self.url, kind, self.secrets)


def _reason_of(error: requests.RequestException, timeout: tuple[float, float]) -> str:
    """Say in plain words why a request got no answer, with the times that it had to connect and to be answered."""
    if isinstance(error, requests.exceptions.ChunkedEncodingError):
        return "its answer broke off"
    if not isinstance(error, requests.Timeout):
        return reason_of(error)
    connect, read = timeout
    is_connecting = isinstance(error, requests.ConnectTimeout)
    return f"no connection within {connect:g} s" if is_connecting else f"no answer within {read:g} s"


def quoted(path: str) -> str:
    """Quote a path, or a part of it, for a URL."""
    return quote(path, safe="/")
