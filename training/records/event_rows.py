"""Encode many TensorBoard events with the same tags at once, as rows of a table of bytes.

The rows differ in few bytes (time, step, numbers). These are written into copies of one row, and
the checksum of each row is derived from that of the first: CRC-32C is linear, so each byte that
differs changes it by an amount that depends only on its value and its place.
"""

import struct

import numpy as np
from numpy.typing import NDArray

_POLYNOMIAL = 0x82F63B78  # polynomial of CRC-32C (RFC 3720), bits reversed
_MASK_ADDED = np.uint32(0xA282EAD8)  # TFRecord masks checksums, because records may contain records


class EventRows:
    """Encodes tables of numbers, with the same tags, as records of an event file."""

    def __init__(self, tags: tuple[str, ...]) -> None:
        self.tags = tags
        self._templates: dict[int, _Template] = {}

    def encode(self, wall_time: float, first_step: int, values: NDArray[np.float32]) -> bytes:
        """Encode a record for each row of values, (steps, tags), from step `first_step` on.

        first_step: at least 1, because protobuf leaves a step of zero out of its record.
        """
        steps = np.arange(first_step, first_step + len(values), dtype=np.uint64)
        lengths = sum((steps >= 1 << 7 * i).astype(int) for i in range(1, 9)) + np.ones(1, int)
        parts = []
        for length in np.unique(lengths):  # a step that needs more bytes makes a longer record
            if length not in self._templates:
                self._templates[length] = _Template(self.tags, int(length))
            rows = lengths == length
            parts.append(self._templates[length].fill(wall_time, steps[rows], values[rows]))
        return b"".join(parts)


class _Template:
    """Records whose steps all need `length` bytes."""

    def __init__(self, tags: tuple[str, ...], length: int) -> None:
        # Event: 1 wall_time (double), 2 step (varint), 5 summary; Summary: 1 value, repeated;
        # Value: 1 tag, 2 simple_value (float). What differs is zero here.
        head = b"\x09" + bytes(8) + b"\x10" + bytes(length)
        summary, floats = b"", []
        for tag in tags:
            named = _field(b"\x0a", tag.encode()) + b"\x15"
            whole = _field(b"\x0a", named + bytes(4))
            floats.append(len(summary) + len(whole) - 4)
            summary += whole
        start = len(head) + len(_field(b"\x2a", summary)) - len(summary)
        self._content = np.frombuffer(head + _field(b"\x2a", summary), np.uint8)
        self._places = np.array(
            [*range(1, 9), *range(10, 10 + length)]
            + [start + first + i for first in floats for i in range(4)]
        )
        size = struct.pack("<Q", len(self._content))
        self._before = np.frombuffer(size + _masked(_crc(size)).tobytes(), np.uint8)
        self._length = length
        self._plain = _crc(self._content.tobytes())
        self._changes = _changes(len(self._content))[self._places]

    def fill(
        self, wall_time: float, steps: NDArray[np.uint64], values: NDArray[np.float32]
    ) -> bytes:
        count, size, before = len(steps), len(self._content), len(self._before)
        differing = np.empty((count, len(self._places)), np.uint8)
        differing[:, :8] = np.frombuffer(struct.pack("<d", wall_time), np.uint8)
        for i in range(self._length):  # varint: seven bits per byte, lowest first
            more = 0x80 if i + 1 < self._length else 0
            differing[:, 8 + i] = (steps >> np.uint64(7 * i)) & np.uint64(0x7F) | np.uint64(more)
        table = np.ascontiguousarray(values, "<f4")
        differing[:, 8 + self._length :] = table.view(np.uint8).reshape(count, -1)
        changes = self._changes[np.arange(len(self._places)), differing]
        checksums = self._plain ^ np.bitwise_xor.reduce(changes, axis=1)
        records = np.empty((count, before + size + 4), np.uint8)
        records[:, :before] = self._before
        records[:, before : before + size] = self._content
        records[:, before + self._places] = differing
        records[:, before + size :] = _masked(checksums).astype("<u4")[:, None].view(np.uint8)
        return records.tobytes()


def _field(key: bytes, content: bytes) -> bytes:
    """A protobuf field of bytes; key: its number and wire type."""
    length, left = b"", len(content)
    while left > 0x7F:
        length += bytes([left & 0x7F | 0x80])
        left >>= 7
    return key + length + bytes([left]) + content


def _byte_table() -> NDArray[np.uint32]:
    """The table of CRC-32C for each value of a byte."""
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = (table >> np.uint32(1)) ^ (table & np.uint32(1)) * np.uint32(_POLYNOMIAL)
    return table


_TABLE = _byte_table()


def _crc(content: bytes) -> np.uint32:
    value = 0xFFFFFFFF
    for byte in content:
        value = int(_TABLE[(value ^ byte) & 0xFF]) ^ value >> 8
    return np.uint32(value ^ 0xFFFFFFFF)


def _changes(length: int) -> NDArray[np.uint32]:
    """How each byte at each place among `length` zeros changes the checksum, (length, 256)."""
    changes = np.empty((length, 256), np.uint32)
    changes[-1] = _TABLE
    for place in range(length - 1, 0, -1):  # one more zero byte follows
        later = changes[place]
        changes[place - 1] = _TABLE[later & np.uint32(0xFF)] ^ later >> np.uint32(8)
    return changes


def _masked(checksum: NDArray[np.uint32] | np.uint32) -> NDArray[np.uint32]:
    values = np.atleast_1d(checksum)
    return (values >> np.uint32(15) | values << np.uint32(17)) + _MASK_ADDED
