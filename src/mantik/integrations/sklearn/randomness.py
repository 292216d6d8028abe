"""Which estimators draw random numbers when they predict: numbers that the training would then miss."""

from __future__ import annotations

import dis
import inspect
import random
from collections.abc import Mapping
from numbers import Integral
from types import CodeType, FunctionType, ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.base import BaseEstimator

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["draws"]

_GENERATORS = (np.random.RandomState, np.random.Generator, random.Random)

_HARMLESS = frozenset({"BitGenerator", "Generator", "Random", "RandomState", "SeedSequence", "default_rng"})
"""What the modules have that draws from no shared generator: types, which are asked for or begin one of their own."""

_MOST_INSIDE = 100
"""Of what a list holds so many are looked at, and of functions that call each other."""


def draws(estimator: Any, method: str) -> bool:  # noqa: ANN401  # whatever was fitted
    """Tell whether a method draws random numbers from a generator that others draw from, too.

    That is the global one of numpy or Python, or one that the estimator or its module holds. Of scikit-learn's own
    classes it is known. Of other classes the code is looked at: that of the method, and of what it calls in the same
    package.

    Args:
        estimator: The fitted estimator, with others inside or not.
        method: Such as ``predict``, ``predict_proba`` or ``score``.
    """
    return any(_draws_itself(part, method) for part in _parts(estimator, set()))


def _draws_itself(estimator: BaseEstimator, method: str) -> bool:
    seeded = isinstance(getattr(estimator, "random_state", None), Integral)
    if _package(type(estimator)) != "sklearn":
        # What is inherited from scikit-learn calls `predict`.
        called = {method, "predict"}
        holds_one = any(isinstance(value, _GENERATORS) for value in vars(estimator).values())
        if holds_one or any(_code_draws(type(estimator), name, seeded=seeded) for name in called):
            return True
    names = {above.__name__ for above in inspect.getmro(type(estimator)) if _package(above) == "sklearn"}
    if "IterativeImputer" in names:
        # It goes on with a generator of its own, whatever the seed.
        return bool(getattr(estimator, "sample_posterior", True))
    if "DummyClassifier" in names:
        return not seeded and getattr(estimator, "strategy", None) in {"stratified", "uniform", None}
    if "NMF" in names:
        return not seeded and bool(getattr(estimator, "shuffle", True))
    return "BernoulliRBM" in names and not seeded and method == "score_samples"


def _parts(value: Any, seen: set[int]) -> Iterator[BaseEstimator]:  # noqa: ANN401
    """Yield an estimator, and those that it holds. Its params are not asked for: XGBoost's `get_params` draws."""
    if isinstance(value, BaseEstimator):
        if id(value) not in seen:
            seen.add(id(value))
            yield value
            for held in list(vars(value).values()):
                yield from _parts(held, seen)
    elif isinstance(value, (list, tuple, Mapping)):
        held = list(value.values() if isinstance(value, Mapping) else value)[:_MOST_INSIDE]
        for inner in held:
            if isinstance(inner, (BaseEstimator, tuple)):
                yield from _parts(inner, seen)


def _code_draws(kind: type, method: str, *, seeded: bool) -> bool:
    """Tell whether a method of a class, or what it calls in the class's package, uses a shared generator."""
    package = _package(kind)
    known: set[CodeType] = set()
    waiting = list(_functions(kind, method, package))
    while waiting and len(known) < _MOST_INSIDE:
        function = waiting.pop()
        if function.__code__ in known:
            continue
        known.add(function.__code__)
        names = list(_names(function.__code__))
        if _uses_generator(names, function.__globals__, seeded=seeded):
            return True
        for name in set(names):
            waiting += _functions(kind, name, package)
            called = function.__globals__.get(name)
            if isinstance(called, FunctionType) and _package(called) == package:
                waiting.append(called)
    return False


def _functions(kind: type, name: str, package: str) -> Iterator[FunctionType]:
    """Yield what classes of a package have under a name."""
    for above in inspect.getmro(kind):
        member = vars(above).get(name) if _package(above) == package else None
        if isinstance(member, property):
            member = member.fget
        member = inspect.unwrap(getattr(member, "__func__", member)) if callable(member) else None
        if isinstance(member, FunctionType):
            yield member


def _uses_generator(names: list[str], known: Mapping[str, Any], *, seeded: bool) -> bool:
    for at, name in enumerate(names):
        value = known.get(name)
        if isinstance(value, _GENERATORS) or isinstance(getattr(value, "__self__", None), _GENERATORS):
            return True
        if name == "check_random_state" and not seeded:
            return True
        then = names[at + 1 : at + 3]
        if isinstance(value, ModuleType) and value.__name__ == "numpy" and then[:1] == ["random"]:
            then = then[1:]
        elif not isinstance(value, ModuleType) or value.__name__ not in {"random", "numpy.random"}:
            continue
        if not then or then[0] not in _HARMLESS:
            return True
    return False


def _names(code: CodeType) -> Iterator[str]:
    """Yield the names of globals and attributes that code uses, in its order."""
    for instruction in dis.get_instructions(code):
        if instruction.opname.startswith(("LOAD_GLOBAL", "LOAD_ATTR", "LOAD_METHOD")):
            yield str(instruction.argval)
        elif isinstance(instruction.argval, CodeType):
            yield from _names(instruction.argval)


def _package(defined: Any) -> str:  # noqa: ANN401  # a class or a function
    return str(defined.__module__).partition(".")[0]
