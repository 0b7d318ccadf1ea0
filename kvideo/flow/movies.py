"""Flow to look at: a film with the frames on the left, or a sheet of pictures."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from kvideo.data.encoding import FilmWriter
from kvideo.errors import UsageError
from kvideo.files import atomic_path, write_bytes_atomic
from kvideo.flow.colors import flow_to_rgb

ENDINGS = (".mp4", ".png")
_SHEET, _COLUMNS = 12, 4  # pictures
_SHARE = 99.0  # percent of the vectors that are within full colour


def check_ending(path: str | os.PathLike[str]) -> str:
    """`.mp4` or `.png`.

    Raises:
        UsageError: the name ends otherwise.
    """
    ending = Path(path).suffix.lower()
    if ending not in ENDINGS:
        raise UsageError(f"flow is shown as {' or '.join(ENDINGS)}, not as {Path(path).name}.")
    return ending


def longest_vector(flows: Iterable[np.ndarray]) -> float:
    """The length, pixels, that nearly all vectors of some flows stay within; at least 1."""
    lengths = [np.percentile(np.hypot(flow[..., 0], flow[..., 1]), _SHARE) for flow in flows]
    return max(1.0, float(max(lengths)))


def write_film(
    path: str | os.PathLike[str],
    pairs: Iterable[tuple[np.ndarray, np.ndarray]],
    frame_rate: float,
    longest: float,
) -> None:
    """An H.264 film: each frame beside its flow in colours.

    Args:
        path: ends in `.mp4`.
        pairs: of a frame (H, W, 3) uint8 and its flow (H, W, 2).
        frame_rate: frames per second.
        longest: see `flow_to_rgb`.

    Raises:
        KVideoError: this FFmpeg has no H.264 encoder, or the file cannot be written.
    """
    with atomic_path(path) as temporary, FilmWriter(temporary, frame_rate) as film:
        for frame, flow in pairs:
            film.add(np.concatenate([frame, flow_to_rgb(flow, longest)], axis=1))


def write_sheet(
    path: str | os.PathLike[str],
    pairs: Sequence[tuple[np.ndarray, np.ndarray]],
    longest: float,
) -> None:
    """A PNG picture: frames above their flow in colours, up to twelve, side by side in rows.

    Args:
        path: ends in `.png`.
        pairs: as in `write_film`.
        longest: see `flow_to_rgb`.
    """
    import cv2

    tiles = [np.concatenate([frame, flow_to_rgb(flow, longest)]) for frame, flow in pairs]
    columns = min(_COLUMNS, len(tiles))
    blank = np.full_like(tiles[0], 255)
    tiles += [blank] * (-len(tiles) % columns)
    rows = [np.concatenate(tiles[i : i + columns], axis=1) for i in range(0, len(tiles), columns)]
    picture = cv2.cvtColor(np.concatenate(rows), cv2.COLOR_RGB2BGR)
    write_bytes_atomic(path, cv2.imencode(".png", picture)[1].tobytes())


def sheet_places(count: int) -> Iterator[int]:
    """Which of `count` flows a sheet shows: all, or twelve evenly over them."""
    shown = min(count, _SHEET)
    yield from (int((index + 0.5) * count / shown) for index in range(shown))
