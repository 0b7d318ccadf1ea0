"""Predictions over time as files: segments as CSV, everything as JSON, a picture as PNG."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kvideo.data.class_names import as_integer
from kvideo.data.tracks import UNLABELLED
from kvideo.errors import DataError, UsageError
from kvideo.files import write_bytes_atomic, write_text_atomic
from kvideo.segmentation.results import TimeSegment, plain_segments
from kvideo.text import enumerate_words

if TYPE_CHECKING:
    from kvideo.data.clip_reader import ClipReader
    from kvideo.data.records import VideoSet
    from kvideo.prediction import Prediction

ENDINGS = (".csv", ".json", ".png")
Truth = Mapping[str, Sequence[TimeSegment]]


def check_timeline_file(path: str, files: Sequence[str]) -> None:
    """Refuses a name that `write_timeline` cannot take for these files, before any work is done.

    Raises:
        UsageError: another ending, no such folder, or a picture of several videos.
    """
    ending = Path(path).suffix.lower()
    if ending not in ENDINGS:
        raise UsageError(f"a timeline is written as {', '.join(ENDINGS)}, not as {path}.")
    folder = os.path.dirname(path)
    if folder and not os.path.isdir(folder):
        raise UsageError(f"cannot write {path}: there is no folder {folder}.")
    if ending == ".png" and (len(files) > 1 or os.path.isdir(files[0])):
        came = f"{len(files)} files" if len(files) > 1 else "a folder"
        raise UsageError(f"{path} would be a picture of one video, but {came} came.")


def write_timeline(
    path: str | os.PathLike[str],
    predictions: Sequence[Prediction],
    truth: Truth | None = None,
) -> None:
    """Writes predictions with a timeline; those that failed are left out of a CSV.

    Args:
        path: its ending says what is written. `.csv`: a row `path,start,end,label,probability` for
            each segment, which is DATA again. `.json`: a list of what `Prediction.to_json` gives.
            `.png`: a picture of the first.
        predictions: of one file or several.
        truth: true segments by path, for the picture and the JSON.

    Raises:
        UsageError: another ending.
        KVideoError: it cannot be written, or there is nothing to draw.
    """
    kind = Path(path).suffix.lower()
    if kind == ".csv":
        write_text_atomic(path, _csv_text(predictions))
    elif kind == ".json":
        documents = [timeline_json(prediction, truth) for prediction in predictions]
        write_text_atomic(path, json.dumps(documents, indent=1, ensure_ascii=False) + "\n")
    elif kind == ".png":
        if drawn := next((p for p in predictions if p.timeline is not None), None):
            write_bytes_atomic(path, _picture(drawn, truth))
    else:
        raise UsageError(f"a timeline is written as {', '.join(ENDINGS)}, not as {path}.")


def timeline_json(prediction: Prediction, truth: Truth | None = None) -> dict[str, Any]:
    """What `Prediction.to_json` gives and, where they are known, the true segments."""
    document = prediction.to_json()
    if truth is not None and (parts := truth.get(os.path.abspath(prediction.path))):
        document["truth"] = plain_segments(list(parts), prediction.class_names)
    return document


def check_truth_classes(videos: VideoSet, class_names: Sequence[str]) -> None:
    """Refuses annotations with a class that the model does not have.

    Args:
        videos: annotations over time, in classes of their own.
        class_names: the model's.

    Raises:
        DataError: it names such a class, and the model's.
    """
    occurring = {segment.label for r in videos.records if r.track for segment in r.track.segments}
    names = [videos.class_names[label] for label in sorted(occurring - {UNLABELLED})]
    unknown = [name for name in names if name not in class_names and as_integer(name) is None]
    if unknown:
        raise DataError(
            f"the classes of the truth are not the model's: {videos.source} has {unknown[0]!r}, "
            f"the model has {enumerate_words(class_names)}."
        )


def true_segments(
    videos: VideoSet, paths: Iterable[str], reader: ClipReader
) -> dict[str, list[TimeSegment]]:
    """The true segments of some files, by absolute path; files that are not annotated are left out.

    Args:
        videos: annotations over time, class indices as in the model.
        paths: the files.
        reader: opens them, since annotations may count frames or go to the end.

    Raises:
        DecodeError: the annotations do not fit their file.
    """
    records = {os.path.abspath(record.path): record for record in videos.records}
    found = {}
    for path in map(os.path.abspath, paths):
        if path in records:
            _, end, track = reader.span(records[path])
            parts = track.whole(end) if track is not None else []
            found[path] = [TimeSegment(part.start, part.end, part.label) for part in parts]
    return found


def _csv_text(predictions: Sequence[Prediction]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("path", "start", "end", "label", "probability"))
    for prediction in predictions:
        for segment in prediction.timeline.segments() if prediction.timeline else ():
            times = f"{segment.start:.3f}", f"{segment.end:.3f}"
            label = prediction.class_names[segment.label]
            writer.writerow((prediction.path, *times, label, f"{segment.probability:.6f}"))
    return text.getvalue()


def _picture(prediction: Prediction, truth: Truth | None) -> bytes:
    from kvideo.report.timeline_plot import timeline_png

    timeline = prediction.timeline
    if timeline is None:
        raise UsageError(f"{prediction.path} has no timeline to draw.")
    known = None if truth is None else truth.get(os.path.abspath(prediction.path))
    return timeline_png(
        timeline.times,
        timeline.probabilities,
        timeline.segments(),
        prediction.class_names,
        end=float(timeline.edges[-1]),
        truth=known,
        title=os.path.basename(prediction.path),
    )
