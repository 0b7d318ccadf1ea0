"""Trains a localizer: features of each stream, anchor scales, a head on each, one folder."""

from __future__ import annotations

import csv
import dataclasses
import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from kvideo.data.untrimmed import UntrimmedSet, fit_segments, note_of, read_untrimmed
from kvideo.errors import DataError, UsageError
from kvideo.files import check_writable, write_text_atomic
from kvideo.localization.anchors import choose_scales
from kvideo.localization.index import is_localizer
from kvideo.localization.localizer import Localizer, Stream
from kvideo.localization.streams import Reading, Rows, keep_features
from kvideo.localization.training import Example, HeadSettings, adapt_normalization, train_head
from kvideo.models.tal_net import tal_net
from kvideo.progress import Progress, say_nothing, say_to_stderr
from kvideo.saving import check_single, load_model, model_info
from kvideo.scores import describe_run
from kvideo.text import plural

if TYPE_CHECKING:
    from kvideo.data.formats import Opener
    from kvideo.data.listing import ListDir

HISTORY = "history.csv"
_ROWS_IN_SHORTEST = 8  # of features, in the shortest training segments
_STRIDES = (0.05, 4.0)  # seconds, that are chosen
_LARGEST_STRIDE = 60.0  # that may be asked for

History = dict[str, list[dict[str, float]]]


@dataclasses.dataclass(frozen=True, eq=False)
class LocalizerRun:
    """What `fit` has made.

    Attributes:
        folder: holds the localizer, `features/` and `history.csv`.
        localizer: trained.
        history: of each stream a row of losses for each epoch.
        notes: sentences about what was found in the data.
    """

    folder: Path
    localizer: Localizer
    history: History
    notes: tuple[str, ...]


def fit(
    data: str | os.PathLike[str] | UntrimmedSet,
    models: Any,
    *,
    out: str | os.PathLike[str],
    root: str | os.PathLike[str] | None = None,
    split: str | None = None,
    layer: str = "features",
    stride: float | None = None,
    epochs: int = 40,
    learning_rate: float = 1e-3,
    dropout: float = 0.5,
    filters: int = 256,
    seed: int = 0,
    precision: str = "float32",
    batch_size: int = 8,
    workers: int | None = None,
    decoder: str = "pyav",
    overwrite: bool = False,
    verbose: bool = True,
) -> LocalizerRun:
    """Trains a localizer on untrimmed videos; like `kvideo localize fit`.

    Of each model one layer's output on a sliding window is a stream of features, which is written
    into `out/features` and not computed again. On each stream a `tal_net` is trained.

    Args:
        data: segments of untrimmed videos, see `kvideo.data.untrimmed.read_untrimmed`.
        models: one classifier or a list of them (`keras.Model` with `ModelInfo`, `.keras` files,
            runs' folders), of any classes: what they have learned describes the videos.
        out: the localizer's folder.
        root: the folder that holds the videos; by default the annotations' own.
        split: the part of the data to train on; by default the training part, if there are parts.
        layer: whose output is taken, averaged over places.
        stride: seconds from window to window; by default an eighth of the length of the shortest
            training segments (the fifth percentile), between 0.05 and 4.
        epochs: times that each video is seen.
        learning_rate: at its highest.
        dropout: share of the features that training leaves out.
        filters: channels of the heads' layers.
        seed: of everything random.
        precision: of the classifiers, `"float32"`, `"bfloat16"` or `"auto"`.
        batch_size: most clips that are run at once.
        workers: decoding threads; by default as many as processors.
        decoder: the name of a `kvideo.decoders` entry point.
        overwrite: whether a localizer that is there may be replaced.
        verbose: progress on standard error.

    Raises:
        ModelFileError: a model cannot be loaded.
        DataError: the data cannot be used.
        UsageError: a value is out of its range, or there is a localizer already.
    """
    from kvideo.data.threads import default_workers
    from kvideo.hardware import choose_precision

    folder = Path(out)
    if is_localizer(folder) and not overwrite:
        raise UsageError(f"{folder} holds a localizer already; overwrite it, or name another.")
    given = [models] if isinstance(models, str | os.PathLike | keras.Model) else list(models)
    settings = HeadSettings(epochs, learning_rate, seed=seed)
    _check(given, stride, dropout, filters)
    videos = data if isinstance(data, UntrimmedSet) else _read(data, root, split)
    if not videos.num_segments:
        raise DataError(f"{videos.source}: none of the training videos has a segment.")
    check_writable(folder)
    precision = choose_precision(precision)
    extractors = [_load(model, precision) for model in given]
    names = stream_names(extractors)
    stride = stride or default_stride(videos)
    say = say_to_stderr if verbose else say_nothing
    for note in videos.notes:
        say(f"Note: {note}")
    say(
        f"{plural(len(videos), 'video')} with {plural(videos.num_segments, 'segment')} of "
        f"{plural(len(videos.class_names), 'class')}; features every {stride:g} s."
    )
    reading = Reading(layer, stride, batch_size, workers or default_workers(), decoder, precision)
    rows = [
        _features(videos, extractor, name, folder, reading, verbose)
        for name, extractor in zip(names, extractors, strict=True)
    ]
    usable, notes = _usable(videos, rows, stride)
    for note in notes:
        say(f"Note: {note}")
    scales = choose_scales([b - a for v in usable for a, b in v.segments])
    listed = ", ".join(f"{scale * stride:.2g}" for scale in scales)
    say(f"Anchors of {listed} s.")
    streams, history = [], {}
    for place, (name, extractor) in enumerate(zip(names, extractors, strict=True)):
        examples = [
            Example(video.rows[place].load(), video.segments, video.labels) for video in usable
        ]
        keras.utils.set_random_seed(seed)
        head = tal_net(
            len(videos.class_names),
            input_shape=(None, examples[0].features.shape[1]),
            scales=scales,
            filters=filters,
            dropout=dropout,
        )
        adapt_normalization(head, examples)
        history[name] = _train(head, examples, scales, settings, name, verbose)
        streams.append(Stream(name, extractor, layer, head))
    details = describe_run(
        data=videos.source, root=root, split=split,
        models=[m if isinstance(m, str | os.PathLike) else m.name for m in given],
        epochs=epochs, learning_rate=learning_rate, dropout=dropout, filters=filters, seed=seed,
        precision=precision,
    )  # fmt: skip
    localizer = Localizer(videos.class_names, stride, scales, tuple(streams), details=details)
    localizer.save(folder)
    write_text_atomic(folder / HISTORY, _history_csv(history))
    return LocalizerRun(folder, localizer, history, (*videos.notes, *notes))


def default_stride(videos: UntrimmedSet) -> float:
    """An eighth of the fifth percentile of the segments' lengths, in hundredths of a second."""
    lengths = [s.end - s.start for v in videos.videos for s in v.segments]
    known = [length for length in lengths if 0 < length < float("inf")]
    if not known:
        return 0.25
    wanted = float(np.quantile(known, 0.05)) / _ROWS_IN_SHORTEST
    return round(float(np.clip(wanted, *_STRIDES)), 2)


def stream_names(extractors: Sequence[keras.Model]) -> list[str]:
    """`rgb`, `flow` …, by what the models look at; a number behind where there are several.

    Raises:
        UsageError: one of them is a fusion.
    """
    names: list[str] = []
    for model in extractors:
        info = model_info(model)
        check_single(info, "features are taken from")
        kind = info.clip_spec.modality.replace("+", "_")
        same = sum(name.rstrip("0123456789") == kind for name in names)
        names.append(f"{kind}{same + 1}" if same else kind)
    return names


@dataclasses.dataclass(frozen=True)
class _Video:
    """A training video: the features of each stream, segments in steps, labels."""

    rows: tuple[Rows, ...]
    segments: np.ndarray
    labels: np.ndarray


def _check(models: Sequence[Any], stride: float | None, dropout: float, filters: int) -> None:
    if not models:
        raise UsageError("a localizer needs at least one model to take features from.")
    places = [os.path.realpath(m) if isinstance(m, str | os.PathLike) else id(m) for m in models]
    if len(set(places)) < len(places):
        raise UsageError("the same model comes twice; two equal streams say no more than one.")
    if filters < 1:
        raise UsageError(f"filters must be at least 1, not {filters}.")
    if stride is not None and not _STRIDES[0] <= stride <= _LARGEST_STRIDE:
        raise UsageError(
            f"the stride must be from {_STRIDES[0]} to {_LARGEST_STRIDE:g} s, not {stride}."
        )
    if not 0 <= dropout < 1:
        raise UsageError(f"dropout must be from 0 to below 1, not {dropout}.")


def _read(data: Any, root: Any, split: str | None) -> UntrimmedSet:
    listdir, opener = remote_access()
    return read_untrimmed(data, root=root, split=split, listdir=listdir, opener=opener)


def remote_access() -> tuple[ListDir, Opener]:
    """How URL-like folders are listed and files opened."""
    from kvideo.data.remote import list_remote, open_remote

    return list_remote, open_remote


def _load(model: Any, precision: str) -> keras.Model:
    return load_model(model, precision=precision) if not isinstance(model, keras.Model) else model


def _features(
    videos: UntrimmedSet,
    extractor: keras.Model,
    name: str,
    folder: Path,
    reading: Reading,
    verbose: bool,
) -> list[Rows]:
    paths = [str(video.path) for video in videos.videos]
    with Progress(len(paths), f"features {name}", unit="video", quiet=not verbose) as progress:
        return keep_features(
            extractor,
            paths,
            folder / "features" / name,
            reading,
            on_rows=lambda _: progress.update(),
        )


def _usable(
    videos: UntrimmedSet, rows: Sequence[Sequence[Rows]], stride: float
) -> tuple[list[_Video], list[str]]:
    """The videos of which every stream has features, and what had to be left out."""
    usable, failed, phrases = [], [], []
    for video, own in zip(videos.videos, zip(*rows, strict=True), strict=True):
        if wrong := next((each for each in own if each.error is not None), None):
            failed.append(f"{video.path}: {wrong.error}")
            continue
        segments, changed = fit_segments(video, own[0].duration, stride)
        phrases += changed
        spans = np.array([[s.start, s.end] for s in segments], np.float64).reshape(-1, 2) / stride
        usable.append(_Video(own, spans, np.array([s.label for s in segments], np.int64)))
    notes = (
        [note_of(failed, "video could not be read", "videos could not be read")] if failed else []
    )
    if phrases:
        notes.append(
            note_of(phrases, "segment does not fit its video", "segments do not fit their videos")
        )
    if not any(len(video.segments) for video in usable):
        raise DataError(
            f"{videos.source}: none of the segments lies inside a video that can be read."
        )
    return usable, notes


def _train(
    head: keras.Model,
    examples: Sequence[Example],
    scales: Sequence[float],
    settings: HeadSettings,
    name: str,
    verbose: bool,
) -> list[dict[str, float]]:
    rows: list[dict[str, float]] = []
    with Progress(settings.epochs, f"tal_net {name}", unit="epoch", quiet=not verbose) as progress:

        def add(row: dict[str, float]) -> None:
            rows.append(row)
            progress.update(1, loss=row["loss"])

        train_head(head, examples, scales, settings, on_epoch=add)
    return rows


def _history_csv(history: History) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    for number, (name, rows) in enumerate(history.items()):
        if not number:
            writer.writerow(["stream", *rows[0]])
        for row in rows:
            writer.writerow([name, *(f"{v:g}" if k != "epoch" else v for k, v in row.items())])
    return text.getvalue()
