"""Files of shards on this machine or anywhere that `tf.io.gfile` reaches, whole or not at all."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import tempfile
from collections.abc import Iterator
from typing import Any

import tensorflow as tf

from kvideo.data.listing import is_url, join
from kvideo.errors import KVideoError
from kvideo.files import atomic_path, is_disk_full, is_temporary, make_folder, write_text_atomic

_BLOCK = 1 << 20


def prepare_folder(folder: str) -> None:
    """Makes the folder unless it exists.

    Raises:
        UsageError, KVideoError: that cannot be done.
    """
    if not is_url(folder):
        make_folder(folder)
        return
    with _remote(folder):
        tf.io.gfile.makedirs(folder)


def names_in(folder: str) -> set[str]:
    """Names of the files in the folder, without unfinished ones that a killed process left."""
    if not is_url(folder):
        return {name for name in os.listdir(folder) if not is_temporary(name)}
    with _remote(folder):
        return {name.rstrip("/") for name in tf.io.gfile.listdir(folder)}


@contextlib.contextmanager
def written(folder: str, name: str) -> Iterator[str]:
    """Gives a local path to write to; when the block ends well, it becomes that file.

    Raises:
        KVideoError: the file cannot be written.
    """
    if not is_url(folder):
        with atomic_path(os.path.join(folder, name)) as temporary:
            yield str(temporary)
        return
    with tempfile.TemporaryDirectory(prefix="kvideo-shard-") as local:
        path = os.path.join(local, name)
        yield path
        _upload(path, join(folder, name))


def write_json(folder: str, name: str, document: dict[str, Any]) -> None:
    """Writes a document, whole or not at all.

    Raises:
        KVideoError: it cannot be written.
    """
    text = json.dumps(document, separators=(",", ":"))
    if not is_url(folder):
        write_text_atomic(os.path.join(folder, name), text)
        return
    with written(folder, name) as path, open(path, "w", encoding="utf-8") as file:
        file.write(text)


def read_json(folder: str, name: str) -> Any:
    """What `write_json` wrote; None where there is no such file or it is damaged."""
    try:
        with tf.io.gfile.GFile(join(folder, name), "rb") as file:
            return json.loads(file.read())
    except (tf.errors.OpError, OSError, ValueError):
        return None


def size_of(folder: str, name: str) -> int:
    """Bytes of a file; -1 where there is none."""
    try:
        return int(tf.io.gfile.stat(join(folder, name)).length)
    except (tf.errors.OpError, OSError):
        return -1


def remove(folder: str, name: str) -> None:
    """Removes a file if it is there."""
    with contextlib.suppress(tf.errors.OpError, OSError):
        tf.io.gfile.remove(join(folder, name))


def sha256(path: str) -> str:
    """Of a file, local or not."""
    digest = hashlib.sha256()
    with tf.io.gfile.GFile(path, "rb") if is_url(path) else open(path, "rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def _upload(path: str, target: str) -> None:
    """Under another name first: what can be read under the target's name is complete."""
    temporary = f"{target}.tmp-{secrets.token_hex(4)}"
    with _remote(target):
        try:
            tf.io.gfile.copy(path, temporary)
            tf.io.gfile.rename(temporary, target, overwrite=True)
        except BaseException:
            with contextlib.suppress(tf.errors.OpError):
                tf.io.gfile.remove(temporary)
            raise


@contextlib.contextmanager
def _remote(path: str) -> Iterator[None]:
    try:
        yield
    except tf.errors.OpError as error:
        if is_disk_full(error):
            raise KVideoError(f"cannot write {path}: there is no room.") from error
        raise KVideoError(f"cannot write {path}: {error.message}") from error
