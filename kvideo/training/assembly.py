"""From an experiment's names to objects: model, data, optimizer, loop."""

from __future__ import annotations

import contextlib
import dataclasses
import io
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from kvideo.analysis import count_parameters
from kvideo.building import build_model
from kvideo.clip_spec import ClipSpec, recommended_clip, recommended_views
from kvideo.cluster import Cluster
from kvideo.data.annotations import VideoSet
from kvideo.data.failures import Failures
from kvideo.data.over_time import check_match
from kvideo.data.pipeline import ClipSource, VideoSource, class_counts, class_shares, clip_reader
from kvideo.data.records import fingerprint, mirrored_classes
from kvideo.data.shards.source import ShardSource, reads_as_shards
from kvideo.data.threads import default_workers
from kvideo.data.training_clips import TrainingClips
from kvideo.errors import UsageError
from kvideo.hardware import choose_precision, choose_strategy, suits_precision
from kvideo.layers.normalization import use_exact_statistics
from kvideo.registry import MODELS, Entry, find
from kvideo.saving import BuilderInfo, ModelInfo, load_model, model_info
from kvideo.segmentation.scoring import is_per_frame
from kvideo.text import plural
from kvideo.training.distillation import load_teacher
from kvideo.training.experiment import Experiment, experiment_clip
from kvideo.training.frozen import FrozenClips, FrozenFrames, FrozenParts
from kvideo.training.loop import Loop
from kvideo.training.loop_state import LoopOptions
from kvideo.training.losses import balanced_class_weights
from kvideo.training.objective import Objective
from kvideo.training.optimizers import LEARNING_RATES, make_optimizer
from kvideo.training.transfer import copy_weights, freeze_up_to, replace_head
from kvideo.training.validation import Validation
from kvideo.training.videos import mirror_clips

_STEPS = {"rgb": "frame", "flow": "flow", "rgb+flow": "frame"}


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
    """The loop of an experiment, ready to run; restores Keras's global settings afterwards.

    Raises:
        UsageError: an impossible clip, an unknown layer, a batch that the devices cannot share.
        UnknownNameError, PluginLoadError: the model.
        ModelFileError: the weights.
    """
    cluster = cluster or Cluster()
    strategy = set_up(experiment, cluster)
    with strategy.scope():
        model, info, precision = build_classifier(experiment, videos, say)
        _check_output(model, experiment, videos, info.clip_spec)
        if experiment.freeze:
            say(f"{freeze_up_to(model, experiment.freeze)} layers are frozen.")
        optimizer = make_optimizer(experiment, model)
        objective = _objective(experiment, info, is_per_frame(model), say)
    _check_data_settings(experiment, videos, info.clip_spec)
    reader = clip_reader(info.clip_spec, experiment.decoder, keep_flow=True)
    workers = experiment.workers or default_workers()
    mirror = mirror_clips(experiment, videos)
    failures = Failures()
    common = (videos, reader, experiment.augmentation(mirror), experiment.seed, workers)
    options: dict[str, Any] = {
        "strict": experiment.strict,
        "failures": failures,
        "repeats": experiment.repeats,
        "sampling": experiment.sampling,
    }
    clips, head, extract = TrainingClips(*common, **options), None, {}
    if experiment.model_options.get("frozen_backbone"):
        parts = FrozenParts.of(model)
        frames = FrozenFrames(parts.backbone, reader, experiment.batch_size)
        clips, head = FrozenClips(*common, **options, frames=frames), parts.head
        extract = {"extract": frames}
        say(f"The backbone is frozen; what it says of each frame is kept in {frames.folder}.")
        source: ClipSource = VideoSource(clips)
    elif reads_as_shards(videos, info.clip_spec):
        source = _shard_source(experiment, videos, info.clip_spec, mirror, failures, say)
    else:
        source = VideoSource(clips)
    if experiment.data_service and not isinstance(source, ShardSource):
        raise UsageError(_no_service(experiment, info.clip_spec))
    validate = None
    if validation is not None:
        validate = Validation(
            model if head is None else head,
            validation,
            reader,
            experiment.val_clips,
            experiment.batch_size,
            workers,
            failures,
            cluster=cluster,
            **extract,
        )
    spec = info.clip_spec
    say(
        f"{model.name}: {count_parameters(model):,} parameters, clips of "
        f"{plural(spec.num_frames, _STEPS[spec.modality])} at "
        f"{spec.frame_rate:g}/s{' with flow' if spec.modality == 'rgb+flow' else ''}, "
        f"{spec.size[0]}×{spec.size[1]}, {precision}, "
        f"{strategy.num_replicas_in_sync} device(s), "
        + (_why_not_mirrored(experiment, videos) or "mirrored at random.")
    )
    if reader.flow is not None:
        say(
            "Optical flow is computed in the first epoch, once for each video, and kept in "
            f"{reader.flow.cache.folder}."
        )
    if experiment.class_weights == "balanced":
        over_time = videos.per_frame
        counts = class_shares(videos, reader, workers) if over_time else class_counts(videos)
        weights = balanced_class_weights(counts)
        objective = dataclasses.replace(objective, class_weights=weights)

    def source_of(spec: ClipSpec) -> VideoSource:
        other = clip_reader(spec, experiment.decoder)
        return VideoSource(TrainingClips(videos, other, *common[2:], **options))

    if experiment.multigrid and info.clip_spec.modality != "rgb":
        raise UsageError("multigrid changes the shape of clips; it does not go with clips of flow.")
    yield Loop(
        model,
        info,
        source,
        optimizer,
        strategy,
        loop_options(experiment, clips.num_clips),
        folder,
        validate=validate,
        objective=objective,
        fingerprint=fingerprint(videos),
        say=say,
        quiet=quiet,
        cluster=cluster,
        source_of=source_of if experiment.multigrid else None,
        head=head,
        callbacks=callbacks,
    )


def set_up(experiment: Experiment, cluster: Cluster) -> tf.distribute.Strategy:
    """Sets seeds and determinism for the process; gives the strategy."""
    keras.utils.set_random_seed(experiment.seed)
    if experiment.deterministic:
        tf.config.experimental.enable_op_determinism()
    use_exact_statistics(experiment.deterministic)
    return cluster.strategy or choose_strategy(experiment.strategy)


def build_classifier(
    experiment: Experiment, videos: VideoSet, say: Callable[[str], None]
) -> tuple[keras.Model, ModelInfo, str]:
    """The classifier of an experiment, what is to be saved with it, and its precision.

    To be called in the strategy's scope.
    """
    precision = choose_precision(experiment.precision)
    if experiment.precision == "auto" and experiment.deterministic:
        precision = "float32"  # bfloat16 does not repeat to the bit everywhere
    model, info = _model(experiment, videos, precision, say)
    if experiment.precision == "auto" and not suits_precision(model, precision):
        precision = "float32"
        keras.utils.set_random_seed(experiment.seed)
        # What there is to say of the weights has been said.
        with contextlib.redirect_stderr(io.StringIO()):
            model, info = _model(experiment, videos, precision, lambda line: None)
    return model, info, precision


def _shard_source(
    experiment: Experiment,
    videos: VideoSet,
    spec: ClipSpec,
    mirror: bool,
    failures: Failures,
    say: Callable[[str], None],
) -> ShardSource:
    """Clips of shards: read here, or by a data service."""
    common = (videos, spec, experiment.augmentation(mirror), experiment.seed, experiment.strict)
    options: dict[str, Any] = {
        "failures": failures,
        # Several processes give one process's batches only where each takes rows of them.
        "by_file": not experiment.deterministic,
        "say": say,
        "repeats": experiment.repeats,
        "sampling": experiment.sampling,
    }
    if experiment.data_service is None:
        return ShardSource(*common, **options)
    if experiment.deterministic:
        raise UsageError(
            "the clips of a data service come in no fixed order; train without --data-service or "
            "without --deterministic."
        )
    from kvideo.data.shards.service import ServiceSource

    return ServiceSource(*common, **options, service=experiment.data_service)


def _no_service(experiment: Experiment, spec: ClipSpec) -> str:
    """Why a data service cannot make an experiment's clips."""
    if spec.has_flow:
        return "a data service cannot compute optical flow; train without --data-service."
    if experiment.model_options.get("frozen_backbone"):
        return "with a frozen backbone each video is read once only; train without --data-service."
    return (
        f"a data service reads shards, and {experiment.data} is none: videos are decoded by a "
        f"Python function, which cannot run there. `kvideo shard {experiment.data} OUT` makes "
        "shards of it; train on OUT."
    )


def _objective(
    experiment: Experiment, info: ModelInfo, per_frame: bool, say: Callable[[str], None]
) -> Objective:
    """The loss, but for the weights of the classes."""
    teacher = None
    if experiment.distill is not None:
        if experiment.model_options.get("frozen_backbone"):
            raise UsageError(
                "with frozen_backbone the model is trained on features, and a teacher needs clips."
            )
        precision = choose_precision(experiment.precision)
        if experiment.precision == "auto" and experiment.deterministic:
            precision = "float32"
        student = dataclasses.replace(info, per_frame=per_frame)
        teacher = load_teacher(experiment.distill, experiment.distillation(), student, precision)
        say(
            f"The teacher is {experiment.distill}: weight {experiment.distill_weight:g}, "
            f"temperature {experiment.distill_temperature:g}."
        )
    return Objective(
        multi_label=info.multi_label,
        label_smoothing=experiment.label_smoothing,
        focal_gamma=experiment.focal_gamma,
        mixing=experiment.mixing(),
        teacher=teacher,
    )


def _check_data_settings(experiment: Experiment, videos: VideoSet, spec: ClipSpec) -> None:
    """Whether what clips are taken and how they are changed suits the data."""
    augmentation = experiment.augmentation(flip=False)
    augmentation.check(spec.modality)
    if experiment.sampling == "balanced" and videos.per_frame:
        raise UsageError(
            "balanced sampling needs one class a video or more; with labels over time a clip need "
            "not show the class that it was drawn for. --class-weights balanced suits them."
        )
    if experiment.model_options.get("frozen_backbone") and (
        augmentation.num_ops or augmentation.erase
    ):
        raise UsageError(
            "with frozen_backbone the model is trained on features that are computed once; "
            "rand_augment and random_erasing change pictures."
        )


def _check_output(
    model: keras.Model, experiment: Experiment, videos: VideoSet, spec: ClipSpec
) -> None:
    """Whether the model gives what the data has: a label for each video, or for each frame."""
    per_frame = is_per_frame(model)
    check_match(f'"{model.name}"', per_frame, experiment.data, videos.per_frame)
    if per_frame and model.output_shape[1] not in (None, spec.num_frames):
        raise UsageError(
            f'the model "{model.name}" gives {model.output_shape[1]} labels for clips of '
            f"{plural(spec.num_frames, 'frame')}; it must give one for each."
        )


def _why_not_mirrored(experiment: Experiment, videos: VideoSet) -> str | None:
    """What to say where clips are not mirrored; None: they are."""
    if experiment.model_options.get("frozen_backbone"):
        return "not mirrored (the backbone is frozen)."
    if mirror_clips(experiment, videos):
        return None
    pair = mirrored_classes(videos.class_names)
    if pair is None or experiment.flip != "auto":
        return "not mirrored."
    return f'not mirrored ("{pair[0]}" and "{pair[1]}" mirror each other; --flip on insists).'


def loop_options(experiment: Experiment, num_videos: int) -> LoopOptions:
    """The part of an experiment that the loop needs, defaults filled in."""
    rate = experiment.learning_rate or LEARNING_RATES[experiment.optimizer]
    if experiment.lr_batch_size is not None:
        # A batch is never larger than the data set.
        rate *= min(experiment.batch_size, num_videos) / experiment.lr_batch_size
    shared = {field.name for field in dataclasses.fields(LoopOptions)}
    values = {name: getattr(experiment, name) for name in shared if name != "rate_exponent"}
    # What Adam makes of a gradient grows with the batch as its root (Malladi et al. 2022).
    power = 0.5 if experiment.optimizer in ("adamw", "lamb") else 1.0
    return LoopOptions(**{**values, "learning_rate": rate, "rate_exponent": power})


def _model(
    experiment: Experiment, videos: VideoSet, precision: str, say: Callable[[str], None]
) -> tuple[keras.Model, ModelInfo]:
    """The model to train: a fresh one, or one that begins with a file's weights."""
    weights = experiment.weights
    from_file = weights is not None and weights.endswith(".keras")
    if experiment.model is None and from_file:
        return _continue_model(experiment, videos, precision, say)
    entry = find(MODELS, experiment.model or "")
    builder = entry.load()
    spec = experiment_clip(experiment, recommended_clip(builder, **experiment.model_options))
    options = dict(experiment.model_options)
    if weights is not None and not from_file:
        options["weights"] = weights
    model = _build(entry, videos, spec, options, precision)
    if from_file:
        source = load_model(str(weights))
        say(f"From {weights}: {copy_weights(source, model)}")
    views = recommended_views(builder)
    return model, _info(videos, spec, views, _builder_info(entry, experiment.model_options))


def _continue_model(
    experiment: Experiment, videos: VideoSet, precision: str, say: Callable[[str], None]
) -> tuple[keras.Model, ModelInfo]:
    """The model of a file; its head is replaced where the classes differ."""
    model = load_model(str(experiment.weights), precision=precision)
    old = model_info(model)
    spec = experiment_clip(experiment, old.clip_spec)
    if spec.shape != old.clip_spec.shape:
        if old.builder is None:
            raise UsageError(
                f"{experiment.weights} takes clips of shape {old.clip_spec.shape}, not "
                f"{spec.shape}, and does not say how it was built."
            )
        source, entry = model, find(MODELS, old.builder.name)
        model = _build(entry, videos, spec, old.builder.options, precision)
        say(f"From {experiment.weights}: {copy_weights(source, model)}")
    elif old.class_names != videos.class_names or old.multi_label != videos.multi_label:
        activation = "sigmoid" if videos.multi_label else "softmax"
        model = replace_head(model, len(videos.class_names), activation)
        count = len(videos.class_names)
        say(f"A fresh head for {count} classes; all else from {experiment.weights}.")
    return model, _info(videos, spec, old.views, old.builder)


def _build(
    entry: Entry, videos: VideoSet, spec: ClipSpec, options: dict[str, Any], precision: str
) -> keras.Model:
    return build_model(
        entry,
        len(videos.class_names),
        spec.shape,
        classifier_activation="sigmoid" if videos.multi_label else "softmax",
        precision=precision,
        options=options,
    )


def _builder_info(entry: Entry, options: dict[str, Any]) -> BuilderInfo:
    return BuilderInfo(entry.name, entry.value, entry.distribution, entry.version, dict(options))


def _info(videos: VideoSet, spec: ClipSpec, views: Any, builder: BuilderInfo | None) -> ModelInfo:
    return ModelInfo(spec, videos.class_names, videos.multi_label, views, builder)
