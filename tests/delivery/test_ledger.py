"""Counts, and to whom they belong."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mantik.delivery.ledger import Counts, entity_of, in_words
from mantik.delivery.records import Artifact, Batch, Call, Create, Removal, RunUpdate, Spans

from .sample import ANY

KINDS = ("metrics", "params", "tags", "changes", "artifacts", "size", "others")
COUNTS = st.builds(Counts, *[st.integers(0, 10**6)] * len(KINDS))


@pytest.mark.parametrize(
    ("counts", "words"),
    [
        (Counts(), "nothing"),
        (Counts(metrics=1), "1 point"),
        (Counts(metrics=1_234_567, params=1, tags=2), "1,234,567 points, 1 param, 2 tags"),
        (Counts(changes=2, others=1), "1 other record, 2 status changes"),
        (Counts(artifacts=1, size=0), "1 artifact (0 B)"),
        (Counts(artifacts=2, size=999), "2 artifacts (999 B)"),
        (Counts(artifacts=2, size=1000), "2 artifacts (1.0 kB)"),
        (Counts(artifacts=2, size=12_345), "2 artifacts (12 kB)"),
        (Counts(artifacts=3, size=10_000_000_000), "3 artifacts (10 GB)"),
        (Counts(artifacts=3, size=2_500_000_000_000), "3 artifacts (2.5 TB)"),
        (Counts(1, 1, 1, 1, 1, 1, 1), "1 point, 1 param, 1 tag, 1 artifact (1 B), 1 other record, 1 status change"),
    ],
)
def test_counts_are_said_in_words(counts: Counts, words: str) -> None:
    """A reader is told what there is, in the right number, and nothing of what there is not."""
    assert str(counts) == words


def test_words_have_their_form() -> None:
    """One is singular, all others are plural, thousands are set apart."""
    assert [in_words(count, "run") for count in (0, 1, 2, 10_000)] == ["0 runs", "1 run", "2 runs", "10,000 runs"]


@given(st.lists(ANY, max_size=8))
def test_what_was_counted_can_be_taken_away(records: list[Batch]) -> None:
    """Counting and discounting the same records leaves nothing; bytes are no things."""
    counts = Counts()
    for record in records:
        counts.count(record)
    assert counts.total == sum(
        len(record.metrics) + len(record.params) + len(record.tags) if isinstance(record, Batch) else 1
        for record in records
    )
    for record in records:
        counts.count(record, -1)
    assert counts == Counts()


@given(COUNTS, COUNTS)
def test_sums_and_differences(one: Counts, other: Counts) -> None:
    """A difference is never less than nothing, and undoes a sum."""
    both = Counts()
    both.add(one)
    both.add(other)
    assert both.minus(other) == one
    assert both.total == one.total + other.total
    assert one.minus(both) == Counts()
    both.add(one, -1)
    assert both == other


@pytest.mark.parametrize(
    ("record", "entity"),
    [
        (Batch("r", [], [], []), "r"),
        (RunUpdate("r", None, None, None), "r"),
        (Create("model", "m-local-1", None, {}), "m-local-1"),
        (Call("finalize", "m-1", {}), "m-1"),
        (Spans("7", ""), "7"),
        (Artifact("mlflow-artifacts:/0/r/artifacts", "1", 1), "r"),
        (Artifact("mlflow-artifacts:/0/r/artifacts/a/b.txt", "1", 1), "r"),
        (Artifact("mlflow-artifacts:/0/r/artifacts/x/artifacts/y", "1", 1), "r"),
        (Artifact("mlflow-artifacts:/0/models/m-1/artifacts/MLmodel", "1", 1), "m-1"),
        (Artifact("s3://bucket/somewhere/else", "1", 1), ""),
        (Removal("mlflow-artifacts:/0/r/artifacts"), "r"),
        (Removal("mlflow-artifacts:/0/r/artifacts/a"), "r"),
        (Removal("mlflow-artifacts:/0/r"), ""),
    ],
)
def test_a_record_is_about_one_thing(record: Batch, entity: str) -> None:
    """Each record belongs to the run, model or experiment that it names; a foreign URI belongs to none."""
    assert entity_of(record) == entity
