"""The record codec: what was recorded is what is read, and nothing else is ever taken for a record."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mantik.delivery import framing
from mantik.delivery.ledger import Counts, entity_of
from mantik.delivery.records import (
    Batch,
    Removal,
    RunUpdate,
    decode,
    encode,
    encode_batch,
    encode_points,
    encode_update,
)
from mantik.delivery.requests import Sender, halves
from mantik.delivery.window import requests_for

from .sample import ANY, BATCHES, HEX, POINTS, UPDATES

if TYPE_CHECKING:
    from mantik.delivery.records import MetricItem, Record

NUMBERS = st.integers() | st.floats() | st.sampled_from([10**400, -(10**400), 2**63, True])
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=7) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=15,
)
ALMOST = st.one_of(
    st.tuples(
        st.sampled_from(["batch", "update", "create", "call", "spans", "artifact", "removal"]),
        st.one_of(JSON, st.sampled_from(["run", "model", "experiment", "inputs", "finalize", "trace"])),
        JSON,
        JSON,
        JSON,
    ),
    st.tuples(st.just("batch"), st.text(max_size=3), st.lists(st.lists(JSON, max_size=7), max_size=3), JSON, JSON),
    st.tuples(st.just("call"), st.sampled_from(["inputs", "trace"]), st.text(max_size=3), JSON),
    st.tuples(st.just("artifact"), st.text(max_size=9), st.text("0a./\\\0", max_size=9), NUMBERS),
    st.tuples(st.just("spans"), st.text(max_size=9), st.text(max_size=9)),
    st.tuples(st.just("removal"), JSON),
)


def text(record: Record) -> str:
    """Make records with NaN comparable."""
    return repr(record)


def check_usable(record: Record) -> None:
    """Use a decoded record as delivery does, up to the network."""
    Counts().count(record)
    assert isinstance(entity_of(record), str)
    for request in requests_for([record]):
        for part in (request, *halves(request)):
            assert isinstance(entity_of(part), str)
            if not isinstance(part, Batch | RunUpdate):
                assert Sender.words(part)


@given(ANY)
def test_every_kind_of_record_round_trips(record: Record) -> None:
    """What was encoded is decoded to an equal record of the same kind, and fits on one line of ASCII."""
    payload = encode(record)
    assert payload.isascii()
    assert b"\n" not in payload
    found = decode(payload)
    assert type(found) is type(record)
    assert text(found) == text(record)
    assert encode(found) == payload
    check_usable(found)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_record_or_a_value_error(payload: bytes) -> None:
    """Whatever bytes stand in a record's place, decoding never fails in another way than by ValueError."""
    with suppress(ValueError):
        check_usable(decode(payload))


@given(ANY, st.data())
def test_a_changed_record_is_a_record_or_a_value_error(record: Record, data: st.DataObject) -> None:
    """A record of which a stretch was cut out, doubled or replaced decodes to something usable or not at all."""
    payload = encode(record)
    start = data.draw(st.integers(0, len(payload)))
    stop = data.draw(st.integers(start, min(len(payload), start + 12)))
    middle = data.draw(st.sampled_from([b"", payload[start:stop] * 2, b"null", b"[]", b"{}", b"-1e999", b'"x"']))
    with suppress(ValueError):
        found = decode(payload[:start] + middle + payload[stop:])
        check_usable(found)
        assert text(decode(encode(found))) == text(found)


@given(JSON | ALMOST)
def test_any_json_is_a_record_or_a_value_error(content: Any) -> None:  # noqa: ANN401  # any JSON
    """Whatever JSON stands in a record's place, what is decoded can be used and says the same when encoded again."""
    with suppress(ValueError):
        found = decode(json.dumps(content).encode())
        check_usable(found)
        assert text(decode(encode(found))) == text(found)


@pytest.mark.parametrize("depth", [100, 1_000, 100_000])
def test_json_that_is_nested_too_deep_is_a_value_error(depth: int) -> None:
    """Nesting beyond all reason ends no reader and no sender."""
    nested = "[" * depth + "]" * depth
    for payload in (nested, f'["call","inputs","r",{{"a":{nested}}}]'):
        with pytest.raises(ValueError, match=r"\w"):
            decode(payload.encode())


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b'["batch","r",[["k",1e0,1,1,5,null,null]],[],[]]', "metric"),
        (b'["batch","r",[["k",1%b,1,1]],[],[]]' % (b"0" * 400), "metric"),
        (b'["call","inputs","r",{"a":NaN}]', "body"),
        (b'["call","drop-table","r",{}]', "does not know"),
        (b'["create","run","run-1",null,{}]', "provisional"),
        (b'["create","registry","local-%b",null,{}]' % (b"0" * 32), "does not know"),
        (b'["artifact","mlflow-artifacts:/0/r/artifacts/a","..",1]', "staged"),
        (b'["artifact","mlflow-artifacts:/0/r/artifacts/a","../../secret",1]', "staged"),
        (b'["artifact","mlflow-artifacts:/0/r/artifacts/a","",1]', "staged"),
        (b'["artifact","mlflow-artifacts:/0/r/artifacts/a","0\\u0000",1]', "staged"),
        (b'["removal",null]', "does not know"),
        (b'["removal","mlflow-artifacts:/0/r/artifacts/a","and more"]', "does not know"),
    ],
)
def test_a_record_that_delivery_could_not_use_is_refused_with_its_reason(payload: bytes, reason: str) -> None:
    """What is sound JSON and yet no record of this version is told apart, and the text says what is wrong."""
    with pytest.raises(ValueError, match=reason):
        decode(payload)


@pytest.mark.parametrize(
    ("removed", "covered", "spared"),
    [
        ("a:/r/artifacts/x", ["a:/r/artifacts/x", "a:/r/artifacts/x/y", "a:/r/artifacts/x/y/z"], ["a:/r/artifacts/xy"]),
        ("a:/r/artifacts/x/", ["a:/r/artifacts/x", "a:/r/artifacts/x/y"], ["a:/r/artifacts", "a:/r/artifacts/xy/x"]),
        ("a:/r/artifacts", ["a:/r/artifacts/x"], ["a:/r/artifacts.txt", "a:/s/artifacts/x"]),
    ],
)
def test_a_removal_covers_a_file_or_all_that_is_in_a_folder(
    removed: str, covered: list[str], spared: list[str]
) -> None:
    """A name that only begins like the one that is removed is another one."""
    removal = Removal(removed)
    assert [uri for uri in (*covered, *spared) if removal.covers(uri)] == covered


@given(HEX, st.lists(POINTS, max_size=5))
def test_points_that_were_formatted_by_themselves_say_what_a_batch_says(run_id: str, points: list[MetricItem]) -> None:
    """The short cut for points gives the bytes of the ordinary encoding, whatever keys, numbers and steps there are."""
    texts = [json.dumps(point, separators=(",", ":")) for point in points]
    assert encode_points(run_id, texts) == encode_batch(run_id, points, [], [])


@given(BATCHES, UPDATES)
def test_the_short_cuts_of_the_encoder_give_the_same_bytes(batch: Batch, update: RunUpdate) -> None:
    """Encoding without building a record first is the same encoding."""
    assert encode_batch(batch.run_id, batch.metrics, batch.params, batch.tags) == encode(batch)
    parts = (update.run_id, update.status, update.end_time, update.run_name)
    assert encode_update(*parts) == encode(update)


@given(ANY)
def test_a_record_fits_into_a_line_of_the_journal(record: Record) -> None:
    """What the codec makes is what the framing takes."""
    payload = encode(record)
    line = framing.encode(payload)
    assert framing.payload_at(line, 0, len(line) - 1) == payload
