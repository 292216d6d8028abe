"""What is known of objects by their identity, and of data by what is in them."""

from __future__ import annotations

import gc
import os
import weakref
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from mantik.integrations.sklearn.data import Data
from mantik.integrations.sklearn.fingerprints import fingerprint
from mantik.integrations.sklearn.identities import Identities

if TYPE_CHECKING:
    from collections.abc import Callable

MAKERS: list[Callable[[], Any]] = [lambda: np.zeros(4), lambda: [0, 0], lambda: (0, len([])), lambda: pd.Series([0])]


@settings(max_examples=60)
@given(st.lists(st.tuples(st.sampled_from(["known", "foreign", "drop"]), st.integers(0, 3)), max_size=60))
def test_reused_addresses(steps: list[tuple[str, int]]) -> None:
    """However short objects live, one is known if and only if it is that which was put there."""
    identities: Identities[int] = Identities()
    living: list[tuple[Any, int | None]] = []
    for at, (step, maker) in enumerate(steps):
        if step == "drop":
            # Arrays and lists of one size come to lie where those lay that have just gone.
            living = living[len(living) // 2 :] if maker else []
            continue
        thing = MAKERS[maker]()
        assert identities.get(thing) is None
        if step == "known":
            identities.put(thing, at)
        living.append((thing, at if step == "known" else None))
        without = [one for one, value in living if isinstance(one, (list, tuple)) and value is not None]
        for one, value in living:
            # Of those without weak references only the last ones are known.
            is_forgotten = any(one is other for other in without[:-8])
            assert identities.get(one) == (None if is_forgotten else value)


def test_addresses_are_reused() -> None:
    """The property above is about something: lists that come and go do lie at the same address."""
    identities: Identities[int] = Identities()
    seen = set()
    reused = 0
    for at in range(200):
        thing = [at]
        reused += id(thing) in seen
        seen.add(id(thing))
        assert identities.get(thing) is None
        if at % 2:
            identities.put(thing, at)
    assert reused > 50
    assert len(identities) <= 1


def test_what_has_no_weak_reference() -> None:
    """A list is kept no longer than until the next call after the user has let it go."""

    class Element:
        pass

    identities: Identities[int] = Identities()
    element = Element()
    thing = [element]
    reference = identities.put(thing, 1)
    gone = weakref.ref(element)
    del element
    assert identities.get([0]) is None
    assert reference() is thing
    del thing
    assert identities.get([0]) is None
    assert (gone(), reference(), len(identities)) == (None, None, 0)


def test_threads() -> None:
    """Many threads that come and go with short-lived objects mistake none and forget none."""
    identities: Identities[int] = Identities()

    def work(first: int) -> int:
        right = 0
        for at in range(first, first + 500):
            thing = np.zeros(2) if at % 2 else [at]
            unknown = identities.get(thing)
            identities.put(thing, at)
            right += unknown is None and identities.get(thing) == at
        return right

    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(work, range(0, 8000, 1000))) == [500] * 8
    gc.collect()
    assert len(identities) <= 8


def test_a_forked_child() -> None:
    """A child that was forked while a thread held the lock does not wait for it."""
    identities: Identities[int] = Identities()
    with ThreadPoolExecutor(1) as threads:
        threads.submit(Identities.lock.acquire).result()
        child = os.fork()
        if not child:
            identities.put(thing := np.zeros(1), 5)
            os._exit(identities.get(thing) or 0)
        threads.submit(Identities.lock.release).result()
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 5


def digest(features: Any) -> int | None:  # noqa: ANN401
    """Return the fingerprint of features."""
    rows = features.shape[0] if hasattr(features, "shape") else len(features)
    return fingerprint(Data(features, rows=rows, kept=rows))


def test_fingerprints() -> None:
    """Equal data are alike whatever holds them, and a change anywhere in small data is seen."""
    values = np.random.default_rng(0).normal(size=(100, 4))
    alike = [values, values.copy(), np.asfortranarray(values), values.tolist(), pd.DataFrame(values)]
    assert len({digest(features) for features in alike}) == 1
    others = [values[:99], values.T, values.astype("f4"), sp.csr_matrix(values), values[::-1]]
    for at in (0, 57, 99):
        changed = values.copy()
        changed[at, 1] += 1
        others.append(changed)
    assert len({digest(features) for features in (values, *others)}) == 1 + len(others)
    assert digest(sp.csr_matrix(values)) == digest(sp.csr_matrix(values.copy()))
    assert digest(np.array([["a", 1], ["b", None]], dtype=object)) != digest(np.array([["a", 1], ["c", None]], object))
    assert digest(pd.DataFrame({"a": ["x", "y"], "b": [1, 2]})) == digest(pd.DataFrame({"c": ["x", "y"], "d": [1, 2]}))


@pytest.mark.parametrize("features", [[[1], [1, 2]], [], None, sp.csr_matrix((3, 0))])
def test_what_has_no_fingerprint(features: Any) -> None:  # noqa: ANN401
    """Nothing is raised of features that cannot be looked at."""
    rows = 0 if features is None else 2
    assert fingerprint(Data(features, rows=rows)) is None or sp.issparse(features)


def test_fingerprints_of_large_data() -> None:
    """Of large data some rows are looked at, from the first to the last."""
    values = np.random.default_rng(0).normal(size=(200_000, 3))
    changed = values.copy()
    changed[-1] = 0
    assert digest(values) == digest(values.copy())
    assert digest(values) != digest(changed)
