from __future__ import annotations

import threading

import pytest

from mantik.testing import wait_until


def test_waiting_returns_the_first_truthy_answer() -> None:
    """The answer that ended the waiting is the result."""
    answers = iter([None, 0, "", "there"])

    assert wait_until(lambda: next(answers)) == "there"


def test_waiting_sees_what_another_thread_does() -> None:
    """A condition that a thread makes true ends the waiting."""
    event = threading.Event()
    timer = threading.Timer(0.05, event.set)
    timer.start()

    assert wait_until(event.is_set, what="the event")
    timer.join()


def test_a_condition_is_asked_at_least_once() -> None:
    """No deadline is too short for a condition that holds."""
    assert wait_until(lambda: True, deadline=0)


def test_waiting_in_vain_names_the_wanted_and_the_last_answer() -> None:
    """The error says what was waited for, how long, and what was there instead."""
    with pytest.raises(TimeoutError, match=r"the third run did not come within 0\.05 s; the last answer was \[\]"):
        wait_until(list, deadline=0.05, what="the third run")


def test_an_error_of_the_condition_is_the_callers() -> None:
    """What the condition raises is not swallowed."""
    with pytest.raises(KeyError):
        wait_until(lambda: {}["x"])
