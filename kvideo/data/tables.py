"""Annotation files with named columns: CSV with a header (Kinetics too) and JSON."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from kvideo.data.entries import Entry, short, split_name
from kvideo.errors import DataError

# Names of columns and keys, in order of preference.
COLUMNS = {
    "path": ("path", "video_path", "filepath", "file_path", "video", "filename", "file_name",
             "file", "video_name", "video-name", "clip", "video_id", "name"),
    "label": ("label", "labels", "class", "class_name", "category", "action", "activity", "tags",
              "type", "label-idx"),
    "start": ("start", "time_start", "start_time", "t_start", "t-init"),
    "end": ("end", "time_end", "end_time", "t_end", "t-end"),
    "group": ("group", "group_id"),
    "split": ("split", "subset"),
}  # fmt: skip
KINETICS_ID = "youtube_id"


def find_header(text: str) -> tuple[list[str], str] | None:
    """The column names in lower case and the delimiter, if the first line is a header."""
    first = text.lstrip("\n").split("\n", 1)[0]
    for delimiter in (",", ";", "\t"):
        try:
            cells = next(csv.reader([first], delimiter=delimiter))
        except csv.Error:
            continue
        names = [cell.strip().lower() for cell in cells]
        paths = {KINETICS_ID, *COLUMNS["path"]} & set(names)
        others = {n for key, known in COLUMNS.items() if key != "path" for n in known} & set(names)
        if paths and (others or len(names) == 1):
            return names, delimiter
    return None


def parse_csv(text: str, source: str, header: list[str], delimiter: str) -> Iterator[Entry]:
    """Rows below a header; several labels stand in one cell, with `|` or `;` between them.

    A row of segments without label, start and end is a video in which nothing happens.
    """
    place = {
        key: next((header.index(name) for name in names if name in header), None)
        for key, names in COLUMNS.items()
    }
    has_segment = place["start"] is not None and place["end"] is not None
    by_id = KINETICS_ID in header
    path_at = header.index(KINETICS_ID) if by_id else place["path"]
    need = max(p for p in (path_at, place["label"]) if p is not None)
    reader = csv.reader(io.StringIO(text), delimiter=delimiter, strict=True)
    rows = _rows(reader, source)
    next(row for row in rows if any(row))  # the header
    separators = r"[|;]" if delimiter != ";" else r"[|]"
    for row in rows:
        if not any(cell.strip() for cell in row):
            continue
        where = f"{source}, line {reader.line_num}"
        if len(row) <= need:
            raise DataError(
                f"{where}: the line breaks off, it has {len(row)} of the {len(header)} columns."
            )
        cells = {
            key: row[at].strip() for key, at in place.items() if at is not None and at < len(row)
        }
        path = row[path_at].strip() if path_at is not None else ""
        if not path:
            raise DataError(f"{where}: the column {header[path_at or 0]!r} is empty.")
        labels: tuple[str, ...] = ()
        start, end, fault = parse_segment(cells.get("start"), cells.get("end"), where)
        if place["label"] is not None:
            labels = tuple(p.strip() for p in re.split(separators, cells["label"]) if p.strip())
            if not labels and not (has_segment and start is end is None):
                fault = f"{where}: {short(path)} has no label. Name one, or drop the line."
        yield Entry(
            where,
            path,
            labels,
            start,
            end,
            group=cells.get("group") or (path if by_id else None),
            split=split_name(cells["split"]) if cells.get("split") else None,
            by_id=by_id,
            label_text=cells.get("label", ""),
            has_segment=has_segment,
            fault=fault,
        )


def _rows(reader: Any, source: str) -> Iterator[list[str]]:
    try:
        yield from reader
    except csv.Error as error:
        raise DataError(f"{source}, line {reader.line_num}: not valid CSV ({error}).") from error


def parse_segment(start: Any, end: Any, where: str) -> tuple[float | None, float | None, str]:
    """Start and end in seconds, empty values as None; and a sentence if they are no segment."""
    first, last = (_number(value, name, where) for value, name in ((start, "start"), (end, "end")))
    for value, number, name in ((start, first, "start"), (end, last, "end")):
        if number is not None and number < 0:
            return first, last, f"{where}: {_not_seconds(name, value)}"
    if last is None or last > (first or 0.0):
        return first, last, ""
    when = "where" if last == (first or 0.0) else "before"
    return (
        first,
        last,
        f"{where}: the segment ends ({last:g} s) {when} it starts ({first or 0:g} s).",
    )


def _seconds(value: Any, name: str, where: str) -> float | None:
    seconds = _number(value, name, where)
    if seconds is not None and seconds < 0:
        raise DataError(f"{where}: {_not_seconds(name, value)}")
    return seconds


def _number(value: Any, name: str, where: str) -> float | None:
    if value is None or value == "":
        return None
    try:
        seconds = float(value)
    except (TypeError, ValueError):
        seconds = math.nan
    if not math.isfinite(seconds):
        raise DataError(f"{where}: {_not_seconds(name, value)}")
    return seconds


def _not_seconds(name: str, value: Any) -> str:
    return f"{name} must be a number of seconds from 0, not {value!r}."


# ---------------------------------------------------------------------------------- JSON


def parse_json(text: str, source: str) -> Iterator[Entry]:
    """A list of objects with the keys of the CSV, or an object from path to label."""
    try:
        document = json.loads(text)
    except json.JSONDecodeError as error:
        if error.msg == "Extra data" and text.lstrip().startswith("{"):
            yield from _parse_json_lines(text, source)
            return
        raise DataError(
            f"{source}, line {error.lineno}: not valid JSON ({error.msg.lower()})."
        ) from error
    if isinstance(document, dict) and "database" in document:
        yield from _parse_activitynet(document["database"], source)
        return
    if isinstance(document, dict) and _is_database(document):
        yield from _parse_activitynet(document, source)
        return
    items: list[Any] = document if isinstance(document, list) else list(document.items())
    for number, item in enumerate(items, 1):
        where = f"{source}, entry {number}"
        if isinstance(item, tuple):
            path, value = item
            values = value if isinstance(value, dict) else {"label": value}
            values = {**values, "path": path}
        elif isinstance(item, dict):
            values = item
        else:
            raise DataError(f"{where}: expected an object with path and label, found {item!r}.")
        yield _json_entry({str(k).lower(): v for k, v in values.items()}, where)


def _is_database(document: dict[str, Any]) -> bool:
    """Whether it is what ActivityNet calls `database`, as BSN's files are."""
    values = document.values()
    return bool(values) and all(
        isinstance(value, dict) and isinstance(value.get("annotations"), list) for value in values
    )


def _parse_activitynet(database: Any, source: str) -> Iterator[Entry]:
    """Segments of untrimmed videos; a video without any gives one entry without a label."""
    videos = database.items() if isinstance(database, dict) else None
    if not videos or not all(isinstance(video, dict) for _, video in videos):
        raise DataError(
            f"{source} is in ActivityNet's form, but its `database` is no object from identifier "
            "to video, or an empty one."
        )
    # Where no video of a part has an annotation, they are withheld, as in ActivityNet's test part.
    known = {video.get("subset") for _, video in videos if video.get("annotations")}
    if not known:
        raise DataError(
            f"{source} is in ActivityNet's form, but none of its videos has an annotation."
        )
    for name, video in videos:
        subset, where = video.get("subset"), f"{source}, video {name}"
        if subset not in known:
            continue
        duration = _seconds(video.get("duration", video.get("duration_second")), "duration", where)
        common: dict[str, Any] = {
            "split": split_name(str(subset)) if subset else None,
            "by_id": True,
            "over_time": True,
            "duration": duration,
        }
        annotations = video.get("annotations") or []
        if not annotations:
            yield Entry(where, str(name), **common)
        for annotation in annotations:
            segment = annotation.get("segment") if isinstance(annotation, dict) else None
            if not isinstance(segment, list) or len(segment) != 2 or "label" not in annotation:
                raise DataError(
                    f"{where}: an annotation needs `segment` ([start, end]) and `label`, found "
                    f"{short(json.dumps(annotation))}."
                )
            start, end, fault = parse_segment(segment[0], segment[1], where)
            labels = (str(annotation["label"]),)
            yield Entry(where, str(name), labels, start, end, fault=fault, **common)


def is_json(text: str) -> bool:
    """Whether text that is not called `.json` is JSON, or JSON lines, all the same."""
    if text.lstrip()[0] not in "[{":
        return False
    for part in (text, text.strip().split("\n", 1)[0]):
        with suppress(json.JSONDecodeError):
            json.loads(part)
            return True
    return False


def _parse_json_lines(text: str, source: str) -> Iterator[Entry]:
    """An object on each line."""
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        where = f"{source}, line {number}"
        try:
            values = json.loads(line)
        except json.JSONDecodeError as error:
            raise DataError(f"{where}: not valid JSON ({error.msg.lower()}).") from error
        if not isinstance(values, dict):
            raise DataError(f"{where}: expected an object with path and label, found {line!r}.")
        yield _json_entry({str(k).lower(): v for k, v in values.items()}, where)


def _json_entry(values: dict[str, Any], where: str) -> Entry:
    found = {
        key: next((values[name] for name in names if name in values), None)
        for key, names in COLUMNS.items()
    }
    by_id = KINETICS_ID in values
    path = values[KINETICS_ID] if by_id else found["path"]
    if not isinstance(path, str) or not path:
        raise DataError(f"{where}: it has no `path`.")
    label = found["label"]
    labels = label if isinstance(label, list) else [] if label is None else [label]
    if any(isinstance(item, (dict, list, bool, type(None))) for item in labels):
        raise DataError(f"{where}: a label must be a name or a number, not {label!r}.")
    if isinstance(label, list) and not labels or "" in labels:
        raise DataError(f"{where}: {short(path)} has no label. Name one, or drop the entry.")
    start, end, fault = parse_segment(found["start"], found["end"], where)
    group = found["group"]
    start_and_end = [any(name in values for name in COLUMNS[key]) for key in ("start", "end")]
    return Entry(
        where,
        path,
        tuple(str(item).strip() for item in labels),
        start,
        end,
        group=str(group) if group is not None else (path if by_id else None),
        split=split_name(str(found["split"])) if found["split"] else None,
        by_id=by_id,
        has_segment=all(start_and_end),
        fault=fault,
    )
