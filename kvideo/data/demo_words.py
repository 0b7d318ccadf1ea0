"""The words that stand for the demo's data sets wherever DATA is asked for."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence

from kvideo.data.class_names import given_class_names
from kvideo.data.parts import ALL
from kvideo.data.records import VideoSet
from kvideo.errors import DataError, UsageError
from kvideo.text import enumerate_words

DEMOS = {
    "demo": "motion",
    "demo-frames": "frames",
    "demo-order": "order",
    "demo-dots": "dots",
}  # word → variant
PARTS = ("train", "val")


def read_demo(
    word: str,
    split: str | None,
    class_names: Sequence[str] | str | os.PathLike[str] | None = None,
) -> VideoSet:
    """The videos of a demo.

    Args:
        word: one of `DEMOS`.
        split: `"train"` (the default), `"val"` or `"all"`.
        class_names: another order of the classes.

    Raises:
        UsageError: there is no such part; or the class names come from a file.
        DataError: a class is missing from the names, or the files cannot be written.
    """
    from kvideo.data.demo import demo_data

    variant = DEMOS[word]
    if split != ALL:
        videos = demo_data(split or "train", variant=variant)
    else:
        train, val = (demo_data(part, variant=variant) for part in PARTS)
        videos = dataclasses.replace(train, records=train.records + val.records, source=word)
    return videos if class_names is None else _reordered(videos, class_names)


def demo_words() -> str:
    """`"demo", "demo-frames", "demo-order" or "demo-dots"`, for messages."""
    return enumerate_words([f'"{word}"' for word in DEMOS]).replace(" and ", " or ")


def _reordered(videos: VideoSet, class_names: Sequence[str] | str | os.PathLike[str]) -> VideoSet:
    """The same videos with their classes in another order (that of a model)."""
    if isinstance(class_names, (str, os.PathLike)):
        raise UsageError("the demo data has its own class names; leave class_names out.")
    names = given_class_names(class_names)
    index = []
    for name in videos.class_names:
        place = names.index(name)
        if place is None:
            raise DataError(f"{videos.source}: {names.unknown(name)}")
        index.append(place)
    records = tuple(
        dataclasses.replace(
            record,
            labels=tuple(index[label] for label in record.labels),
            track=record.track and record.track.renumbered(index),
        )
        for record in videos.records
    )
    return dataclasses.replace(videos, records=records, class_names=names.names)
