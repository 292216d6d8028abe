"""What the MLflow installed here and the one of the platform cannot do together: said once, before a training begins.

Everything else is found out by trying. This alone goes by versions, because it is to be said before anything is tried,
and because MLflow's client goes by the same ones.
"""

from __future__ import annotations

import logging
import re
import threading
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

import requests

if TYPE_CHECKING:
    from mantik.auth.bearer import BearerAuth

__all__ = ["client_version", "gives_spans", "learn", "shortcomings", "takes_spans", "version_in"]

_logger = logging.getLogger(__name__)

_VERSION = re.compile(r"(\d+)\.(\d+)[\w.+-]{0,40}")

_MODELS_SINCE = (3, 0)
"""The first MLflow in which a model is a thing of its own and not a folder of its run."""

_SPANS_SINCE = (3, 4)
"""The first server that takes spans (MLflow, `store/tracking/rest_store.py`)."""

_SPANS_READ_SINCE = (3, 6)
"""The first server from which spans are read as well; before, they are read from an artifact of the trace alone."""

_SECONDS = 3.0
"""How long the beginning of a training may wait for the platform's version."""

# By tracking URI; None where the platform did not tell.
_servers: dict[str, str | None] = {}


def client_version() -> str | None:
    """Return the version of the MLflow that is installed here, without importing it."""
    # Up to 2.14 the whole MLflow did not bring the skinny one with it.
    for name in ("mlflow-skinny", "mlflow"):
        with suppress(PackageNotFoundError):
            return version(name)
    return None


def version_in(answer: requests.Response) -> str | None:
    """Return the version that a server tells at ``/version``; None if that is not what it answered."""
    text = answer.text.strip()
    return text if answer.ok and _VERSION.fullmatch(text) else None


def shortcomings(client: str | None, server: str | None) -> tuple[str, ...]:
    """Return what an MLflow here and one on the platform cannot do together, one sentence for each thing.

    Args:
        client: Version of MLflow here; None if it is not known.
        server: Version of MLflow on the platform; None if it is not known.
    """
    here, there = _numbers(client), _numbers(server)
    if here is None or there is None or here < _MODELS_SINCE:
        return ()
    found = []
    if there < _MODELS_SINCE:
        found.append(
            f"The platform runs MLflow {server}, older than the {client} here: metrics and artifacts work, logging "
            f"models does not. Install 'mlflow<3' to log models."
        )
    if there < _SPANS_SINCE:
        found.append(
            f"The platform runs MLflow {server}, which takes no spans of traces: traces go to it straight and not by "
            f"way of the disk, so those that are made while it cannot be reached are lost."
        )
    return tuple(found)


def learn(uri: str, auth: BearerAuth) -> None:
    """Ask the platform for its version, once per process, and warn of what does not work with it.

    Never raises, and takes three seconds at most: whoever answers later is listened to beside the training.

    Args:
        uri: The normalised tracking URI.
        auth: What puts the token on requests.
    """
    if uri in _servers:
        return
    _servers[uri] = None
    # Not within the limits of the request alone: the look-up of a name has none.
    thread = threading.Thread(target=_ask, args=(uri, auth), name="mantik-version", daemon=True)
    thread.start()
    thread.join(_SECONDS)


def takes_spans(uri: str) -> bool:
    """Tell whether the platform takes spans of traces; yes where its version is not known."""
    return _is_from(uri, _SPANS_SINCE)


def gives_spans(uri: str) -> bool:
    """Tell whether spans are read from where the platform takes them; yes where its version is not known."""
    return _is_from(uri, _SPANS_READ_SINCE)


def _ask(uri: str, auth: BearerAuth) -> None:
    with requests.Session() as session:
        session.trust_env = not auth.origin.is_loopback
        session.auth = auth
        try:
            answer = session.get(f"{uri}/version", timeout=_SECONDS, allow_redirects=False)
        except Exception as error:  # noqa: BLE001  # a question of courtesy: whatever goes wrong here is no matter
            _logger.debug("The platform's version is not known: %s", type(error).__name__)
            return
    _servers[uri] = version_in(answer)
    for sentence in shortcomings(client_version(), _servers[uri]):
        _logger.warning(sentence)


def _is_from(uri: str, oldest: tuple[int, int]) -> bool:
    server = _numbers(_servers.get(uri))
    return server is None or server >= oldest


def _numbers(text: str | None) -> tuple[int, int] | None:
    found = _VERSION.match(text or "")
    return (int(found[1]), int(found[2])) if found is not None else None
