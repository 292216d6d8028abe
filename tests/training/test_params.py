from __future__ import annotations

import argparse
import functools
import subprocess
import sys
from collections import OrderedDict, deque, namedtuple
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum, IntEnum
from pathlib import Path
from types import MappingProxyType, SimpleNamespace
from typing import Any

import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st

from mantik.exceptions import InvalidValueError
from mantik.training.params import as_yaml, flatten, text_of


class Color(Enum):
    """Its members have texts as values."""

    RED = "red"


class Level(IntEnum):
    """Its members are integers."""

    HIGH = 3


class Plain:
    """Shows its address."""

    def method(self) -> None:
        """Be a method."""


class Silent:
    """Cannot be shown."""

    def __str__(self) -> str:
        """Raise."""
        raise RuntimeError("no text")

    __repr__ = __str__


class Veiled:
    """Raises whatever it is asked, as proxies do that are not bound yet."""

    def __getattribute__(self, name: str) -> object:
        """Raise."""
        raise RuntimeError(name)


class Missing(Mapping[str, object]):
    """Raises for an entry that is still missing, as a DictConfig of OmegaConf does."""

    def __getitem__(self, key: str) -> object:
        """Return an entry that is there."""
        if key == "missing":
            raise LookupError("Missing mandatory value: missing")
        return 1

    def __iter__(self) -> Iterator[str]:
        """Name both entries."""
        return iter(["there", "missing"])

    def __len__(self) -> int:
        """Count both."""
        return 2

    def __hash__(self) -> int:
        """Be a key of mappings, too."""
        return 1


class ParsedNamespace(argparse.Namespace):
    """Says itself what it holds, as jsonargparse's does."""

    def as_dict(self) -> dict[str, object]:
        """Return what was parsed."""
        return {"model": {"lr": 0.1}}


class Text(str):
    """A text that remains one of its kind."""

    __slots__ = ()

    def __str__(self) -> str:
        """Return itself, which is no exact str."""
        return self


@dataclass
class Optimizer:
    """A part of a configuration, with a field that nobody has set."""

    name: str = "adam"
    betas: tuple[float, float] = (0.9, 0.999)
    unset: int = field(init=False)


Point = namedtuple("Point", ["x", "y"])  # noqa: PYI024  # the untyped kind is to be shown


def function() -> None:
    """Be a function."""


FLAT = {
    "a mapping": (
        {"lr": 0.1, "model": {"width": 3, "act": "relu"}},
        {"lr": 0.1, "model/width": 3, "model/act": "relu"},
    ),
    "another kind of mapping": (MappingProxyType({"a": OrderedDict(b=1)}), {"a/b": 1}),
    "argparse": (argparse.Namespace(a=1, b=argparse.Namespace(c=2)), {"a": 1, "b/c": 2}),
    "jsonargparse": (ParsedNamespace(), {"model/lr": 0.1}),
    "SimpleNamespace": (SimpleNamespace(a={"b": SimpleNamespace(c=1)}), {"a/b/c": 1}),
    "a dataclass": (Optimizer(), {"name": "adam", "betas": (0.9, 0.999), "unset": "<unreadable>"}),
    "plain lists": ({"a": [1, 2], "b": (), "c": ("x", None)}, {"a": [1, 2], "b": (), "c": ("x", None)}),
    "lists of mappings": ({"a": [{"b": 1}, Optimizer]}, {"a": [{"b": 1}, Optimizer]}),
    "lists of nothing but mappings": ({"a": [{"b": 1}, {"c": [{"d": 2}]}]}, {"a/0/b": 1, "a/1/c/0/d": 2}),
    "empty mappings": ({"a": {}, "b": {"c": argparse.Namespace()}}, {"a": "{}", "b/c": "{}"}),
    "None": ({"a": None}, {"a": None}),
    "no params": (None, {}),
    "an empty mapping": ({}, {}),
    "keys that are no strings": ({1: {None: 2}, Color.RED: 3}, {"1/None": 2, "Color.RED": 3}),
    "a missing entry": (Missing(), {"there": 1, "missing": "<unreadable>"}),
    "classes": ({"a": Optimizer, "b": ParsedNamespace}, {"a": Optimizer, "b": ParsedNamespace}),
}


@pytest.mark.parametrize(("params", "flat"), FLAT.values(), ids=FLAT.keys())
def test_params_are_flat(params: object, flat: dict[str, object]) -> None:
    """Whatever holds values by name is a dict of them, nested names joined by slashes, in order."""
    assert list(flatten(params).items()) == list(flat.items())


def test_a_module_of_torch_is_one_value() -> None:
    """A network is not taken apart."""
    network = torch.nn.Linear(1, 1)
    assert flatten({"network": network}) == {"network": network}


def test_params_of_the_same_name_are_both_kept() -> None:
    """The first in order keeps the name, and the next gets one of its own, the same every time."""
    params = {"a": {"b": 1}, "a/b": 2}
    flat = flatten(params)
    assert flat["a/b"] == 1
    assert list(flat.values()) == [1, 2]
    assert flatten(params) == flat


def test_cycles_end() -> None:
    """What contains itself is cut where it begins again; the same thing twice is no cycle."""
    params: dict[str, Any] = {"a": 1}
    params["self"] = params
    params["inner"] = {"list": [params]}
    shared = {"b": 2}
    params["one"] = params["two"] = shared
    assert flatten(params) == {"a": 1, "self": "{...}", "inner/list/0": "{...}", "one/b": 2, "two/b": 2}
    assert yaml.safe_load(as_yaml(params))["inner"] == {"list": ["{...}"]}
    values: list[object] = [1]
    values.append(values)
    assert text_of(values) == "[1, [...]]"
    assert yaml.safe_load(as_yaml({"values": values})) == {"values": [1, "[...]"]}


def test_bottomless_params_end() -> None:
    """Ten thousand levels are cut, and neither Python nor a reader of YAML runs out of stack."""
    params: dict[str, object] = {}
    values: list[object] = []
    for _ in range(10_000):
        params, values = {"a": params}, [values]
    assert list(flatten(params).values()) == ["{...}"]
    assert "[...]" in text_of(values)
    assert "{...}" in as_yaml(params)
    yaml.safe_load(as_yaml({"params": params, "values": values}))


@pytest.mark.parametrize("params", [5, "lr=0.1", ["lr"], Optimizer, Plain()])
def test_params_without_names_are_refused(params: object) -> None:
    """The error shows what came and says what to log."""
    with pytest.raises(InvalidValueError, match="which has no names"):
        flatten(params)


TEXTS = {
    "str": ("abc", "abc"),
    "None": (None, "None"),
    "float": (0.1, "0.1"),
    "small float": (1e-05, "1e-05"),
    "bool": (True, "True"),
    "numpy float": (np.float64(0.1), "0.1"),
    "numpy float32": (np.float32(0.1), "0.1"),
    "numpy int": (np.int64(3), "3"),
    "list": ([1, "a", None, 0.5], "[1, 'a', None, 0.5]"),
    "tuple": ((1,), "(1,)"),
    "deque": (deque([1, 2]), "[1, 2]"),
    "list of numpy's": ([np.float64(0.1)], "[0.1]"),
    "named tuple": (Point(1, 2), "Point(x=1, y=2)"),
    "dict": ({"a": [1], 2: function}, "{'a': [1], 2: tests.training.test_params.function}"),
    "set": ({"b", "a", 10, 9}, "{9, 10, 'a', 'b'}"),
    "frozenset": (frozenset({2, 1}), "{1, 2}"),
    "empty set": (set(), "set()"),
    "Path": (Path("data/train"), "data/train"),
    "Enum": (Color.RED, "Color.RED"),
    "class": (Optimizer, "tests.training.test_params.Optimizer"),
    "class of Python": (int, "int"),
    "class of torch": (torch.optim.Adam, "torch.optim.adam.Adam"),
    "function": (function, "tests.training.test_params.function"),
    "function of Python": (len, "len"),
    "function of torch": (torch.nn.functional.relu, "torch.nn.functional.relu"),
    "lambda": (lambda: 0, "tests.training.test_params.<lambda>"),
    "method": (Plain().method, "tests.training.test_params.Plain.method"),
    "partial": (
        functools.partial(function, 1, b="x"),
        "functools.partial(tests.training.test_params.function, 1, b='x')",
    ),
    "list of functions": ([function], "[tests.training.test_params.function]"),
    "generic type": (list[int], "list[int]"),
    "object": (Plain(), "<tests.training.test_params.Plain object>"),
    "dataclass": (Optimizer, "tests.training.test_params.Optimizer"),
    "object that cannot be shown": (Silent(), "<tests.training.test_params.Silent object>"),
    "subclass of str": (Text("abc"), "abc"),
    "huge int": (10**5000, "<int object>"),
    "tensor": (torch.ones(2, 3), "Tensor(shape=(2, 3), dtype=torch.float32)"),
    "tensor of one number": (torch.tensor(3), "tensor(3)"),
    "parameter": (torch.nn.Parameter(torch.ones(2)), "Parameter(shape=(2,), dtype=torch.float32)"),
    "size": (torch.Size([1, 2]), "(1, 2)"),
    "dtype": (torch.float16, "torch.float16"),
    "device": (torch.device("cpu"), "cpu"),
    "array": (np.ones((2, 3)), "ndarray(shape=(2, 3), dtype=float64)"),
    "array of one number": (np.array(3), "3"),
    "jax": (jnp.ones(2), "ArrayImpl(shape=(2,), dtype=float32)"),
    "DataFrame": (pd.DataFrame({"a": [1]}), "DataFrame(shape=(1, 1))"),
    "Series": (pd.Series([1]), "Series(shape=(1,), dtype=int64)"),
    "module": (torch.nn.Linear(2, 1), "Linear(in_features=2, out_features=1, bias=True)"),
    "network": (
        torch.nn.Sequential(torch.nn.Linear(2, 1), torch.nn.ReLU()),
        "<torch.nn.modules.container.Sequential object>",
    ),
}


@pytest.mark.parametrize(("value", "text"), TEXTS.values(), ids=TEXTS.keys())
def test_values_have_texts(value: object, text: str) -> None:
    """A text is what a reader expects, and exactly a str."""
    assert (type(text_of(value)), text_of(value)) == (str, text)


def test_an_integer_enumeration_has_the_text_of_its_python() -> None:
    """`str` of such a member differs between versions of Python, and text_of is the same."""
    assert text_of(Level.HIGH) == str(Level.HIGH)


def test_every_process_has_the_same_texts(capsys: pytest.CaptureFixture[str]) -> None:
    """Neither addresses nor the seed of Python's hashes show in texts or YAML."""
    code = """
import dataclasses, functools, torch
from mantik.training.params import as_yaml, text_of
class Plain: pass
@dataclasses.dataclass
class Holder:
    function: object
values = {
    "set": {"a", "b", "c", "d", (1, 2), None}, "lambda": lambda: 0, "object": Plain(), "holder": [Holder(lambda: 0)],
    "partial": functools.partial(print, end=lambda: 0), "generator": (x for x in ()), "cached": functools.cache(Plain),
    "network": torch.nn.Sequential(torch.nn.Linear(1, 1)), "iterator": iter([]), "bound": Plain().__init__,
    "frozen": [frozenset({"x", "y", "z"})], "callable": functools.partial(Plain),
}
print(text_of(values), as_yaml(values))
"""
    printed = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
        env={"PYTHONHASHSEED": "1"},
    ).stdout
    exec(compile(code, "<string>", "exec"), {"__name__": "__main__"})  # noqa: S102  # as the other process does
    assert capsys.readouterr().out == printed
    assert "0x" not in printed


def test_yaml_holds_the_whole_configuration() -> None:
    """Structure, order, types and long values come back from yaml.safe_load."""
    long = "word " * 5000
    params = argparse.Namespace(
        zeta=1,
        alpha={"lr": 1e-05, "nan": None, "flag": True, "text": long, "list": [1, (2, [3])], "inf": float("inf")},
        optimizer=[Optimizer()],
        empty={"dict": {}, "list": []},
        keys={1: "int", None: "none", 0.5: "float"},
        numpy=[np.float64(0.5), np.int64(3), np.bool_(1), np.array(0.25)],
        odd=[Color.RED, Path("a/b"), function, np.ones(3), {3, 1, 2}],
    )
    text = as_yaml(params)
    loaded = yaml.safe_load(text)
    assert loaded == {
        "zeta": 1,
        "alpha": {
            "lr": 1e-05,
            "nan": None,
            "flag": True,
            "text": long,
            "list": [1, [2, [3]]],
            "inf": float("inf"),
        },
        "optimizer": [{"name": "adam", "betas": [0.9, 0.999], "unset": "<unreadable>"}],
        "empty": {"dict": {}, "list": []},
        "keys": {1: "int", None: "none", 0.5: "float"},
        "numpy": [0.5, 3, True, 0.25],
        "odd": [
            "Color.RED",
            "a/b",
            "tests.training.test_params.function",
            "ndarray(shape=(3,), dtype=float64)",
            [1, 2, 3],
        ],
    }
    assert list(loaded) == ["zeta", "alpha", "optimizer", "empty", "keys", "numpy", "odd"]
    assert long.strip() in text


def test_yaml_has_no_aliases() -> None:
    """What is there twice is written twice, for people to read."""
    shared = {"a": [1]}
    assert as_yaml({"one": shared, "two": shared}) == "one:\n  a:\n  - 1\ntwo:\n  a:\n  - 1\n"


def test_yaml_keeps_keys_of_the_same_text() -> None:
    """Two keys that look alike are both there."""
    loaded = yaml.safe_load(as_yaml({Color.RED: 1, "Color.RED": 2, 1: 3, "1": 4}))
    assert loaded["Color.RED"] == 1
    assert (loaded[1], loaded["1"]) == (3, 4)
    assert sorted(loaded.values()) == [1, 2, 3, 4]


ODD = [Silent(), 10**5000, Text("x"), Missing(), lambda: 0, torch, 1j, Level.HIGH]


@pytest.mark.parametrize("value", ODD, ids=[type(value).__name__ for value in ODD])
def test_yaml_is_made_of_anything(value: object) -> None:
    """No value keeps a configuration from being written, wherever it stands."""
    assert yaml.safe_load(as_yaml(value)) is not None
    assert list(yaml.safe_load(as_yaml({"a": value, "b": [value], "c": {"d": value}}))) == ["a", "b", "c"]
    assert len(yaml.safe_load(as_yaml({value: 1, (value, value): 2}))) == 2


def test_an_object_that_raises_whatever_it_is_asked_is_one_value() -> None:
    """It is in the params, the texts and the YAML as what it is an instance of."""
    veiled, shown = Veiled(), "<tests.training.test_params.Veiled object>"
    assert [text_of(value) for value in flatten({"a": {"b": veiled}}).values()] == [shown]
    assert text_of([veiled]) == f"[{shown}]"
    assert yaml.safe_load(as_yaml({"a": veiled, "b": [veiled]})) == {"a": shown, "b": [shown]}
    with pytest.raises(InvalidValueError, match="The hyperparameters are <tests"):
        flatten(veiled)


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(st.characters(codec=None)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9) | st.integers(), inner, max_size=3),
    max_leaves=8,
)


@given(ANYTHING)
def test_yaml_loses_nothing(value: object) -> None:
    """Any structure of plain values comes back as it was, also with texts that look like something else."""
    assert yaml.safe_load(as_yaml(value)) == value


@pytest.mark.parametrize(
    "text",
    [
        "=",
        "<<",
        "yes",
        "1e5",
        "0x1",
        "1_000",
        "12:30",
        "2020-01-01",
        "~",
        "null",
        "!!x",
        "- a",
        "a: b",
        "&a",
        "%",
        "@",
        " ",
        "",
        "'",
        '"',
        "\t",
        "\r",
        "\x85",
        "\u2028",
        "\u2029",
        "\ufeff",
        ".",
        ".nan",
        "x" * 200,
    ],
)
def test_yaml_keeps_texts_texts(text: str) -> None:
    """A text that YAML would read as something else comes back as the text, as key and as value."""
    assert yaml.safe_load(as_yaml({text: text, "list": [text]})) == {text: text, "list": [text]}
