"""tensorflow-io's native operations that decode video, loaded by themselves.

`tensorflow_io` is not imported: that would register its file systems over TensorFlow's own, and
its success says nothing about the decoder.
"""

from __future__ import annotations

import ctypes
import functools
import importlib.util
import itertools
import os
import platform
import sys
import tempfile
import threading
from importlib.metadata import PackageNotFoundError, distribution, version
from pathlib import Path
from typing import Any

import numpy as np

from kvideo.errors import KVideoError
from kvideo_tfio.elf import alias

_TENSORFLOW, _TENSORFLOW_IO = "2.17.", "0.37.1"
_OPERATIONS = "python/ops/libtensorflow_io_ffmpeg_4.2.so"
# decord's libraries, each one after those that it needs.
_LIBRARIES = (
    "libz", "libbz2", "libvpx", "libx264", "libavutil", "libswresample", "libavcodec",
    "libavformat", "libswscale",
)  # fmt: skip
_WANTED = {"libavformat": "libavformat.so.58", "libswscale": "libswscale.so.5"}
_QUIET = -8  # AV_LOG_QUIET
# A name that TensorFlow does not allow here, with an underscore, crashes the operation.
_CONTAINER = "kvideo.tfio"


class TfioUnavailableError(KVideoError):
    """tensorflow-io's video decoder cannot be used in this installation."""

    def __init__(self, reason: str) -> None:
        super().__init__(
            f"tensorflow-io's video decoder does not work here: {reason}. Use --decoder pyav."
        )


class Stream:
    """The pictures of one video stream, in the order of display, from the first on.

    Args:
        path: a local file.
        index: which of the file's video streams.

    Raises:
        tensorflow.errors.OpError: the file cannot be opened.
    """

    _lock = threading.Lock()
    _free: list[str] = []
    _names = itertools.count()

    def __init__(self, path: str, index: int) -> None:
        import tensorflow as tf

        self._tf, self._operations = tf, operations()
        with self._lock:
            # TensorFlow keeps an operation, and what it holds, for each name as long as the
            # process lives, and gives one without a name to all: names are used again.
            self._name: str | None = self._free.pop() if self._free else f"{next(self._names)}"
        try:
            with tf.device("CPU:0"):
                self._resource = self._operations.io_ffmpeg_video_readable_init(
                    os.fsencode(path), index, container=_CONTAINER, shared_name=self._name
                )
        except BaseException:
            self.close()
            raise

    def next(self) -> np.ndarray:
        """The next pictures, (N, height, width, 3) uint8 RGB; N is 0 at the end."""
        with self._tf.device("CPU:0"):
            return self._operations.io_ffmpeg_video_readable_next(
                self._resource, False, dtype=self._tf.uint8
            ).numpy()

    def close(self) -> None:
        """Lets the next stream have this one's place; harmless when done before."""
        with self._lock:
            if self._name is not None:
                self._free.append(self._name)
                self._name = None


_loading = threading.Lock()


def operations() -> Any:
    """The module of tensorflow-io's FFmpeg operations.

    Raises:
        TfioUnavailableError: they cannot be loaded here.
    """
    with _loading:
        return _load()


@functools.cache
def _load() -> Any:
    if sys.platform != "linux" or platform.machine() != "x86_64":
        raise TfioUnavailableError("it needs Linux on x86-64")
    library = _operations_file()
    import tensorflow as tf

    # Built for other headers, its operations may well load, and then crash.
    if not tf.__version__.startswith(_TENSORFLOW):
        raise TfioUnavailableError(
            f"tensorflow-io {_TENSORFLOW_IO} needs TensorFlow {_TENSORFLOW}*, and this is "
            f"{tf.__version__}"
        )
    ffmpeg = _load_ffmpeg()
    try:
        return tf.load_op_library(str(library))
    except (tf.errors.OpError, OSError) as error:
        lacking = "" if ffmpeg else " (pip install decord==0.6.0 brings FFmpeg 4)"
        raise TfioUnavailableError(f"{error}{lacking}") from error


def _operations_file() -> Path:
    try:
        found = version("tensorflow-io")
    except PackageNotFoundError:
        raise TfioUnavailableError(
            f"tensorflow-io is not installed (pip install tensorflow-io=={_TENSORFLOW_IO})"
        ) from None
    if found != _TENSORFLOW_IO:
        raise TfioUnavailableError(
            f"kvideo-tfio needs tensorflow-io {_TENSORFLOW_IO}, and this is {found}"
        )
    spec = importlib.util.find_spec("tensorflow_io")
    if spec is None or spec.origin is None:
        raise TfioUnavailableError("tensorflow-io is damaged; install it anew")
    return Path(spec.origin).parent / _OPERATIONS


def _load_ffmpeg() -> bool:
    """Loads decord's FFmpeg 4 under the names that tensorflow-io asks for, and makes it silent.

    Returns:
        Whether decord is there; if it is not, the system may have an FFmpeg 4.

    Raises:
        TfioUnavailableError: decord is there, but not its libraries.
    """
    try:
        folder = Path(str(distribution("decord").locate_file("decord.libs")))
    except PackageNotFoundError:
        return False
    try:
        for name in _LIBRARIES:
            file = next(folder.glob(f"{name}-*.so.*"), None)
            if file is None:
                raise TfioUnavailableError(
                    f"decord's {name} is missing in {folder} (pip install decord==0.6.0)"
                )
            loaded = ctypes.CDLL(str(file))
            if name == "libavutil":
                loaded.av_log_set_level(_QUIET)
            if name in _WANTED:
                _load_alias(_WANTED[name], file.name)
    except OSError as error:
        raise TfioUnavailableError(f"decord's FFmpeg cannot be loaded: {error}") from error
    return True


def _load_alias(name: str, target: str) -> None:
    with tempfile.TemporaryDirectory() as folder:  # once loaded, the file is not needed any more
        file = Path(folder) / name
        file.write_bytes(alias(name, target))
        ctypes.CDLL(str(file))
