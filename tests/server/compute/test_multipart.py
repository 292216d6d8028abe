from __future__ import annotations

from itertools import pairwise

import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st

from mantik.server.compute.multipart import MultipartDecoder, MultipartError, Part

TYPE = "multipart/form-data; boundary=XyZ"
# What is hard for a decoder: line ends, hyphens, the letters of the boundary.
hard = st.lists(st.sampled_from([b"\r", b"\n", b"-", b"--", b"X", b"XyZ", b"\r\n--XyY", b"\0", b"a" * 50]), max_size=9)
contents = hard.map(b"".join) | st.binary(max_size=200)


def decoded(pieces: list[bytes], content_type: str = TYPE) -> list[tuple[Part, bytes]]:
    """Return the parts of a body that arrives in pieces."""
    decoder = MultipartDecoder(content_type)
    parts: list[tuple[Part, bytes]] = []
    for piece in pieces:
        for event in decoder.decode(piece):
            if isinstance(event, Part):
                parts.append((event, b""))
            else:
                parts[-1] = (parts[-1][0], parts[-1][1] + event)
    decoder.close()
    return parts


def cut(body: bytes, places: list[int]) -> list[bytes]:
    """Cut a body at these places."""
    ends = sorted({place % (len(body) + 1) for place in places} | {0, len(body)})
    return [body[start:end] for start, end in pairwise(ends)]


@given(st.lists(contents, min_size=1, max_size=4), st.lists(st.integers(0, 5000), max_size=20))
def test_what_a_client_sends_arrives(files: list[bytes], places: list[int]) -> None:
    """Whatever the files hold and wherever the body is cut, they come out as they went in."""
    named = [(f"file{number}", (f"näme;{number}.zip", content)) for number, content in enumerate(files)]
    prepared = requests.Request("POST", "http://localhost", data={"feld": "wert\r\n"}, files=named).prepare()
    assert isinstance(prepared.body, bytes)
    parts = decoded(cut(prepared.body, places), prepared.headers["Content-Type"])
    expected = [(Part(f"file{number}", is_file=True), content) for number, content in enumerate(files)]
    assert parts == [(Part("feld", is_file=False), b"wert\r\n"), *expected]


@given(
    st.lists(contents | st.just(b"\r\n--XyZ--") | st.just(b"\r\n--XyZ\r\n"), max_size=9), st.lists(st.integers(0, 999))
)
def test_any_body_is_decoded_or_refused(pieces: list[bytes], places: list[int]) -> None:
    """No body does anything but come out or be refused, and the cuts make no difference to that."""
    body = b"--XyZ\r\nContent-Disposition: form-data; name=a\r\n\r\n" + b"".join(pieces)

    def outcome(parts: list[bytes]) -> object:
        try:
            return decoded(parts)
        except MultipartError as error:
            return str(error)

    assert outcome(cut(body, places)) == outcome([body])


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"", "incomplete"),
        (b"\r\n--XyZ--", "does not begin with its boundary"),
        (b"preamble\r\n--XyZ--", "does not begin with its boundary"),
        (b"--XyZ", "incomplete"),
        (b"--XyZ-", "incomplete"),
        (b"--XyZA", "incomplete"),
        (b"--XyZAB", "Something follows a boundary"),
        (b"--XyZ \r\n", "Something follows a boundary"),
        (b"--XyZ\n\n", "Something follows a boundary"),
        (b"--XyZ\r\n\r\nx", "does not say which field"),
        (b"--XyZ\r\nContent-Type: x\r\n\r\nx", "does not say which field"),
        (b"--XyZ\r\nContent-Disposition: form-data\r\n\r\nx", "does not say which field"),
        (b"--XyZ\r\nContent-Disposition: attachment; name=a\r\n\r\nx", "does not say which field"),
        (b"--XyZ\r\nContent-Disposition: form-data; name=\xff\r\n\r\nx", "no text in UTF-8"),
        (b"--XyZ\r\nContent-Disposition: form-data; name=a\r\n\r\nx", "incomplete"),
        (b"--XyZ\r\nContent-Disposition: form-data; name=a\r\n\r\nx\r\n--XyZ", "incomplete"),
        (b"--XyZ\r\n" + b"x" * 20_000, "too long headers"),
        (b"--XyZ\r\n" + b"x" * 20_000 + b"\r\n\r\n", "too long headers"),
    ],
)
def test_what_is_no_form_is_refused(body: bytes, text: str) -> None:
    """The text says what is wrong."""
    with pytest.raises(MultipartError, match=text):
        decoded([body])


def test_nothing_behind_the_end_counts() -> None:
    """An epilogue is dropped, and a form without parts is one."""
    assert decoded([b"--XyZ--", b"\r\nepilogue", b"\r\n--XyZ\r\n"]) == []


@pytest.mark.parametrize(
    "content_type", ["", "text/plain; boundary=a", "multipart/form-data", "multipart/form-data; boundary=" + "x" * 257]
)
def test_other_types_are_refused(content_type: str) -> None:
    """Only a form with a boundary is decoded."""
    with pytest.raises(MultipartError, match="Expected a form"):
        MultipartDecoder(content_type)
