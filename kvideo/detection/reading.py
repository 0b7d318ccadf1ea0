"""The annotated moments of an experiment with a detector."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from kvideo.data.actors import ActorSet, read_actors
from kvideo.data.demo import demo_folder
from kvideo.data.gt_tubes import is_gt_tubes, read_gt_tubes
from kvideo.data.keyframes import Keyframe, keyframes, thinned
from kvideo.data.records import VideoSet
from kvideo.data.remote import list_remote, open_remote
from kvideo.detection.settings import check_settings
from kvideo.errors import DataError
from kvideo.text import plural

if TYPE_CHECKING:
    from kvideo.training.experiment import Experiment

PARTS = ("train", "val", "test")
DEMO = "demo-actors"
_CLOSEST = 0.2  # seconds between moments of a training: neighbours show the same
_PART = re.compile(r"(?:^|[^a-z])(train|val|test)(?:[^a-z]|$)")


def read_boxes_data(
    data: str | os.PathLike[str],
    *,
    split: str | None = None,
    root: str | os.PathLike[str] | None = None,
    classes: Any = None,
    excluded: str | os.PathLike[str] | None = None,
    must_exist: bool = True,
) -> ActorSet:
    """Labelled boxes from a file, or from the part of a folder that is asked for.

    Args:
        data: what `read_actors` takes; or a folder with files such as `train.csv` and `test.csv`
            (AVA's `ava_train_v2.2.csv` and the like too); or the pickle of UCF101-24's or JHMDB's
            tubes, see `read_gt_tubes`.
        split: the part: `"train"`, `"val"` or `"test"`.
        root: see `read_actors`.
        classes: see `read_actors`.
        excluded: see `read_actors`; by default the list beside the file that names the same part
            and `excluded`, if there is one.
        must_exist: see `read_actors`.

    Raises:
        DataError: there is no such part, or see `read_actors`.
    """
    path = place_of(data)
    if os.path.isdir(path):
        files = part_files(path)
        if not files:
            raise DataError(
                f"{path} holds no file of boxes, such as train.csv or ava_train_v2.2.csv."
            )
        if split is None:
            split = next(part for part in PARTS if part in files)
        if split not in files:
            raise DataError(f"{path} has no part {split!r}; it has {', '.join(files)}.")
        path = files[split]
    elif split is not None and not is_gt_tubes(path):
        raise DataError(f"{path} is one file, which has no part {split!r}.")
    if is_gt_tubes(path):
        return read_gt_tubes(
            path, split=split, root=root, must_exist=must_exist, listdir=list_remote
        )
    beside = excluded if excluded is not None else excluded_beside(path)
    return read_actors(
        path, root=root, classes=classes, excluded=beside, must_exist=must_exist,
        listdir=list_remote, opener=open_remote,
    )  # fmt: skip


def place_of(data: str | os.PathLike[str]) -> str:
    """The path that DATA means; `demo-actors` is the demo's folder, which is written if need be."""
    path = os.fspath(data)
    return str(demo_folder(variant="actors")) if path == DEMO else path


def part_files(folder: str) -> dict[str, str]:
    """The CSV files of boxes in a folder, by the part that their names say."""
    found: dict[str, str] = {}
    for name in sorted(os.listdir(folder)):
        part = _part_of(name)
        if part and name.lower().endswith(".csv") and "excluded" not in name.lower():
            found.setdefault(part, os.path.join(folder, name))
    return {part: found[part] for part in PARTS if part in found}


def excluded_beside(path: str) -> str | None:
    """The list of excluded timestamps that lies beside a file of boxes, if there is one."""
    part, folder = _part_of(os.path.basename(path)), os.path.dirname(path) or "."
    if part is None or not os.path.isdir(folder):
        return None
    names = [
        name
        for name in sorted(os.listdir(folder))
        if "excluded" in name.lower() and name.lower().endswith(".csv") and _part_of(name) == part
    ]
    return os.path.join(folder, names[0]) if names else None


def _part_of(name: str) -> str | None:
    found = _PART.search(name.lower())
    return found[1] if found else None


def read_videos(
    experiment: Experiment, say: Callable[[str], None]
) -> tuple[VideoSet, VideoSet | None]:
    """Training and validation moments; says where they come from."""
    check_settings(experiment)
    how = dict(experiment.detector or {})
    data = place_of(experiment.data)
    folder = os.path.isdir(data)
    split = experiment.split or ("train" if folder or is_gt_tubes(data) else None)
    found = read_boxes_data(
        experiment.data, split=split, root=experiment.root, classes=how.get("classes"),
        excluded=how.get("excluded"),
    )  # fmt: skip
    labelled = keyframes(found)
    videos: VideoSet = thinned(labelled, _CLOSEST)
    validation: VideoSet | None = None
    if experiment.val is not None:
        validation = _like(experiment, experiment.val, None, found, how.get("val_excluded"))
    elif folder and "val" in part_files(data) and split != "val":
        validation = _like(experiment, experiment.data, "val", found, how.get("val_excluded"))
    elif is_gt_tubes(data) and split and split.startswith("train"):
        other = split.replace("train", "test")
        validation = _like(experiment, data, other, found, None)
    elif experiment.val_fraction:
        videos, validation = _held_out(videos, experiment.val_fraction, experiment.seed)
    for note in dict.fromkeys([*videos.notes, *(validation.notes if validation else ())]):
        say(f"Note: {note}")
    if len(thinned(labelled, _CLOSEST)) < len(labelled):
        say(f"Note: of labelled moments closer than {_CLOSEST:g} s one is trained on.")
    if found.excluded:
        say(f"Note: {len(found.excluded)} excluded moments of {found.source} are left out.")
    if not len(videos):
        raise DataError(f"{experiment.data}: there is no moment to train on.")
    boxes = sum(len(each.actors) for each in videos.records if isinstance(each, Keyframe))
    if not boxes:
        raise DataError(
            f"{experiment.data}: there is no box to train on in {plural(len(videos), 'moment')}."
        )
    counts = (
        f"{plural(len(videos), 'moment')} of {plural(len(videos.paths), 'video')} with "
        f"{plural(boxes, 'box')}, {plural(len(videos.class_names), 'action')}"
    )
    if validation is not None and len(validation):
        say(f"Training on {counts}; validating on {plural(len(validation), 'moment')}.")
        return videos, validation
    say(f"Training on {counts}, without validation.")
    return videos, None


def _like(
    experiment: Experiment, data: str, split: str | None, known: ActorSet, excluded: Any
) -> VideoSet:
    found = read_boxes_data(
        data, split=split, root=experiment.root, classes=known.class_names, excluded=excluded
    )
    return thinned(keyframes(found), _CLOSEST)


def _held_out(videos: VideoSet, share: float, seed: int) -> tuple[VideoSet, VideoSet | None]:
    """Whole videos are held out; none, if there is one only."""
    import numpy as np

    names = sorted({str(record.group) for record in videos.records})
    count = min(len(names) - 1, max(1, round(share * len(names))))
    if count < 1:
        return videos, None
    chosen = {str(name) for name in np.random.default_rng(seed).permutation(names)[:count]}
    rows = [str(record.group) in chosen for record in videos.records]
    kept = videos.select(number for number, out in enumerate(rows) if not out)
    return kept, videos.select(number for number, out in enumerate(rows) if out)
