from __future__ import annotations

import pickle

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from mantik.training.drift import Change, changes, drift_text, drift_yaml


def test_changes_are_of_params_that_both_have() -> None:
    """What is new or gone is no change, and the order is that of the new ones."""
    known = {"lr": "0.1", "gone": "1", "same": "x", "width": "3"}
    new = {"width": "4", "same": "x", "lr": "0.01", "new": "1"}
    assert changes(known, new) == [Change("width", "3", "4"), Change("lr", "0.1", "0.01")]


@pytest.mark.parametrize("length", [250, 500, 6000])
def test_a_shortened_value_is_no_change(length: int) -> None:
    """A value that the server has cut to what MLflow keeps, now or formerly, is the same as the whole one."""
    whole = "x" * 7000
    assert changes({"a": whole[:length]}, {"a": whole}) == []
    assert changes({"a": whole[: length - 1]}, {"a": whole}) == [Change("a", whole[: length - 1], whole)]
    assert len(changes({"a": "y" * length}, {"a": whole})) == 1
    assert len(changes({"a": whole[:length]}, {"a": "x"})) == 1


def test_a_change_can_be_pickled() -> None:
    """It crosses process borders."""
    change = Change("lr", "0.1", "0.01")
    assert pickle.loads(pickle.dumps(change)) == change  # noqa: S301  # made in this test


def test_drift_is_told_in_one_line_each() -> None:
    """A line is key, old and new value; line breaks in values are written out."""
    told = drift_text([Change("lr", "0.1", "0.01"), Change("note", "a\nb", "größer\r")])
    assert told == "lr: 0.1 -> 0.01\nnote: a\\nb -> größer\\r"
    assert drift_text([]) == ""


def test_long_values_are_told_from_where_they_differ() -> None:
    """Of long values the part is shown in which they begin to differ."""
    told = drift_text([Change("files", "a" * 1000 + "old" + "c" * 1000, "a" * 1000 + "new" + "c" * 1000)])
    assert len(told) < 500
    before, _, now = told.removeprefix("files: ").partition(" -> ")
    assert before.startswith("...aaa")
    assert "aoldc" in before
    assert "anewc" in now
    assert now.endswith("ccc...")
    assert drift_text([Change("a", "x", "x" * 300)]) == f"a: x -> {'x' * 200}..."


def test_many_changes_are_counted() -> None:
    """What does not fit into the limit is counted, and the rest is whole lines."""
    many = [Change(f"param{number}", "0.1", "0.01") for number in range(10_000)]
    told = drift_text(many)
    assert len(told) <= 5000
    *lines, last = told.splitlines()
    assert last == f"... and {10_000 - len(lines)} more"
    assert lines == [f"param{number}: 0.1 -> 0.01" for number in range(len(lines))]
    assert len(lines) > 150


@given(
    st.lists(st.builds(Change, st.text(max_size=99), st.text(max_size=999), st.text(max_size=999)), max_size=30),
    st.integers(0, 8000),
)
def test_drift_fits_into_its_limit(found: list[Change], limit: int) -> None:
    """However much has changed, the text is no longer than asked for."""
    assert len(drift_text(found, limit)) <= limit


def test_drift_is_whole_in_yaml() -> None:
    """The YAML has every change, with both values whole."""
    found = [Change(f"param{number}", "x" * 5000, "y\n" * 5000) for number in range(3)]
    loaded = yaml.safe_load(drift_yaml(found))
    assert loaded == {change.key: {"before": change.before, "now": change.now} for change in found}
