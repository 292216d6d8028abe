from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as some

from mantik.compute.quantities import duration_in, duration_text, size_in, size_text


@pytest.mark.parametrize(
    ("text", "seconds"), [("12h", 43200), ("30m", 1800), ("45s", 45), ("2d", 172800), (" 12 H ", 43200), ("090m", 5400)]
)
def test_durations(text: str, seconds: int) -> None:
    """A whole number and one unit of s, m, h, d is a duration."""
    assert duration_in(text) == seconds


@pytest.mark.parametrize(
    "text", ["12hours", "12", "", "h", "1.5h", "-1h", "0h", "12:00:00", "1h30m", "\u0661h", "1e3s", "9" * 99 + "h"]
)
def test_no_durations(text: str) -> None:
    """Anything else is none."""
    assert duration_in(text) is None


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("12GiB", 12 * 2**30),
        ("12G", 12 * 2**30),
        ("12GB", 12 * 10**9),
        ("512MiB", 2**29),
        ("1.5 gib", 3 * 2**29),
        ("64kB", 64000),
        ("64K", 65536),
        ("7B", 7),
        ("1T", 2**40),
    ],
)
def test_sizes(text: str, size: int) -> None:
    """A number and a unit is a size; binary units, as batch systems mean the short ones."""
    assert size_in(text) == size


@pytest.mark.parametrize("text", ["12", "", "GiB", "0GiB", "-1G", "12 gigs", "1e3M", "12PiB", "0.0000000001B", "1,5G"])
def test_no_sizes(text: str) -> None:
    """Anything else is none."""
    assert size_in(text) is None


@given(some.integers(1, 10**8))
def test_a_duration_that_is_written_is_read_as_the_same(seconds: int) -> None:
    """Writing and reading a duration gives the same seconds."""
    assert duration_in(duration_text(seconds)) == seconds


@given(some.integers(1, 10**15 - 1))
def test_a_size_that_is_written_is_read_as_the_same(size: int) -> None:
    """Writing and reading a size gives the same bytes."""
    assert size_in(size_text(size)) == size
