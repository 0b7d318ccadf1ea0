"""The videos of an experiment: training and validation part, and what they ask of the training."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING

from kvideo.data.annotations import find_splits, read_data, split_validation
from kvideo.data.over_time import check_match
from kvideo.data.records import VideoSet, mirrored_classes
from kvideo.data.remote import list_remote, open_remote
from kvideo.errors import DataError
from kvideo.saving import read_info

if TYPE_CHECKING:
    from kvideo.training.experiment import Experiment


def read_videos(
    experiment: Experiment, say: Callable[[str], None]
) -> tuple[VideoSet, VideoSet | None]:
    """Training and validation videos; says where they come from."""
    read = functools.partial(
        read_data,
        root=experiment.root,
        per_frame=_per_frame(experiment),
        listdir=list_remote,
        opener=open_remote,
    )
    parts = find_splits(experiment.data, listdir=list_remote, opener=open_remote)
    split = experiment.split or ("train" if "train" in parts else None)
    videos = read(experiment.data, split=split)
    name = f'"{experiment.model or experiment.weights}"'
    check_match(name, _per_frame(experiment), experiment.data, videos.per_frame)
    notes = [*videos.notes]
    # "train" goes with "val", and where a data set has several splits, "train2" with "val2".
    other = split.replace("train", "val") if split and split.startswith("train") else ""
    read_like = functools.partial(
        read, class_names=videos.class_names, multi_label=videos.multi_label
    )
    validation = None
    if experiment.val is not None:
        validation = read_like(experiment.val)
    elif other in parts:
        validation = read_like(experiment.data, split=other)
    elif experiment.val_fraction:
        videos, validation = split_validation(videos, experiment.val_fraction, seed=experiment.seed)
    if validation is not None:
        notes += validation.notes
    for note in dict.fromkeys(notes):
        say(f"Note: {note}")
    if experiment.quarantine:
        from kvideo.data.check import read_quarantine

        bad = read_quarantine(experiment.quarantine)
        total = len(videos) + len(validation or ())
        videos, validation = videos.without(bad), validation and validation.without(bad)
        say(f"{total - len(videos) - len(validation or ())} quarantined videos are left out.")
    _check_trainable(videos)
    counts = f"{len(videos.records)} videos of {len(videos.class_names)} classes"
    if validation is not None and validation.records:
        say(f"Training on {counts}, validating on {len(validation.records)}.")
        return videos, validation
    say(f"Training on {counts}, without validation.")
    return videos, None


def _per_frame(experiment: Experiment) -> bool:
    """Whether the model that is asked for has an output for each frame."""
    if experiment.model is not None or not experiment.weights:
        return experiment.model_options.get("output") == "frames"
    return read_info(experiment.weights).per_frame


def _check_trainable(videos: VideoSet) -> None:
    unlabelled = [record.path for record in videos.records if not record.labels]
    if unlabelled:
        raise DataError(
            f"{len(unlabelled)} videos of {videos.source} have no label, the first being "
            f"{unlabelled[0]}."
        )
    present = {label for record in videos.records for label in record.labels}
    if len(videos.class_names) < 2 or (len(present) < 2 and not videos.multi_label):
        raise DataError(
            f"{videos.source} has one class only ({', '.join(videos.class_names)}); a classifier "
            "needs two at least."
        )


def mirror_clips(experiment: Experiment, videos: VideoSet) -> bool:
    """Whether to mirror clips: asked for, or not known to change what a video means."""
    if experiment.flip != "auto":
        return experiment.flip == "on"
    return videos.flip_safe and mirrored_classes(videos.class_names) is None
