from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mantik.delivery.records import Batch, RunUpdate, decode, encode_batch, encode_update
from mantik.delivery.window import requests_for

KEYS = st.sampled_from("abcdef")
METRICS = st.lists(st.tuples(KEYS, st.floats(), st.integers(0, 9), st.integers(0, 9)).map(list), max_size=8)
TEXTS = st.lists(st.tuples(KEYS, st.sampled_from("xyz")).map(list), max_size=5)
RUNS = st.sampled_from(["run-1", "run-2"])
BATCHES = st.builds(Batch, RUNS, METRICS, TEXTS, TEXTS)
UPDATES = st.builds(RunUpdate, RUNS, st.sampled_from([None, "FINISHED", "RUNNING"]), st.none(), st.none())
RECORDS = st.lists(st.one_of(BATCHES, UPDATES), max_size=12)


def text(item: object) -> str:
    """Make items with NaN comparable."""
    return repr(item)


@given(RECORDS)
def test_a_record_says_the_same_after_encoding(records: list[Batch | RunUpdate]) -> None:
    """Whatever is encoded comes back as it was, NaN and infinities included, on one line."""
    for record in records:
        if isinstance(record, Batch):
            payload = encode_batch(record.run_id, record.metrics, record.params, record.tags)
        else:
            payload = encode_update(record.run_id, record.status, record.end_time, record.run_name)
        assert b"\n" not in payload
        assert text(decode(payload)) == text(record)


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"{}",
        b"[]",
        b"null",
        b'["batch"]',
        b'["batch", 1, [], [], []]',
        b'["batch", "r", [["k", "v", 1, 1]], [], []]',
        b'["batch", "r", [["k", 1.0, 1]], [], []]',
        b'["batch", "r", [["k", 1.0, 1, 1.5]], [], []]',
        b'["batch", "r", [], [["k"]], []]',
        b'["batch", "r", [], [["k", 1]], []]',
        b'["update", "r", 1, null, null]',
        b'["teleport", "r"]',
        b"\xff",
    ],
)
def test_what_is_no_record_is_a_value_error(payload: bytes) -> None:
    """Anything else, a later version's records among it, is refused with a reason."""
    with pytest.raises(ValueError, match=r"\w"):
        decode(payload)


@given(RECORDS)
def test_requests_say_what_the_records_say(records: list[Batch | RunUpdate]) -> None:
    """Every point once, the first value of a param first, the last value of a tag last, updates in their place."""
    requests = requests_for(records)
    for run_id in ("run-1", "run-2"):
        said = [record for record in records if record.run_id == run_id]
        sent = [request for request in requests if request.run_id == run_id]
        assert [item for item in sent if isinstance(item, RunUpdate)] == [
            item for item in said if isinstance(item, RunUpdate)
        ]
        for part_said, part_sent in zip(_parts(said), _parts(sent), strict=True):
            assert sorted(map(text, _all(part_said, "metrics"))) == sorted(map(text, _all(part_sent, "metrics")))
            assert _last(_all(part_said, "tags")) == _last(_all(part_sent, "tags"))
            assert _first(_all(part_said, "params")) == _first(_all(part_sent, "params"))
            assert {tuple(item) for item in _all(part_said, "params")} == {
                tuple(item) for item in _all(part_sent, "params")
            }


@given(RECORDS)
def test_no_request_breaks_a_limit_of_the_server(records: list[Batch | RunUpdate]) -> None:
    """One kind per request, no key of a param or tag twice in it, numbers that need care apart from the others."""
    for request in requests_for(records):
        if isinstance(request, RunUpdate):
            continue
        assert [bool(request.metrics), bool(request.params), bool(request.tags)].count(True) == 1
        for items in (request.params, request.tags):
            assert len({key for key, _ in items}) == len(items)
        assert len({math.isfinite(item[1]) for item in request.metrics}) <= 1


def test_large_windows_are_cut_at_the_servers_limits() -> None:
    """1000 points, 100 params, 100 tags, 100 model metrics or special numbers per request."""
    plain = [["k", 1.0, 1, step] for step in range(2500)]
    careful = [["k", math.nan, 1, step] for step in range(250)]
    model = [["k", 1.0, 1, step, "m-1", None, None] for step in range(150)]
    texts = [[f"key-{number}", "v"] for number in range(250)]
    requests = requests_for([Batch("r", plain + careful + model, texts, texts)])
    sizes = [(len(r.metrics), len(r.params), len(r.tags)) for r in requests if isinstance(r, Batch)]
    assert sizes == [
        *[(0, 100, 0), (0, 100, 0), (0, 50, 0)],
        *[(0, 0, 100), (0, 0, 100), (0, 0, 50)],
        *[(1000, 0, 0), (1000, 0, 0), (500, 0, 0)],
        *[(100, 0, 0), (100, 0, 0), (100, 0, 0), (100, 0, 0)],
    ]


def _parts(items: list[Batch | RunUpdate]) -> list[list[Batch]]:
    """Cut at the updates."""
    parts: list[list[Batch]] = [[]]
    for item in items:
        if isinstance(item, RunUpdate):
            parts.append([])
        else:
            parts[-1].append(item)
    return parts


def _all(batches: list[Batch], kind: str) -> list[list[object]]:
    return [item for batch in batches for item in getattr(batch, kind)]


def _last(items: list[list[object]]) -> dict[object, object]:
    return {item[0]: item[1] for item in items}


def _first(items: list[list[object]]) -> dict[object, object]:
    return {item[0]: item[1] for item in reversed(items)}
