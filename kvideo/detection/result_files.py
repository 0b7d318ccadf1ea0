"""Results as files: AVA's CSV and tubes as JSON."""

from __future__ import annotations

import collections
import dataclasses
import json
import os
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from kvideo import __version__
from kvideo.data.actors import ActorSet
from kvideo.data.proposals import actions_csv, found_columns
from kvideo.data.remote import open_remote
from kvideo.data.untrimmed import video_name
from kvideo.detection.metrics import Boxes
from kvideo.detection.results import VideoActors, action_boxes, tubes_json
from kvideo.detection.tubes import LinkSettings
from kvideo.errors import DataError
from kvideo.text import plural


def is_results_file(model: Any) -> bool:
    """Whether a model is a CSV of results."""
    return isinstance(model, str | os.PathLike) and os.fspath(model).lower().endswith(".csv")


def read_results(
    path: str | os.PathLike[str], class_names: Sequence[str], numbers: Sequence[int] = ()
) -> Boxes:
    """Results in AVA's form, `video,timestamp,x1,y1,x2,y2,action,score`.

    Args:
        path: the CSV.
        class_names: C names; an action is one of them, or its number. Rows of others are passed
            over, as AVA's evaluation does.
        numbers: of the classes; by default from 1.

    Raises:
        DataError: it cannot be read, or none of its rows is of one of the classes.
    """
    known = {name: label for label, name in enumerate(class_names)}
    listed = numbers or range(1, len(class_names) + 1)
    by_number = {str(number): label for label, number in enumerate(listed)}
    found = found_columns(path, open_remote)
    index = {text: known.get(text, by_number.get(text)) for text in dict.fromkeys(found.labels)}
    labels = np.array([-1 if (i := index[text]) is None else i for text in found.labels], np.int64)
    kept = labels >= 0
    if not kept.any():
        why = f" (the first is {found.labels[0]!r})" if found.labels else ""
        raise DataError(f"{path} has no row of one of the {len(class_names)} classes{why}.")
    videos = np.array(found.videos, str)
    return Boxes(videos, found.times, found.boxes, labels, found.scores).select(kept)


def matched_results(said: Boxes, truth: ActorSet, path: str) -> Boxes:
    """Results with the names that the truth has for their videos.

    A video that the truth does not name is one whose file's name is the same without folder and
    ending, if there is just one.

    Raises:
        DataError: no row is of an annotated moment.
    """
    named = list(dict.fromkeys(video for video, _ in truth.frames))
    by_file = {video_name(name): name for name in named}
    counts = collections.Counter(map(video_name, named))
    names, rows = np.unique(said.videos, return_inverse=True)
    known = [
        name if name in named or counts[video_name(name)] != 1 else by_file[video_name(name)]
        for name in names.tolist()
    ]
    found = dataclasses.replace(said, videos=np.array(known, str)[rows])
    pairs = zip(found.videos.tolist(), found.times.tolist(), strict=True)
    if not any(pair in truth.frames for pair in pairs):
        raise DataError(
            f"{path}: none of its {plural(len(said), 'row')} is of a moment that {truth.source} "
            f"annotates; the first is {said.videos[0]} at {said.times[0]:g} s."
        )
    return found


def results_csv(found: Iterable[VideoActors], numbers: Sequence[int] = ()) -> str:
    """What was seen, in AVA's form; see `actions_csv`."""
    said = action_boxes(found)
    scores = np.asarray(said.scores)
    return actions_csv(
        zip(
            said.videos.tolist(), said.times.tolist(), said.boxes.tolist(), said.labels.tolist(),
            scores.tolist(), strict=True,
        ),
        numbers,
    )  # fmt: skip


def tubes_document(
    found: Iterable[VideoActors],
    class_names: Sequence[str],
    *,
    settings: LinkSettings | None,
    threshold: float,
    step: float,
) -> str:
    """What was seen as tubes, as JSON."""
    videos = [
        tubes_json(video, video.tubes(settings), class_names, threshold, step) for video in found
    ]
    document = {"kvideo_version": __version__, "classes": list(class_names), "videos": videos}
    return json.dumps(document, indent=1)
