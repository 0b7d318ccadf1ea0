"""Files that appear whole or not at all: write to a temporary one, then rename.

Whoever looks at a run's folder, or kills the run at any moment, finds either the old file or the
new one. The temporary file lies in the same folder (a rename is atomic only inside one file
system) and keeps the name's endings, since some writers go by them (`.keras`, `.weights.h5`).
"""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from kvideo.errors import KVideoError

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_FULL_WORDS = ("no space left on device", "disk quota exceeded", "file too large")


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary path to write to; when the block ends well, it becomes `path`.

    An existing file is replaced, and keeps its permissions; a symbolic link is followed. If the
    block raises (Ctrl-C too), the temporary file is removed and `path` stays as it was. Only
    `kill -9` or a power failure leave a temporary file behind; its name begins with `.tmp-`.

    Args:
        path: the file to make. Its folder must exist.

    Yields:
        The temporary path, which does not exist yet, in the same folder and with the same endings.

    Raises:
        KVideoError: the disk is full, the folder is missing or not writable, or the block wrote
            nothing. The sentence names `path`. Other errors of the block pass through.
    """
    target = Path(os.path.realpath(path))
    if target.is_dir():
        raise KVideoError(f"cannot write {path}: it is a folder.")
    if not target.parent.is_dir():
        raise KVideoError(f"cannot write {path}: there is no folder {target.parent}.")
    # The last 60 characters, at most 240 bytes: with the prefix a legal name on every system.
    temporary = target.parent / f".tmp-{secrets.token_hex(4)}-{target.name[-60:]}"
    try:
        yield temporary
        _put_in_place(temporary, target)
    except BaseException as error:
        with suppress(OSError):
            temporary.unlink()
        if sentence := _explain(error, path, temporary):
            raise KVideoError(sentence) from error
        raise


def make_folder(path: str | os.PathLike[str]) -> Path:
    """Makes a folder, and those above it, unless they exist.

    Raises:
        KVideoError: there is a file of that name, or no permission, or no room.
    """
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise KVideoError(f"cannot make the folder {path}: {error.strerror}.") from error
    return Path(path)


def check_writable(folder: str | os.PathLike[str]) -> None:
    """Sees whether files can be made in a folder, which need not exist yet. Makes nothing.

    Raises:
        KVideoError: they cannot.
    """
    nearest = Path(os.path.abspath(folder))
    while not nearest.exists():
        nearest = nearest.parent
    if not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
        raise KVideoError(f"cannot write into the folder {folder}; choose another one.")


def write_bytes_atomic(path: str | os.PathLike[str], data: bytes) -> None:
    """Write `data` to `path`, whole or not at all. Raises as `atomic_path` does."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def write_text_atomic(path: str | os.PathLike[str], text: str) -> None:
    """Write `text` to `path` as UTF-8, line ends as they are, whole or not at all.

    Characters that UTF-8 lacks (the surrogates that stand for undecodable bytes in file names)
    are written as their escapes. Raises as `atomic_path` does.
    """
    write_bytes_atomic(path, text.encode("utf-8", errors="backslashreplace"))


def is_disk_full(error: BaseException) -> bool:
    """Whether an error, of whatever library, says that the disk or the quota is used up."""
    if isinstance(error, OSError) and error.errno in _FULL:
        return True
    # HDF5 and TensorFlow report a full disk in words, with an exception class of their own.
    return isinstance(error, Exception) and any(w in str(error).lower() for w in _FULL_WORDS)


def _put_in_place(temporary: Path, target: Path) -> None:
    if not temporary.exists():
        raise FileNotFoundError(errno.ENOENT, "nothing was written", str(temporary))
    with open(temporary, "rb+") as file:
        os.fsync(file.fileno())
    if target.exists():
        temporary.chmod(target.stat().st_mode & 0o7777)
    os.replace(temporary, target)
    if os.name == "posix":  # elsewhere a folder cannot be opened
        folder = os.open(target.parent, os.O_RDONLY)
        try:
            with suppress(OSError):  # some network file systems refuse; the file itself is safe
                os.fsync(folder)
        finally:
            os.close(folder)


def _explain(error: BaseException, path: str | os.PathLike[str], temporary: Path) -> str | None:
    """A sentence for an error that is about writing `path`; None for any other."""
    if isinstance(error, KVideoError):  # of another `atomic_path` inside the block, maybe
        own, outer = str(temporary), str(path)
        return str(error).replace(own, outer) if own in str(error) else None
    if is_disk_full(error):
        return (
            f"cannot write {path}: the disk is full (or a quota or size limit is reached). "
            "Make room, or choose a folder on another disk; what was there before is unchanged."
        )
    if isinstance(error, OSError) and error.filename == str(temporary):
        return f"cannot write {path}: {(error.strerror or str(error)).lower()}."
    return None
