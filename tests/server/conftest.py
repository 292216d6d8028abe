"""One running platform for all tests that only talk to it, and a platform without a server for the rest."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import argon2
import pytest

from mantik.server.app import wrap
from mantik.server.config import ServerConfig
from mantik.server.passwords import PasswordHasher
from mantik.server.store import Store, User
from mantik.server.tokens import TokenIssuer, load_signing_key

from .asgi import Inner
from .running import PASSWORD, RunningPlatform

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from starlette.types import ASGIApp


@pytest.fixture(scope="session")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningPlatform]:
    """A running platform with the user alice. Tests add users of their own if they change or slow them."""
    running = RunningPlatform(tmp_path_factory.mktemp("platform") / "data")
    running.add_user("alice")
    yield running
    running.stop()


@dataclass
class Bench:
    """A platform's parts on a bench: the application around a stand-in for MLflow, and what it is made of."""

    config: ServerConfig
    store: Store
    app: ASGIApp
    inner: Inner = field(default_factory=Inner)

    def add_user(self, name: str, password: str = PASSWORD) -> User:
        """Add a user."""
        return self.store.add_user(name, PasswordHasher().hash(password))

    def issuer(self) -> TokenIssuer:
        """Return what signs the platform's tokens."""
        return TokenIssuer(load_signing_key(self.config.signing_key), self.config.token_lifetime)


def make_bench(data: Path, token_lifetime: float = 3600.0) -> Bench:
    """Build a platform without a server."""
    config = ServerConfig(data, token_lifetime)
    inner = Inner()
    app = wrap(inner, config)
    return Bench(config, Store(config.database), app, inner)


class CheapHasher(argon2.PasswordHasher):
    """The same hash with less work."""

    def __init__(self) -> None:
        super().__init__(time_cost=1, memory_cost=64, parallelism=1)


@pytest.fixture
def cheap_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let passwords cost little in this process, where nothing is said about what they cost."""
    monkeypatch.setattr(argon2, "PasswordHasher", CheapHasher)


@pytest.fixture
def bench(tmp_path: Path, cheap_hashes: None) -> Bench:
    """A platform without a server."""
    return make_bench(tmp_path / "data")


@pytest.fixture
def alice(bench: Bench) -> User:
    """The user alice of the bench."""
    return bench.add_user("alice")
