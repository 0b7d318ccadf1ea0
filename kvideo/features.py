"""A model as an extractor of features: one `.npy` file for each video, and an index of them.

Clips go through in a stream: of a video no more than two batches of features are held at a time,
whatever its length.
"""

from __future__ import annotations

import collections
import dataclasses
import hashlib
import itertools
import json
import os
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kvideo.clip_spec import Views
from kvideo.data.annotations import read_data
from kvideo.data.clip_reader import ClipReader, iterate_timed_views
from kvideo.data.demo_words import DEMOS
from kvideo.data.listing import Folders, absolute, is_url, is_video, join
from kvideo.data.parts import ALL, split_files
from kvideo.data.records import VideoRecord, VideoSet
from kvideo.data.remote import list_remote, open_remote, stamp_remote
from kvideo.data.untrimmed import has_segments, read_untrimmed
from kvideo.data.windows import sliding_blocks
from kvideo.errors import DataError, DecodeError, UsageError
from kvideo.feature_files import FeatureCache, file_names
from kvideo.feature_set import FeatureSet, VideoFeatures
from kvideo.saving import model_file, model_info
from kvideo.scores import NOT_FINITE
from kvideo.text import plural

if TYPE_CHECKING:
    import keras

    from kvideo.inference import Predictor

POOLS = ("mean", "none")
_FORMAT = 1  # rises when the same model and video come to give another array

__all__ = ["Block", "FeatureSet", "VideoFeatures", "extract_features", "feature_extractor"]


def feature_extractor(
    model: keras.Model, layer: str = "features", pool: str = "mean"
) -> keras.Model:
    """A model from clips to the output of one of its layers, float32, one row for each clip.

    Args:
        model: a functional model of clips (B, T, H, W, C).
        layer: a layer's name.
        pool: `"mean"` averages over all axes between the first and the last, so that any output
            becomes (B, C); `"none"` leaves it as it is. A layer that sees the frames of all clips
            as one batch (B·T, ...) gives (B, T, ...).

    Raises:
        UnknownNameError: there is no such layer; the message suggests a near one.
        UsageError: another `pool`, or a layer that has not one output for each clip.
    """
    import keras

    if pool not in POOLS:
        raise UsageError(f"pool must be one of {POOLS}, not {pool!r}.")
    base = _up_to(model, layer)
    rows = base.compute_output_spec(keras.KerasTensor((1, *base.input_shape[1:]))).shape[0] or 1
    x = keras.ops.cast(base.output, "float32")
    if rows > 1:
        x = keras.ops.reshape(x, (-1, rows, *x.shape[1:]))
    between = tuple(range(1, len(x.shape) - 1))
    if pool == "mean" and between:
        x = keras.ops.mean(x, axis=between)
    return keras.Model(base.input, x, name=f"{model.name}_{layer}")


def _up_to(model: keras.Model, layer: str) -> keras.Model:
    """The part of a model that its layer's output needs."""
    import keras

    from kvideo.graphs import layer_output

    return keras.Model(model.input, layer_output(model, layer), name=model.name)


def model_digest(model: keras.Model, layer: str) -> str:
    """Identifies what determines a layer's output: the layers up to it, and their weights.

    Another head on the same network changes nothing; another precision does.
    """
    base = _up_to(model, layer)
    config = json.dumps(base.get_config(), sort_keys=True, default=str)
    digest = hashlib.sha256(config.encode())
    for weight in base.weights:
        digest.update(np.ascontiguousarray(weight.numpy()).data)
    return digest.hexdigest()


@dataclasses.dataclass(frozen=True)
class Block:
    """Clips of one video that follow each other, or the error that ended the video.

    Args:
        video: its position; the blocks of one video come one after another.
        times: (n, 2) beginning and end of each clip, seconds.
        clips: (n, T, H, W, 3) uint8, n at least 1.
        error: then there are no clips.
    """

    video: int
    times: np.ndarray | None = None
    clips: np.ndarray | None = None
    error: DecodeError | None = None


def view_blocks(
    records: Sequence[VideoRecord], reader: ClipReader, views: Views, size: int, workers: int
) -> Iterator[Block]:
    """The views of each video, decoded once, in blocks of at most `size` clips."""
    results = iterate_timed_views(records, reader, views, workers)
    for video, result in enumerate(results):
        if isinstance(result, DecodeError):
            yield Block(video, error=result)
            continue
        times, clips = result
        for first in range(0, len(clips), size):
            part = slice(first, first + size)
            yield Block(video, times[part], clips[part])


def window_blocks(
    records: Sequence[VideoRecord], reader: ClipReader, stride: float, workers: int
) -> Iterator[Block]:
    """Clips that slide over each video, in blocks; see `sliding_blocks`."""
    span = reader.spec.span
    for block in sliding_blocks(records, reader, workers, stride):
        if block.cover is None or block.clips is None:
            yield Block(block.index, error=block.error)
            continue
        starts = block.cover.times[block.first : block.first + len(block.clips)]
        ends = np.minimum(starts + span, np.maximum(block.cover.end, starts))
        yield Block(block.index, np.stack([starts, ends], axis=1), block.clips)


def stream_features(
    predictor: Predictor, blocks: Iterable[Block]
) -> Iterator[tuple[Block, np.ndarray | None]]:
    """The features (n, ...) of each block, in order; None with a block that is an error.

    Small blocks share a batch, also those of different videos.
    """
    waiting: collections.deque[Block] = collections.deque()

    def clips() -> Iterator[np.ndarray]:
        for block in blocks:
            waiting.append(block)
            if block.clips is not None:
                yield block.clips

    for features in predictor.ragged(clips()):
        while waiting[0].clips is None:
            yield waiting.popleft(), None
        yield waiting.popleft(), features
    while waiting:
        yield waiting.popleft(), None


def extract_features(
    model: keras.Model,
    videos: VideoSet,
    reader: ClipReader,
    folder: Path,
    *,
    layer: str = "features",
    pool: str = "mean",
    views: Views | None = None,
    stride: float | None = None,
    root: str | None = None,
    batch_size: int = 8,
    workers: int = 2,
    details: Mapping[str, Any] | None = None,
    on_video: Callable[[VideoFeatures], None] | None = None,
) -> FeatureSet:
    """Writes the features of videos into a folder; what is there already stays.

    A file is computed anew if the video (its size or time of change), the weights or layers up to
    `layer`, or a setting that matters is another one. When the work is interrupted, what is
    finished is kept and indexed.

    Args:
        model: a functional model of clips.
        videos: labels may be missing.
        reader: reads clips as the model takes them.
        folder: where `.npy` files, `index.json` and `index.csv` come.
        layer: see `feature_extractor`.
        pool: see `feature_extractor`.
        views: how many views a video has, by default what the model recommends; each is a row.
        stride: seconds between the middles of clips that slide over the whole of each video, the
            rows then (see `sliding_times`), instead of views; the files' names have no `.mp4`.
        root: the folder that the files' paths mirror.
        batch_size: most clips that are run at once.
        workers: decoding threads.
        details: how the features were made, for the index.
        on_video: is called with each video's entry.

    Returns:
        The index.

    Raises:
        UsageError: see `feature_extractor`.
        DataError: no video gave features.
        KVideoError: a file cannot be written.
    """
    from kvideo.inference import Predictor

    predictor = Predictor(feature_extractor(model, layer, pool), batch_size)
    views = views or model_info(model).views
    sampling = {"views": dataclasses.asdict(views)} if stride is None else {"stride": stride}
    facts = {**(details or {}), "layer": layer, "pool": pool, **sampling}
    settings = [_FORMAT, model_digest(model, layer), layer, pool, *sampling.values()]
    settings += [reader.spec.to_json(), facts.get("decoder")]
    names = file_names(videos.records, root, keep_ending=stride is None)
    records = dict(zip(names, videos.records, strict=True))  # what is listed twice counts once
    keys = {name: _key(settings, record) for name, record in records.items()}
    cache = FeatureCache(folder)
    entries: dict[str, VideoFeatures] = {}

    def add(name: str, entry: VideoFeatures) -> None:
        entries[name] = entry
        if on_video is not None:
            on_video(entry)

    for name, record in records.items():
        if known := cache.find(name, keys[name]):
            add(name, VideoFeatures.of(record, known))
    todo = [name for name in records if name not in entries]
    wanted = [records[name] for name in todo]
    if stride is None:
        blocks = view_blocks(wanted, reader, views, batch_size, workers)
    else:
        blocks = window_blocks(wanted, reader, stride, workers)
    if todo:
        FeatureSet.forget(folder)  # an index never names a file that is about to change
    try:
        with cache:
            stream = stream_features(predictor, blocks)
            for video, parts in itertools.groupby(stream, lambda part: part[0].video):
                name = todo[video]
                add(name, _write(cache, name, keys[name], records[name], parts))
    finally:
        listed = [
            dataclasses.replace(entry, labels=record.labels)
            for name, record in zip(names, videos.records, strict=True)
            if (entry := entries.get(name)) and (entry.file is None or cache.find(name, keys[name]))
        ]
        result = FeatureSet(folder, videos.class_names, videos.multi_label, tuple(listed), facts)
        if len(result):
            result.save()
    _refuse_nothing(result)
    return result


def feature_videos(
    data: str | os.PathLike[str],
    root: str | os.PathLike[str] | None,
    split: str,
    whole: bool = False,
) -> VideoSet:
    """The videos of DATA, with labels where it has some.

    Args:
        data: as for `read_data`; also a folder without class folders, or a single video.
        root: as for `read_data`.
        split: as for `read_data`.
        whole: whole videos, each once, where DATA is a list of segments.

    Raises:
        DataError: there is nothing to read.
        UsageError: there is no such part.
    """
    name, path = os.fspath(data), absolute(data)
    if whole and has_segments(name, listdir=list_remote, opener=open_remote):
        found = read_untrimmed(
            name, root=root, split=split, listdir=list_remote, opener=open_remote
        )
        return found.records()
    folders = Folders()
    if name not in DEMOS and not is_url(path):
        paths = [path] if os.path.isfile(path) and is_video(path) else []
        if os.path.isdir(path) and not any(
            folders.videos(join(path, inner)) for inner in folders.entries(path)[1]
        ):
            paths = folders.videos(path) if not split_files(folders.entries(path)[0]) else []
        if paths:
            if split != ALL:
                raise UsageError(f"{name} has no parts, so there is no part {split!r} of it.")
            return VideoSet(tuple(VideoRecord(video) for video in paths), (), source=name)
    return read_data(
        name,
        root=root,
        split=split,
        require_labels=False,
        listdir=list_remote,
        opener=open_remote,
    )


def feature_folder(model: Any, data: Any, layer: str, out: str | os.PathLike[str] | None) -> Path:
    """Where features go: `out`, or `features/DATA-LAYER` beside the model's file.

    Raises:
        UsageError: there is no such file, and `out` is not given.
    """
    if out is not None:
        return Path(out)
    if not isinstance(model, str | os.PathLike):
        raise UsageError("a model without a file needs out=, the folder for the features.")
    source = data.source if isinstance(data, VideoSet) else os.fspath(data)
    stem = Path(source.rstrip("/")).stem or "data"
    return model_file(model).parent / "features" / f"{stem}-{layer}"


def mirrored_root(videos: VideoSet, root: str | os.PathLike[str] | None) -> str | None:
    """The folder whose paths the files mirror: `root`, or DATA, or the folder of the list."""
    if root is not None:
        return absolute(root)
    source = videos.source
    if source.split(" ")[0] in DEMOS and videos.records:
        # Above PART/CLASS/VIDEO, or PART/VIDEO.
        return str(Path(videos.records[0].path).parents[1 if videos.per_frame else 2])
    path = absolute(source)
    if source and os.path.isdir(path):
        return path
    if source and (is_url(path) or os.path.isfile(path)):
        inside = any(record.path.startswith(f"{path}/") for record in videos.records)
        return path if inside else os.path.dirname(path)
    return None


class _NotFinite(Exception):
    """The model's output is not a number."""


def _write(
    cache: FeatureCache,
    name: str,
    key: str,
    record: VideoRecord,
    parts: Iterator[tuple[Block, np.ndarray | None]],
) -> VideoFeatures:
    """Writes one video's file; a video that fails gives an entry that says why."""
    times: list[tuple[float, float]] = []

    def rows() -> Iterator[np.ndarray]:
        for block, features in parts:
            if block.error is not None:
                raise block.error
            if features is None or block.times is None or len(features) != len(block.times):
                raise UsageError("the layer gives no row for each clip; choose another one.")
            if not np.isfinite(np.sum(features, dtype=np.float64)):
                raise _NotFinite("the layer's output is not a finite number")
            times.extend(block.times.tolist())
            yield features

    try:
        return VideoFeatures.of(record, cache.add(name, key, rows(), times), computed=True)
    except DecodeError as error:
        return VideoFeatures.failed(record, error.reason, error.detail)
    except _NotFinite as error:
        return VideoFeatures.failed(record, NOT_FINITE, str(error))


def _key(settings: list[Any], record: VideoRecord) -> str:
    """Identifies what a video's features come from."""
    text = json.dumps([settings, file_stamp(record.path), record.start, record.end])
    return hashlib.sha256(text.encode()).hexdigest()


def file_stamp(path: str) -> Any:
    """What changes when a file does, for JSON; of one that cannot be looked at, always anew."""
    try:
        if is_url(path):
            return stamp_remote(path)
        found = os.stat(path)
        return found.st_size, found.st_mtime_ns
    except OSError:
        return secrets.token_hex()


def _refuse_nothing(result: FeatureSet) -> None:
    if not result.videos:
        raise DataError("there are no videos to take features of.")
    if result.failures and len(result.failures) == len(result.videos):
        first = result.failures[0]
        raise DataError(
            f"none of {plural(len(result.videos), 'video')} gave features. The first is "
            f"{first.path}: {first.error}."
        )
