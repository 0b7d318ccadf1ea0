"""Localizers tested and used, from Python: as `kvideo localize evaluate` and `predict`."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any

from kvideo.data.threads import default_workers
from kvideo.data.untrimmed import UntrimmedSet, read_untrimmed, video_name
from kvideo.errors import DataError
from kvideo.files import check_writable, make_folder, write_text_atomic
from kvideo.localization.index import INDEX
from kvideo.localization.metrics import ACTIVITYNET_TIOUS
from kvideo.localization.results import (
    Localization,
    LocalizationResult,
    read_results,
    results_document,
    summarize_localizations,
)
from kvideo.progress import Progress, say_to_stderr
from kvideo.results import json_text
from kvideo.scores import describe_run
from kvideo.text import enumerate_words, plural

EVALUATION, RESULTS = "evaluation.json", "results.json"


def evaluate(
    model: Any,
    data: str | os.PathLike[str] | UntrimmedSet,
    *,
    root: str | os.PathLike[str] | None = None,
    split: str | None = None,
    stream: str | None = None,
    tious: Sequence[float] = ACTIVITYNET_TIOUS,
    settings: dict[str, Any] | None = None,
    out: str | os.PathLike[str] | None = None,
    precision: str = "float32",
    batch_size: int = 8,
    workers: int | None = None,
    decoder: str = "pyav",
    verbose: bool = True,
) -> LocalizationResult:
    """Tests a localizer; like `kvideo localize evaluate`.

    The figures are those of ActivityNet's official evaluation.

    Args:
        model: a `Localizer` or its folder; or a model with a label for each frame, whose
            probabilities are grouped (the one-stage baseline); or a file of results in
            ActivityNet's form, by whomever.
        data: see `fit`; by default its test part or else its validation part.
        root: see `fit`; not needed for a file of results.
        split: which part of the data.
        stream: only this one of the localizer's streams, such as `"flow"`; by default their fusion.
        tious: overlaps from which on a segment counts as found.
        settings: changes to `DetectionSettings`, such as `{"suppression": "soft-nms"}`.
        out: a folder for `evaluation.json`, and `results.json` in ActivityNet's form.
        precision: see `fit`.
        batch_size: see `fit`.
        workers: see `fit`.
        decoder: see `fit`.
        verbose: progress on standard error.

    Returns:
        Figures, average precisions of each class, and what was found in each video.

    Raises:
        ModelFileError: the model cannot be loaded.
        DataError: the data cannot be used, or its classes are not the model's.
    """
    from kvideo.data.remote import list_remote, open_remote

    if out is not None:
        check_writable(out)
    source = None
    if not is_results_file(model):
        from kvideo.localization.sources import open_source

        source = open_source(
            model,
            stream=stream,
            settings=settings,
            keep=True,
            precision=precision,
            batch_size=batch_size,
            workers=workers or default_workers(),
            decoder=decoder,
        )
    truth = data
    if not isinstance(truth, UntrimmedSet):
        truth = read_untrimmed(
            truth,
            root=root,
            split=split,
            prefer=("test", "val"),
            class_names=None if source is None else source.class_names,
            must_exist=source is not None,
            keep_faults=True,
            listdir=list_remote,
            opener=open_remote,
        )
    for note in truth.notes if verbose else ():
        say_to_stderr(f"Note: {note}")
    if source is None:
        found = read_results(model)
        _check_labels(found, truth)
    else:
        found = []
        with Progress(len(truth), "localizing", unit="video", quiet=not verbose) as progress:
            for each in source.localize([(v.name, str(v.path)) for v in truth.videos]):
                found.append(each)
                progress.update()
        if all(each.error is not None for each in found):
            first = found[0]
            raise DataError(
                f"none of {plural(len(found), 'video')} could be read. The first is {first.path}: "
                f"{first.error}."
            )
    details = describe_run(
        model=model if isinstance(model, str | os.PathLike) else type(model).__name__,
        data=truth.source,
        stream=stream,
        settings=settings,
        precision=precision,
    )
    result = summarize_localizations(truth, found, tious, details=details)
    if out is not None:
        folder = make_folder(out)
        write_text_atomic(folder / EVALUATION, json_text(result.to_json()))
        write_text_atomic(folder / RESULTS, json_text(results_document(found)))
    return result


def predict(
    model: Any,
    files: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    *,
    stream: str | None = None,
    settings: dict[str, Any] | None = None,
    precision: str = "float32",
    batch_size: int = 8,
    workers: int | None = None,
    decoder: str = "pyav",
) -> Iterator[Localization]:
    """Finds segments in video files of any length; like `kvideo localize predict`.

    Args:
        model: a `Localizer` or its folder, or a model with a label for each frame.
        files: one or several files; a folder means all videos in it.
        stream: see `evaluate`.
        settings: see `evaluate`.
        precision: see `fit`.
        batch_size: see `fit`.
        workers: see `fit`.
        decoder: see `fit`.

    Yields:
        One `Localization` for each file, in order, as soon as it is there. A file that fails has
        `error` set.

    Raises:
        ModelFileError: the model cannot be loaded.
        DataError: a folder holds no video.
    """
    from kvideo.api import videos_of
    from kvideo.localization.sources import open_source

    paths = videos_of([files] if isinstance(files, str | os.PathLike) else list(files))
    source = open_source(
        model,
        stream=stream,
        settings=settings,
        precision=precision,
        batch_size=batch_size,
        workers=workers or default_workers(),
        decoder=decoder,
    )
    return source.localize([(video_name(path), path) for path in paths])


def is_results_file(model: Any) -> bool:
    """Whether a model is a file of results."""
    if not isinstance(model, str | os.PathLike):
        return False
    name = os.path.basename(os.fspath(model))
    return name.endswith(".json") and name != INDEX


def _check_labels(found: Sequence[Localization], truth: UntrimmedSet) -> None:
    """Refuses results none of whose classes is one of the truth's."""
    said = sorted({segment.label for each in found for segment in each.segments})
    if said and set(said).isdisjoint(truth.class_names):
        raise DataError(
            f"the results name the classes {enumerate_words(said)}, none of which is among those "
            f"of {truth.source} ({enumerate_words(truth.class_names)})."
        )
