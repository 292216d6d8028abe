"""Reads a form as servers do: strictly by RFC 7578, and without the code that wrote it."""

from __future__ import annotations

import re
from dataclasses import dataclass

__all__ = ["Part", "parts_of"]

_PARAMETER = re.compile(r'(\w+)="([^"]*)"')


@dataclass(frozen=True)
class Part:
    """One part of a form."""

    content: bytes
    filename: str | None
    content_type: str | None


def parts_of(content_type: str, body: bytes) -> dict[str, Part]:
    """Return the parts by their names; anything that is no form fails the test."""
    kind, _, boundary = content_type.partition("; boundary=")
    assert kind == "multipart/form-data"
    delimiter = b"--" + boundary.encode()
    assert body.startswith(delimiter + b"\r\n")
    assert body.endswith(b"\r\n" + delimiter + b"--\r\n")
    inside = body[len(delimiter) + 2 : -len(delimiter) - 6]
    parts = {}
    for part in inside.split(b"\r\n" + delimiter + b"\r\n"):
        head, _, content = part.partition(b"\r\n\r\n")
        headers = dict(line.split(": ", 1) for line in head.decode().split("\r\n"))
        assert headers["Content-Disposition"].startswith("form-data; ")
        parameters = dict(_PARAMETER.findall(headers["Content-Disposition"]))
        assert parameters["name"] not in parts
        parts[parameters["name"]] = Part(content, parameters.get("filename"), headers.get("Content-Type"))
    return parts
