"""Boxes that somebody else has found: persons, in AVA's proposal CSV, or actors with actions."""

from __future__ import annotations

import csv
import io
import math
import os
import warnings
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from kvideo.data.actors import LEAST_AREA, Frame, check_fractions, mended_box, parse_rows
from kvideo.data.formats import Opener, read_text
from kvideo.data.untrimmed import note_of
from kvideo.errors import DataError

Found = tuple[np.ndarray, np.ndarray]  # boxes (N, 4) and scores (N,)
# A box, its class and its score, at a moment.
ScoredBox = tuple[Frame, tuple[float, float, float, float], str, float]


def read_proposals(
    path: str | os.PathLike[str], opener: Opener | None = None, notes: list[str] | None = None
) -> dict[Frame, Found]:
    """Boxes of persons by video and seconds.

    Lines are `video,timestamp,x1,y1,x2,y2,LABEL,score`, as AVA's; the label, which may be empty, is
    passed over, and equal boxes of a moment are one. Without a score a box counts as sure. A header
    may name the columns in another order (`video`, `time`, `x1`, `y1`, `x2`, `y2`, `score`).

    Args:
        path: the file.
        opener: see `read_data`.
        notes: receives sentences about what was mended and left out.

    Returns:
        Boxes (N, 4), as fractions of the picture, and scores (N,), the best first.

    Raises:
        DataError: it cannot be read, or a line breaks the form.
    """
    found: dict[Frame, dict[tuple[float, float, float, float], float]] = {}
    for frame, box, _, score in scored_boxes(path, opener, sure=True, notes=notes):
        known = found.setdefault(frame, {})
        known[box] = max(score, known.get(box, -math.inf))
    if not found:
        raise DataError(f"{path} lists no boxes.")
    return {frame: _arrays(known) for frame, known in found.items()}


def _arrays(known: dict[tuple[float, float, float, float], float]) -> Found:
    rows = sorted(known.items(), key=lambda row: -row[1])
    return np.array([box for box, _ in rows], np.float64), np.array([s for _, s in rows])


def scored_boxes(
    path: str | os.PathLike[str],
    opener: Opener | None = None,
    *,
    sure: bool = False,
    notes: list[str] | None = None,
) -> Iterator[ScoredBox]:
    """The rows of a CSV of found boxes; those without an area are left out.

    Args:
        path: the file.
        opener: see `read_data`.
        sure: whether a box may have no score, which is 1 then; scores are probabilities.
        notes: receives sentences about what was mended and left out, once all rows are read.

    Raises:
        DataError: it cannot be read, or a line breaks the form.
    """
    source = os.fspath(path)
    wrong: dict[str, list[str]] = {}
    for row in parse_rows(read_text(source, opener), source):
        if row.box is None:
            continue
        text = row.score or row.person or ("1" if sure else "")
        try:
            score = float(text)
        except ValueError:
            score = math.nan
        if not math.isfinite(score):
            raise DataError(f"{row.where}: the score must be a number, not {text!r}.")
        if sure and not 0 <= score <= 1:
            raise DataError(f"{row.where}: the score of a box must be from 0 to 1, not {text}.")
        check_fractions(row.box, row.where)
        box, what = mended_box(row.box)
        if row.frame[1] < 0:
            box, what = None, "before the video's beginning: left out"
        if what:
            wrong.setdefault(what, []).append(row.where)
        if box is not None:
            yield row.frame, box, row.label, score
    if notes is not None:
        notes += [note_of(places, f"box {what}", f"boxes {what}") for what, places in wrong.items()]


class FoundColumns(NamedTuple):
    """The rows of a CSV of found boxes as columns: N rows."""

    videos: list[str]
    times: np.ndarray  # (N,)
    boxes: np.ndarray  # (N, 4)
    labels: list[str]
    scores: np.ndarray  # (N,)


_COLUMNS = [("video", "O"), ("time", "f8"), *((name, "f8") for name in ("x1", "y1", "x2", "y2"))]
_COLUMNS += [("label", "O"), ("score", "f8")]


def found_columns(path: str | os.PathLike[str], opener: Opener | None = None) -> FoundColumns:
    """As `scored_boxes`, all rows at once.

    Raises:
        DataError: see `scored_boxes`.
    """
    text = read_text(os.fspath(path), opener)
    if (quick := _plain_columns(text)) is not None:
        return quick
    rows = list(scored_boxes(path, opener))
    return FoundColumns(
        [video for (video, _), *_ in rows],
        np.array([time for (_, time), *_ in rows], np.float64),
        np.array([box for _, box, _, _ in rows], np.float64).reshape(-1, 4),
        [label for _, _, label, _ in rows],
        np.array([score for *_, score in rows], np.float64),
    )


def _plain_columns(text: str) -> FoundColumns | None:
    """A file in AVA's form with nothing wrong in it, quickly; None for any other."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # an empty file
            table = np.loadtxt(
                io.StringIO(text), _COLUMNS, delimiter=",", quotechar='"', comments=None, ndmin=1
            )
    except (ValueError, UserWarning):
        return None
    boxes = np.stack([table[name] for name in ("x1", "y1", "x2", "y2")], axis=1)
    sizes = boxes[:, 2:] - boxes[:, :2]
    clean = (
        ((boxes >= 0) & (boxes <= 1)).all()
        and (sizes > 0).all()
        and (sizes.prod(axis=1) > LEAST_AREA).all()
        and (table["time"] >= 0).all()
        and np.isfinite(table["time"]).all()
        and np.isfinite(table["score"]).all()
    )
    if not clean:
        return None
    videos, labels = ([cell.strip() for cell in table[name]] for name in ("video", "label"))
    return (
        FoundColumns(videos, table["time"], boxes, labels, table["score"]) if all(videos) else None
    )


def actions_csv(
    rows: Iterable[tuple[str, float, Sequence[float], int, float]], numbers: Sequence[int] = ()
) -> str:
    """AVA's form of results: `video,timestamp,x1,y1,x2,y2,action_id,score`, no header.

    Args:
        rows: video, seconds, box, class index and score.
        numbers: of the classes; by default from 1.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    for video, time, box, label, score in rows:
        corners = (f"{corner:.6g}" for corner in box)
        number = numbers[label] if numbers else label + 1
        writer.writerow([video, f"{time:g}", *corners, number, f"{score:.6g}"])
    return text.getvalue()
