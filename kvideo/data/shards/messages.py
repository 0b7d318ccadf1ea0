"""The bytes of a `tf.train.SequenceExample`, as far as frames are concerned, without TensorFlow.

A message is a row of fields: a key (field number × 8 + kind) and, of kind 2, a length and so many
bytes (Protocol Buffers' encoding: https://protobuf.dev/programming-guides/encoding/).
"""

from __future__ import annotations

from collections.abc import Iterator

_FEATURE_LISTS = 2  # of SequenceExample
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


def encoded_frames(record: bytes, key: bytes = b"image/encoded") -> list[memoryview]:
    """The byte strings of a feature list, one for each frame.

    Args:
        record: a serialized `SequenceExample`.
        key: of the feature list.

    Raises:
        ValueError: the bytes are no such message.
    """
    for number, lists in _fields(memoryview(record)):
        if number != _FEATURE_LISTS:
            continue
        for _, entry in _fields(lists):  # map entries: 1 the key, 2 the value
            members = dict(_fields(entry))
            if bytes(members.get(1, b"")) == key:
                return [_only(_only(feature)) for _, feature in _fields(members[2])]
    raise ValueError("no frames")


def _only(message: memoryview) -> memoryview:
    """The first field: a Feature's BytesList, a BytesList's value."""
    return next(_fields(message), (0, memoryview(b"")))[1]


def _fields(message: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Number and bytes of the fields that are messages or strings."""
    place, end = 0, len(message)
    while place < end:
        key, place = _varint(message, place)
        kind = key & 7
        if kind == _BYTES:
            length, place = _varint(message, place)
            if place + length > end:
                raise ValueError("the message is cut off")
            yield key >> 3, message[place : place + length]
            place += length
        elif kind == _VARINT:
            _, place = _varint(message, place)
        elif kind in (_FIXED32, _FIXED64):
            place += 4 if kind == _FIXED32 else 8
        else:
            raise ValueError(f"a field of kind {kind}")


def _varint(message: memoryview, place: int) -> tuple[int, int]:
    """Seven bits a byte, the lowest first; the eighth says that there are more."""
    value = shift = 0
    while True:
        if place >= len(message) or shift > 63:
            raise ValueError("the message is cut off")
        byte = message[place]
        value |= (byte & 0x7F) << shift
        place, shift = place + 1, shift + 7
        if not byte & 0x80:
            return value, place
