"""Length-prefixed frames between controller and worker: one JSON message and the binary values in it.

A frame is `u32 length, u32 JSON length, JSON, blobs`, big-endian. A bytes value stands in the JSON as
`{"$b": [offset, size]}` into the blobs. Both halves use this one module (it is sent to the node with the worker),
so it needs nothing but the standard library and Python 3.10, and trusts nothing that it reads.
"""

import json
import struct
from typing import Any, BinaryIO, Protocol

LIMIT = 64 << 20
"""Bytes of a frame at most."""
TEXT_LIMIT = 16 << 20
"""Bytes of its JSON at most: as values they may take twenty times as much memory."""
_HEAD = struct.Struct(">II")


class BadFrame(ValueError):
    """What arrived is no frame of this protocol; the session is over."""


class Source(Protocol):
    """Anything that can be read from: a file, a socket's file, an SSH channel."""

    def read(self, size: int, /) -> bytes: ...


def encode(message: dict[str, object]) -> bytes:
    """One frame for a mapping of plain values and bytes. Raises BadFrame over LIMIT, TypeError for other values."""
    blobs: list[bytes] = []
    size = 0

    def take(value: object) -> dict[str, list[int]]:
        nonlocal size
        if isinstance(value, (bytes, bytearray, memoryview)):
            blobs.append(bytes(value))
            mark = {"$b": [size, len(value)]}
            size += len(value)
            return mark
        raise TypeError(f"not a plain value: {type(value).__name__}")

    text = json.dumps(message, default=take, separators=(",", ":")).encode()
    length = 4 + len(text) + size
    if len(text) > TEXT_LIMIT:
        raise BadFrame(f"a message with {len(text)} bytes of JSON is over the limit of {TEXT_LIMIT}")
    if length > LIMIT:
        raise BadFrame(f"a message of {length} bytes is over the limit of {LIMIT}")
    return b"".join([_HEAD.pack(length, len(text)), text, *blobs])


def decode(body: bytes) -> dict[str, object]:
    """The message of a frame's body (all after the first length). Raises BadFrame."""
    if len(body) < 4:
        raise BadFrame(f"a frame of {len(body)} bytes")
    size = int.from_bytes(body[:4], "big")
    if size > len(body) - 4:
        raise BadFrame("a JSON part longer than its frame")
    if size > TEXT_LIMIT:
        raise BadFrame(f"{size} bytes of JSON, over the limit of {TEXT_LIMIT}")
    blobs = body[4 + size :]

    def restore(mapping: dict[str, object]) -> object:
        if len(mapping) != 1 or "$b" not in mapping:
            return mapping
        mark = mapping["$b"]
        if not (isinstance(mark, list) and len(mark) == 2 and all(type(n) is int for n in mark)):
            raise BadFrame("a binary mark that is no pair of numbers")
        start, length = mark
        if not 0 <= start <= start + length <= len(blobs):
            raise BadFrame("a binary mark outside of its frame")
        return blobs[start : start + length]

    try:
        message = json.loads(body[4 : 4 + size].decode(), object_hook=restore)
    except BadFrame:
        raise
    except (ValueError, RecursionError) as error:
        raise BadFrame(f"no JSON: {error}") from None
    if not isinstance(message, dict):
        raise BadFrame("a message that is no mapping")
    return message


def read(stream: Source | BinaryIO) -> dict[str, Any] | None:
    """The next message; None at the stream's end. Raises BadFrame, and EOFError where it ends inside a frame."""
    head = _exactly(stream, 4)
    if not head:
        return None
    length = int.from_bytes(head, "big")
    if not 4 <= length <= LIMIT:
        raise BadFrame(f"a frame length of {length}")
    body = _exactly(stream, length)
    if not body:
        raise EOFError("the stream ended inside a frame")
    return decode(body)


def _exactly(stream: Source | BinaryIO, size: int) -> bytes:
    parts: list[bytes] = []
    missing = size
    while missing:
        part = stream.read(min(missing, 1 << 20))
        if not part:
            if missing == size:
                return b""
            raise EOFError("the stream ended inside a frame")
        parts.append(part)
        missing -= len(part)
    return b"".join(parts)
