"""The record line."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mantik.delivery import framing

payloads = st.binary(max_size=300).map(lambda payload: payload.replace(b"\n", b" "))


@given(payloads)
def test_a_payload_round_trips(payload: bytes) -> None:
    """What was encoded is read back, byte for byte."""
    line = framing.encode(payload)
    assert framing.payload_at(line, 0, len(line) - 1) == payload


@given(payloads, payloads)
def test_a_record_is_found_where_it_begins(before: bytes, payload: bytes) -> None:
    """A record is read from the middle of a buffer, and stops at its own length."""
    data = before + framing.encode(payload) + framing.encode(b"next")
    assert framing.payload_at(data, len(before), len(data)) == payload


def test_a_line_is_readable_by_eye() -> None:
    """A record line is length, checksum, a space, the payload and a newline, as the format page says."""
    assert framing.encode(b'{"a": 1}') == b'000000082271cae8 {"a": 1}\n'


@given(payloads, st.data())
def test_a_changed_byte_is_noticed(payload: bytes, data: st.DataObject) -> None:
    """No record is read from a line of which any byte but the newline was changed."""
    line = bytearray(framing.encode(payload))
    line[data.draw(st.integers(0, len(line) - 2))] ^= data.draw(st.integers(1, 255))
    assert framing.payload_at(bytes(line), 0, len(line) - 1) is None


@given(payloads, st.data())
def test_a_cut_record_is_none(payload: bytes, data: st.DataObject) -> None:
    """No record is read beyond where it may extend."""
    line = framing.encode(payload)
    assert framing.payload_at(line, 0, data.draw(st.integers(0, len(line) - 2))) is None


@given(st.binary(), st.binary())
def test_a_newline_is_refused(before: bytes, after: bytes) -> None:
    """A payload with a newline is an error of the caller."""
    with pytest.raises(ValueError, match="newline"):
        framing.encode(before + b"\n" + after)


def test_a_giant_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A payload that no reader would hold in memory is an error of the caller."""
    monkeypatch.setattr(framing, "MAX_PAYLOAD_BYTES", 10)
    framing.encode(b"0123456789")
    with pytest.raises(ValueError, match="longer"):
        framing.encode(b"0123456789a")


@pytest.mark.parametrize(
    ("head", "number"),
    [
        (b"mantik-journal 1\nrest", 1),
        (b"mantik-journal 12\n", 12),
        (b"mantik-journal 1", None),
        (b"mantik-journal \n", None),
        (b" mantik-journal 1\n", None),
        (b"", None),
    ],
)
def test_a_format_tag_is_a_whole_line(head: bytes, number: int | None) -> None:
    """Only a complete tag line at the very beginning names a format."""
    assert framing.format_of(head) == number
