"""Which videos a fusion is chosen on: none that its models have learned from."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kvideo.errors import DataError, KVideoError
from kvideo.progress import say_nothing
from kvideo.text import plural

if TYPE_CHECKING:
    from kvideo.data.annotations import VideoSet
    from kvideo.saving import ModelInfo


def choose_videos(
    data: Any,
    models: Sequence[Any],
    root: Any,
    split: str | None,
    info: ModelInfo,
    chooses: bool,
    say: Callable[[str], None],
) -> VideoSet:
    """Labelled videos that none of the runs has been trained on, unless a part is named.

    Args:
        data: see `fuse`.
        models: files or runs' folders.
        root: see `fuse`.
        split: see `fuse`.
        info: of the models.
        chooses: whether the fusion is chosen on them, rather than only tried.
        say: takes remarks.

    Raises:
        DataError: there are none.
    """
    from kvideo.data.annotations import VideoSet
    from kvideo.data.held_out import read_held_out

    if isinstance(data, VideoSet):
        videos = data
    else:
        videos = read_held_out(
            data,
            prefer=("val", "test"),
            class_names=info.class_names,
            multi_label=info.multi_label,
            root=root,
            split=split,
        )
    for note in videos.notes:
        say(f"Note: {note}")
    records = [record for record in videos.records if record.labels]
    if split is None:
        seen: set[Any] = set()
        for model in models:
            keys = _trained_on(model)
            seen |= keys or set()
            if keys is None and chooses:
                say(f"Nothing is known of the videos that {model} was trained on: choose others.")
        fresh = [record for record in records if not seen.intersection(_keys(record))]
        everything = f"the runs were trained on all videos of {videos.source}"
        if records and not fresh and chooses:
            raise DataError(f"{everything}: name other ones, or a part of it with --split.")
        if not fresh:
            say(f"Note: {everything}, so the accuracies say little.")
        else:
            if left_out := len(records) - len(fresh):
                say(f"{plural(left_out, 'video')} that the runs were trained on are left out.")
            records = fresh
    if not records:
        raise DataError(f"{videos.source or 'the data set'} has no labelled videos.")
    return dataclasses.replace(videos, records=tuple(records))


def _keys(record: Any) -> list[Any]:
    """What a record is known by: its path, and wherever that lies, its name, folder and size."""
    part = record.start, record.end
    if "://" in record.path:
        return [(record.path, part)]
    keys: list[Any] = [(os.path.realpath(record.path), part)]
    with contextlib.suppress(OSError):
        keys.append((*Path(record.path).parts[-2:], os.path.getsize(record.path), part))
    return keys


def _trained_on(model: Any) -> set[Any] | None:
    """Keys of the videos that a run was trained on; None if they are not known any more."""
    from kvideo.training.experiment import EXPERIMENT, Experiment
    from kvideo.training.videos import read_videos

    folder = Path(model) if Path(model).is_dir() else Path(model).parent
    if not (folder / EXPERIMENT).exists():
        return None
    try:
        videos, _ = read_videos(Experiment.from_folder(folder), say_nothing)
    except KVideoError:  # moved or removed since
        return None
    return {key for record in videos.records for key in _keys(record)}
