"""Localizers tested and used, from Python: as `kvideo localize evaluate` and `predict`."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator, Sequence
from typing import Any

from kvideo.data.untrimmed import UntrimmedSet, read_untrimmed, video_name
from kvideo.errors import DataError, UsageError
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
            workers=workers,
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
            keep_missing=True,
            listdir=list_remote,
            opener=open_remote,
        )
    for note in truth.notes if verbose else ():
        say_to_stderr(f"Note: {note}")
    if source is None:
        found = _same_names(read_results(model), truth)
        _check_labels(found, truth)
    else:
        found = []
        there = [(v.name, v.path) for v in truth.videos if v.path is not None]
        with Progress(None, "localizing", unit="row", quiet=not verbose) as progress:
            found += source.localize(there, progress.update)
        found += [
            Localization(v.name, v.name, error="there is no such file")
            for v in truth.videos
            if v.path is None
        ]
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
        precision=None if source is None else precision,
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
    from kvideo.data.listing import videos_of
    from kvideo.localization.sources import open_source

    paths = videos_of([files] if isinstance(files, str | os.PathLike) else list(files))
    source = open_source(
        model,
        stream=stream,
        settings=settings,
        precision=precision,
        batch_size=batch_size,
        workers=workers,
        decoder=decoder,
    )
    return source.localize([(video_name(path), path) for path in paths])


def is_results_file(model: Any) -> bool:
    """Whether a model is a file of results.

    Raises:
        UsageError: it is one, but not JSON.
    """
    if not isinstance(model, str | os.PathLike):
        return False
    name = os.path.basename(os.fspath(model)).lower()
    if name.endswith(".csv"):
        raise UsageError(f"{os.fspath(model)}: results must be JSON in ActivityNet's form.")
    return name.endswith(".json") and name != INDEX


def _same_names(found: list[Localization], truth: UntrimmedSet) -> list[Localization]:
    """The results under the truth's names, which some programs write with an ending or `v_`.

    Raises:
        DataError: they have no video in common.
    """
    known = {video.name for video in truth.videos}
    renamed = []
    for each in found:
        stem = video_name(each.name)
        names = (each.name, stem, stem.removeprefix("v_"), f"v_{stem}")
        name = next((name for name in names if name in known), each.name)
        renamed.append(dataclasses.replace(each, name=name))
    if known.isdisjoint(each.name for each in renamed):
        one, other = (
            next(iter(sorted(names)), "none") for names in ([each.name for each in found], known)
        )
        raise DataError(
            f"none of the {plural(len(found), 'video')} of the results is among those of "
            f"{truth.source} (the first are {one} and {other})."
        )
    return renamed


def _check_labels(found: Sequence[Localization], truth: UntrimmedSet) -> None:
    """Refuses results none of whose classes is one of the truth's; tells of some that are not."""
    said = sorted({segment.label for each in found for segment in each.segments})
    strange = [label for label in said if label not in truth.class_names]
    if said and len(strange) == len(said):
        raise DataError(
            f"the results name the classes {enumerate_words(said)}, none of which is among those "
            f"of {truth.source} ({enumerate_words(truth.class_names)})."
        )
    if strange:
        say_to_stderr(
            f"Note: {plural(len(strange), 'class')} of the results ({enumerate_words(strange)}) "
            f"not in {truth.source}: segments of these are left out."
        )
