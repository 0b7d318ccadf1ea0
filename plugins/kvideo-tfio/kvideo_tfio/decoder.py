"""The entry point `tfio`. Importing this module tries the decoder out.

So whoever asks for it where it does not work learns that before any other work is done, and
`kvideo doctor` tells the truth.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import numpy as np

from kvideo.data.decode import VideoReader
from kvideo.data.decode import open_video as open_with_pyav
from kvideo.data.encoding import FilmWriter
from kvideo.data.shards.layout import is_stored
from kvideo_tfio.native import Stream, TfioUnavailableError
from kvideo_tfio.reader import TOLERANCE, TfioVideoReader, warn_once

_WIDTH, _HEIGHT, _FRAMES = 64, 48, 9
# What H.264 may change of these smooth pictures, on average.
_CODING_LOSS = 6.0


def open_video(
    path: str | os.PathLike[str],
    *,
    opener: Callable[[str], BinaryIO] | None = None,
    threads: int = 1,
) -> VideoReader:
    """Opens a video file; see `kvideo.data.decode.open_video`.

    What tensorflow-io does not decode rightly PyAV reads, with one warning for each reason.

    Args:
        path: of the file.
        opener: for paths that are not local.
        threads: for PyAV.

    Raises:
        DecodeError: the file is missing, empty, no video, or gives no frame.
    """
    path = os.fspath(path)
    if is_stored(path):
        warn_once("videos of shards", path)
        return open_with_pyav(path, opener=opener, threads=threads)
    return TfioVideoReader(path, opener, threads)


def probe() -> None:
    """Decodes a small video of known pictures.

    Raises:
        TfioUnavailableError: the decoder cannot be loaded, or gives other pictures.
    """
    import tensorflow as tf

    drawn = _pictures()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "probe.mp4"
        with FilmWriter(path, 10.0) as film:
            for picture in drawn:
                film.add(picture)
        with open_with_pyav(path) as reader:
            wanted = np.stack([picture for _, picture in reader.frames()])
        found: list[np.ndarray] = []
        try:
            stream = Stream(str(path), 0)
            try:
                while len(pictures := stream.next()):
                    found.extend(pictures)
            finally:
                stream.close()
        except tf.errors.OpError as error:
            raise TfioUnavailableError(f"a video made to try it fails ({error})") from error
    if len(found) != len(drawn):
        raise TfioUnavailableError(
            f"of a video of {len(drawn)} frames made to try it, it gives {len(found)}"
        )
    differences = np.abs(np.stack(found).astype(np.int16) - wanted)
    loss = np.abs(np.stack(found).astype(np.int16) - drawn).mean()
    if differences.max() > TOLERANCE or loss > _CODING_LOSS:
        raise TfioUnavailableError(
            f"in a video made to try it, its pictures differ from PyAV's by up to "
            f"{differences.max()} of 255"
        )


def _pictures() -> np.ndarray:
    """(9, 48, 64, 3) uint8: slopes of the three colours that move."""
    y, x = np.mgrid[:_HEIGHT, :_WIDTH]
    return np.stack(
        [
            np.stack([2 * x + 8 * n, 3 * y + 8 * n, 200 - x - y], axis=-1).astype(np.uint8)
            for n in range(_FRAMES)
        ]
    )


probe()
