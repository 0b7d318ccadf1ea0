"""The part of a data set that a model was not trained on."""

from __future__ import annotations

import os
from collections.abc import Sequence

from kvideo.data.annotations import find_splits, read_data
from kvideo.data.records import VideoSet
from kvideo.data.remote import list_remote, open_remote

TEST_PARTS = ("test", "val", "validation")  # what a model is tested on, the first that there is


def read_held_out(
    data: str | os.PathLike[str],
    *,
    prefer: Sequence[str],
    class_names: Sequence[str],
    multi_label: bool,
    root: str | os.PathLike[str] | None = None,
    split: str | None = None,
    per_frame: bool = False,
) -> VideoSet:
    """Videos with a model's classes, local or remote.

    Args:
        data: see `read_data`.
        prefer: of the parts that the data has, the first one of these; all of the data if none.
        class_names: the model's.
        multi_label: whether the model gives several labels a video.
        root: see `read_data`.
        split: the part, instead of the preferred one.
        per_frame: see `read_data`.

    Raises:
        DataError: as `read_data` does.
    """
    if split is None:
        parts = find_splits(data, listdir=list_remote, opener=open_remote)
        split = next((name for name in prefer if name in parts), None)
    return read_data(
        data,
        root=root,
        split=split,
        class_names=tuple(class_names),
        multi_label=multi_label,
        per_frame=per_frame,
        listdir=list_remote,
        opener=open_remote,
    )
