"""Decodes a form of the type ``multipart/form-data`` (RFC 7578) while it arrives, strictly, and without reading itself.

Lines end in CR LF, nothing stands in front of the first boundary, and no data contains the boundary: that is what all
HTTP clients send. So each form can be understood in one way only.
"""

from __future__ import annotations

from dataclasses import dataclass
from email.message import Message
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterator

_MOST_BYTES_OF_HEADERS: Final = 16 * 1024
_LONGEST_BOUNDARY: Final = 256
_LINE_END: Final = b"\r\n"
_BLANK_LINE: Final = b"\r\n\r\n"


class MultipartError(ValueError):
    """A body that is no form; the text says why."""


@dataclass(frozen=True, slots=True)
class Part:
    """The beginning of a part.

    Attributes:
        name: The name of the field.
        is_file: Whether it is a file, that is, has a file name.
    """

    name: str
    is_file: bool


Event: TypeAlias = Part | bytes
"""A part begins, or a piece of its data."""


class MultipartDecoder:
    """Turns the pieces of a body into events. It keeps no more than the headers of a part, or a boundary."""

    def __init__(self, content_type: str) -> None:
        """Take the Content-Type of the request.

        Raises:
            MultipartError: It is no form, or has no boundary.
        """
        header = Message()
        header["content-type"] = content_type
        boundary = header.get_boundary("")
        if header.get_content_type() != "multipart/form-data" or not 0 < len(boundary) <= _LONGEST_BOUNDARY:
            raise MultipartError("Expected a form, of the type multipart/form-data with a boundary")
        self._delimiter = b"\r\n--" + boundary.encode("latin-1", "replace")
        # The first boundary has no line in front of it.
        self._buffer = bytearray(_LINE_END)
        self._step: Literal["start", "boundary", "headers", "data", "end"] = "start"

    def decode(self, piece: bytes) -> Iterator[Event]:
        """Take the next piece of the body, and yield what it completes. All of it has to be asked for.

        Raises:
            MultipartError: The body is no form.
        """
        self._buffer += piece
        while (events := self._next()) is not None:
            yield from events

    def close(self) -> None:
        """Say that the body has ended.

        Raises:
            MultipartError: The form has not.
        """
        if self._step != "end":
            raise MultipartError("The form is incomplete")

    def _next(self) -> list[Event] | None:
        """Go one step, and return what it completed; ``None`` if more data is needed."""
        if self._step == "start":
            return self._read_start()
        if self._step == "boundary":
            return self._read_boundary_end()
        if self._step == "headers":
            return self._read_headers()
        if self._step == "data":
            return self._read_data()
        # Behind the last boundary there is nothing of interest.
        self._buffer.clear()
        return None

    def _read_start(self) -> list[Event] | None:
        if not self._delimiter.startswith(self._buffer[: len(self._delimiter)]):
            raise MultipartError("The form does not begin with its boundary")
        return self._pass_boundary() if len(self._buffer) >= len(self._delimiter) else None

    def _pass_boundary(self, at: int = 0) -> list[Event]:
        del self._buffer[: at + len(self._delimiter)]
        self._step = "boundary"
        return []

    def _read_boundary_end(self) -> list[Event] | None:
        if len(self._buffer) < len(_LINE_END):
            return None
        if self._buffer.startswith(b"--"):
            self._step = "end"
        elif self._buffer.startswith(_LINE_END):
            # The line end stays: headers that are missing are a blank line then.
            self._step = "headers"
        else:
            raise MultipartError("Something follows a boundary of the form")
        return []

    def _read_headers(self) -> list[Event] | None:
        end = self._buffer.find(_BLANK_LINE)
        if max(end, len(self._buffer) if end < 0 else 0) > _MOST_BYTES_OF_HEADERS:
            raise MultipartError("A part of the form has too long headers")
        if end < 0:
            return None
        part = _part(bytes(self._buffer[:end]))
        del self._buffer[: end + len(_BLANK_LINE)]
        # Data that is empty begins with the line end of the boundary.
        self._step = "data"
        return [part]

    def _read_data(self) -> list[Event] | None:
        at = self._buffer.find(self._delimiter)
        if at >= 0:
            data = bytes(self._buffer[:at])
            self._pass_boundary(at)
            return [data]
        # The rest may be the beginning of a boundary.
        complete = len(self._buffer) - len(self._delimiter) + 1
        if complete <= 0:
            return None
        data = bytes(self._buffer[:complete])
        del self._buffer[:complete]
        return [data]


def _part(headers: bytes) -> Part:
    for line in headers.split(_LINE_END):
        name, _, value = line.partition(b":")
        if name.strip().lower() == b"content-disposition":
            return _described(value)
    raise MultipartError("A part of the form does not say which field it is")


def _described(disposition: bytes) -> Part:
    header = Message()
    try:
        header["content-disposition"] = disposition.decode().strip()
    except UnicodeDecodeError:
        raise MultipartError("The name of a field of the form is no text in UTF-8") from None
    name = header.get_param("name", header="content-disposition")
    if header.get_content_disposition() != "form-data" or not isinstance(name, str):
        raise MultipartError("A part of the form does not say which field it is")
    return Part(name, is_file=header.get_filename() is not None)
