"""Writing video files."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from fractions import Fraction
from types import TracebackType
from typing import Any

import numpy as np

from kvideo.errors import KVideoError, UsageError
from kvideo.files import atomic_path, check_file_target, check_writable

H264_ENCODERS = ("libx264", "libopenh264", "h264")


def h264_encoder() -> str:
    """The name of this FFmpeg's H.264 encoder.

    Raises:
        KVideoError: it has none.
    """
    import av

    for name in H264_ENCODERS:
        try:
            av.Codec(name, "w")
        except ValueError:  # av.codec.UnknownCodecError
            continue
        return name
    raise KVideoError(
        "this build of PyAV has no H.264 encoder; install PyAV from PyPI "
        "(pip install --force-reinstall --only-binary :all: av)."
    )


class FilmWriter:
    """Writes pictures as an H.264 film in MP4, without sound; a context manager.

    Args:
        path: the file, best a temporary one of `atomic_path`.
        frame_rate: frames per second, where the pictures have no times of their own.

    Raises:
        KVideoError: this FFmpeg has no H.264 encoder.
    """

    _TICKS = 90_000  # a second, for pictures with times

    def __init__(self, path: Any, frame_rate: float) -> None:
        import av

        self._encoder, self._rate = h264_encoder(), frame_rate
        self._container = av.open(str(path), "w", format="mp4")
        self._stream: Any = None
        self._last = -1

    def add(self, picture: np.ndarray, seconds: float | None = None) -> None:
        """Appends a picture.

        Args:
            picture: (H, W, 3) uint8, RGB, of the same size as the ones before.
            seconds: when it is shown, later than the one before; for all pictures or for none.
        """
        import av

        picture = _even(picture)
        if self._stream is None:
            rate = Fraction(self._rate).limit_denominator(1001)
            self._stream = self._container.add_stream(self._encoder, rate=rate)
            self._stream.height, self._stream.width = picture.shape[:2]
            self._stream.pix_fmt = "yuv420p"
            if seconds is not None:
                self._stream.codec_context.time_base = Fraction(1, self._TICKS)
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
        if seconds is not None:
            self._last = frame.pts = max(round(seconds * self._TICKS), self._last + 1)
            frame.time_base = Fraction(1, self._TICKS)
        self._container.mux(self._stream.encode(frame))

    def __enter__(self) -> FilmWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if self._stream is not None and error is None:
                self._container.mux(self._stream.encode())
        finally:
            self._container.close()


# Changes a picture (H, W, 3) uint8 that is shown at some seconds, in place.
Draw = Callable[[np.ndarray, float], None]


def write_drawn_film(
    path: str | os.PathLike[str],
    video: str,
    open_video: Callable[..., Any],
    drawing: Callable[[tuple[int, int], float], Draw],
    *,
    shortest_side: int,
    longest_side: int | None = None,
) -> None:
    """Writes a video anew, H.264 in MP4 without sound, with something drawn into its pictures.

    Pictures pass one by one.

    Args:
        path: ends in `.mp4`.
        video: the file.
        open_video: a decoder.
        drawing: from the pictures' (height, width) and the video's seconds to what is drawn.
        shortest_side: pixels; smaller pictures are enlarged by a whole number.
        longest_side: pixels; larger pictures are shrunk.

    Raises:
        UsageError: another ending, or the video itself.
        DecodeError: the video gives no frames.
        KVideoError: it cannot be written.
    """
    check_film_target(path, video)
    with open_video(video) as reader:
        info = reader.info
        scale = max(1, -(-shortest_side // min(info.height, info.width)))
        size = info.height * scale, info.width * scale
        if longest_side is not None and (share := longest_side / max(size)) < 1:
            size = max(2, round(size[0] * share)), max(2, round(size[1] * share))
        draw = drawing(size, info.duration)
        with atomic_path(path) as temporary, FilmWriter(temporary, info.frame_rate) as film:
            for seconds, picture in reader.frames(size=size):
                draw(picture, seconds)
                film.add(picture, seconds)


def check_film_target(path: str | os.PathLike[str], video: str) -> None:
    """Refuses a name that no video can be written to.

    Raises:
        UsageError: another ending than `.mp4`, or the video itself.
    """
    if not os.fspath(path).lower().endswith(".mp4"):
        raise UsageError(f"a labelled video is written as .mp4, not as {path}.")
    if os.path.realpath(path) == os.path.realpath(video):
        raise UsageError(f"{path} is the video itself; name another file.")


def check_film_targets(
    video: str | None,
    folder: str | None,
    paths: Sequence[str],
    names: Sequence[str],
    films: bool = True,
) -> None:
    """Refuses targets for what is found in videos before any work is done.

    Args:
        video: a labelled video of the only one of the videos; or None.
        folder: that files of all of them go into, by their names; or None.
        paths: the videos.
        names: of the videos.
        films: whether the folder gets a labelled video of each.

    Raises:
        UsageError: one target for several videos, two videos of one name, or see
            `check_film_target`.
        KVideoError: the target or the folder cannot be written to.
    """
    if video is not None:
        if len(paths) > 1:
            raise UsageError(f"{video} would be of one video, but there are {len(paths)}.")
        check_film_target(video, paths[0])
        check_file_target(video)
    if folder is not None:
        check_writable(folder)
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise UsageError(f"two of the videos are called {twice}; do them one by one.")
        for name, path in zip(names, paths, strict=True) if films else ():
            check_film_target(os.path.join(folder, f"{name}.mp4"), path)


def _even(picture: np.ndarray) -> np.ndarray:
    """With a row and column repeated where their number is odd, as yuv420p wants it."""
    height, width = picture.shape[:2]
    return np.pad(picture, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
