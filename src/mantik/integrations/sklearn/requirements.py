"""What has to be installed where a model is to be loaded, found by looking at what the model is made of."""

from __future__ import annotations

import dis
import functools
import json
import sys
import types
from collections import deque
from importlib import metadata
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["modules_of", "requirements_of", "unpublished"]

_MOST_OBJECTS = 20_000
"""Looked at in an estimator, from the outside in; so many take a few hundredths of a second."""

_MOST_ITEMS = 1_000
"""Of one collection; those of a long one are alike."""

_ALWAYS = ("mlflow", "sklearn", "numpy", "scipy")
_SCRIPT = "__main__"
"""The script or the notebook that runs; cloudpickle takes along what it defines."""
_NAMES = {"sklearn": "scikit-learn"}
_HOOKS = f"{__package__}.hooks"
"""Where it is defined what stands in place of the methods of a class while they are watched; no pickle has it."""


def requirements_of(estimator: object, *, serializer: str = "cloudpickle", features: object = None) -> list[str]:
    """Return the pip requirements of a model, each pinned to the version that is installed.

    MLflow finds them by loading the model in another process and watching what that imports, which takes seconds. Here
    the classes and functions tell that the estimator refers to, at any depth, and the code of those that are the
    user's own. What is on no index is left out, as `unpublished` tells.

    Args:
        estimator: The estimator.
        serializer: What its file is written with, ``cloudpickle``, ``pickle`` or ``skops``.
        features: The data that it was fitted to, which are of a library as well.

    Returns:
        Such as ``scikit-learn==1.9.1``: MLflow, scikit-learn, numpy and scipy first, then the others by name.
    """
    roots = [*_ALWAYS, *([] if serializer == "pickle" else [serializer])]
    others = modules_of(estimator) | {_root(type(features).__module__)}
    found: dict[str, None] = {}
    for root in [*roots, *sorted(others.difference(roots, {_SCRIPT}))]:
        for distribution in _distributions(root):
            # A build such as "+cpu" is on no index.
            pin = f"=={distribution.version.partition('+')[0]}"
            origin = _origin(distribution)
            if "vcs_info" in origin:
                pin = f" @ {origin['vcs_info']['vcs']}+{origin['url']}@{origin['vcs_info']['commit_id']}"
            if "dir_info" not in origin:
                found[f"{distribution.metadata['Name']}{pin}"] = None
    return list(found)


def unpublished(modules: Iterable[str]) -> dict[str, str]:
    """Return those of the modules that no index has, and why that is known.

    Args:
        modules: Names of top-level modules, as of `modules_of`.

    Returns:
        Reasons by name, such as ``installed from a local folder``.
    """
    found = {}
    for root in sorted(set(modules) - {_SCRIPT}):
        distributions = _distributions(root)
        if any("dir_info" in _origin(distribution) for distribution in distributions):
            found[root] = "installed from a local folder"
        elif not distributions and _is_source(root):
            found[root] = "not installed, but found on the path"
    return found


def modules_of(estimator: object) -> frozenset[str]:
    """Return the top-level modules that an estimator and everything in it refer to, without Python's own.

    Args:
        estimator: The estimator.
    """
    roots: set[str] = set()
    seen = {id(estimator)}
    waiting = deque([estimator])
    for _ in range(_MOST_OBJECTS):
        if not waiting:
            break
        value = waiting.popleft()
        roots.update(_roots(value))
        for part in islice(_parts(value), 2 * _MOST_ITEMS):
            if not isinstance(part, _PLAIN) and id(part) not in seen:
                seen.add(id(part))
                waiting.append(part)
    return frozenset(root for root in roots if root and root not in sys.stdlib_module_names)


_PLAIN = (str, bytes, int, float, complex, type(None))


def _roots(value: object) -> Iterator[str]:
    """Return the top-level modules that a value by itself refers to."""
    if type(value).__module__ == _HOOKS:
        return
    if isinstance(value, types.ModuleType):
        yield _root(value.__name__)
    elif isinstance(value, type):
        yield from (_root(kind.__module__) for kind in value.__mro__)
    elif isinstance(value, types.CodeType):
        for instruction in dis.get_instructions(value):
            if instruction.opname == "IMPORT_NAME":
                yield _root(str(instruction.argval))
    else:
        yield from (_root(kind.__module__) for kind in type(value).__mro__)
        if isinstance(value, types.FunctionType | types.BuiltinFunctionType):
            yield _root(value.__module__)


@functools.singledispatch
def _parts(value: Any) -> Iterator[Any]:  # noqa: ANN401
    """Return what a value holds, as far as that can be seen without asking it."""
    held = getattr(value, "__dict__", None)
    if type(value).__module__ == _HOOKS:
        return iter((value.method,))
    return chain((type(value),), list(held.values()) if isinstance(held, dict) else ())


@_parts.register(dict)
def _(value: dict) -> Iterator[Any]:  # type: ignore[type-arg]
    return chain(islice(value.keys(), _MOST_ITEMS), islice(value.values(), _MOST_ITEMS))


@_parts.register(list)
@_parts.register(tuple)
@_parts.register(set)
@_parts.register(frozenset)
@_parts.register(deque)
def _(value: Any) -> Iterator[Any]:  # noqa: ANN401
    return islice(value, _MOST_ITEMS)


@_parts.register(np.ndarray)
def _(value: np.ndarray) -> Iterator[Any]:
    return islice(value.flat, _MOST_ITEMS) if value.dtype == object else iter(())


@_parts.register(functools.partial)
def _(value: functools.partial) -> Iterator[Any]:  # type: ignore[type-arg]
    return iter((value.func, value.args, value.keywords))


@_parts.register(types.MethodType)
def _(value: types.MethodType) -> Iterator[Any]:
    return iter((value.__self__, value.__func__))


@_parts.register(property)
def _(value: property) -> Iterator[Any]:
    return iter((value.fget, value.fset))


@_parts.register(classmethod)
@_parts.register(staticmethod)
def _(value: Any) -> Iterator[Any]:  # noqa: ANN401
    return iter((value.__func__,))


@_parts.register(types.ModuleType)
def _(_: types.ModuleType) -> Iterator[Any]:
    return iter(())


@_parts.register(type)
def _(value: type) -> Iterator[Any]:
    own = [kind for kind in value.__mro__ if _is_own(kind.__module__)]
    return chain.from_iterable(list(vars(kind).values()) for kind in own)


@_parts.register(types.CodeType)
def _(value: types.CodeType) -> Iterator[Any]:
    return (constant for constant in value.co_consts if isinstance(constant, types.CodeType))


@_parts.register(types.FunctionType)
def _(value: types.FunctionType) -> Iterator[Any]:
    if not _is_own(value.__module__):
        return iter(())
    codes = [value.__code__]
    # With what is defined inside.
    for code in codes:
        codes += _parts(code)
    names = {name for code in codes for name in code.co_names}
    found = [value.__globals__[name] for name in names if name in value.__globals__]
    return chain(codes, found, map(_content, value.__closure__ or ()))


def _content(cell: types.CellType) -> Any:  # noqa: ANN401
    try:
        return cell.cell_contents
    except ValueError:
        # A variable that has no value yet.
        return None


def _root(module: Any) -> str:  # noqa: ANN401  # classes can have anything there
    return module.partition(".")[0] if isinstance(module, str) else ""


@functools.cache
def _is_own(module: object) -> bool:
    """Tell whether a module is the user's, whose code says what it needs; others' distributions say so themselves."""
    root = _root(module)
    if root in sys.stdlib_module_names or not root:
        return False
    return root == _SCRIPT or bool(unpublished([root]))


def _is_source(root: str) -> bool:
    """Tell whether a module is one of Python's text; a part of a compiled one may have a name of its own."""
    module = sys.modules.get(root)
    if module is None or root in sys.stdlib_module_names:
        return False
    file = getattr(module, "__file__", None)
    # A package without an `__init__.py` has no file.
    return hasattr(module, "__path__") if file is None else file.endswith(".py")


@functools.cache
def _distributions(root: str) -> tuple[metadata.Distribution, ...]:
    """Return what a top-level module was installed with, which for most has its name."""
    name = _NAMES.get(root, root)
    try:
        distribution = metadata.distribution(name)
    except metadata.PackageNotFoundError:
        names = set(_providers().get(root, ()))
        return tuple(metadata.distribution(name) for name in sorted(names))
    return (distribution,)


@functools.cache
def _providers() -> Any:  # noqa: ANN401  # names of distributions by module
    # Reads a file of every distribution that is installed, which takes half a second.
    return metadata.packages_distributions()


def _origin(distribution: metadata.Distribution) -> dict[str, Any]:
    """Return where a distribution comes from, if it does not come from an index (PEP 610)."""
    text = distribution.read_text("direct_url.json")
    origin: dict[str, Any] = json.loads(text) if text else {}
    return origin
