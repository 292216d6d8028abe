"""Hyperparameters: flat for MLflow's table, as texts, and as YAML."""

from __future__ import annotations

import functools
import re
from argparse import Namespace
from collections import deque
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import fields, is_dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, TypeVar, cast, get_origin

from mantik.exceptions import InvalidValueError
from mantik.training.names import distinct

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

__all__ = ["as_yaml", "flatten", "named", "text_of"]

_T = TypeVar("_T")

_DEEPEST = 40
"""Levels of nesting that are shown, so that neither Python nor a reader of YAML runs out of stack."""

_MOST_BITS = 10_000
"""Of an integer in YAML; Python writes somewhat larger ones, but not all."""

_MOST_SHOWN = 200
"""Characters of a value in errors and in the short list of changes."""

_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")
_ODD_BREAK = re.compile("[\x85\u2028\u2029]")
_UNREADABLE = "<unreadable>"


def flatten(params: object) -> dict[str, object]:
    """Return values by name, with the names of what is nested joined by slashes.

    Nested are mappings, namespaces (of argparse, jsonargparse and the module types), instances of dataclasses, and
    lists and tuples that hold nothing but such, whose items are numbered from 0. Other lists and tuples are one value
    each. What is empty is ``{}``; what contains itself ends in ``{...}``. Where two names come out the same, the first
    in order keeps it, and the next gets a name of its own, as of `mantik.training.names.distinct`. Names that MLflow
    does not hold are not mapped here.

    Args:
        params: A mapping, a namespace, an instance of a dataclass, or None for no params at all.

    Raises:
        InvalidValueError: It is something else.
    """
    flat: dict[str, object] = {}
    for key, member in named(params).items():
        for name, value in _leaves(text_of(key), member, (id(params),)):
            flat[distinct(name, flat)] = value
    return flat


def named(params: object) -> dict[Any, object]:
    """Return what hyperparameters hold by name, with what is nested as it is.

    Args:
        params: As of `flatten`.

    Raises:
        InvalidValueError: It has no names.
    """
    members = [] if params is None else _members(params)
    if members is None:
        raise InvalidValueError(
            f"The hyperparameters are {text_of(params)[:_MOST_SHOWN]} (of type {type(params).__name__}), which has no "
            "names. Log a dict, a namespace or an instance of a dataclass."
        )
    return dict(members)


def text_of(value: object) -> str:
    """Return the text of a value, the same in every process, and no longer than a reader needs.

    It is `str` of most. Classes and functions are their qualified names, sets are sorted, tensors and arrays are their
    type, shape and dtype, networks of several lines are their type, and nothing has an address in it. No value raises.
    """
    return value if type(value) is str else _text(value, ())


def as_yaml(params: object) -> str:
    """Return a whole configuration as YAML that ``yaml.safe_load`` reads, in its own order and with long values whole.

    What is nested stays so; what YAML does not have is written as its `text_of`. No value raises.
    """
    import yaml  # type: ignore[import-untyped]

    class Dumper(yaml.SafeDumper):  # type: ignore[misc]
        """Quotes the texts that PyYAML's own would not read back as they were."""

        def represent_str(self, data: str) -> object:
            style = '"' if _ODD_BREAK.search(data) else None
            return self.represent_scalar("tag:yaml.org,2002:str", data, style=style)

    Dumper.add_representer(str, Dumper.represent_str)
    options: dict[str, Any] = {"sort_keys": False, "allow_unicode": True, "width": float("inf")}
    text: str = yaml.dump(_plain(params, ()), Dumper=Dumper, **options)
    return text


def _attempt(ask: Callable[[], _T]) -> _T | None:
    """Return what comes of asking a stranger's object about itself, or None where that raises."""
    try:
        return ask()
    except Exception:  # noqa: BLE001  # it is the user's code, and a training does not end for a text
        return None


def _members(value: object) -> list[tuple[object, object]] | None:
    """Return what is nested in a value, by name; None where it has no names."""
    return _attempt(lambda: _asked_members(value))


def _asked_members(value: object) -> list[tuple[object, object]] | None:
    if isinstance(value, Mapping):
        # One by one, because a DictConfig of OmegaConf raises for the entries that are still missing.
        get = cast("Mapping[object, object]", value).__getitem__
        return [(key, _read(get, key)) for key in value]
    if isinstance(value, type) or _is_network(value):
        return None
    if is_dataclass(value):
        return [(field.name, _read(functools.partial(getattr, value), field.name)) for field in fields(value)]
    # jsonargparse's; its attributes have other names where they would hide a method.
    as_dict = getattr(value, "as_dict", None)
    held = as_dict() if callable(as_dict) else None
    if isinstance(held, Mapping):
        return list(held.items())
    return list(vars(value).items()) if isinstance(value, Namespace | SimpleNamespace) else None


def _items(value: object) -> list[object] | None:
    """Return the items of a list or a tuple; None of anything else."""
    return _attempt(lambda: _asked_items(value))


def _asked_items(value: object) -> list[object] | None:
    if isinstance(value, list | tuple | deque):
        return list(value)
    if type(value).__module__ == "omegaconf.listconfig":
        listed = cast("Sequence[object]", value)
        return [_read(listed.__getitem__, index) for index in range(len(listed))]
    return None


def _read(get: Callable[[Any], object], key: object) -> object:
    found = _attempt(lambda: (get(key),))
    return _UNREADABLE if found is None else found[0]


def _leaves(name: str, value: object, above: tuple[int, ...]) -> Iterator[tuple[str, object]]:
    members = _members(value)
    if members is None and (items := _items(value)) and all(_members(item) is not None for item in items):
        members = list(enumerate(items))
    if members is None:
        yield name, value
    elif _is_too_deep(value, above):
        yield name, "{...}"
    elif not members:
        yield name, "{}"
    else:
        for key, member in members:
            yield from _leaves(f"{name}/{text_of(key)}", member, (*above, id(value)))


def _is_too_deep(value: object, above: tuple[int, ...]) -> bool:
    return id(value) in above or len(above) >= _DEEPEST


def _is_network(value: object) -> bool:
    """Tell whether it is a module of torch, without importing that."""
    return any(kind.__module__ == "torch.nn.modules.module" for kind in type(value).__mro__)


def _text(value: object, above: tuple[int, ...]) -> str:
    text = _attempt(lambda: _described(value, above))
    # What `str` returns may be of a subclass, which YAML does not have.
    return f"<{_qualified(type(value))} object>" if text is None else str.__str__(text)


def _described(value: object, above: tuple[int, ...]) -> str:
    if value is None or isinstance(value, bool | int | float | str):
        return str(value)
    items = _items(value)
    # Named tuples show themselves.
    if (items is not None and not hasattr(value, "_fields")) or isinstance(value, Mapping | AbstractSet):
        return _container(value, items, above)
    if isinstance(value, functools.partial):
        parts = [value.func, *value.args]
        texts = [_quoted(part, above) for part in parts]
        texts += [f"{name}={_quoted(part, above)}" for name, part in value.keywords.items()]
        return f"functools.partial({', '.join(texts)})"
    # Generic types such as list[int] have the name of their origin.
    if isinstance(getattr(value, "__qualname__", None), str) and get_origin(value) is None:
        return _qualified(value)
    shape = getattr(value, "shape", None)
    if isinstance(shape, tuple) and shape:
        dtype = f", dtype={value.dtype}" if hasattr(value, "dtype") else ""
        return f"{type(value).__name__}(shape={tuple(shape)}{dtype})"
    text = _ADDRESS.sub("", str(value))
    return f"<{_qualified(type(value))} object>" if "\n" in text and _is_network(value) else text


def _container(value: object, items: list[object] | None, above: tuple[int, ...]) -> str:
    """Return the text of a collection, as Python writes it."""
    opening, closing = "()" if isinstance(value, tuple) else "[]" if items is not None else "{}"
    if _is_too_deep(value, above):
        return f"{opening}...{closing}"
    inner = (*above, id(value))
    if isinstance(value, Mapping):
        members = _members(value) or []
        texts = [f"{_quoted(key, inner)}: {_quoted(member, inner)}" for key, member in members]
    else:
        listed = _in_order(value) if isinstance(value, AbstractSet) else items or []
        texts = [_quoted(item, inner) for item in listed]
    if isinstance(value, AbstractSet) and not texts:
        return "set()"
    comma = "," if isinstance(value, tuple) and len(texts) == 1 else ""
    return f"{opening}{', '.join(texts)}{comma}{closing}"


def _in_order(values: AbstractSet[object]) -> list[object]:
    """Sort a set: numbers by size, all else behind them by text."""

    def rank(value: object) -> tuple[bool, float, str]:
        number = isinstance(value, int | float)
        return not number, cast("float", value) if number else 0.0, text_of(value)

    return sorted(values, key=rank)


def _quoted(value: object, above: tuple[int, ...]) -> str:
    return repr(value) if type(value) is str else _text(value, above)


def _qualified(value: object) -> str:
    """Return the name of a class or a function with its module, that of Python's own without."""
    module, name = getattr(value, "__module__", None), getattr(value, "__qualname__", "")
    return name if module in {None, "builtins"} else f"{module}.{name}"


def _plain(value: object, above: tuple[int, ...]) -> object:
    """Return a value with nothing in it that YAML does not have, and nothing twice."""
    found = _attempt(lambda: (_asked_plain(value, above),))
    return text_of(value) if found is None else found[0]


def _asked_plain(value: object, above: tuple[int, ...]) -> object:
    members = _members(value)
    items = _in_order(value) if isinstance(value, AbstractSet) else _items(value)
    if members is None and items is None:
        return _plain_scalar(value)
    if _is_too_deep(value, above):
        return "[...]" if members is None else "{...}"
    inner = (*above, id(value))
    if members is None:
        return [_plain(item, inner) for item in items or []]
    plain: dict[Any, object] = {}
    for key, member in members:
        name = _plain_scalar(key)
        if isinstance(name, str):
            name = distinct(name, plain)
        plain[name] = _plain(member, inner)
    return plain


def _plain_scalar(value: Any) -> object:  # noqa: ANN401
    # numpy's scalars as Python's.
    scalar = value.item() if type(value).__module__ == "numpy" and getattr(value, "shape", None) == () else value
    plain = scalar is None or type(scalar) in {bool, int, float, str}
    huge = isinstance(scalar, int) and scalar.bit_length() > _MOST_BITS
    return scalar if plain and not huge else text_of(value)
