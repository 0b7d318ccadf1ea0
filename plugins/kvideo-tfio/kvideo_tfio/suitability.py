"""Which videos tensorflow-io's decoder gives rightly, and when their frames are shown.

It gives pictures alone, from the first on, and tells neither their times nor what went wrong. So
a video is read with it only if all is known beforehand: its colours are those that it converts
rightly, and each packet gives one frame, at a time that the container says.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

_FORMATS = frozenset({"mov", "matroska", "avi"})
_CODECS = frozenset({"h264", "hevc", "mpeg4"})
_PIXEL_FORMATS = frozenset({"yuv420p", "yuv444p"})
# AVColorSpace: what is not said, and the two names of BT.601's matrix. No other one is applied.
_COLOUR_SPACES = frozenset({2, 5, 6})
_FULL_RANGE = 2  # AVColorRange
_PROGRESSIVE_OR_UNKNOWN = (0, 1)  # AVFieldOrder
_WIDTH_STEP = 8
_H264_SPS, _HEVC_SPS = 7, 33  # NAL unit types
_MPEG4_LAYERS = range(0x20, 0x30)  # start codes of video object layers

DAMAGED = "videos with frames that are damaged or not to be shown"
TIMELESS = "files without a time for each frame"


class UnsuitableError(Exception):
    """A video that is read with PyAV; says of what kind it is, as in "interlaced videos"."""


def check_stream(stream: Any, container: Any, first: Any) -> None:
    """Checks what can be told without reading the file.

    Args:
        stream: an `av.VideoStream`.
        container: of the stream.
        first: its first frame.

    Raises:
        UnsuitableError: the decoder would give other pictures than PyAV.
    """
    codec = stream.codec_context
    if first.width % _WIDTH_STEP:
        raise UnsuitableError(f"videos whose width is no multiple of {_WIDTH_STEP}")
    if container.format.name.split(",")[0] not in _FORMATS:
        raise UnsuitableError("files that are neither MP4, MOV, Matroska nor AVI")
    if codec.codec.canonical_name not in _CODECS:
        raise UnsuitableError("videos in codecs other than H.264, HEVC and MPEG-4")
    if first.format.name not in _PIXEL_FORMATS:
        raise UnsuitableError("videos in pixel formats other than 8-bit 4:2:0 and 4:4:4")
    if int(first.colorspace) not in _COLOUR_SPACES or int(first.color_range) == _FULL_RANGE:
        raise UnsuitableError("videos in colours other than BT.601 of limited range")
    if getattr(codec, "field_order", 0) not in _PROGRESSIVE_OR_UNKNOWN or first.interlaced_frame:
        raise UnsuitableError("interlaced videos")


@dataclass
class PacketSurvey:
    """What a file's packets say of its frames; nothing is decoded.

    Args:
        codec: FFmpeg's name.
        header: the codec's header that the container has, or None.
    """

    codec: str
    header: bytes | None
    _stamps: list[int] = field(default_factory=list)
    _layouts: set[bytes] = field(default_factory=set)

    def stamps(self, packets: Iterable[Any]) -> list[int]:
        """The frames' stamps, rising.

        Args:
            packets: all of the stream, in the order of the file.

        Raises:
            UnsuitableError: not every packet is one frame with a time of its own, or the size of
                the pictures may change on the way, which the decoder does not stand.
        """
        try:
            return self._read(packets)
        except IndexError as error:  # a header that is shorter than it says
            raise UnsuitableError(DAMAGED) from error

    def _read(self, packets: Iterable[Any]) -> list[int]:
        self._note(_header_layouts(self.header, self.codec))
        decoded_at = None
        for packet in packets:
            if packet.size == 0:
                continue
            if not self._stamps and not packet.is_keyframe:
                raise UnsuitableError("videos that do not begin with a keyframe")
            if packet.pts is None:
                raise UnsuitableError(TIMELESS)
            if packet.is_discard or packet.is_corrupt:
                raise UnsuitableError(DAMAGED)
            if packet.dts is not None:
                if decoded_at is not None and packet.dts < decoded_at:
                    raise UnsuitableError("videos whose clock starts anew")
                decoded_at = packet.dts
            self._stamps.append(packet.pts)
            if packet.is_keyframe:
                self._check_layout(packet)
        stamps = sorted(self._stamps)
        if len(set(stamps)) < len(stamps):
            raise UnsuitableError(TIMELESS)
        return stamps

    def _check_layout(self, packet: Any) -> None:
        changed = packet.has_sidedata("new_extradata")
        self._note(_packet_layouts(bytes(packet), self.codec, self.header))
        if changed or len(self._layouts) > 1:
            raise UnsuitableError("videos whose parameters change on the way")

    def _note(self, layouts: Iterable[bytes]) -> None:
        self._layouts.update(layout.rstrip(b"\0") for layout in layouts)


def _header_layouts(header: bytes | None, codec: str) -> Iterator[bytes]:
    """The parameter sets in the container's header."""
    if not header:
        return
    if codec == "mpeg4" or not _has_lengths(header):
        yield from _packet_layouts(header, codec, None)
    elif codec == "h264":  # ISO/IEC 14496-15, 5.3.3.1
        place = 6
        for _ in range(header[5] & 31):
            length = int.from_bytes(header[place : place + 2], "big")
            yield header[place + 2 : place + 2 + length]
            place += 2 + length
    else:  # 8.3.3.1: arrays of NAL units
        place = 23
        for _ in range(header[22]):
            kind, count = header[place] & 63, int.from_bytes(header[place + 1 : place + 3], "big")
            place += 3
            for _ in range(count):
                length = int.from_bytes(header[place : place + 2], "big")
                if kind == _HEVC_SPS:
                    yield header[place + 2 : place + 2 + length]
                place += 2 + length


def _packet_layouts(data: bytes, codec: str, header: bytes | None) -> Iterator[bytes]:
    """The parameter sets inside of a packet: what the size of pictures follows from."""
    if codec == "mpeg4":
        for unit in _between_start_codes(data):
            if unit and unit[0] in _MPEG4_LAYERS:
                yield unit
        return
    if header and _has_lengths(header):
        size = (header[4] if codec == "h264" else header[21]) & 3
        units = _with_lengths(data, size + 1)
    else:
        units = _between_start_codes(data)
    for unit in units:
        if not unit:
            continue
        kind = unit[0] & 31 if codec == "h264" else unit[0] >> 1 & 63
        if kind == (_H264_SPS if codec == "h264" else _HEVC_SPS):
            yield unit


def _has_lengths(header: bytes) -> bool:
    """Whether NAL units come with their lengths, as in MP4, not with start codes."""
    return len(header) > 6 and header[0] == 1


def _with_lengths(data: bytes, size: int) -> Iterator[bytes]:
    place = 0
    while place + size <= len(data):
        length = int.from_bytes(data[place : place + size], "big")
        yield data[place + size : place + size + length]
        place += size + length


def _between_start_codes(data: bytes) -> Iterator[bytes]:
    yield from data.split(b"\0\0\1")[1:]
