from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from mantik.server import store as store_module
from mantik.server.attempts import Refusal, SignInAttempts, delay_after
from mantik.server.passwords import PasswordHasher
from mantik.server.store import Store, User

from .running import PASSWORD

if TYPE_CHECKING:
    from pathlib import Path

HERE = "198.51.100.7"
WRONG = "wrong-password"


class Desk:
    """Attempts with a clock that only notes how long they would have waited."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.store = Store(path)
        self.waits: list[float] = []
        self.release: asyncio.Event | None = None
        self.attempts = SignInAttempts(self.store, PasswordHasher(), self._sleep)

    async def _sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        if self.release:
            await self.release.wait()

    def try_once(self, name: str, password: str = WRONG, client: str = HERE) -> User | Refusal:
        """Make one attempt."""
        return asyncio.run(self.attempts.check(client, name, password))

    def try_at_once(self, count: int, name: str, password: str = WRONG) -> Counter[int]:
        """Make many attempts at the same time and count the answers by status; 200 stands for success."""

        async def all_of_them() -> Counter[int]:
            outcomes = await asyncio.gather(*(self.attempts.check(HERE, name, password) for _ in range(count)))
            return Counter(outcome.status if isinstance(outcome, Refusal) else 200 for outcome in outcomes)

        return asyncio.run(all_of_them())


@pytest.fixture
def desk(tmp_path: Path, cheap_hashes: None) -> Desk:
    """A desk that knows alice."""
    desk = Desk(tmp_path / "platform.db")
    desk.store.add_user("alice", PasswordHasher().hash(PASSWORD))
    return desk


def test_delays_grow_up_to_a_few_seconds() -> None:
    """One slip costs nothing, then each failure doubles the wait, and no wait is endless."""
    assert [delay_after(n) for n in range(8)] == [0, 0, 0.25, 0.5, 1, 2, 4, 4]
    assert delay_after(10**9) == 4


@pytest.mark.parametrize("name", ["alice", "nobody"])
def test_repeated_failures_are_slowed_down(desk: Desk, name: str) -> None:
    """The wait grows with each failure, for users that exist and those that do not."""
    for _ in range(6):
        assert desk.try_once(name) == Refusal(401, "Incorrect username or password")
    assert desk.waits == [0.25, 0.5, 1, 2]


def test_right_password_still_works_and_forgives(desk: Desk) -> None:
    """After a success the count starts anew."""
    for _ in range(4):
        desk.try_once("alice")
    assert isinstance(desk.try_once("alice", PASSWORD), User)
    desk.waits.clear()
    desk.try_once("alice")
    assert desk.waits == []


def test_nobody_else_is_slowed_down(desk: Desk) -> None:
    """Another name from the same address, and the same name from another address, wait for nothing."""
    desk.store.add_user("bob", PasswordHasher().hash(PASSWORD))
    for _ in range(5):
        desk.try_once("alice")
    desk.waits.clear()
    assert isinstance(desk.try_once("bob", PASSWORD), User)
    assert isinstance(desk.try_once("alice", PASSWORD, client="203.0.113.5"), User)
    assert desk.waits == []


def test_workers_count_together(desk: Desk) -> None:
    """Failures that one process saw slow the attempts down that another sees."""
    for _ in range(3):
        desk.try_once("alice")
    other = Desk(desk.path)
    other.try_once("alice")
    assert other.waits == [0.5]


def test_failures_are_forgotten_after_a_while(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Old failures do not count, and leave the file with the next one."""
    for _ in range(4):
        desk.try_once("alice")
    monkeypatch.setattr(store_module, "FAILURES_FORGOTTEN_AFTER", -1.0)
    desk.waits.clear()
    desk.try_once("alice")
    assert desk.waits == []


def test_burst_of_guesses_gains_nothing(desk: Desk) -> None:
    """Of many guesses at once a handful is checked; the rest is told to come back later, at once."""

    async def burst() -> list[User | Refusal]:
        desk.release = asyncio.Event()
        waiting = {asyncio.create_task(desk.attempts.check(HERE, "alice", WRONG)) for _ in range(60)}
        outcomes: list[User | Refusal] = []
        while waiting:
            if len(waiting) == 4:
                desk.release.set()
            done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            outcomes += [task.result() for task in done]
        return outcomes

    refusals = [outcome for outcome in asyncio.run(burst()) if isinstance(outcome, Refusal)]
    assert len(refusals) == 60
    assert sum(refusal.status == 401 for refusal in refusals) <= 7
    assert all((refusal.status == 429) == (refusal.retry_after > 0) for refusal in refusals)


def test_job_of_many_processes_logs_in_at_once(desk: Desk) -> None:
    """Right passwords at the same moment all succeed, without waits."""
    assert desk.try_at_once(24, "alice", PASSWORD) == {200: 24}
    assert desk.waits == []


def test_one_address_cannot_fill_the_queue(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond a bound an address is told to come back later."""
    monkeypatch.setattr("mantik.server.attempts._MOST_PER_CLIENT", 3)
    assert desk.try_at_once(5, "alice", PASSWORD) == {200: 3, 429: 2}
