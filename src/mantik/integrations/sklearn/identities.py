"""What is known of objects by their identity, without keeping them alive for it."""

from __future__ import annotations

import os
import sys
import threading
import weakref
from collections import deque
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Identities"]

_Value = TypeVar("_Value")

_OURS_ALONE = 2
"""References to an object that only `_Kept` has: its own, and that of the call that counts them."""


class _Kept:
    """Stands for an object to which there is no weak reference, such as a list; keeps it until it is let go."""

    __slots__ = ("value",)

    def __init__(self, value: object) -> None:
        self.value: object | None = value

    def __call__(self) -> object | None:
        return self.value

    @property
    def is_ours_alone(self) -> bool:
        return sys.getrefcount(self.value) <= _OURS_ALONE


class Identities(Generic[_Value]):
    """Values by the identity of objects, whatever these are equal to. Any thread may call.

    An object is held weakly, and its value is forgotten with it. An address at which another object has come to lie is
    never mistaken: what is found is compared with the object itself. Objects without weak references, such as lists and
    tuples, are kept: a few of them, and each only until the next call after nobody else has it.

    Attributes:
        lock: Of all who remember something of the user's objects. A thread may take it again, as code of the user's may
            run in the middle of anything, and a forked child has a new one, as the threads of its parent are not there.

    Args:
        most_kept: How many objects without weak references are kept.
    """

    lock: ClassVar[Any] = threading.RLock()

    def __init__(self, most_kept: int = 8) -> None:
        self._most_kept = most_kept
        self._entries: dict[int, tuple[Callable[[], object | None], _Value]] = {}
        self._kept: dict[int, _Kept] = {}
        self._gone: deque[tuple[int, object]] = deque()

    def __len__(self) -> int:
        """Return of how many objects something is known."""
        with self.lock:
            self._forget()
            return len(self._entries)

    def put(self, thing: object, value: _Value) -> Callable[[], Any]:
        """Remember a value for an object, in place of the one before.

        Returns:
            What returns the object as long as there is it, and then None.
        """
        with self.lock:
            self._forget()
            key = id(thing)
            reference = self._reference(key, thing)
            self._entries[key] = reference, value
            return reference

    def get(self, thing: object) -> _Value | None:
        """Return the value of an object; None where there is none."""
        with self.lock:
            self._forget()
            reference, value = self._entries.get(id(thing), (_nothing, None))
            return value if reference() is thing else None

    def _reference(self, key: int, thing: object) -> Callable[[], object | None]:
        gone = self._gone
        try:
            # Python may call this in the middle of anything, so it only takes note.
            return weakref.ref(thing, lambda reference: gone.append((key, reference)))
        except TypeError:
            kept = _Kept(thing)
            self._kept.pop(key, None)
            self._kept[key] = kept
            if len(self._kept) > self._most_kept:
                self._let_go(next(iter(self._kept)))
            return kept

    def _forget(self) -> None:
        """Forget what there is no more."""
        while self._gone:
            key, reference = self._gone.popleft()
            if self._entries.get(key, (None,))[0] is reference:
                del self._entries[key]
        for key in [key for key, kept in self._kept.items() if kept.is_ours_alone]:
            self._let_go(key)

    def _let_go(self, key: int) -> None:
        kept = self._kept.pop(key, None)
        if kept is None:
            return
        if self._entries.get(key, (None,))[0] is kept:
            del self._entries[key]
        # Whatever is in it may run code of the user's when it goes.
        kept.value = None


def _nothing() -> None:
    return None


def _begin_anew() -> None:
    Identities.lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_anew)
