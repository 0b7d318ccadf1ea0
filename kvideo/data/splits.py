"""Setting aside a validation part."""

from __future__ import annotations

from collections import Counter

import numpy as np

from kvideo.data.records import VideoSet
from kvideo.errors import DataError, UsageError


def split_validation(videos: VideoSet, fraction: float, seed: int = 0) -> tuple[VideoSet, VideoSet]:
    """Split into a training and a validation part, stratified by class.

    Records of one `group`, and records of one file, stay together. Of every class with at least
    two groups, at least one record is in the training part and, where the groups allow it, one in
    the validation part; a class with a single group stays in the training part. In a multi-label
    set each label is stratified as well as the others allow. The same arguments give the same
    split; records keep their order.

    Groups are visited in random order; a group goes to the validation part if that brings the
    numbers of its classes nearer to `fraction`, and leaves each class something to train on.

    Args:
        videos: what to split.
        fraction: part of each class to set aside, above 0 and below 1.
        seed: of the random order.

    Returns:
        (training part, validation part).

    Raises:
        UsageError: `fraction` is out of its range.
        DataError: nothing can be set aside, since every class has one group only.
    """
    if not 0 < fraction < 1:
        raise UsageError(f"the validation fraction must lie between 0 and 1, not {fraction}.")
    groups: dict[tuple[str, str], list[int]] = {}
    for index, record in enumerate(videos.records):
        key = ("path", record.path) if record.group is None else ("group", record.group)
        groups.setdefault(key, []).append(index)
    members = _merge_shared_files(videos, list(groups.values()))

    # Unlabelled records count as a class of their own, the last.
    classes = len(videos.class_names) + 1
    labels = [record.labels or (classes - 1,) for record in videos.records]
    # Plain numbers: most groups have one class, and there may be 100,000 of them.
    tallies = [Counter(label for i in indices for label in labels[i]) for indices in members]
    total, num_groups = [0] * classes, [0] * classes
    for tally in tallies:
        for label, count in tally.items():
            total[label] += count
            num_groups[label] += 1
    # No class is too small to be watched, as long as something is left to train on.
    target = [
        max(number * fraction, 1.0) if groups_of > 1 else 0.0
        for number, groups_of in zip(total, num_groups, strict=True)
    ]

    taken = [0] * classes
    chosen: set[int] = set()
    order = np.random.default_rng(seed).permutation(len(members)).tolist()

    def leaves_some(tally: Counter[int]) -> bool:
        return all(taken[label] + count < total[label] for label, count in tally.items())

    def take(position: int) -> None:
        for label, count in tallies[position].items():
            taken[label] += count
        chosen.update(members[position])

    def change(label: int, count: int) -> float:
        """How much farther from its target a class is with `count` more, squared."""
        before = taken[label] - target[label]
        after = before + count
        return (after * after - before * before) / max(target[label], 1.0)

    for position in order:
        tally = tallies[position]
        if sum(change(*each) for each in sorted(tally.items())) < 0 and leaves_some(tally):
            take(position)
    # Classes whose every group is larger than their share: the smallest one that can be spared.
    lacking = {label for label in range(classes) if taken[label] == 0 and target[label] > 0}
    for position in sorted(order, key=lambda i: tallies[i].total()) if lacking else ():
        tally = tallies[position]
        if any(taken[label] == 0 for label in lacking & tally.keys()) and leaves_some(tally):
            take(position)
    if not chosen:
        raise DataError(
            f"no validation part can be set aside from {videos.source or 'these videos'}: every "
            "class has one video or one group only. Add videos, or name validation data."
        )
    train = videos.select(i for i in range(len(videos)) if i not in chosen)
    return train, videos.select(sorted(chosen))


def _merge_shared_files(videos: VideoSet, members: list[list[int]]) -> list[list[int]]:
    """Join groups that have a file in common (two segments of it may name different groups)."""
    parent = list(range(len(members)))

    def top(group: int) -> int:
        while parent[group] != group:
            parent[group] = parent[parent[group]]
            group = parent[group]
        return group

    owner: dict[str, int] = {}
    for group, indices in enumerate(members):
        for index in indices:
            first = owner.setdefault(videos.records[index].path, group)
            parent[top(group)] = top(first)
    merged: dict[int, list[int]] = {}
    for group, indices in enumerate(members):
        merged.setdefault(top(group), []).extend(indices)
    return list(merged.values())
