"""Where ticks are along an axis, and what is written there."""

from __future__ import annotations

import pytest

from mantik.integrations.sklearn.pictures.ticks import Numbers, Powers, even, powers
from mantik.integrations.sklearn.pictures.wording import number, setting, short, short_names


@pytest.mark.parametrize(
    ("low", "high", "most", "labels"),
    [
        (0, 1, 5, ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]),
        (-0.015, 1.015, 4, ["0.0", "0.5", "1.0"]),
        (-0.08, 0.06, 2, ["-0.05", "0.00", "0.05"]),
        (99.9999, 100.0001, 3, ["99.9999", "100.0000", "100.0001"]),
        (0, 123456, 3, ["0", "50,000", "100,000"]),
        (1.7e9, 1.7001e9, 2, ["1.7e9", "1.70005e9", "1.7001e9"]),
        (-1e300, 1e300, 2, ["-1e300", "0", "1e300"]),
        (1e-300, 3e-300, 3, ["1e-300", "2e-300", "3e-300"]),
    ],
)
def test_ticks_are_told_from_each_other(low: float, high: float, most: int, labels: list[str]) -> None:
    """Labels have as many decimals as that takes, and there are two at least."""
    ticks = Numbers().format_ticks(even(low, high, most=most, whole=False))
    assert [label.replace("\N{MINUS SIGN}", "-") for label in ticks] == labels


@pytest.mark.parametrize(("high", "ticks"), [(1.5, [1]), (5.5, [1, 2, 3, 4, 5]), (47, [10, 20, 30, 40])])
def test_whole_numbers_have_nothing_between_them(high: float, ticks: list[float]) -> None:
    """A step is one at least."""
    assert even(0.5, high, most=5, whole=True) == ticks


@pytest.mark.parametrize(
    ("low", "high", "labels"),
    [
        (1e-4, 1e3, ["1e-4", "0.001", "0.01", "0.1", "1", "10", "100", "1,000"]),
        (1, 200, ["1", "3", "10", "30", "100"]),
        (1, 5, ["1", "2", "5"]),
        (3.5, 4.6, ["3.5", "3.75", "4", "4.25", "4.5"]),
    ],
)
def test_logarithmic_axes_have_ticks_at_powers(low: float, high: float, labels: list[str]) -> None:
    """On a short one there are others between them."""
    assert [Powers()(tick).replace("\N{MINUS SIGN}", "-") for tick in powers(low, high)] == labels


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.98765, "0.988"), (1234.5, "1,234"), (5, "5"), (1e-5, "1e-5"), (float("nan"), "none"), (float("-inf"), "-∞")],
)
def test_numbers_have_three_digits(value: float, text: str) -> None:
    """Very large and very small ones have an exponent, and what is none is said to be."""
    assert number(value).replace("\N{MINUS SIGN}", "-") == text


def test_settings_have_no_zeros_at_their_end() -> None:
    """A param is written as somebody would."""
    assert [setting(value) for value in (0.1, 0.001, 10, 0.66)] == ["0.1", "0.001", "10", "0.66"]


def test_long_names_are_cut_in_the_middle() -> None:
    """Names that are the same then are told apart by their numbers."""
    assert short("abcdefghij", 5) == "ab…ij"
    assert short("line\nbreak\t and\x00 more") == "line break and more"
    assert short_names(["x" * 40, "x" * 50, "y"], 10) == ["xxx…xxx #1", "xxx…xxx #2", "y"]
