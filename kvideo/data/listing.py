"""Which files are there, and which of them are videos. Each folder is listed once."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress

from kvideo.errors import DataError

ListDir = Callable[[str], Sequence[str]]

VIDEO_ENDINGS = frozenset(
    ".264 .265 .3g2 .3gp .amv .apng .asf .avi .avs .divx .dv .f4v .flv .gif .h264 .h265 .hevc .ivf"
    " .m1v .m2ts .m2v .m4v .mjpeg .mjpg .mk3d .mkv .mov .mp4 .mpe .mpeg .mpg .mpv .mts .mxf .nut"
    " .obu .ogm .ogv .qt .rm .rmvb .swf .ts .vob .webm .wmv .wtv .xvid .y4m".split()
)
# Endings of what lies about in folders of videos; other files are looked into.
_OTHER_ENDINGS = frozenset(
    ".aac .ass .bin .bmp .bz2 .cfg .crdownload .csv .db .doc .docx .flac .gz .h5 .htm .html .ini"
    " .ipynb .jpeg .jpg .js .json .jsonl .keras .lnk .log .m3u .m4a .mat .md .md5 .mp3 .nfo .npy"
    " .npz .ogg .opus .parquet .part .pdf .pickle .pkl .png .ppm .pt .pth .py .rar .sh .srt .sub"
    " .svg .tar .tfrecord .tif .tiff .tmp .toml .torrent .tsv .txt .url .vtt .wav .webp .wma .xls"
    " .xlsx .xml .yaml .yml .zip".split()
)
PICTURE_ENDINGS = frozenset(".bmp .jpeg .jpg .png .ppm .tif .tiff .webp".split())
_SYSTEM_FOLDERS = frozenset({"__MACOSX", "@eaDir", "$RECYCLE.BIN", "System Volume Information"})


def is_url(path: str) -> bool:
    """Whether a path names a remote file (`gs://bucket/a.mp4`), not one on this machine."""
    return "://" in path


def ending(path: str) -> str:
    """The file's ending in lower case, with the dot; empty if it has none."""
    return os.path.splitext(path)[1].lower()


def looks_like_video(path: str) -> bool:
    """Whether the name alone makes a file a video: by its ending."""
    return ending(path) in VIDEO_ENDINGS


def join(folder: str, name: str) -> str:
    """Join a folder and a relative path; an absolute path or a URL stays as it is."""
    if is_url(name):
        return name
    if is_url(folder):
        return f"{folder.rstrip('/')}/{name.removeprefix('./')}"
    path = os.path.join(folder, name.removeprefix("./"))
    # One file, one path: records of the same file are found by comparing paths.
    return os.path.normpath(path) if ".." in path or "//" in path or "/./" in path else path


def absolute(path: str | os.PathLike[str]) -> str:
    """An absolute path without a closing slash; URLs only lose the slash."""
    path = os.fspath(path)
    return path.rstrip("/") if is_url(path) else os.path.abspath(path)


class Folders:
    """Listings of folders, remembered: a hundred thousand look-ups list each folder once.

    Args:
        listdir: lists a URL-like folder: names, those of folders with a closing slash.
    """

    def __init__(self, listdir: ListDir | None = None) -> None:
        self._listdir = listdir
        self._seen: dict[str, tuple[list[str], list[str]]] = {}
        self._files: dict[str, frozenset[str]] = {}

    def entries(self, folder: str) -> tuple[list[str], list[str]]:
        """Names of the files and of the folders in a folder, sorted; both empty if it is missing.

        Raises:
            DataError: the folder exists, but may not be read, or no `listdir` was given for a URL.
        """
        if folder not in self._seen:
            self._seen[folder] = self._list(folder)
        return self._seen[folder]

    def has(self, path: str) -> bool:
        """Whether the file exists. URLs are taken on trust."""
        if is_url(path):
            return True
        folder, name = os.path.split(path)
        if folder not in self._files:
            self._files[folder] = frozenset(self.entries(folder)[0])
        return name in self._files[folder]

    def walk(self, folder: str) -> Iterator[tuple[str, list[str]]]:
        """Folders at any depth with their files, sorted; hidden and system folders left out.

        Symbolic links are followed; a link back to a folder that contains it ends the walk there.
        """
        yield from self._walk(folder, ())

    def videos(self, folder: str) -> list[str]:
        """All video files at any depth, sorted by folder and name."""
        return [
            path
            for inner, files in self.walk(folder)
            for path in (join(inner, name) for name in files)
            if is_video(path)
        ]

    def _walk(self, folder: str, above: tuple[str, ...]) -> Iterator[tuple[str, list[str]]]:
        real = folder if is_url(folder) else os.path.realpath(folder)
        if real in above:
            return
        files, folders = self.entries(folder)
        yield folder, files
        for name in folders:
            if not name.startswith(".") and name not in _SYSTEM_FOLDERS:
                yield from self._walk(join(folder, name), (*above, real))

    def _list(self, folder: str) -> tuple[list[str], list[str]]:
        files: list[str] = []
        folders: list[str] = []
        if is_url(folder):
            if self._listdir is None:
                raise DataError(f"{folder} cannot be listed here; give a list of files instead.")
            for name in self._listdir(folder):
                (folders if name.endswith("/") else files).append(name.rstrip("/"))
            return sorted(files), sorted(folders)
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    if entry.is_dir():
                        folders.append(entry.name)
                    elif entry.is_file() or entry.is_symlink():  # no pipes, no devices
                        files.append(entry.name)
        except (FileNotFoundError, NotADirectoryError):
            return [], []
        except OSError as error:
            raise DataError(f"cannot list {folder}: {error.strerror or error}.") from error
        return sorted(files), sorted(folders)


def is_video(path: str) -> bool:
    """Whether a file counts as a video: by its ending or, failing that, by its first bytes.

    Hidden files and files with endings of another kind (`.txt`, `.db`, `.jpg` …) do not count. A
    file without an ending, or with an unknown one, counts if it begins as a video file does; a
    remote one never.
    """
    if os.path.basename(path).startswith("."):
        return False
    suffix = ending(path)
    if suffix in VIDEO_ENDINGS:
        return True
    if suffix in _OTHER_ENDINGS or is_url(path):
        return False
    try:
        with open(path, "rb") as file:
            return _begins_like_video(file.read(400))
    except OSError:
        return False


def _begins_like_video(head: bytes) -> bool:
    return (
        head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide")  # MP4, QuickTime
        or head.startswith(b"\x1aE\xdf\xa3")  # Matroska, WebM
        or (head.startswith(b"RIFF") and head[8:12] in (b"AVI ", b"CDXA"))
        or head.startswith((b"\0\0\1\xba", b"\0\0\1\xb3"))  # MPEG program stream, MPEG video
        or head.startswith((b"FLV\1", b"GIF87a", b"GIF89a", b".RMF", b"YUV4MPEG2 ", b"DKIF"))
        or head.startswith(b"0&\xb2u\x8ef\xcf\x11")  # Windows Media
        or (head[:4] == b"OggS" and b"theora" in head)
        or (head[:1] == b"G" and head[188:189] == b"G" and head[376:377] == b"G")  # MPEG-TS
    )


class Locator:
    """Finds the files that annotations name below one folder.

    Args:
        root: the folder that relative paths start from.
        folders: listings.
    """

    def __init__(self, root: str, folders: Folders) -> None:
        self.root = root
        self._folders = folders
        self._stems: dict[str, dict[str, str]] = {}  # folder → stem → file
        self._by_stem: dict[str, list[str]] | None = None

    def find(self, name: str) -> str | None:
        """The file of that relative or absolute path; None if it is not there.

        Where nothing has exactly that name, spellings in which lists from other systems come are
        tried: backslashes, composed and decomposed accents, names read in the wrong encoding.
        """
        path = join(self.root, name)
        if self._folders.has(path):
            return path
        for other in _spellings(name):
            path = join(self.root, other)
            if self._folders.has(path):
                return path
        return None

    def find_ending(self, name: str) -> str | None:
        """The file of that path with whatever video ending (lists say `.avi`, files are `.mp4`)."""
        folder, file = os.path.split(join(self.root, name))
        if is_url(folder):
            return None
        if folder not in self._stems:
            videos = [
                video for video in self._folders.entries(folder)[0] if looks_like_video(video)
            ]
            self._stems[folder] = {os.path.splitext(video)[0]: video for video in reversed(videos)}
        stem = os.path.splitext(file)[0] if looks_like_video(file) else file
        found = self._stems[folder].get(stem)
        return found and join(folder, found)

    def find_stem(self, stem: str) -> str | None:
        """The first video called `stem` plus an ending, at any depth below the root."""
        return next(iter(self.find_stems(stem)), None)

    def find_stems(self, stem: str) -> list[str]:
        """All videos called `stem` plus an ending, at any depth below the root."""
        if self._by_stem is None:
            self._by_stem = {}
            for path in self._folders.videos(self.root):
                name = os.path.basename(path)
                self._by_stem.setdefault(os.path.splitext(name)[0], []).append(path)
        return self._by_stem.get(stem, [])


def _spellings(name: str) -> Iterator[str]:
    if "\\" in name:
        yield re.sub(r"\\+", "/", name)
    if not name.isascii():
        for form in ("NFC", "NFD"):
            yield unicodedata.normalize(form, name)
        with suppress(UnicodeError):  # a UTF-8 name in a list that had to be read as Latin-1
            yield os.fsdecode(name.encode("latin-1"))


def videos_of(paths: Sequence[str | os.PathLike[str]]) -> list[str]:
    """The paths, folders (also of shards) replaced by the videos in them.

    Raises:
        DataError: a folder holds no video.
    """
    from kvideo.data.shards.layout import stored_in

    found: list[str] = []
    for path in (os.fspath(each) for each in paths):
        inside = stored_in(path) or Folders().videos(path) if os.path.isdir(path) else [path]
        if not inside:
            raise DataError(f"there is no video in the folder {path}.")
        found += inside
    return found
