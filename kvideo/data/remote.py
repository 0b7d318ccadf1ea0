"""Files and folders that only TensorFlow reaches (`gs://…`), through `tf.io.gfile`.

TensorFlow is imported when the first remote path comes.
"""

from __future__ import annotations

from typing import Any


def open_remote(path: str) -> Any:
    """A seekable binary file of anything that `tf.io.gfile` opens."""
    import tensorflow as tf

    return tf.io.gfile.GFile(path, "rb")


def list_remote(folder: str) -> list[str]:
    """Names in a remote folder, those of folders with a closing slash."""
    import tensorflow as tf

    names = []
    for name in tf.io.gfile.listdir(folder):
        plain = name.rstrip("/")
        is_folder = name.endswith("/") or tf.io.gfile.isdir(f"{folder.rstrip('/')}/{plain}")
        names.append(plain + "/" * is_folder)
    return names


def stamp_remote(path: str) -> tuple[int, int]:
    """Size in bytes and time of change in nanoseconds of a remote file.

    Raises:
        OSError: there is none, or it cannot be reached.
    """
    import tensorflow as tf

    try:
        found = tf.io.gfile.stat(path)
    except tf.errors.OpError as error:
        raise OSError(str(error)) from error
    return int(found.length), int(found.mtime_nsec)
