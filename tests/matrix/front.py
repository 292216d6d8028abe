"""A platform for servers of before mantik's own: MLflow's stock server, and in front of it what hands out tokens."""

from __future__ import annotations

import json
import secrets
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import requests

from mantik.testing import FaultProxy, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mantik.testing.exchange import HttpExchange

__all__ = ["fronted_server"]

_LIFETIME = 3600


class _Gate:
    """A switch of the fault proxy that lets nobody through without a token, and gives tokens to one user."""

    def __init__(self, username: str, password: str) -> None:
        self._login = {"username": username, "password": password}
        self._refresh = secrets.token_hex()
        self._tokens: set[str] = set()

    def happen(self, exchange: HttpExchange) -> None:
        """Answer for the tokens; pass on what carries one."""
        path = exchange.path.partition("?")[0]
        if path.startswith("/api/mantik/tokens/"):
            self._give(exchange, path.rpartition("/")[2])
        elif path == "/version" or exchange.headers.get("Authorization", "").removeprefix("Bearer ") in self._tokens:
            exchange.forward()
        else:
            exchange.answer(401, b"Unauthorized", {"Content-Type": "text/plain"})

    def _give(self, exchange: HttpExchange, what: str) -> None:
        asked = json.loads(b"".join(exchange._body))  # noqa: SLF001  # what other faults never look at
        wanted = {"username": self._login["username"], "refresh_token": self._refresh}
        if asked != (self._login if what == "create" else wanted):
            exchange.answer(401, b"Incorrect user name or password", {"Content-Type": "text/plain"})
            return
        token = secrets.token_hex()
        self._tokens.add(token)
        until = datetime.fromtimestamp(time.time() + _LIFETIME, timezone.utc).isoformat(timespec="seconds")
        answer = {"AccessToken": token, "ExpiresAt": until}
        if what == "create":
            answer["RefreshToken"] = self._refresh
        exchange.answer(201, json.dumps(answer).encode(), {"Content-Type": "application/json"})


@contextmanager
def fronted_server(username: str, password: str) -> Iterator[str]:
    """Run the stock server of the installed MLflow behind a gate, and give the gate's URL."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)]
        command += ["--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--serve-artifacts"]
        command += ["--artifacts-destination", f"{folder}/artifacts", "--workers", "2"]
        with Path(folder, "server.log").open("wb") as log:
            server = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder)
        try:
            wait_until(lambda: _answers(f"http://127.0.0.1:{port}/health"), deadline=120, what="the stock server")
            with FaultProxy(f"http://127.0.0.1:{port}") as proxy:
                proxy.fault(_Gate(username, password))  # type: ignore[arg-type]  # it looks at the request as well
                yield proxy.url
        finally:
            server.terminate()
            server.wait(30)


def _answers(url: str) -> bool:
    try:
        return requests.get(url, timeout=5).ok
    except requests.RequestException:
        return False
