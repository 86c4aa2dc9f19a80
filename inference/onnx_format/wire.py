"""Protobuf's wire format: the fields of a message. Standard library only."""

from collections.abc import Iterator

from ..artifact import ArtifactError

Field = int | memoryview
"""The value of a field: a number, or bytes."""


class CutShortError(ArtifactError):
    """The file ends within a field."""


class TooManyPartsError(ArtifactError):
    """Reading the file would take too long."""


class Wire:
    """Reads messages of one file, up to a number of parts."""

    def __init__(self, most_parts: int) -> None:
        """most_parts: the most numbers in all messages, such as keys and sizes."""
        self._most_parts = self._parts_left = most_parts

    def fields(self, data: memoryview) -> Iterator[tuple[int, Field, memoryview]]:
        """Number, value and all bytes of each field of a message.

        Raises:
            CutShortError: if the message ends within a field.
            TooManyPartsError: if it is too long to read.
            ArtifactError: if it is no message.
        """
        at = 0
        while at < len(data):
            first = at
            key, at = self._varint(data, at)
            kind = key & 7
            value: Field
            if kind == 0:
                value, at = self._varint(data, at)
            else:
                if kind == 2:
                    size, at = self._varint(data, at)
                elif kind in {1, 5}:
                    size = 8 if kind == 1 else 4
                else:
                    raise ArtifactError("it is no ONNX file")
                if at + size > len(data):
                    missing = at + size - len(data)
                    raise CutShortError(f"cut short: at least {missing:,} bytes are missing")
                value = data[at : at + size]
                at += size
            yield key >> 3, value, data[first:at]

    def integers(self, value: Field) -> Iterator[int]:
        """The integers of a field: one, or several that are packed."""
        if isinstance(value, int):
            yield signed(value)
            return
        at = 0
        while at < len(value):
            number, at = self._varint(value, at)
            yield signed(number)

    def _varint(self, data: memoryview, at: int) -> tuple[int, int]:
        self._parts_left -= 1
        if self._parts_left < 0:
            raise TooManyPartsError(
                f"it is made of more than {self._most_parts:,} parts, which is absurd"
            )
        value = 0
        for shift in range(0, 70, 7):
            if at >= len(data):
                raise CutShortError("cut short: its end is missing")
            byte = data[at]
            at += 1
            value |= (byte & 127) << shift
            if byte < 128:
                return value & (2**64 - 1), at
        raise ArtifactError("it is no ONNX file")


def message(value: Field) -> memoryview:
    """A field of bytes; raise TypeError for a number."""
    if isinstance(value, int):
        raise TypeError
    return value


def integer(value: Field) -> int:
    """A field that is an integer with a sign; raise TypeError for bytes."""
    if not isinstance(value, int):
        raise TypeError
    return signed(value)


def signed(value: int) -> int:
    """The integer of 64 bits with a sign that a number stands for."""
    return value - 2**64 if value >= 2**63 else value


def field(number: int, content: bytes) -> bytes:
    """A field of bytes; its number is below 16."""
    size = len(content)
    head = bytearray([number << 3 | 2])
    while size >= 128:
        head.append(size & 127 | 128)
        size >>= 7
    head.append(size)
    return bytes(head) + content
