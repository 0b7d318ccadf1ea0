"""Actors in boxes: who does what at which moment. AVA's CSV and label maps, and a CSV of ours.

What is wrong with a box costs that box, not the data set: it is mended or left out, and a note
says so.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import math
import os
import re
from collections.abc import Iterable, Sequence

import numpy as np

from kvideo.data.class_names import (
    ClassNames,
    given_class_names,
    numbered_classes,
    parse_class_names,
)
from kvideo.data.formats import Opener, read_text
from kvideo.data.listing import Folders, ListDir, Locator, absolute
from kvideo.data.untrimmed import find_video, note_of
from kvideo.errors import DataError
from kvideo.text import enumerate_words, plural

Box = tuple[float, float, float, float]
Frame = tuple[str, float]

_AVA = ("video", "time", "x1", "y1", "x2", "y2", "label", "person")
_NAMES = {  # of columns in a header
    "video": ("video", "video_id", "path", "file", "filename"),
    "time": ("time", "timestamp", "seconds", "second", "t"),
    **{name: (name,) for name in ("x1", "y1", "x2", "y2")},
    "label": ("label", "action", "action_id", "class", "label_id"),
    "person": ("person", "person_id", "entity_id", "actor", "track"),
    "score": ("score", "confidence"),
}
_ITEM = re.compile(r"(?:item|label)\s*\{(.*?)\}", re.S)
_FIELD = re.compile(r"(\w+)\s*:\s*(?:\"((?:[^\"\\]|\\.)*)\"|'([^']*)'|(\S+))")
_BESIDE = ("action_list.pbtxt", "action_list.txt", "label_map.txt", "classes.txt")
LEAST_AREA = 1e-6  # of the picture
_FAR_OUTSIDE = 2.0  # from here on these are no fractions


@dataclasses.dataclass(frozen=True)
class Actor:
    """Somebody at one moment.

    Args:
        box: x1, y1, x2, y2 as fractions of width and height, within the picture.
        labels: class indices, each once; none where only the person is known.
        person: an identifier within the video; None if unknown.
    """

    box: tuple[float, float, float, float]
    labels: tuple[int, ...]
    person: str | None = None


@dataclasses.dataclass(frozen=True)
class ActorSet:
    """Annotated moments of videos.

    Args:
        frames: the actors of each annotated moment, by video and seconds, in order; perhaps none.
        paths: the file of each video; without those that are not there.
        class_names: names of the classes.
        numbers: what stands for the classes in AVA's files.
        excluded: moments that do not count in a test.
        source: what was read, for messages.
        missing: videos whose file is not there.
        notes: sentences about what was found, mended and left out.
    """

    frames: dict[Frame, tuple[Actor, ...]]
    paths: dict[str, str]
    class_names: tuple[str, ...]
    numbers: tuple[int, ...] = ()
    excluded: frozenset[Frame] = frozenset()
    source: str = ""
    missing: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def num_boxes(self) -> int:
        """How many actors there are, all moments together."""
        return sum(map(len, self.frames.values()))

    def columns(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Videos, times, boxes (N, 4) and labels, a row for each action of each actor."""
        rows = [
            (video, time, actor.box, label)
            for (video, time), actors in self.frames.items()
            for actor in actors
            for label in actor.labels
        ]
        return (
            np.array([row[0] for row in rows], str),
            np.array([row[1] for row in rows], np.float64),
            np.array([row[2] for row in rows], np.float64).reshape(-1, 4),
            np.array([row[3] for row in rows], np.int64),
        )


def read_actors(
    data: str | os.PathLike[str],
    *,
    root: str | os.PathLike[str] | None = None,
    classes: str | os.PathLike[str] | Sequence[str] | None = None,
    excluded: str | os.PathLike[str] | None = None,
    must_exist: bool = True,
    listdir: ListDir | None = None,
    opener: Opener | None = None,
) -> ActorSet:
    """Reads labelled boxes.

    Args:
        data: AVA's CSV, `video_id,timestamp,x1,y1,x2,y2,action_id,person_id` without a header (a
            row of the first two columns is a moment without actors); or a CSV with a header that
            names `video`, `time`, `x1`, `y1`, `x2`, `y2`, `label` and perhaps `person`. Times are
            seconds of the file, corners are fractions of width and height.
        root: the folder that holds the videos, at any depth; by default the CSV's own.
        classes: a list of classes, or a file of them: AVA's `.pbtxt` in either form, or lines
            `NUMBER: NAME`. By default one that lies beside the CSV, or else the labels themselves.
        excluded: AVA's list of excluded timestamps.
        must_exist: False: the videos' files are not looked for.
        listdir: see `read_data`.
        opener: see `read_data`.

    Raises:
        DataError: there is nothing to read, a line breaks a rule of its form, or the corners are no
            fractions.
    """
    source = os.fspath(data)
    if not os.path.isfile(source) and "://" not in source:
        raise DataError(f"there is no file {source}. It should list boxes, as AVA's CSV does.")
    rows = list(parse_rows(read_text(source, opener), source))
    if not rows:
        raise DataError(f"{source} lists no boxes.")
    names = _classes(classes, rows, source, opener)
    notes: list[str] = []
    frames = _actors(rows, names, notes)
    if not any(frames.values()):
        raise DataError(notes[0] if notes else f"{source} lists no boxes.")
    paths, missing = _find(frames, root, source, must_exist, listdir, notes)
    left = set(paths) if must_exist else {video for video, _ in frames}
    return ActorSet(
        {frame: actors for frame, actors in sorted(frames.items()) if frame[0] in left},
        paths,
        names.names,
        _numbers(names),
        frozenset() if excluded is None else read_frames(excluded, opener),
        source,
        missing,
        tuple(notes),
    )


def read_frames(path: str | os.PathLike[str], opener: Opener | None = None) -> frozenset[Frame]:
    """A list of moments, lines `video,seconds`, such as AVA's excluded timestamps; may be empty.

    Raises:
        DataError: it cannot be read, or a line is something else.
    """
    found = set()
    for number, line in enumerate(read_text(os.fspath(path), opener).split("\n"), 1):
        cells = [cell.strip() for cell in line.split(",")]
        if any(cells):
            if len(cells) != 2:
                raise DataError(f"{path}, line {number}: expected `video,seconds`, found {line!r}.")
            found.add((cells[0], _number(cells[1], "time", f"{path}, line {number}")))
    return frozenset(found)


def parse_label_map(text: str, source: str) -> ClassNames:
    """Classes of AVA's `.pbtxt`: `item { name id }` or `label { name label_id }`; or of lines.

    A name that stands under several numbers gets the number behind it.

    Raises:
        DataError: there is no class in it, or a number comes twice.
    """
    items = _ITEM.findall(text)
    if not items:
        return parse_class_names(text, source)
    pairs: list[tuple[int, str]] = []
    for number, item in enumerate(items, 1):
        fields = {m[1]: m[2] or m[3] or m[4] for m in _FIELD.finditer(item)}
        identifier = fields.get("id", fields.get("label_id", fields.get("item_id", "")))
        if not fields.get("name") or not re.fullmatch(r"\d+", identifier):
            raise DataError(f"{source}: item {number} has no `name` or no `id`.")
        pairs.append((int(identifier), fields["name"]))
    counts = [name for _, name in pairs]
    unique = [(i, f"{name} ({i})" if counts.count(name) > 1 else name) for i, name in pairs]
    return numbered_classes(sorted(unique), source)


@dataclasses.dataclass(frozen=True)
class _Row:
    where: str
    frame: Frame
    box: Box | None
    label: str = ""
    person: str | None = None
    score: str | None = None


def parse_rows(text: str, source: str) -> Iterable[_Row]:
    """The lines of a CSV of boxes, with or without a header.

    Raises:
        DataError: a line breaks the form.
    """
    reader = csv.reader(io.StringIO(text), skipinitialspace=True)
    columns: dict[str, int] | None = None
    for cells in reader:
        cells = [cell.strip() for cell in cells]
        if not any(cells):
            continue
        where = f"{source}, line {reader.line_num}"
        if columns is None:
            columns = _header(cells)
            if columns is not None:
                if lacking := [name for name in _AVA[:6] if name not in columns]:
                    raise DataError(f"{where}: the header lacks {enumerate_words(lacking)}.")
                continue
            columns = {name: place for place, name in enumerate(_AVA)}
            if len(cells) > 1 and not _is_number(cells[1]):
                raise DataError(
                    f"{where}: expected AVA's form, video,seconds,x1,y1,x2,y2,…, or a header that "
                    f"names {', '.join(_AVA[:6])}; found {', '.join(cells)[:80]!r}."
                )
        values = {name: cells[at] for name, at in columns.items() if at < len(cells)}
        if not values.get("video"):
            raise DataError(f"{where}: there is no video.")
        frame = values["video"], _number(values.get("time", ""), "time", where)
        corners = [values.get(name, "") for name in ("x1", "y1", "x2", "y2")]
        if not any(corners):
            yield _Row(where, frame, None)
            continue
        x1, y1, x2, y2 = (
            _number(value, name, where, finite=False)
            for value, name in zip(corners, ("x1", "y1", "x2", "y2"), strict=True)
        )
        yield _Row(
            where, frame, (x1, y1, x2, y2), values.get("label", ""), values.get("person"),
            values.get("score"),
        )  # fmt: skip


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _header(cells: Sequence[str]) -> dict[str, int] | None:
    low = [cell.lower() for cell in cells]
    found = {
        name: low.index(known)
        for name, options in _NAMES.items()
        for known in reversed(options)
        if known in low
    }
    return found if len(found) > 2 else None


def _number(value: str, name: str, where: str, *, finite: bool = True) -> float:
    try:
        number = float(value)
    except ValueError:
        raise DataError(f"{where}: {name} must be a number, not {value!r}.") from None
    if finite and not math.isfinite(number):
        raise DataError(f"{where}: {name} must be a number, not {value!r}.")
    return number


def _classes(
    given: str | os.PathLike[str] | Sequence[str] | None,
    rows: Sequence[_Row],
    source: str,
    opener: Opener | None,
) -> ClassNames:
    labels = sorted({row.label for row in rows if row.label})
    numbered = all(label.isdigit() for label in labels)
    if given is None or isinstance(given, str | os.PathLike):
        path, expected = given, None
    else:
        expected = given_class_names(tuple(given))
        if numbered and not all(name.isdigit() for name in expected.names):
            # Without a label map the classes are numbered from 1, as AVA's are.
            numbers = {number: index for index, number in enumerate(range(1, len(given) + 1))}
            expected = ClassNames(expected.names, numbers, expected.source)
        path = None
    if path is None:
        folder = os.path.dirname(absolute(source))
        beside = (os.path.join(folder, name) for name in _BESIDE)
        path = next((file for file in beside if os.path.isfile(file)), None)
    if path is not None:
        listed = parse_label_map(read_text(os.fspath(path), opener), os.fspath(path))
        return listed if expected is None else listed.in_order_of(expected)
    if expected is not None:
        return expected
    if numbered:
        pairs = [(int(label), label) for label in labels]
        return numbered_classes(sorted(pairs), source)
    return ClassNames(tuple(labels), source=source)


def _numbers(names: ClassNames) -> tuple[int, ...]:
    """The number of each class: the highest that stands for it, or else one more than its index."""
    found = {index: number for number, index in (names.numbers or {}).items()}
    if found == {index: index for index in range(len(names.names))}:
        found = {}  # none were given
    return tuple(found.get(index, index + 1) for index in range(len(names.names)))


def _actors(
    rows: Sequence[_Row], names: ClassNames, notes: list[str]
) -> dict[Frame, tuple[Actor, ...]]:
    """The actors of each moment; equal boxes of one person are one actor with several labels."""
    frames: dict[Frame, dict[tuple, list[int]]] = {}
    wrong: dict[str, list[str]] = {}
    doubtful: set[Frame] = set()
    for row in rows:
        if row.frame[1] < 0:
            wrong.setdefault("before the video's beginning: left out", []).append(row.where)
            continue
        actors = frames.setdefault(row.frame, {})
        if row.box is None:
            continue
        check_fractions(row.box, row.where)
        box, what = mended_box(row.box)
        if what:
            wrong.setdefault(what, []).append(row.where)
        if box is None:
            doubtful.add(row.frame)
            continue
        labels = actors.setdefault((box, row.person), [])
        if row.label:
            index = names.index(row.label)
            if index is None:
                wrong.setdefault(
                    f"of a class that {names.source} lacks: taken without it", []
                ).append(f"{row.where} ({row.label})")
            elif index not in labels:
                labels.append(index)
    said = [row.label for row in rows if row.label]
    if said and all(names.index(label) is None for label in said):
        raise DataError(
            f"{rows[0].where.rpartition(',')[0]}: none of its labels (the first is {said[0]!r}) is "
            f"one of {names.source}: {enumerate_words(names.names)}."
        )
    for what, places in wrong.items():
        notes.append(note_of(places, f"box {what}", f"boxes {what}"))
    return {
        frame: tuple(Actor(box, tuple(labels), person) for (box, person), labels in actors.items())
        for frame, actors in frames.items()
        if actors or frame not in doubtful  # somebody is there, nobody knows where
    }


def check_fractions(box: Box, where: str) -> None:
    """Refuses corners that are pixels.

    Raises:
        DataError: they are.
    """
    if max((abs(value) for value in box if math.isfinite(value)), default=0.0) > _FAR_OUTSIDE:
        raise DataError(
            f"{where}: corners must be fractions of width and height, from 0 to 1, not "
            f"{', '.join(f'{value:g}' for value in box)}."
        )


def mended_box(box: Box) -> tuple[Box | None, str]:
    """The box within the picture, or None; and what was wrong with it."""
    if not all(map(math.isfinite, box)):
        return None, "with a corner that is no number: left out"
    x1, y1, x2, y2 = box
    what = ""
    if x2 < x1 or y2 < y1:
        x1, x2, y1, y2 = min(x1, x2), max(x1, x2), min(y1, y2), max(y1, y2)
        what = "with swapped corners: put right"
    inside = tuple(min(max(value, 0.0), 1.0) for value in (x1, y1, x2, y2))
    if (inside[2] - inside[0]) * (inside[3] - inside[1]) < LEAST_AREA:
        empty = (x2 - x1) * (y2 - y1) < LEAST_AREA
        return None, "without an area: left out" if empty else "outside the picture: left out"
    if inside != (x1, y1, x2, y2) and not what:
        what = "partly outside the picture: cut"
    return (inside[0], inside[1], inside[2], inside[3]), what


def _find(
    frames: dict[Frame, tuple[Actor, ...]],
    root: str | os.PathLike[str] | None,
    source: str,
    must_exist: bool,
    listdir: ListDir | None,
    notes: list[str],
) -> tuple[dict[str, str], tuple[str, ...]]:
    if not must_exist:
        return {}, ()
    folder = absolute(root) if root is not None else os.path.dirname(absolute(source))
    locator = Locator(folder, Folders(listdir))
    videos = list(dict.fromkeys(video for video, _ in frames))
    found = {video: find_video(video, locator, source) for video in videos}
    paths = {video: path for video, path in found.items() if path is not None}
    missing = tuple(video for video in videos if video not in paths)
    if not paths:
        raise DataError(
            f"{source}: none of its {plural(len(videos), 'video')} is there (first: {missing[0]}, "
            f"below {folder}). Say with --root which folder holds the videos."
        )
    if missing:
        notes.append(
            f"{len(missing)} of {plural(len(videos), 'video')} in {source}: no such file below "
            f"{folder}, left out (first: {missing[0]})."
        )
    return paths, missing
