"""From an experiment with a detector to the loop that trains it."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import keras

from kvideo.analysis import count_parameters
from kvideo.cluster import Cluster
from kvideo.data.failures import Failures
from kvideo.data.keyframes import KeyframeClips, KeyframeSet
from kvideo.data.pipeline import VideoSource, clip_reader
from kvideo.data.records import VideoSet, fingerprint
from kvideo.data.sampling import Augmentation
from kvideo.data.threads import default_workers
from kvideo.detection.detector import Detector
from kvideo.detection.settings import OF_MODEL
from kvideo.detection.stages import has_person_head, split
from kvideo.detection.step import compile_detector_step
from kvideo.detection.validation import DetectorValidation
from kvideo.errors import UsageError
from kvideo.models.actor_detector import LOGITS, actor_detector
from kvideo.saving import ModelInfo, load_model, model_info, read_info
from kvideo.text import plural
from kvideo.training.assembly import build_classifier, loop_options, set_up
from kvideo.training.experiment import Experiment
from kvideo.training.loop import Loop
from kvideo.training.optimizers import make_optimizer
from kvideo.training.transfer import copy_weights, freeze_up_to
from kvideo.training.videos import mirror_clips

_MOMENTUM = 0.9  # of batch norms, PyTorch's default


@contextlib.contextmanager
def assemble(
    experiment: Experiment,
    videos: VideoSet,
    validation: VideoSet | None,
    folder: Path,
    say: Callable[[str], None],
    quiet: bool,
    cluster: Cluster | None = None,
    callbacks: Sequence[Any] = (),
) -> Iterator[Loop]:
    """The loop of an experiment with a detector, ready to run.

    Args:
        experiment: with `detector` set.
        videos: what `kvideo.data.keyframes.keyframes` gives.
        validation: likewise, or None.
        folder: the run's.
        say: takes lines for a person.
        quiet: no progress bar.
        cluster: the processes that train together.
        callbacks: see `Loop`.

    Raises:
        UsageError: a setting that suits classifiers only, or see `kvideo.training.assembly`.
    """
    settings, weights = dict(experiment.detector or {}), experiment.weights
    cluster = cluster or Cluster()
    strategy = set_up(experiment, cluster)
    with strategy.scope():
        options = {name: settings[name] for name in OF_MODEL if name in settings}
        source = _former(experiment)
        if source is not None:
            experiment, options = _like(experiment, options, model_info(source))
        elif experiment.framing is None:
            experiment = dataclasses.replace(experiment, framing="letterbox")
        classifier, info, precision = build_classifier(experiment, videos, say)
        model = actor_detector(
            classifier, len(videos.class_names), name=f"{classifier.name}_detector", **options
        )
        if source is not None:
            others = model_info(source).class_names != videos.class_names
            copied = copy_weights(source, model, without=LOGITS if others else None)
            say(f"From {weights}: {copied}")
        if experiment.freeze:
            say(f"{freeze_up_to(model, experiment.freeze)} layers are frozen.")
        _follow_quickly(model)
        optimizer = make_optimizer(experiment, model)
    numbers = videos.numbers if isinstance(videos, KeyframeSet) else ()
    info = dataclasses.replace(info, detector=options, multi_label=True, class_numbers=numbers)
    spec = info.clip_spec
    augmentation = _augmentation(experiment)
    augmentation.check(spec.modality)
    reader = clip_reader(spec, experiment.decoder, keep_flow=True)
    workers, failures = experiment.workers or default_workers(), Failures()
    clips = KeyframeClips(
        videos,
        reader,
        augmentation,
        experiment.seed,
        workers,
        strict=experiment.strict,
        failures=failures,
        repeats=experiment.repeats,
        mirror=mirror_clips(experiment, videos),
        shift=_shift(settings),
    )
    validate = None
    if validation is not None:
        detector = Detector(model, batch_size=experiment.batch_size)
        validate = DetectorValidation(detector, validation, reader, workers, failures, cluster)
    height, width = spec.size
    cells = model.get_layer("feature_map").output.shape[2:4]
    say(
        f"{model.name}: {count_parameters(model):,} parameters, clips of "
        f"{plural(spec.num_frames, 'frame')} at {spec.frame_rate:g}/s, {height}×{width} "
        f"({spec.framing}), a map of {cells[0]}×{cells[1]} cells, {precision}, "
        f"{strategy.num_replicas_in_sync} device(s), "
        + ("mirrored at random." if clips.mirror else "not mirrored.")
    )
    if validation is not None and not has_person_head(model):
        say("There is no person head: validation is in the true boxes.")
    yield Loop(
        model,
        info,
        VideoSource(clips),
        optimizer,
        strategy,
        loop_options(experiment, clips.num_clips),
        folder,
        validate=validate,
        fingerprint=fingerprint(videos),
        say=say,
        quiet=quiet,
        cluster=cluster,
        callbacks=callbacks,
        make_step=compile_detector_step,
        of_clips=split(model)[0],
    )


def _shift(settings: dict[str, Any]) -> float:
    """Seconds by which moments are moved in training.

    Raises:
        UsageError: less than 0.
    """
    shift = settings.get("shift", 0.0)
    if not 0 <= shift < math.inf:
        raise UsageError(f"shift must be seconds, 0 or more, not {shift}.")
    return float(shift)


def _follow_quickly(model: keras.Model) -> None:
    """Lets the statistics of batch norms follow training of a few hundred steps.

    Backbones of `keras.applications` are made for trainings of many thousand steps: with their 0.99
    the person head would be tested with statistics of weights that are long gone.
    """
    for layer in model._flatten_layers():
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = min(layer.momentum, _MOMENTUM)


def _augmentation(experiment: Experiment) -> Augmentation:
    """The experiment's; letterboxed pictures are also enlarged, as much as they are shrunk.

    Mirroring is left to `KeyframeClips`.
    """
    found = experiment.augmentation(flip=False)
    return dataclasses.replace(found, max_scale=found.min_area**-0.5)


def _former(experiment: Experiment) -> keras.Model | None:
    """The detector that the training begins with; None if it begins with a classifier, or nothing.

    Raises:
        ModelFileError: the file cannot be loaded.
    """
    weights = experiment.weights
    if weights is None or not weights.endswith(".keras") or read_info(weights).detector is None:
        return None
    return load_model(weights)


def _like(
    experiment: Experiment, options: dict[str, Any], former: ModelInfo
) -> tuple[Experiment, dict[str, Any]]:
    """The experiment and the detector's options, as a former one's where nothing else is said.

    Raises:
        UsageError: the former one does not say how it was built.
    """
    builder, spec = former.builder, former.clip_spec
    if experiment.model is None and builder is None:
        raise UsageError(f"{experiment.weights} does not say how it was built; name its --model.")
    fields: dict[str, Any] = {"weights": None}
    if experiment.model is None and builder is not None:
        fields |= {"model": builder.name, "model_options": builder.options}
    for name in ("num_frames", "frame_rate", "size", "framing", "modality"):
        if getattr(experiment, name) is None:
            fields[name] = getattr(spec, name)
    known = {**(former.detector or {}), **options}
    return dataclasses.replace(experiment, **fields), known
