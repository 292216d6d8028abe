"""A thread that is quiet: its warnings and MLflow's records in it reach nobody, those of other threads everybody."""

from __future__ import annotations

import logging
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import mlflow  # noqa: F401  # its loggers
import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import load_iris
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import cross_val_score

from mantik.integrations.sklearn.quiet import quiet_here

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Kept(logging.Handler):
    """Keeps the messages that it gets."""

    def __init__(self) -> None:
        super().__init__()
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep one."""
        self.messages.append(record.getMessage())


@pytest.fixture
def heard() -> Iterator[list[str]]:
    """Return what MLflow and others log, and what is warned of."""
    kept = Kept()
    loggers = [logging.getLogger(name) for name in ("mlflow", "own")]
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = lambda message, *_, **__: kept.messages.append(str(message))
        for logger in loggers:
            logger.addHandler(kept)
        yield kept.messages
        for logger in loggers:
            logger.removeHandler(kept)


def speak(name: str) -> None:
    """Warn, and log as MLflow and as somebody else."""
    warnings.warn(f"{name} warns", UserWarning, stacklevel=1)
    logging.getLogger("mlflow.sklearn").warning("%s in MLflow", name)
    logging.getLogger("mlflow.never.heard.of").error("%s deep in MLflow", name)
    logging.getLogger("own").warning("%s elsewhere", name)


def state() -> list[object]:
    """Return what may be different afterwards."""
    loggers = [logging.getLogger(), logging.getLogger("mlflow"), logging.getLogger("own")]
    filters = [list(handler.filters) for logger in loggers for handler in logger.handlers]
    return [filters, list(warnings.filters), id(warnings.filters), warnings.showwarning]


def elsewhere(action: Callable[[], object]) -> None:
    """Do something in another thread."""
    with ThreadPoolExecutor(1) as pool:
        pool.submit(action).result()


def test_this_thread_is_quiet_and_others_are_not(heard: list[str]) -> None:
    """Here neither warnings nor MLflow's records come through, elsewhere all do, and afterwards all is as before."""
    before = state()
    with quiet_here():
        speak("here")
        with quiet_here():
            speak("inside")
        speak("here again")
        elsewhere(lambda: speak("there"))
    assert state() == before
    speak("later")
    here = ["here elsewhere", "inside elsewhere", "here again elsewhere"]
    there = ["there warns", "there in MLflow", "there deep in MLflow", "there elsewhere"]
    assert heard == [*here, *there, "later warns", "later in MLflow", "later deep in MLflow", "later elsewhere"]


def test_warnings_that_are_errors(heard: list[str]) -> None:
    """Where warnings are raised they are none in a quiet thread, and errors in others."""
    warnings.simplefilter("error")
    with quiet_here():
        speak("here")
        with pytest.raises(UserWarning, match="there warns"):
            elsewhere(lambda: speak("there"))
    with pytest.raises(UserWarning, match="later warns"):
        speak("later")
    assert heard == ["here elsewhere"]


def test_threads_that_overlap(heard: list[str]) -> None:
    """Of two quiet threads the one that is left stays so, and the last one leaves all as it was."""
    before = state()
    both, first_is_out, second_is_done = threading.Barrier(2, timeout=30), threading.Event(), threading.Event()

    def first() -> None:
        with quiet_here():
            both.wait()
            speak("first")
        speak("first outside")
        first_is_out.set()
        assert second_is_done.wait(30)

    def second() -> None:
        with quiet_here():
            both.wait()
            assert first_is_out.wait(30)
            speak("second")
        second_is_done.set()

    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(first), pool.submit(second)]:
            done.result()
    assert state() == before
    assert "first outside warns" in heard
    assert not [text for text in heard if text.startswith("second ") and not text.endswith("elsewhere")]


@pytest.mark.parametrize("enters_first", [True, False])
def test_another_thread_changes_the_filters(enters_first: bool, heard: list[str]) -> None:  # noqa: FBT001
    """A thread that catches warnings meanwhile gets those that it caused, and nothing of ours stays behind."""
    before = list(warnings.filters)
    inside, go_on = threading.Event(), threading.Event()
    caught: list[str] = []

    def other() -> None:
        with warnings.catch_warnings(record=True) as found:
            warnings.simplefilter("always")
            inside.set()
            assert go_on.wait(30)
            warnings.warn("there", UserWarning, stacklevel=1)
            caught.extend(str(warning.message) for warning in found)

    with ThreadPoolExecutor(1) as pool:
        if enters_first:
            done = pool.submit(other)
            assert inside.wait(30)
        with quiet_here():
            if not enters_first:
                done = pool.submit(other)
                assert inside.wait(30)
            go_on.set()
            done.result()
            with quiet_here():
                warnings.warn("here", UserWarning, stacklevel=1)
    assert caught == ["there"]
    assert list(warnings.filters) == before
    assert heard == []
    speak("later")
    assert "later warns" in heard


def test_a_parallel_training_meanwhile() -> None:
    """scikit-learn hands what filters there are to its workers, whose results are the same while a thread is quiet."""
    features, targets = load_iris(return_X_y=True)
    model = RandomForestClassifier(5, random_state=0)
    expected = cross_val_score(model, features, targets)
    with quiet_here(), ThreadPoolExecutor(1) as pool:
        found = pool.submit(cross_val_score, clone(model), features, targets, n_jobs=2).result()
    assert np.array_equal(found, expected)
