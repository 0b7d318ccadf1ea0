"""Fetches published files into a cache: resumed when cut off, checked, whole or not at all.

The cache is Keras's, `~/.keras/models/kvideo` (`KERAS_HOME` moves it). Beside each file lies a
small JSON file that remembers its address and hash, so that neither a damaged copy nor another
file under the same address goes unnoticed.
"""

from __future__ import annotations

import email.utils
import hashlib
import http.client
import json
import os
import shutil
import socket
import ssl
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from kvideo import __version__
from kvideo.errors import DownloadError, KVideoError
from kvideo.files import is_disk_full, make_folder, write_text_atomic
from kvideo.progress import Progress

ATTEMPTS = 5  # in a row without a single byte
_BLOCK = 2**18
_MEGABYTE = 10**6
_PASSING = (408, 425, 429, 500, 502, 503, 504)  # statuses that may be gone a moment later
_LONGEST_WAIT = 60.0


def cache_folder() -> Path:
    """Where downloaded files are kept."""
    if home := os.environ.get("KERAS_HOME"):
        return Path(home) / "models" / "kvideo"
    user = Path.home()
    return (user if os.access(user, os.W_OK) else Path("/tmp")) / ".keras" / "models" / "kvideo"


def fetch(
    url: str,
    *,
    checksum: str = "",
    folder: str | os.PathLike[str] | None = None,
    timeout: float = 30.0,
    pause: float = 1.0,
    quiet: bool = False,
) -> Path:
    """The file at an address, from the cache or downloaded.

    What a broken connection left is kept and continued (if the server can do that, and the file is
    still the same one). Several processes may ask for the same file; one of them fetches it.

    Args:
        url: `https://` or `http://`. The file is kept under the last part of its path.
        checksum: `"sha256:HEX"`, `"md5:HEX"` or `"git:HEX"` as the publisher has it, whole or its
            beginning. Without one the hash is remembered at the first download, and another
            content later is refused.
        folder: the cache; by default `cache_folder()`.
        timeout: seconds without a byte after which a connection counts as broken.
        pause: seconds before the second attempt; they double from one to the next.
        quiet: no progress bar.

    Returns:
        The file's path.

    Raises:
        DownloadError: no network, no such file, or another content than before; the message says
            where to put the file by hand.
        KVideoError: the cache cannot be written, or the disk is full.
    """
    place = make_folder(folder or cache_folder()) / _file_name(url)
    if place.exists() and not os.access(place.parent, os.W_OK):  # somebody else's cache
        _verify(url, place, place, checksum, remember=False)
        return place
    with _only_one(place, quiet):
        if not place.exists():
            _download(_Job(url, place, timeout, pause, quiet), checksum)
        _verify(url, place, place, checksum)
    return place


@dataclass(frozen=True)
class _Job:
    url: str
    place: Path
    timeout: float
    pause: float
    quiet: bool

    @property
    def part(self) -> Path:
        """What has come so far."""
        return self.place.with_name(f"{self.place.name}.part")

    @property
    def state(self) -> Path:
        """What the server said of the file that `part` is the beginning of."""
        return self.place.with_name(f"{self.place.name}.part.json")

    def failure(self, reason: str) -> DownloadError:
        return DownloadError(
            f"{self.url} could not be downloaded: {reason}. "
            f"Fetch it in another way and put it at {self.place}."
        )


def _file_name(url: str) -> str:
    parts = urllib.parse.urlsplit(url)
    name = urllib.parse.unquote(parts.path).rsplit("/", 1)[-1]
    if parts.scheme not in ("http", "https") or not name or name in (".", "..") or "\\" in name:
        raise DownloadError(f"{url} is no address of a file on a web server.")
    return name


def _download(job: _Job, checksum: str) -> None:
    """Fetches the whole file, with as many connections as it takes, and puts it into its place."""
    failures = 0
    with Progress(None, f"{job.place.name}, MB", quiet=job.quiet) as progress:
        while True:
            before = _size(job.part)
            try:
                _receive(job, progress)
                break
            except urllib.error.HTTPError as error:
                error.close()
                reason, wait = _refusal(job, error)
            except (OSError, http.client.HTTPException) as error:
                reason, wait = _broken(job, error), 0.0
            failures = 1 if _size(job.part) > before else failures + 1
            if failures >= ATTEMPTS:
                raise job.failure(reason)
            time.sleep(min(_LONGEST_WAIT, max(wait, job.pause * 2 ** (failures - 1))))
    try:
        _verify(job.url, job.part, job.place, checksum)
    except DownloadError:
        job.part.unlink()
        raise
    finally:
        job.state.unlink(missing_ok=True)
    os.replace(job.part, job.place)


def _receive(job: _Job, progress: Progress) -> None:
    """One connection: all bytes that it gives are added to the part.

    Raises:
        HTTPError: the server refuses.
        OSError, HTTPException: the connection fails, or ends before the file does.
    """
    state = _read_json(job.state)
    validator, done = state.get("validator"), _size(job.part)
    headers = {"User-Agent": f"kvideo/{__version__}", "Accept-Encoding": "identity"}
    if done and validator:
        headers |= {"Range": f"bytes={done}-", "If-Range": validator}
    request = urllib.request.Request(job.url, headers=headers)
    try:
        response = urllib.request.urlopen(request, timeout=job.timeout)
    except urllib.error.HTTPError as error:
        if error.code != 416:  # the part is as long as the file, or longer
            raise
        error.close()
        if done == state.get("total"):
            return
        job.part.unlink()
        raise ConnectionError("the server has another file now") from None
    with response:
        resumed = response.status == 206 and _range_start(response) == done
        if response.status == 206 and not resumed:
            job.part.unlink()
            raise ConnectionError("the server sent another part than asked for")
        done = done if resumed else 0
        length = response.headers.get("Content-Length", "")
        total = done + int(length) if length.isdigit() else None
        _check_space(job, total, done)
        # Only a strong entity tag or a date may be used to ask for the rest (RFC 9110, 13.1.5).
        tag = response.headers.get("ETag", "")
        validator = tag if tag.startswith('"') else response.headers.get("Last-Modified")
        write_text_atomic(job.state, json.dumps({"validator": validator, "total": total}))
        progress.total = None if total is None else -(-total // _MEGABYTE)
        progress.update(done // _MEGABYTE - progress.done)
        with open(job.part, "ab" if resumed else "wb") as file:
            done += _copy(response, file, done, progress)
    if total is not None and done != total:
        raise ConnectionError(f"the connection ended after {done:,} of {total:,} bytes")


def _copy(response: BinaryIO, file: BinaryIO, start: int, progress: Progress) -> int:
    """Bytes copied; what came before an error is in the file."""
    copied = 0
    while block := response.read(_BLOCK):
        file.write(block)
        file.flush()
        copied += len(block)
        progress.update((start + copied) // _MEGABYTE - progress.done)
    return copied


def _range_start(response: Any) -> int | None:
    """The first byte of a partial answer, from `Content-Range: bytes 100-199/200`."""
    unit, _, span = response.headers.get("Content-Range", "").partition(" ")
    first = span.partition("-")[0]
    return int(first) if unit == "bytes" and first.isdigit() else None


def _check_space(job: _Job, total: int | None, done: int) -> None:
    free = shutil.disk_usage(job.place.parent).free
    if total is not None and total - done > free:
        raise DownloadError(
            f"{job.url} has {total / 1e6:,.0f} MB, but {job.place.parent} has room for "
            f"{free / 1e6:,.0f} MB. Make room, or set KERAS_HOME to a folder on another disk."
        )


def _refusal(job: _Job, error: urllib.error.HTTPError) -> tuple[str, float]:
    """Reason, and seconds that the server asks to wait for.

    Raises:
        DownloadError: waiting does not help.
    """
    reason = f"the server answers {error.code} {error.reason}"
    if error.code not in _PASSING:
        raise job.failure(reason) from error
    after = error.headers.get("Retry-After", "")
    if after.isdigit():
        return reason, float(after)
    with suppress(TypeError, ValueError):
        return reason, email.utils.parsedate_to_datetime(after).timestamp() - time.time()
    return reason, 0.0


def _broken(job: _Job, error: Exception) -> str:
    """Why a connection broke.

    Raises:
        KVideoError: the disk is at fault, not the network.
        DownloadError: another attempt would not help.
    """
    cause = getattr(error, "reason", None) or error
    why = str(getattr(cause, "strerror", None) or cause or type(cause).__name__)
    if is_disk_full(error) or getattr(error, "filename", None) is not None:
        raise KVideoError(f"cannot write {job.part}: {why.lower()}.") from error
    if isinstance(cause, ssl.SSLCertVerificationError):
        raise job.failure(f"the server's certificate is not trusted ({why})") from error
    if isinstance(cause, socket.gaierror):
        host = urllib.parse.urlsplit(job.url).hostname
        raise job.failure(f"{host} is not found (no network?)") from error
    return "the server does not answer" if isinstance(cause, TimeoutError) else why


def _verify(url: str, file: Path, place: Path, checksum: str, remember: bool = True) -> None:
    """Compares a file's hash with the publisher's and the remembered one; remembers a new one.

    Raises:
        DownloadError: it is another one.
    """
    memory = place.with_name(f"{place.name}.json")
    remembered = _read_json(memory)
    found = _digest(file, "sha256")
    algorithm, _, expected = checksum.partition(":")
    if expected:
        digest = found if algorithm == "sha256" else _digest(file, algorithm)
        if not digest.startswith(expected):
            raise DownloadError(
                f"{_what(file, place, url)} is not the published file: its {algorithm} is "
                f"{digest}, but should be {expected}. {_remedy(file, place)}"
            )
    elif remembered.get("sha256", found) != found:
        raise DownloadError(
            f"{_what(file, place, url)} has changed since {remembered.get('date')}: its sha256 was "
            f"{remembered['sha256']}, now it is {found}. {_remedy(file, place)} If you trust the "
            f"new file, delete {memory} as well."
        )
    if remember and remembered.get("sha256") != found:
        facts = {
            "url": url,
            "sha256": found,
            "size": _size(file),
            "date": time.strftime("%Y-%m-%d"),
        }
        write_text_atomic(memory, json.dumps(facts, indent=1))


def _what(file: Path, place: Path, url: str) -> str:
    return str(place) if file == place else f"what {url} gives"


def _remedy(file: Path, place: Path) -> str:
    return f"Delete {place} to download it again." if file == place else "It was not kept."


def _digest(path: Path, algorithm: str) -> str:
    """The hash of a file in hexadecimal digits."""
    digest = hashlib.new("sha1" if algorithm == "git" else algorithm, usedforsecurity=False)
    if algorithm == "git":
        digest.update(b"blob %d\0" % _size(path))
    with open(path, "rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


@contextmanager
def _only_one(place: Path, quiet: bool) -> Iterator[None]:
    """Holds a lock on a file's name; other processes wait. A killed process holds none."""
    try:
        import fcntl
    except ImportError:  # Windows: two processes may download the same, the last one wins
        yield
        return
    with open(place.with_name(f"{place.name}.lock"), "a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if not quiet:
                print(f"waiting for another process that fetches {place.name}", file=sys.stderr)
            fcntl.flock(lock, fcntl.LOCK_EX)
        except OSError:  # a file system without locks
            pass
        yield


def _read_json(path: Path) -> dict[str, Any]:
    """A small JSON object; empty if there is none or it is damaged."""
    with suppress(OSError, ValueError):
        content = json.loads(path.read_text(encoding="utf-8"))
        return content if isinstance(content, dict) else {}
    return {}


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
