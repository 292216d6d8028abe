"""Attempts to sign in: checked one after the other, and slowed down where they keep failing."""

from __future__ import annotations

import asyncio
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeVar

from mantik.server.passwords import is_good_name, normal_form

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from mantik.server.passwords import PasswordHasher
    from mantik.server.store import Store, User

WRONG_PASSWORD: Final = "Incorrect username or password"  # noqa: S105 - an answer
TOO_MANY_ATTEMPTS: Final = "Too many attempts to sign in, try again later"

# One check takes 64 MiB and tens of milliseconds of several cores: more at once would only take longer each.
_CHECKS_AT_ONCE: Final = 2
_FREE_FAILURES: Final = 1
_FIRST_DELAY: Final = 0.25
_LONGEST_DELAY: Final = 4.0
_MOST_DOUBLINGS: Final = 16
_MOST_DELAYED: Final = 4
# A job of many processes may log in from one address at the same moment.
_MOST_PER_CLIENT: Final = 256


_Key = TypeVar("_Key")


@dataclass(frozen=True, slots=True)
class Refusal:
    """An attempt that failed.

    Attributes:
        status: The HTTP status code of the answer.
        text: What to tell whoever tried.
        retry_after: Seconds after which another attempt makes sense; 0 if there is nothing to wait for.
    """

    status: int
    text: str
    retry_after: int = 0


def delay_after(failures: int) -> float:
    """Return for how many seconds the next attempt waits after so many failures in a row."""
    if failures <= _FREE_FAILURES:
        return 0.0
    doublings = min(failures - _FREE_FAILURES - 1, _MOST_DOUBLINGS)
    return min(_FIRST_DELAY * 2.0**doublings, _LONGEST_DELAY)


class SignInAttempts:
    """Checks user names and passwords.

    Failures are counted for each pair of client address and user name, in the store and so over all processes. Delayed
    attempts are counted in each process; beyond a few the answer is 429 at once. Neither touches another user's name.
    Parallel attempts with the right password wait for nobody's delay as long as nobody failed.
    """

    def __init__(
        self,
        store: Store,
        hasher: PasswordHasher,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._store = store
        self._hasher = hasher
        self._sleep = sleep
        self._executor = ThreadPoolExecutor(_CHECKS_AT_ONCE, thread_name_prefix="mantik-sign-in")
        self._delayed: Counter[tuple[str, str]] = Counter()
        self._in_flight: Counter[str] = Counter()

    async def check(self, client: str, name: str, password: str) -> User | Refusal:
        """Return the user if name and password are right, else what to answer."""
        if self._in_flight[client] >= _MOST_PER_CLIENT:
            return Refusal(429, TOO_MANY_ATTEMPTS, int(_LONGEST_DELAY))
        self._in_flight[client] += 1
        try:
            return await self._check_after_delay(client, normal_form(name), password)
        finally:
            _count_down(self._in_flight, client)

    async def _check_after_delay(self, client: str, name: str, password: str) -> User | Refusal:
        loop = asyncio.get_running_loop()
        waited = 0.0
        while True:
            outcome = await loop.run_in_executor(self._executor, self._check_now, client, name, password, waited)
            if not isinstance(outcome, float):
                return outcome
            if self._delayed[client, name] >= _MOST_DELAYED:
                return Refusal(429, TOO_MANY_ATTEMPTS, int(_LONGEST_DELAY))
            self._delayed[client, name] += 1
            try:
                await self._sleep(outcome - waited)
            finally:
                _count_down(self._delayed, (client, name))
            waited = outcome

    def _check_now(self, client: str, name: str, password: str, waited: float) -> User | Refusal | float:
        """Check in a thread. Return the delay instead if it has grown beyond what was waited: a burst gains nothing."""
        key = name if is_good_name(name) else ""
        failures = self._store.failures(client, key)
        delay = delay_after(failures)
        if delay > waited:
            return delay
        user = self._store.user_named(key)
        if self._hasher.verify(password, user.password_hash if user else None) and user:
            if failures:
                self._store.forget_failures(client, key)
            return user
        self._store.add_failure(client, key)
        return Refusal(401, WRONG_PASSWORD)


def _count_down(counter: Counter[_Key], key: _Key) -> None:
    counter[key] -= 1
    if not counter[key]:
        del counter[key]
