"""Whether a video file has been cut off, told from the sizes that its container declares.

Only headers are read. Three families declare sizes: ISO base media (MP4, MOV, 3GP: ISO/IEC
14496-12, boxes), RIFF (AVI, chunks), and EBML (Matroska, WebM: RFC 8794, elements). Of others,
such as MPEG-TS, nothing can be said.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import BinaryIO

_EBML_HEADER = b"\x1aE\xdf\xa3"
_EBML_SEGMENT = b"\x18S\x80g"
# Top-level boxes that an MP4 or MOV file may begin with.
_FIRST_BOXES = (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot", b"styp")
_MAX_BOXES = 100_000


def file_size(file: BinaryIO) -> int:
    """Size in bytes of an open, seekable file; it is left at its beginning."""
    file.seek(0, os.SEEK_END)
    size = file.tell()
    file.seek(0)
    return size


def cut_off(file: BinaryIO, size: int) -> str | None:
    """Why a file must be incomplete, or None.

    Args:
        file: open for reading in binary mode, seekable; it is left at its beginning.
        size: the file's size in bytes.

    Returns:
        A phrase such as "moov atom not found"; None where the file is whole or declares no size.
    """
    file.seek(0)
    head = file.read(64)
    if head[4:8] in _FIRST_BOXES:
        reason = _cut_boxes(file, size)
    elif head[:4] == b"RIFF" and head[8:12] == b"AVI ":
        reason = _shortfall(8 + int.from_bytes(head[4:8], "little"), size)
    elif head[:4] == _EBML_HEADER:
        reason = _shortfall(_segment_end(head), size)
    else:
        reason = None
    file.seek(0)
    return reason


def _shortfall(declared: int, size: int) -> str | None:
    if declared <= size:
        return None
    return f"{size} of {declared} bytes are there"


def _boxes(file: BinaryIO, size: int) -> Iterator[tuple[bytes, int]]:
    """Names and ends (byte positions) of the boxes at the top level."""
    start = 0
    for _ in range(_MAX_BOXES):
        if start + 8 > size:
            return
        file.seek(start)
        header = file.read(16)
        name, length = header[4:8], int.from_bytes(header[:4], "big")
        if length == 1:
            length = int.from_bytes(header[8:16], "big")
        elif length == 0:  # reaches to the end of the file
            length = size - start
        if length < 8 or not name.strip(b"\x00"):  # padding, not a box
            return
        start += length
        yield name, start


def _cut_boxes(file: BinaryIO, size: int) -> str | None:
    boxes = list(_boxes(file, size))
    if all(name != b"moov" for name, _ in boxes):
        return "moov atom not found"
    return _shortfall(boxes[-1][1], size)


def _segment_end(head: bytes) -> int:
    """Where the Segment ends by its own account; 0 where its size is left open."""
    length, width = _variable_integer(head, 4)
    start = 4 + width + length
    if head[start : start + 4] != _EBML_SEGMENT:
        return 0
    length, width = _variable_integer(head, start + 4)
    unknown = (1 << 7 * width) - 1
    return 0 if length == unknown else start + 4 + width + length


def _variable_integer(data: bytes, at: int) -> tuple[int, int]:
    """An EBML variable-size integer and its width in bytes."""
    first = data[at] if at < len(data) else 0
    width = 9 - first.bit_length()
    if width > 8 or at + width > len(data):
        return 0, 1
    value = int.from_bytes(data[at : at + width], "big")
    return value & ((1 << 7 * width) - 1), width
