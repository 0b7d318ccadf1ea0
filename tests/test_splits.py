"""Setting aside a validation part."""

import numpy as np
import pytest

from kvideo.data.annotations import VideoRecord, VideoSet, split_validation
from kvideo.errors import DataError, UsageError


def make(labels, groups=None, classes=None):
    groups = groups or [None] * len(labels)
    labels = [label if isinstance(label, tuple) else (label,) for label in labels]
    records = tuple(
        VideoRecord(f"/v/{i}.mp4", label, group=group)
        for i, (label, group) in enumerate(zip(labels, groups, strict=True))
    )
    classes = classes or 1 + max(max(label, default=0) for label in labels)
    return VideoSet(
        records, tuple(map(str, range(classes))), any(len(x) > 1 for x in labels), "set"
    )


@pytest.mark.parametrize("fraction", [0.05, 0.2, 0.25, 0.5, 0.9])
def test_stratified_by_class(fraction):
    videos = make([0] * 100 + [1] * 40 + [2] * 7 + [3] * 2 + [4])
    train, val = split_validation(videos, fraction, seed=3)
    assert {*train.records} | {*val.records} == {*videos.records}
    assert len(train) + len(val) == len(videos)
    for count, kept, held in zip((100, 40, 7, 2, 1), train.class_counts(), val.class_counts(),
                                 strict=True):  # fmt: skip
        if count == 1:
            assert (kept, held) == (1, 0)
        else:
            assert kept >= 1 and held >= 1
            assert abs(held - count * fraction) <= 1
    assert train.class_names == val.class_names == videos.class_names


def test_deterministic_ordered_and_random():
    videos = make([0] * 50 + [1] * 50)
    first, again, other = (split_validation(videos, 0.2, seed=s)[1] for s in (0, 0, 1))
    assert first == again != other
    train, val = split_validation(videos, 0.2)
    order = {record.path: i for i, record in enumerate(videos.records)}
    for part in (train, val):
        places = [order[record.path] for record in part.records]
        assert places == sorted(places)


@pytest.mark.parametrize("seed", range(5))
def test_groups_are_never_split(seed):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 5, 400).tolist()
    groups = [f"g{g}" for g in rng.integers(0, 60, 400)]  # groups hold several classes
    train, val = split_validation(make(labels, groups), 0.2, seed=seed)
    assert not {r.group for r in train.records} & {r.group for r in val.records}
    assert (train.class_counts() > 0).all() and (val.class_counts() > 0).all()
    assert 0.1 < len(val) / 400 < 0.3


def test_few_large_groups():
    """Two groups a class, each larger than the share: one is held back all the same."""
    videos = make([0] * 10 + [1] * 10, [f"{i // 5}" for i in range(20)])
    train, val = split_validation(videos, 0.1)
    assert train.class_counts().tolist() == val.class_counts().tolist() == [5, 5]


def test_segments_of_one_file_stay_together():
    records = tuple(
        VideoRecord(f"/v/{i // 4}.mp4", (i // 4 % 2,), float(i), i + 1.0, group=f"{i}")
        for i in range(40)
    )
    train, val = split_validation(VideoSet(records, ("a", "b")), 0.3)
    assert val.records and not set(train.paths) & set(val.paths)


def test_multi_label():
    rng = np.random.default_rng(0)
    labels = [tuple(np.flatnonzero(rng.random(20) < 0.1).tolist()) or (0,) for _ in range(500)]
    videos = make(labels)
    train, val = split_validation(videos, 0.2)
    share = val.class_counts() / videos.class_counts()
    assert train.multi_label and val.multi_label
    assert (share > 0.1).all() and (share < 0.3).all() and (train.class_counts() > 0).all()


def test_unlabelled_videos_can_be_split():
    records = tuple(VideoRecord(f"/{i}.mp4") for i in range(10))
    train, val = split_validation(VideoSet(records, ()), 0.3)
    assert (len(train), len(val)) == (7, 3)


def test_large_sets_with_many_classes():
    rng = np.random.default_rng(0)
    videos = make(rng.integers(0, 400, 50_000).tolist())
    train, val = split_validation(videos, 0.1)
    assert len(val) == pytest.approx(5000, rel=0.02) and (val.class_counts() > 0).all()


def test_what_cannot_be_split():
    with pytest.raises(DataError, match="no validation part can be set aside from set"):
        split_validation(make([0, 1, 2]), 0.2)
    with pytest.raises(DataError, match="one video or one group"):
        split_validation(make([0, 0, 0, 1, 1], ["a", "a", "a", "b", "b"]), 0.2)
    for fraction in (0, 1, -0.5, float("nan")):
        with pytest.raises(UsageError, match="between 0 and 1"):
            split_validation(make([0, 0, 1, 1]), fraction)
