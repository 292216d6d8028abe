from __future__ import annotations

import math
import pickle
from decimal import Decimal
from enum import Enum
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mantik.exceptions import InvalidValueError, MantikError
from mantik.training.names import mapped
from mantik.training.values import flat_metrics, number_of

NUMBERS = {
    "float": 0.5,
    "Decimal": Decimal("0.5"),
    "Fraction": Fraction(1, 2),
    "torch": torch.tensor(0.5),
    "torch with one element": torch.tensor([[0.5]]),
    "torch that requires a gradient": torch.tensor(0.5, requires_grad=True) * 1,
    "torch bfloat16": torch.tensor(0.5, dtype=torch.bfloat16),
    "torch parameter": torch.nn.Parameter(torch.tensor([0.5])),
    "numpy float64": np.float64(0.5),
    "numpy float16": np.float16(0.5),
    "numpy array without dimension": np.array(0.5),
    "numpy array with one element": np.array([[0.5]]),
    "numpy array of objects": np.array([Fraction(1, 2)], dtype=object),
    "jax": jnp.array(0.5),
    "jax with one element": jnp.array([0.5]),
}


@pytest.mark.parametrize("value", NUMBERS.values(), ids=NUMBERS.keys())
def test_numbers_of_every_kind_are_floats(value: object) -> None:
    """Numbers, and tensors and arrays with one element, come out as Python's floats."""
    number = number_of("loss", value)
    assert (type(number), number) == (float, 0.5)


@pytest.mark.parametrize("value", [1, True, np.int64(1), np.bool_(1), torch.tensor(1), torch.tensor([True])])
def test_whole_numbers_and_truth_values_are_floats_too(value: object) -> None:
    """Integers and booleans, which MLflow refuses as booleans, are numbers."""
    number = number_of("count", value)
    assert (type(number), number) == (float, 1.0)


@pytest.mark.parametrize("kind", [float, np.float32, torch.tensor, jnp.array, Decimal])
def test_what_is_no_finite_number_stays(kind: type) -> None:
    """NaN and infinities are values as any other."""
    assert math.isnan(number_of("loss", kind(float("nan"))))
    assert number_of("loss", kind(float("inf"))) == math.inf
    assert number_of("loss", kind(float("-inf"))) == -math.inf


NO_NUMBERS = {
    "None": (None, "is None (a NoneType)"),
    "str": ("abc", "is 'abc' (a str)"),
    "digits": ("1.5", "is '1.5' (a str)"),
    "bytes": (b"1.5", "is b'1.5' (a bytes)"),
    "complex": (1j, "is 1j (a complex)"),
    "list": ([0.5], "is [0.5] (a list)"),
    "object": (object(), "is <object object> (an object)"),
    "torch with three elements": (torch.ones(3), "is Tensor(shape=(3,), dtype=torch.float32) (a Tensor)"),
    "torch without elements": (torch.ones(0), "is Tensor(shape=(0,), dtype=torch.float32) (a Tensor)"),
    "torch complex": (torch.tensor(1j), "(a Tensor)"),
    "numpy with two elements": (np.ones(2), "is ndarray(shape=(2,), dtype=float64) (a ndarray)"),
    "numpy str": (np.str_("1.5"), "(a str_)"),
    "numpy array of text": (np.array(["1.5"]), "(a ndarray)"),
    "numpy complex": (np.complex128(1j), "(a complex128)"),
    "numpy time": (np.datetime64("2024-01-01"), "(a datetime64)"),
    "jax with two elements": (jnp.ones(2), "is ArrayImpl(shape=(2,), dtype=float32) (an ArrayImpl)"),
    "Decimal that signals": (Decimal("sNaN"), "is sNaN (a Decimal)"),
}


@pytest.mark.parametrize(("value", "shown"), NO_NUMBERS.values(), ids=NO_NUMBERS.keys())
def test_what_is_no_number_is_refused_by_name(value: object, shown: str) -> None:
    """The error names the metric, shows the value and says what to log."""
    with pytest.raises(InvalidValueError) as caught:
        number_of("val/loss", value)
    text = str(caught.value)
    assert text.startswith("The metric 'val/loss' is ")
    assert shown in text
    assert "which is no number. Log a number, or a tensor or array with one element" in text
    assert caught.value.name == "val/loss"


def test_a_text_is_told_where_it_belongs() -> None:
    """The error about a text names the two places for texts."""
    with pytest.raises(InvalidValueError) as caught:
        number_of("loss", "abc")
    assert str(caught.value) == (
        "The metric 'loss' is 'abc' (a str), which is no number. Log a number, or a tensor or array with one element; "
        "texts belong into log_text or tags."
    )


def test_a_long_value_is_shown_in_part() -> None:
    """An error stays readable, however long the value is."""
    with pytest.raises(InvalidValueError) as caught:
        number_of("loss", "abc" * 10_000)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("value", [10**400, Fraction(10**400)])
def test_a_number_beyond_floats_is_refused(value: object) -> None:
    """What no float can hold is an error, and not infinity."""
    with pytest.raises(InvalidValueError, match="'count' is larger than a float can be"):
        number_of("count", value)


def test_a_value_that_is_still_traced_is_refused() -> None:
    """Inside of a jitted function there is no number yet."""

    def step(loss: jax.Array) -> jax.Array:
        number_of("loss", loss)
        return loss

    with pytest.raises(InvalidValueError, match="'loss'"):
        jax.jit(step)(jnp.array(0.5))


def test_an_error_of_the_device_is_its_own() -> None:
    """What the framework raises on reading a value is not made into an error about the metric."""
    with pytest.raises(RuntimeError, match="meta"):
        number_of("loss", torch.ones((), device="meta"))


def test_the_error_can_be_pickled() -> None:
    """It crosses process borders whole, and is a ValueError to whoever does not know mantik."""
    with pytest.raises(InvalidValueError) as caught:
        number_of("loss", None)
    copy = pickle.loads(pickle.dumps(caught.value))  # noqa: S301  # made in this test
    assert (type(copy), str(copy), copy.name) == (InvalidValueError, str(caught.value), "loss")
    assert isinstance(copy, ValueError)
    assert isinstance(copy, MantikError)


def test_flat_metrics_stay_as_they_are() -> None:
    """Names and order are kept, and values are numbers."""
    flat = flat_metrics({"loss": torch.tensor(0.5), "val/acc@1": 1})
    assert list(flat.items()) == [("loss", 0.5), ("val/acc@1", 1.0)]


def test_nested_metrics_are_joined_by_slashes() -> None:
    """Mappings in mappings are names with slashes, and what is empty is nothing."""
    metrics = {"val": {"loss": 0.5, "acc": {"top1": 0.9}}, "empty": {}, "lr": 0.1}
    assert flat_metrics(metrics) == {"val/loss": 0.5, "val/acc/top1": 0.9, "lr": 0.1}


def test_a_prefix_is_joined_by_the_separator() -> None:
    """The prefix goes in front of every name with a hyphen, as Lightning does it, or with what is asked for."""
    metrics = {"loss": 0.5, "val": {"loss": 0.6}}
    assert flat_metrics(metrics, "train") == {"train-loss": 0.5, "train-val/loss": 0.6}
    assert flat_metrics(metrics, "train", "/") == {"train/loss": 0.5, "train/val/loss": 0.6}


def test_names_that_are_no_strings_are_taken_by_their_text() -> None:
    """Numbers, members of enumerations and None name metrics by what they look like."""
    kind = Enum("kind", ["LOSS"])
    metrics = {0: 0.1, kind.LOSS: 0.2, None: 0.3, (1, 2): 0.4}
    assert flat_metrics(metrics) == {"0": 0.1, "kind.LOSS": 0.2, "None": 0.3, "(1, 2)": 0.4}


def test_metrics_of_the_same_name_are_both_kept() -> None:
    """The first in order keeps the name and the next gets one of its own, the same at every step."""
    metrics = {"a": {"b": 1}, "a/b": 2, 1: 3, "1": 4}
    flat = flat_metrics(metrics)
    assert list(flat.values()) == [1.0, 2.0, 3.0, 4.0]
    assert (flat["a/b"], flat["1"]) == (1.0, 3.0)
    assert all(mapped(name) == name for name in flat)
    assert list(flat_metrics(metrics)) == list(flat)


def test_an_error_names_the_nested_metric() -> None:
    """The whole name, with prefix, stands in the error."""
    with pytest.raises(InvalidValueError, match="The metric 'train-val/loss' is None"):
        flat_metrics({"val": {"loss": None}}, "train")


def test_metrics_that_contain_themselves_are_refused() -> None:
    """A cycle is an error and no endless loop."""
    metrics: dict[str, object] = {"loss": 0.5}
    metrics["again"] = {"and": metrics}
    with pytest.raises(InvalidValueError, match="'again/and' contain themselves"):
        flat_metrics(metrics)


@given(
    st.dictionaries(
        st.text("ab/", max_size=4),
        st.recursive(st.floats(), lambda inner: st.dictionaries(st.text("ab/", max_size=4), inner, max_size=3)),
        max_size=4,
    )
)
def test_no_metric_is_lost(metrics: dict[str, object]) -> None:
    """However the names meet, there are as many numbers as there were, in their order."""

    def leaves(value: object) -> list[object]:
        return [leaf for inner in value.values() for leaf in leaves(inner)] if isinstance(value, dict) else [value]

    assert list(map(repr, flat_metrics(metrics).values())) == list(map(repr, leaves(metrics)))
