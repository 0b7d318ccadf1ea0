"""Annotation files: text in, entries out. Knows nothing of which files exist.

Formats are told apart by the file's name and content, never by its ending alone: the list of
Kinetics as PySlowFast reads it has blanks between its columns and ends in `.csv`.
"""

from __future__ import annotations

import csv
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import BinaryIO

from kvideo.data.entries import UCF101_VIDEO, Entry, group_of, short, unquote
from kvideo.data.listing import VIDEO_ENDINGS, is_url, looks_like_video
from kvideo.data.tables import find_header, is_json, parse_csv, parse_json, parse_segment
from kvideo.errors import DataError

Opener = Callable[[str], BinaryIO]

HMDB51_FILE = re.compile(r"(?P<class>.+)_test_split(?P<number>\d+)\.txt", re.IGNORECASE)
UCF101_FILE = re.compile(r"(?P<part>train|test)list(?P<number>\d+)\.txt", re.IGNORECASE)
THUMOS14_FILE = re.compile(r"(?P<class>.+)_(?P<part>val|test)\.txt", re.IGNORECASE)
_THUMOS14_LINE = re.compile(r"(?P<video>\S+)\s+(?P<start>\d+(\.\d*)?)\s+(?P<end>\d+(\.\d*)?)")
_VIDEO_AND_REST = re.compile(
    rf"(.*\.(?:{'|'.join(end[1:] for end in sorted(VIDEO_ENDINGS))})[\"']?)\s+(.+)", re.IGNORECASE
)
_YOUTUBE = re.compile(
    r"https?://(?:www\.|m\.)?(?:youtube\.com/watch\?(?:.*&)?v=|youtu\.be/)([\w-]+)"
)


def decode_text(data: bytes, source: str) -> str:
    """Text of an annotation file: UTF-8 (or UTF-16 with a byte order mark), otherwise Latin-1.

    Line ends become line feeds.

    Raises:
        DataError: it is not text.
    """
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        text = data.decode("utf-16", errors="replace")
    elif b"\0" in data:
        raise DataError(
            f"{source} is neither a folder of videos nor an annotation file (it is not text)."
        )
    else:
        try:
            text = data.decode("utf-8-sig")
        except UnicodeDecodeError:
            text = data.decode("latin-1")
    return text.replace("\r\n", "\n").replace("\r", "\n").rstrip("\x1a")  # DOS's end of file


def read_text(path: str, opener: Opener | None = None) -> str:
    """The text of an annotation file, local or remote.

    Args:
        path: the file, or a URL-like path.
        opener: opens URL-like paths for reading bytes.

    Raises:
        DataError: it cannot be read, or is not text.
    """
    try:
        if is_url(path):
            if opener is None:
                raise DataError(f"{path} cannot be opened here; copy it to this machine.")
            with opener(path) as file:
                return decode_text(file.read(), path)
        with open(path, "rb") as file:
            return decode_text(file.read(), path)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise DataError(f"cannot read {path}: {reason}.") from error


def parse(text: str, source: str, *, allow_faults: bool = False) -> list[Entry]:
    """Read an annotation file of any of the formats.

    Args:
        text: its content.
        source: its path; the name may tell the format, and messages begin with it.
        allow_faults: whether entries with a `fault` are given as well; by default it is raised.

    Raises:
        DataError: the file is empty or breaks a rule of its format; the sentence names the line.
    """
    name = os.path.basename(source)
    if not text.strip():
        raise DataError(f"{source} is empty; it should list videos and their labels.")
    if name.lower().endswith(".json") or is_json(text):
        entries = list(parse_json(text, source))
    elif match := HMDB51_FILE.fullmatch(name):
        entries = list(_parse_hmdb51(text, source, match["class"]))
    elif header := find_header(text):
        entries = list(parse_csv(text, source, *header))
    elif (match := THUMOS14_FILE.fullmatch(name)) and is_thumos14(text):
        entries = list(_parse_thumos14(text, source, match["class"], match["part"]))
    else:
        entries = list(_parse_list(text, source))
    for entry in entries:
        if entry.fault and not allow_faults:
            raise DataError(entry.fault)
        _complete(entry)
    return entries


def _complete(entry: Entry) -> None:
    """What names of files say: groups of UCF101 and HMDB51, identifiers in YouTube addresses."""
    if match := _YOUTUBE.match(entry.path):
        entry.path, entry.by_id = match[1], True
        return
    folder, file = os.path.split(entry.path)
    if entry.group is None:
        entry.group = group_of(file)
    if folder and not entry.by_id and UCF101_VIDEO.match(file):
        entry.others += (file,)  # UCF101 is also kept without class folders


# ---------------------------------------------------------------------------------- lists


def _parse_list(text: str, source: str) -> Iterator[Entry]:
    """`PATH LABEL`, `PATH,LABEL`, `PATH LABEL,LABEL`, or `CLASS/FILE` (the class is the folder)."""
    # "# " begins a comment; "#" alone does not, since names of HMDB51's clips begin with it.
    lines = [
        (number, line.strip())
        for number, line in enumerate(text.split("\n"), 1)
        if line.strip() and not line.startswith("# ")
    ]
    if not lines:
        raise DataError(f"{source} lists no videos.")
    if len(lines) > 1 and set(lines[0][1].lower().split()) <= {"path", "video", "file", "label"}:
        del lines[0]  # a header without commas
    separator = _find_separator([line for _, line in lines], source)
    for number, line in lines:
        if separator == "":
            yield _entry_of_folder(line, f"{source}, line {number}")
            continue
        path, label = _last_column(line, separator)
        where = f"{source}, line {number}"
        if not path or not label or looks_like_video(label):
            raise DataError(
                f"{where}: expected a path and a label, found {short(line)!r}. "
                "Write `PATH LABEL`, `PATH,LABEL`, or a header such as `path,label` first."
            )
        labels = _split_list_label(label, by_blank=separator == " ")
        yield Entry(where, path, labels, label_text=label)


def _last_column(line: str, separator: str) -> tuple[str, str]:
    """What stands before and after the last separator, without quotes; blanks may be many.

    Where blanks separate, the label begins after the last video's ending, so it may hold some.
    """
    if separator == "," and '"' in line:
        with suppress(csv.Error):
            cells = next(csv.reader([line], skipinitialspace=True, strict=True))
            if len(cells) == 2:
                return cells[0].strip(), cells[1].strip()
    if separator == " " and (match := _VIDEO_AND_REST.fullmatch(line)):
        return unquote(match[1].strip()), unquote(match[2].strip())
    parts = line.rsplit(None if separator == " " else separator, 1)
    path, label = parts if len(parts) == 2 else ("", parts[0])
    return unquote(path.strip()), unquote(label.strip())


def _find_separator(lines: Sequence[str], source: str) -> str:
    """The separator before the label: the one that leaves a video's name in front of it.

    An empty string: there is one column only.
    """
    votes: Counter[str] = Counter()
    for line in lines:
        if _is_path(unquote(line)):
            votes[""] += 1
        for separator in ("\t", ",", " "):
            if separator in line and _is_path(_last_column(line, separator)[0]):
                votes[separator] += 1
    if votes:
        return max(("\t", ",", " ", ""), key=lambda s: votes[s])
    columns = re.split(r"[\t,]", lines[0])
    if len(columns) > 2 and _is_path(unquote(columns[0].strip())):
        raise DataError(
            f"{source}, line 1: {len(columns)} columns, but no header that names them. Put one "
            "first, such as `path,label,start,end`."
        )
    # Names without a video's ending: whatever stands in every line.
    return next((s for s in ("\t", ",") if all(s in line for line in lines)), " ")


def _is_path(text: str) -> bool:
    return looks_like_video(text) or (is_url(text) and not re.search(r"[\s,]", text))


def _split_list_label(label: str, *, by_blank: bool) -> tuple[str, ...]:
    """Several labels in one column: names with commas between them, numbers with commas or blanks.

    Behind a comma as separator that cannot occur; behind a tab a name may hold commas.
    """
    parts = tuple(part.strip() for part in label.split(","))
    if len(parts) > 1 and all(parts) and (by_blank or all(part.isdigit() for part in parts)):
        return parts
    numbers = tuple(label.split())
    return numbers if all(number.isdigit() for number in numbers) else (label,)


def _entry_of_folder(line: str, where: str) -> Entry:
    path = unquote(line)
    folder = os.path.basename(os.path.dirname(path.replace("\\", "/")))
    if not folder:
        raise DataError(
            f"{where}: {short(path)!r} has no label. Write `PATH LABEL`, or put "
            "the class's name before the file's: `CLASS/FILE`."
        )
    return Entry(where, path, (folder,))


def _parse_hmdb51(text: str, source: str, class_name: str) -> Iterator[Entry]:
    """`FILE FLAG`: 1 training, 2 test, 0 neither; the file's name tells the class."""
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        file, flag = _last_column(line.strip(), " ")
        where = f"{source}, line {number}"
        if flag not in ("0", "1", "2") or not file:
            raise DataError(
                f"{where}: expected a file and 0, 1 (training) or 2 (test), found {short(line)!r}."
            )
        split = {"0": "neither", "1": "train", "2": "test"}[flag]
        yield Entry(where, f"{class_name}/{file}", (class_name,), split=split, others=(file,))


# ---------------------------------------------------------------------------------- THUMOS14


def is_thumos14(text: str) -> bool:
    """Whether every line is `VIDEO START END`, and there is one."""
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    return bool(lines) and all(_THUMOS14_LINE.fullmatch(line) for line in lines)


def _parse_thumos14(text: str, source: str, class_name: str, part: str) -> Iterator[Entry]:
    """`VIDEO START END`, seconds; the file's name tells the class and the part."""
    for number, line in enumerate(text.split("\n"), 1):
        if match := _THUMOS14_LINE.fullmatch(line.strip()):
            where = f"{source}, line {number}"
            start, end, fault = parse_segment(match["start"], match["end"], where)
            yield Entry(
                where,
                match["video"],
                (class_name,),
                start,
                end,
                split=part.lower(),
                by_id=True,
                over_time=True,
                has_segment=True,
                fault=fault,
            )
