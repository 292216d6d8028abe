"""What the user's data are called."""

from __future__ import annotations

import functools
import gc
import sys
import textwrap
import weakref
from collections import UserDict
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from IPython.core.interactiveshell import InteractiveShell

from mantik.integrations.sklearn.variable_names import variable_name

X_global = np.zeros(3)


def name_of(value: object, *_: object, **__: object) -> str | None:
    """Return what the caller calls an object."""
    return variable_name(value, sys._getframe(1))  # noqa: SLF001  # as the hooks do


def evaluate(X: object, **others: object) -> str | None:  # noqa: N803  # as users have it
    """Be a function of the user's that tries data."""
    del others
    return name_of(X)


def evaluate_any(*arguments: Any, **keywords: Any) -> str | None:  # noqa: ANN401
    """Be a decorator of the user's."""
    return name_of(arguments[0] if arguments else keywords["features"])


class Experiment:
    """Has its data as attributes."""

    def __init__(self) -> None:
        self.X_test = np.zeros(3)
        self._hidden = np.zeros(3)

    def name(self) -> str | None:
        """Return what its data are called."""
        return name_of(self.X_test)

    def hidden(self) -> str | None:
        """Return what other data are called."""
        return name_of(self._hidden)

    def passed_on(self) -> str | None:
        """Return what they are called where they are a parameter."""
        return evaluate(self.X_test)


class Answering:
    """Runs code when it is asked for an attribute that it does not have."""

    def __getattr__(self, name: str) -> object:
        """Fail."""
        raise AssertionError(f"asked for {name}")


def test_variables() -> None:
    """Data have the name of the variable, wherever it is: local, global, of an enclosing function."""
    X_test = np.zeros(3)  # noqa: N806
    _, frame = None, pd.DataFrame({"a": [1]})

    def inner() -> str | None:
        return name_of(X_test)

    assert name_of(X_test) == "X_test"
    assert name_of(frame) == "frame"
    assert name_of(X_global) == "X_global"
    assert inner() == "X_test"
    assert list(map(lambda _: name_of(X_global), "a")) == ["X_global"]  # noqa: C417  # a lambda has a frame


def test_the_first_of_several_names() -> None:
    """Of several names the first counts, and one with an underscore only where there is no other."""
    _hidden = np.zeros(3)
    X_first = _hidden  # noqa: N806
    X_second = X_first  # noqa: N806
    _only = [1]
    assert name_of(X_second) == "X_first"
    assert name_of(_only) == "_only"


def test_parameters() -> None:
    """What is handed over has the name that its first owner has for it, and else that of the parameter."""
    X_test = np.zeros(3)  # noqa: N806
    assert evaluate(X_test) == "X_test"
    assert evaluate(X=X_test) == "X_test"
    assert evaluate_any(X_test) == "X_test"
    assert evaluate_any(features=X_test) == "X_test"
    assert functools.partial(evaluate_any, X_test)() == "X_test"
    assert evaluate(X_test[:2]) == "X"
    assert evaluate_any(features=X_test[:2]) == "features"
    assert evaluate_any(X_test[:2]) is None
    with ThreadPoolExecutor(1) as threads:
        assert threads.submit(evaluate, X_test).result() == "X"


def test_a_parameter_that_is_changed() -> None:
    """What a function makes of its parameter is called like it."""

    def scaled(X: np.ndarray) -> str | None:  # noqa: N803
        X = X * 2  # noqa: N806
        return name_of(X)

    X_test = np.zeros(3)  # noqa: N806
    assert scaled(X_test) == "X"


def test_comprehensions() -> None:
    """A comprehension's variable stands for the one that it goes through, whether Python gives it a frame or not."""
    X_test, X_val = np.zeros(3), np.zeros(3)  # noqa: N806
    assert [name_of(X) for X in (X_test, X_val)] == ["X_test", "X_val"]
    assert {at: name_of(X_test) for at in range(1)} == {0: "X_test"}
    assert list(name_of(X) for X in (X_test, X_val)) == ["X_test", "X_val"]  # noqa: C400
    assert [name_of(X) for X in (X_test[:1],)] == ["X"]


def test_attributes_and_keys() -> None:
    """Where there is no variable, an attribute or a key of a dictionary names the data."""
    splits = {"X_test": np.zeros(3), 7: np.zeros(2), "no name": np.zeros(2)}
    space = SimpleNamespace(features=np.zeros(3))
    experiment = Experiment()
    assert experiment.name() == "X_test"
    assert experiment.passed_on() == "X_test"
    assert experiment.hidden() == "_hidden"
    assert name_of(experiment.X_test) == "X_test"
    assert name_of(splits["X_test"]) == "X_test"
    assert name_of(space.features) == "features"
    assert name_of(splits[7]) is None
    assert name_of(splits["no name"]) is None


def test_no_variable() -> None:
    """What an expression gives has no name, and nothing of the user's is asked for one."""
    answering, around = Answering(), UserDict(a=1)
    X_test = np.zeros(3)  # noqa: N806
    assert name_of(X_test + 1) is None
    assert name_of(np.zeros(3)) is None
    assert variable_name(X_test, None) is None
    assert (type(answering), around["a"]) == (Answering, 1)


@pytest.mark.parametrize("name", ["<string>", "<stdin>", "/nowhere/script.py"])
def test_code_without_source(name: str) -> None:
    """``python -c``, an interpreter and a script that is gone are no different."""
    code = """
    X_test = [[1.0], [2.0]]
    def run():
        return name_of(X_test)
    found = [name_of(X_test), run(), *(name_of(X) for X in (X_test,))]
    """
    namespace: dict[str, Any] = {"name_of": name_of}
    exec(compile(textwrap.dedent(code), name, "exec"), namespace)  # noqa: S102  # that is what these do
    assert namespace["found"] == ["X_test"] * 3


def test_a_notebook() -> None:
    """In a notebook a variable has its own name, not that of the result that was shown of it."""
    shell = InteractiveShell()
    shell.user_ns["name_of"] = name_of
    for cell in ("import numpy as np", "X_test = np.zeros(3)", "X_test", "found = name_of(X_test)"):
        shell.run_cell(cell, store_history=True).raise_error()
    assert any(value is shell.user_ns["X_test"] for name, value in shell.user_ns.items() if name.startswith("_"))
    assert shell.user_ns["found"] == "X_test"


def test_what_the_user_deletes() -> None:
    """Data that a function deletes after it was looked at are gone, though the function goes on."""

    class Array(np.ndarray):
        pass

    X_test = np.zeros(3).view(Array)  # noqa: N806
    gone = weakref.ref(X_test)
    assert evaluate(X_test) == "X_test"
    del X_test
    gc.collect()
    assert gone() is None


def test_what_locals_has_returned() -> None:
    """What `locals` has returned to the user stays as it was."""
    X_test = np.zeros(3)  # noqa: N806
    mine = locals()
    assert evaluate(X_test) == "X_test"
    assert mine["X_test"] is X_test
