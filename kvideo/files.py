"""Files that appear whole or not at all: write to a temporary one, then rename.

Whoever looks at a run's folder, or kills the run at any moment, finds either the old file or the
new one. The temporary file lies in the same folder (a rename is atomic only inside one file
system) and keeps the name's endings, since some writers go by them (`.keras`, `.weights.h5`).
"""

from __future__ import annotations

import errno
import functools
import hashlib
import os
import platform
import re
import secrets
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from kvideo.errors import KVideoError, UsageError

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# `.tmp-PLACE-PID-RANDOM-NAME`; what other modules make has no place and no process.
_TEMPORARY = re.compile(r"\.tmp-(?:([0-9a-f]{8})-([0-9]+)-)?[0-9a-f]{8}-(.+)")
_ABANDONED = 3600.0  # seconds without a change
_FULL_WORDS = ("no space left on device", "disk quota exceeded", "file too large")


def is_temporary(name: str) -> bool:
    """Whether a file of that name is one that `atomic_path` has not finished."""
    return _TEMPORARY.fullmatch(name) is not None


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary path to write to; when the block ends well, it becomes `path`.

    An existing file is replaced, and keeps its permissions; a symbolic link is followed. If the
    block raises (Ctrl-C too), the temporary file is removed and `path` stays as it was. Only
    `kill -9` or a power failure leave a temporary file behind; its name begins with `.tmp-`, and
    the next process that writes into the folder removes it, see `remove_abandoned`.

    Args:
        path: the file to make. Its folder must exist.

    Yields:
        The temporary path, which does not exist yet, in the same folder and with the same endings.

    Raises:
        UsageError: the folder is missing.
        KVideoError: the disk is full, the folder is not writable, or the block wrote nothing. The
            sentence names `path`. Other errors of the block pass through.
    """
    target = Path(os.path.realpath(path))
    if target.is_dir():
        raise KVideoError(f"cannot write {path}: it is a folder.")
    if not target.parent.is_dir():
        raise _no_folder(path, target.parent)
    _clean_once(str(target.parent), os.getpid())
    # The last 50 characters, at most 200 bytes: with the prefix a legal name on every system.
    owner = f"{_process_place()}-{os.getpid()}"
    temporary = target.parent / f".tmp-{owner}-{secrets.token_hex(4)}-{target.name[-50:]}"
    try:
        yield temporary
        _put_in_place(temporary, target)
    except BaseException as error:
        with suppress(OSError):
            temporary.unlink()
        if sentence := _explain(error, path, temporary):
            raise KVideoError(sentence) from error
        raise


@contextmanager
def temporary_folder(parent: str | os.PathLike[str]) -> Iterator[Path]:
    """A folder that is gone when the block ends; after a `kill -9`, with the next one made there.

    Args:
        parent: is made if need be.

    Raises:
        KVideoError: it cannot be made.
    """
    top = make_folder(parent)
    remove_abandoned(top)
    owner = f"{_process_place()}-{os.getpid()}"
    folder = make_folder(top / f".tmp-{owner}-{secrets.token_hex(4)}-folder")
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def remove_abandoned(folder: str | os.PathLike[str]) -> None:
    """Remove the temporary files that killed processes have left in a folder.

    A file goes if it names a process of this system that does not run any more. What cannot be
    judged so (it comes from another machine or container, it is a folder) goes when nothing in it
    has changed for an hour. What cannot be removed stays.

    Args:
        folder: a folder; only what lies directly in it is looked at.
    """
    with suppress(OSError):
        for entry in list(os.scandir(folder)):
            match = _TEMPORARY.fullmatch(entry.name)
            # A folder `-old` may be the only copy of what was to be replaced.
            if match is None or match[3] == "old" or not _is_abandoned(entry, match):
                continue
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path, ignore_errors=True)
            else:
                with suppress(OSError):
                    os.unlink(entry.path)


@functools.lru_cache(maxsize=1000)
def _clean_once(folder: str, process: int) -> None:
    """Once in a process and folder, which may hold thousands of files."""
    remove_abandoned(folder)


def _is_abandoned(entry: os.DirEntry[str], match: re.Match[str]) -> bool:
    if match[1] == _process_place() and os.name == "posix":
        return not _runs(int(match[2]))
    try:
        changed = [entry.stat(follow_symlinks=False).st_mtime]
        if entry.is_dir(follow_symlinks=False):
            inside = (Path(top, n) for top, ds, fs in os.walk(entry.path) for n in (*ds, *fs))
            changed += [path.lstat().st_mtime for path in inside]
    except OSError:  # it changes just now
        return False
    return time.time() - max(changed) > _ABANDONED


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:  # somebody else's
        pass
    return True


@functools.cache
def _process_place() -> str:
    """Identifies where process numbers hold: this machine since it started, and its container."""
    facts = [platform.node()]
    with suppress(OSError):
        facts.append(Path("/proc/sys/kernel/random/boot_id").read_text())
        facts.append(os.readlink("/proc/self/ns/pid"))
    return hashlib.sha256("|".join(facts).encode()).hexdigest()[:8]


def cache_folder() -> Path:
    """Where what can be made anew is kept: `$KVIDEO_CACHE`, or `~/.cache/kvideo`."""
    return Path(os.environ.get("KVIDEO_CACHE") or Path.home() / ".cache" / "kvideo")


def make_folder(path: str | os.PathLike[str]) -> Path:
    """Makes a folder, and those above it, unless they exist.

    Raises:
        UsageError: the folder above it is missing and cannot be made.
        KVideoError: there is a file of that name, or no permission, or no room.
    """
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        if _lacks_parent(path):
            raise _no_folder(path, Path(path).parent) from error
        raise KVideoError(f"cannot make the folder {path}: {error.strerror}.") from error
    return Path(path)


def check_writable(folder: str | os.PathLike[str]) -> None:
    """Sees whether files can be made in a folder, which need not exist yet. Makes nothing.

    Raises:
        UsageError: the folder above it is missing and cannot be made.
        KVideoError: it is no folder, or must not be written to.
    """
    nearest = Path(os.path.abspath(folder))
    while not nearest.exists():
        nearest = nearest.parent
    if not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
        if _lacks_parent(folder):
            raise _no_folder(folder, Path(folder).parent)
        raise KVideoError(f"cannot write into the folder {folder}; choose another one.")


def check_target(path: str | os.PathLike[str]) -> None:
    """Sees whether a file (or folder) of that name can be made where it is to be. Makes nothing.

    Raises:
        UsageError: the folder above it is missing.
        KVideoError: that is no folder, or must not be written to.
    """
    parent = Path(os.path.realpath(path)).parent
    if not parent.exists():
        raise _no_folder(path, parent)
    check_writable(parent)


def check_file_target(path: str | os.PathLike[str], inputs: Sequence[str] = ()) -> None:
    """As `check_target`, of a file; `inputs` are files that are read, and must be left alone.

    Raises:
        UsageError: it is a folder or one of the inputs, or see `check_target`.
        KVideoError: see `check_target`.
    """
    check_target(path)
    if os.path.isdir(path):
        raise UsageError(f"cannot write {path}: it is a folder.")
    if any(os.path.realpath(path) == os.path.realpath(each) for each in inputs):
        raise UsageError(f"{path} is read, too; name another file.")


def _lacks_parent(path: str | os.PathLike[str]) -> bool:
    """Whether the folder above is missing; a file in its place is something else."""
    above = Path(os.path.abspath(path)).parents
    return not above[0].exists() and all(each.is_dir() for each in above if each.exists())


def _no_folder(path: str | os.PathLike[str], folder: Path) -> UsageError:
    return UsageError(f"cannot write {path}: there is no folder {folder}.")


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
