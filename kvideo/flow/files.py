"""Files of one flow: Middlebury's `.flo` and KITTI's 16-bit PNG."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from kvideo.errors import DataError, UsageError
from kvideo.files import write_bytes_atomic
from kvideo.flow.geometry import UNKNOWN, check_flow, known_flow

_MAGIC = b"PIEH"  # the float32 202021.25
_HEADER = 12
_MOST_PIXELS = 2**28  # a header that says more is no header
_KITTI_ZERO, _KITTI_UNIT = 2**15, 64.0
ENDINGS = (".flo", ".png")


def read_flow(path: str | os.PathLike[str]) -> np.ndarray:
    """The flow in a `.flo` or KITTI `.png` file.

    Returns:
        (H, W, 2) float32, pixels per frame; `UNKNOWN` (or what the file has above 1e9) where it is
        not known.

    Raises:
        DataError: the file is missing, cut off or not of that kind.
        UsageError: the name ends otherwise.
    """
    path = _checked(path)
    try:
        content = path.read_bytes()
    except OSError as cause:
        raise DataError(f"cannot read {path}: {cause.strerror}.") from cause
    return _from_flo(content, path) if path.suffix.lower() == ".flo" else _from_kitti(content, path)


def write_flow(path: str | os.PathLike[str], flow: np.ndarray) -> None:
    """Writes a flow as `.flo`, exactly, or as KITTI's `.png`, in steps of 1/64 pixel up to ±512.

    Args:
        path: ends in `.flo` or `.png`.
        flow: (H, W, 2), pixels per frame.

    Raises:
        UsageError: the name ends otherwise, or the flow has another shape or is too large for PNG.
    """
    path = _checked(path)
    flow = check_flow(flow)
    if flow.ndim != 3:
        raise UsageError(f"a file holds one flow (H, W, 2), not {flow.shape}.")
    if path.suffix.lower() == ".flo":
        height, width = flow.shape[:2]
        header = _MAGIC + np.array([width, height], "<i4").tobytes()
        write_bytes_atomic(path, header + flow.astype("<f4").tobytes())
    else:
        write_bytes_atomic(path, _as_kitti(flow))


def _checked(path: str | os.PathLike[str]) -> Path:
    path = Path(path)
    if path.suffix.lower() not in ENDINGS:
        raise UsageError(f"files of flow end in {' or '.join(ENDINGS)}, not as {path.name} does.")
    return path


def _from_flo(content: bytes, path: Path) -> np.ndarray:
    if content[:4] != _MAGIC:
        raise DataError(f"{path} is not a .flo file: it does not begin with PIEH.")
    if len(content) < _HEADER:
        raise DataError(f"{path} is cut off: it ends within its first {_HEADER} bytes.")
    width, height = (int(side) for side in np.frombuffer(content, "<i4", 2, offset=4))
    if width < 1 or height < 1 or width * height > _MOST_PIXELS:
        raise DataError(f"{path} is not a .flo file: it says {width}x{height} pixels.")
    wanted = _HEADER + 8 * width * height
    if len(content) < wanted:
        raise DataError(f"{path} is cut off: {len(content)} of {wanted} bytes.")
    if len(content) > wanted:
        raise DataError(f"{path} is damaged: {len(content)} bytes, where there should be {wanted}.")
    flow = np.frombuffer(content, "<f4", 2 * width * height, offset=_HEADER)
    return flow.reshape(height, width, 2).astype(np.float32)


def _from_kitti(content: bytes, path: Path) -> np.ndarray:
    import cv2

    encoded = np.frombuffer(content, np.uint8)
    picture = cv2.imdecode(encoded, cv2.IMREAD_UNCHANGED) if len(encoded) else None
    if picture is None:
        raise DataError(f"{path} cannot be read as a PNG file.")
    if picture.dtype != np.uint16 or picture.ndim != 3 or picture.shape[-1] != 3:
        raise DataError(f"{path} is not KITTI's flow: that has three channels of 16 bits.")
    valid, vertical, horizontal = (picture[..., channel] for channel in range(3))  # BGR
    flow = np.stack([horizontal, vertical], axis=-1).astype(np.float32)
    flow = (flow - _KITTI_ZERO) / _KITTI_UNIT
    flow[valid == 0] = UNKNOWN
    return flow


def _as_kitti(flow: np.ndarray) -> bytes:
    import cv2

    known = known_flow(flow)
    levels = np.rint(np.where(known[..., None], flow, 0) * _KITTI_UNIT) + _KITTI_ZERO
    if levels.min() < 0 or levels.max() > np.iinfo(np.uint16).max:
        raise UsageError("KITTI's PNG holds up to 512 pixels per frame; write .flo instead.")
    levels[~known] = 0
    picture = np.stack([known, levels[..., 1], levels[..., 0]], axis=-1).astype(np.uint16)
    return cv2.imencode(".png", picture)[1].tobytes()
