"""Detectors trained, tested and used, from Python: as `kvideo detect fit|evaluate|predict`."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from kvideo.data.actors import ActorSet
from kvideo.data.listing import videos_of
from kvideo.data.records import VideoRecord
from kvideo.data.untrimmed import video_name
from kvideo.detection.box_sources import GivenBoxes, PersonDetector
from kvideo.detection.reading import part_files, place_of, read_boxes_data
from kvideo.detection.result_files import is_results_file, matched_results, read_results
from kvideo.detection.results import VideoActors, action_boxes
from kvideo.detection.scoring import DetectionResult, score_detections
from kvideo.detection.settings import split_settings
from kvideo.detection.tubes import LinkSettings
from kvideo.errors import DataError, UsageError
from kvideo.files import check_writable, make_folder, write_text_atomic
from kvideo.progress import Progress, say_to_stderr
from kvideo.results import json_text
from kvideo.scores import describe_run
from kvideo.text import plural

EVALUATION, RESULTS = "evaluation.json", "results.csv"
TRUTH = "truth"


def fit(data: str | os.PathLike[str], model: str | None = None, **settings: Any) -> Any:
    """Trains a detector on labelled boxes; like `kvideo detect fit`.

    Args:
        data: boxes, see `kvideo.detection.reading.read_boxes_data`.
        model: a registered model's name, whose `feature_map` the detector works on.
        **settings: of the detector (`person_head`, `filters`, `context`, `scene_attention`,
            `dropout`, see `kvideo.models.actor_detector`; `classes`, `excluded`, `val_excluded`,
            see `read_actors`), and fields of `kvideo.Experiment`; `overwrite`, `resume` and
            `callbacks` as in `kvideo.fit`.

    Returns:
        A `FitResult`.

    Raises:
        UsageError: a setting is unknown, or out of its range.
        DataError: the data cannot be trained on.
    """
    from kvideo.training import Experiment, run

    how = {n: settings.pop(n) for n in ("overwrite", "resume", "callbacks") if n in settings}
    of_detector, rest = split_settings(settings)
    fields = {field.name for field in dataclasses.fields(Experiment)}
    if unknown := sorted(set(rest) - fields):
        raise UsageError(f"there is no setting {unknown[0]!r}.")
    return run(Experiment(os.fspath(data), model, detector=of_detector, **rest), **how)


def evaluate(
    model: Any,
    data: str | os.PathLike[str] | ActorSet,
    *,
    root: str | os.PathLike[str] | None = None,
    split: str | None = None,
    classes: Any = None,
    excluded: str | os.PathLike[str] | None = None,
    boxes: str | os.PathLike[str] | None = None,
    person_detector: str | None = None,
    settings: dict[str, Any] | None = None,
    tubes: LinkSettings | None = None,
    threshold: float = 0.3,
    out: str | os.PathLike[str] | None = None,
    precision: str = "float32",
    batch_size: int = 8,
    workers: int | None = None,
    decoder: str = "pyav",
    verbose: bool = True,
) -> DetectionResult:
    """Tests a detector on labelled boxes; like `kvideo detect evaluate`.

    frame-mAP is that of AVA's official evaluation.

    Args:
        model: a detector (`keras.Model`, file, or run's folder); or a CSV of results in AVA's form,
            by whomever.
        data: boxes, see `kvideo.detection.reading.read_boxes_data`; of a folder by default the test
            part, or else the validation part.
        root: the folder that holds the videos; not needed for a file of results.
        split: which part of the data.
        classes: see `read_actors`; by default the model's.
        excluded: a list of moments that do not count; by default the one beside the data.
        boxes: a file of AVA's proposals, or `"truth"`: what is found in these boxes, rather than in
            those of the person head.
        person_detector: the name of a `kvideo.person_detectors` entry point, likewise.
        settings: changes to `ActorSettings`.
        tubes: how boxes are linked, for video-mAP.
        threshold: least probability of an action in a tube.
        out: a folder for `evaluation.json`, and `results.csv` in AVA's form.
        precision: `"float32"`, `"bfloat16"` or `"auto"`.
        batch_size: most clips that are run at once.
        workers: decoding threads; by default as many as processors.
        decoder: the name of a `kvideo.decoders` entry point.
        verbose: progress on standard error.

    Raises:
        ModelFileError: the model cannot be loaded.
        DataError: the data cannot be used, or its classes are not the model's.
    """
    if out is not None:
        check_writable(out)
    if is_results_file(model):
        if boxes is not None or person_detector is not None or settings:
            raise UsageError(f"{model} holds results; boxes and their settings are a model's.")
        truth = _truth(data, root, split, classes, excluded, must_exist=False)
        said = read_results(model, truth.class_names, truth.numbers)
        said = matched_results(said, truth, os.fspath(model))
        details = describe_run(model=os.fspath(model), data=truth.source)
        return _kept(score_detections(truth, said, details=details), truth, out)
    runner = _Runner(model, settings, precision, batch_size, workers, decoder)
    names = runner.class_names if classes is None else classes
    truth = _truth(data, root, split, names, excluded, must_exist=True)
    for note in truth.notes if verbose else ():
        say_to_stderr(f"Note: {note}")
    source = runner.source(boxes, person_detector, truth)
    moments: dict[str, list[float]] = {video: [] for video in truth.paths}
    for frame in sorted(set(truth.frames) - truth.excluded):
        moments[frame[0]].append(frame[1])
    videos = [(name, VideoRecord(truth.paths[name]), own) for name, own in moments.items()]
    total = sum(map(len, moments.values()))
    with Progress(total, "detecting", unit="moment", quiet=not verbose) as progress:
        found = list(runner.detect(videos, source, progress.update))
    if all(video.error is not None for video in found):
        raise DataError(
            f"none of {plural(len(found), 'video')} could be read. The first is {found[0].path}: "
            f"{found[0].error}."
        )
    details = describe_run(
        model=model if isinstance(model, str | os.PathLike) else model.name, data=truth.source,
        boxes=None if boxes is None else os.fspath(boxes), person_detector=person_detector,
        settings=settings, precision=precision,
    )  # fmt: skip
    result = score_detections(
        truth, action_boxes(found), found, tubes=tubes, threshold=threshold, details=details
    )
    return _kept(result, truth, out)


def predict(
    model: Any,
    files: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    *,
    step: float = 0.5,
    boxes: str | os.PathLike[str] | None = None,
    person_detector: str | None = None,
    settings: dict[str, Any] | None = None,
    precision: str = "float32",
    batch_size: int = 8,
    workers: int | None = None,
    decoder: str = "pyav",
    on_moments: Callable[[int], None] | None = None,
) -> Iterator[VideoActors]:
    """Finds actors and what they do in video files of any length; like `kvideo detect predict`.

    Args:
        model: a detector (`keras.Model`, file, or run's folder).
        files: one or several files; a folder means all videos in it.
        step: seconds from one moment that is looked at to the next. With `boxes` of a file it is
            the file's moments that are looked at.
        boxes: see `evaluate`.
        person_detector: see `evaluate`.
        settings: see `evaluate`.
        precision: see `evaluate`.
        batch_size: see `evaluate`.
        workers: see `evaluate`.
        decoder: see `evaluate`.
        on_moments: is called now and then with the number of new moments.

    Yields:
        One `VideoActors` for each file, in order, as soon as it is there; its `tubes()` are the
        actors over time. A file that fails has `error` set.

    Raises:
        ModelFileError: the model cannot be loaded.
        DataError: a folder holds no video.
        UsageError: a setting is out of its range.
    """
    from kvideo.data.keyframes import moments_of
    from kvideo.errors import DecodeError

    if isinstance(step, bool) or not isinstance(step, int | float) or not 0.02 <= step <= 60:
        raise UsageError(f"step must be from 0.02 to 60 seconds, not {step!r}.")
    paths = videos_of([files] if isinstance(files, str | os.PathLike) else list(files))
    runner = _Runner(model, settings, precision, batch_size, workers, decoder)
    source = runner.source(boxes, person_detector, None)

    def found() -> Iterator[VideoActors]:
        for path in paths:
            name, record = video_name(path), VideoRecord(path)
            try:
                first, last, _ = runner.reader.span(record)
            except DecodeError as error:
                yield VideoActors(path, name, error=str(error.detail))
                continue
            moments = moments_of(last - first, step).tolist()
            if isinstance(source, GivenBoxes):
                listed = source.moments(path, name)
                moments = [time for time in listed if time <= last]
                if not moments:
                    yield VideoActors(path, name, last, error=_without_boxes(source, listed, last))
                    continue
                if len(moments) < len(listed):
                    say_to_stderr(
                        f"Note: {plural(len(listed) - len(moments), 'moment')} of {source.source} "
                        f"beyond the end of {path} ({last:.2f} s): passed over."
                    )
            for each in runner.detect([(name, record, moments)], source, on_moments):
                yield dataclasses.replace(each, duration=last)

    return found()


def _without_boxes(source: GivenBoxes, listed: Sequence[float], last: float) -> str:
    if not listed:
        return f"{source.source} has no box of this video"
    return f"its first box in {source.source} is at {listed[0]:g} s, but it lasts {last:.2f} s"


class _Runner:
    """A loaded detector, and how it reads videos."""

    def __init__(
        self,
        model: Any,
        settings: dict[str, Any] | None,
        precision: str,
        batch_size: int,
        workers: int | None,
        decoder: str,
    ) -> None:
        from kvideo.data.pipeline import clip_reader
        from kvideo.data.threads import default_workers
        from kvideo.detection.detector import ActorSettings, Detector
        from kvideo.hardware import choose_precision
        from kvideo.saving import load_model, model_info

        known = {field.name for field in dataclasses.fields(ActorSettings)}
        if unknown := sorted(set(settings or {}) - known):
            raise UsageError(f"there is no setting {unknown[0]!r}, but {', '.join(sorted(known))}.")
        if isinstance(model, str | os.PathLike):
            model = load_model(model, precision=choose_precision(precision))
        info = model_info(model)
        self._detector = Detector(model, ActorSettings(**(settings or {})), batch_size)
        self.class_names = info.class_names
        self.reader = clip_reader(info.clip_spec, decoder)
        self._workers, self._decoder = workers or default_workers(), decoder

    def source(self, boxes: Any, person_detector: str | None, truth: ActorSet | None) -> Any:
        """Where boxes come from; None: the person head."""
        from kvideo.registry import get_decoder, get_person_detector

        if boxes is not None and person_detector is not None:
            raise UsageError("boxes come from a file or from a person detector, not from both.")
        if person_detector is not None:
            run = get_person_detector(person_detector)
            return PersonDetector(run, get_decoder(self._decoder), person_detector)
        if boxes is None:
            if not self._detector.has_head:
                raise UsageError("this detector has no person head; give it boxes.")
            return None
        if os.fspath(boxes) != TRUTH:
            return GivenBoxes.of_file(boxes)
        if truth is None:
            raise UsageError('boxes="truth" is for tests; nothing is known of these videos.')
        return GivenBoxes.of_truth(truth)

    def detect(self, videos: Any, source: Any, on_moments: Any) -> Iterator[VideoActors]:
        """See `kvideo.detection.running.detect`."""
        from kvideo.detection.running import detect

        return detect(
            self._detector, videos, self.reader, self._workers, boxes=source, on_moments=on_moments
        )


def _truth(
    data: str | os.PathLike[str] | ActorSet,
    root: Any,
    split: str | None,
    classes: Any,
    excluded: Any,
    *,
    must_exist: bool,
) -> ActorSet:
    if isinstance(data, ActorSet):
        return data
    if split is None and os.path.isdir(place_of(data)):
        parts = part_files(place_of(data))
        split = next((part for part in ("test", "val") if part in parts), None)
        if parts and split is None:
            raise UsageError(
                f"{data} has no part to test on, only {', '.join(parts)}; name one with --split."
            )
    return read_boxes_data(
        data, split=split, root=root, classes=classes, excluded=excluded, must_exist=must_exist
    )


def _kept(result: DetectionResult, truth: ActorSet, out: Any) -> DetectionResult:
    from kvideo.detection.result_files import results_csv

    if out is not None:
        folder = make_folder(out)
        write_text_atomic(folder / EVALUATION, json_text(result.to_json()))
        if result.found:
            write_text_atomic(folder / RESULTS, results_csv(result.found, truth.numbers))
    return result
