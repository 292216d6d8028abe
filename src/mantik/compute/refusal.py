"""What the compute backend says when it refuses, in all shapes of the contract, as one clear error."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from requests import codes

from mantik.secret import Secret

if TYPE_CHECKING:
    from requests import Response

    from mantik.exceptions import ComputeBackendError

__all__ = ["NO_SUCH_ROUTE", "body_of", "object_in", "reason_in", "refusal", "site_of"]

NO_SUCH_ROUTE = frozenset({404, 405, 501})
"""What a server says that knows nothing of jobs."""

_MOST_WORDS = 500
_MOST_BYTES = 16 * 1024 * 1024
_CHUNK_BYTES = 64 * 1024
_LOGIN_FIELDS = {
    "unicore_user": "MANTIK_UNICORE_USERNAME",
    "unicore_password": "MANTIK_UNICORE_PASSWORD",
    "unicore_project": "MANTIK_UNICORE_PROJECT",
}
"""Fields that an early platform insists on, because it logs in at a computing centre with them."""


def refusal(
    answer: Response, url: str, kind: type[ComputeBackendError], secrets: tuple[Secret, ...]
) -> ComputeBackendError:
    """Return the error for an answer that is no success.

    Args:
        answer: The answer.
        url: The compute backend.
        kind: The error's class.
        secrets: What the error may not repeat, should the answer do so; besides the token that was sent.
    """
    wait = answer.headers.get("Retry-After", "")
    retry_after = float(wait) if wait.isdecimal() else None
    asked = answer.url.partition("?")[0]
    message = _message(answer, url, secrets)
    if retry_after is not None:
        message += f" Try again in {retry_after:.0f} s."
    return kind(message, asked, answer.status_code, retry_after)


def reason_in(answer: Response, secrets: tuple[Secret, ...]) -> str:
    """Return the reason that an answer gives, or that it gives none.

    Args:
        answer: The answer.
        secrets: What may not be repeated, should the answer do so; besides the token that was sent.
    """
    return _said(answer, secrets)[1]


def body_of(answer: Response) -> bytes:
    """Read what an answer says, up to a sane size."""
    body = bytearray()
    for chunk in answer.iter_content(_CHUNK_BYTES):
        body += chunk
        if len(body) > _MOST_BYTES:
            break
    return bytes(body)


def object_in(body: bytes) -> dict[str, Any] | None:
    """Return the JSON object that a body is; None if it is none."""
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None


def site_of(url: str) -> str:
    """Return scheme, host and port of a URL, as messages name a service."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def _message(answer: Response, url: str, secrets: tuple[Secret, ...]) -> str:
    status, site = answer.status_code, site_of(url)
    words, said = _said(answer, secrets)
    if 300 <= status < 400:  # noqa: PLR2004  # the class of RFC 9110
        return (
            f"{answer.url} redirects (HTTP {status}). Tokens are never sent on: put the final address into "
            "MLFLOW_TRACKING_URI."
        )
    if status in NO_SUCH_ROUTE and words in {"", "Not Found", "Method Not Allowed"}:
        return (
            f"There is no compute backend at {url} (HTTP {status}). A platform of one's own has one if it is started "
            "with 'mantik server --compute local' or '--compute slurm'."
        )
    if status == codes.service_unavailable and words:
        return f"{site} takes no jobs: {words}"
    if status == codes.unauthorized:
        return f"{site} did not accept the token: {said}"
    if status >= 500:  # noqa: PLR2004  # the class of RFC 9110
        return f"The compute backend at {site} failed (HTTP {status}): {said}"
    return f"The compute backend at {site} says (HTTP {status}): {said}"


def _said(answer: Response, secrets: tuple[Secret, ...]) -> tuple[str, str]:
    """Return the service's own words, empty if there are none, and what to say of them."""
    body = body_of(answer)
    # A login renews its token, so the one in the request is not always one that the caller knows.
    sent = Secret(answer.request.headers.get("Authorization", "").removeprefix("Bearer "))
    words = _words_in(object_in(body) or {}, (*secrets, sent))
    return words, words or ("a web page" if body.lstrip().startswith(b"<") else "no reason given")


def _words_in(content: dict[str, Any], secrets: tuple[Secret, ...]) -> str:
    """Return the service's own words, short, in one line, and without a secret that it repeats."""
    words = content.get("detail") or content.get("message") or content.get("error") or ""
    text = "; ".join(map(_field_words, words)) if isinstance(words, list) else str(words)
    for secret in filter(None, secrets):
        text = text.replace(secret.reveal(), "***")
    text = "".join(character for character in " ".join(text.split()) if character.isprintable())
    return text if len(text) <= _MOST_WORDS else f"{text[:_MOST_WORDS]}…"


def _field_words(problem: object) -> str:
    """Put one entry of a list of form fields into words."""
    if not isinstance(problem, dict):
        return str(problem)
    place = problem.get("loc")
    name = str(place[-1]) if isinstance(place, list) and place else ""
    text = f"{name}: {problem.get('msg', 'cannot be used')}" if name else str(problem.get("msg", problem))
    variable = _LOGIN_FIELDS.get(name)
    return f"{text} (set {variable})" if variable else text
