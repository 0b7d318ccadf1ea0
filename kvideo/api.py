"""`fit`, `evaluate`, `predict`, `features`: the commands as functions that return objects."""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from kvideo.clip_spec import ClipSpec, Views
from kvideo.errors import UsageError
from kvideo.files import check_writable
from kvideo.progress import Progress
from kvideo.results import EvaluationResult

if TYPE_CHECKING:
    import keras

    from kvideo.data.annotations import VideoSet
    from kvideo.data.clip_reader import ClipReader
    from kvideo.feature_set import FeatureSet
    from kvideo.prediction import Prediction
    from kvideo.saving import ModelInfo
    from kvideo.training import FitResult


def fit(
    data: str | os.PathLike[str] | None = None,
    model: str | None = None,
    *,
    recipe: str | None = None,
    resume: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    verbose: bool = True,
    **settings: Any,
) -> FitResult:
    """Trains a model on videos; like `kvideo fit`.

    Args:
        data: a folder of class folders, an annotation file, or `"demo"`, `"demo-frames"`,
            `"demo-order"` or `"demo-dots"`.
        model: a registered model's name.
        recipe: the name of one of `kvideo.recipes`; the other arguments win over its settings.
        resume: a run's folder to go on with; then no settings are given.
        overwrite: replace the run in the folder `out`.
        callbacks: Keras callbacks, such as those of MLflow or Weights & Biases. They see figures,
            may stop the training, and may scale the learning rate; see
            `kvideo.training.callbacks.CallbackDriver`.
        verbose: progress and remarks on standard error.
        **settings: any field of `kvideo.Experiment`, such as `epochs=10`.

    Returns:
        Folder, model file, history and best epoch of the run.

    Raises:
        UsageError: arguments out of range or in contradiction.
        DataError: the data cannot be trained on.
        KVideoError: any other work that could not be done.
    """
    from kvideo.recipes import experiment as experiment_of
    from kvideo.training import Experiment, run

    if resume is not None:
        if data is not None or model is not None or recipe is not None or settings:
            raise UsageError("resume takes all settings from the run; give no others.")
        return run(
            Experiment.from_folder(resume), resume=True, quiet=not verbose, callbacks=callbacks
        )
    if data is None:
        raise UsageError("name the data to train on, or a run to resume.")
    if model is not None:
        settings["model"] = model
    try:
        experiment = experiment_of(data, recipe, **settings)
    except TypeError as cause:
        known = {field.name for field in dataclasses.fields(Experiment)}
        unknown = sorted(set(settings) - known)
        what = f"there is no setting {unknown[0]!r}" if unknown else str(cause)
        raise UsageError(f"fit: {what}.") from cause
    return run(experiment, overwrite=overwrite, quiet=not verbose, callbacks=callbacks)


def evaluate(
    model: Any,
    data: str | os.PathLike[str] | VideoSet,
    *,
    root: str | os.PathLike[str] | None = None,
    split: str | None = None,
    num_clips: int | None = None,
    num_crops: int | None = None,
    clip_spec: ClipSpec | None = None,
    precision: str = "float32",
    batch_size: int = 8,
    workers: int | None = None,
    decoder: str = "pyav",
    quarantine: str | None = None,
    out: str | os.PathLike[str] | None = None,
    strategy: str = "one",
    verbose: bool = True,
) -> EvaluationResult:
    """Tests a model over several views of each video; like `kvideo evaluate`.

    Args:
        model: a `keras.Model` that carries its `ModelInfo`, a `.keras` file or a run's folder.
        data: as in `fit`, or a `VideoSet`; of a data set with parts, by default the test part or
            else the validation part.
        root: folder that the annotation file's paths are relative to.
        split: which part of the data.
        num_clips: clips of each video; by default what the model recommends. Not for a model with
            a label for each frame, which looks at the whole of every video.
        num_crops: 1 or 3 crops of each clip; by default what the model recommends.
        clip_spec: another frame rate or framing than the model's; the shape must be the same.
        precision: `"float32"`, `"bfloat16"` or `"auto"`.
        batch_size: most clips that are run at once.
        workers: decoding threads; by default as many as processors.
        decoder: the name of a `kvideo.decoders` entry point.
        quarantine: a file of `kvideo check --quarantine`, whose videos are left out.
        out: a folder for evaluation.json, report.html and confusion.png; None: none is written.
        strategy: `"multiworker"` shares out the videos over several processes, all of which call
            this function and get the same result; the first one writes. `"auto"`: if `TF_CONFIG`
            or SLURM tells of several.
        verbose: progress on standard error.

    Returns:
        Figures, per-class table, confusion matrix, and every video's probabilities; of a model
        with a label for each frame a `SegmentationResult`.

    Raises:
        ModelFileError: the model cannot be loaded.
        DataError: the data cannot be used, or no video gave a result.
        UsageError: numbers of views for a model with a label for each frame.
    """
    from kvideo.cluster import Cluster
    from kvideo.data.annotations import VideoSet
    from kvideo.data.records import describe_videos
    from kvideo.evaluation import evaluate_model, write_report
    from kvideo.hardware import cluster_addresses, join_cluster
    from kvideo.saving import model_info
    from kvideo.scores import describe_run
    from kvideo.segmentation.scoring import is_per_frame

    addresses = cluster_addresses(strategy)
    cluster = Cluster() if addresses is None else join_cluster(addresses)
    verbose = verbose and cluster.is_chief
    network = _load(model, precision)
    info = model_info(network)
    per_frame = is_per_frame(network)
    if per_frame:
        _refuse_views(num_clips, num_crops)
    videos = data if isinstance(data, VideoSet) else _test_part(data, root, split, info, per_frame)
    if quarantine is not None:
        from kvideo.data.check import read_quarantine

        videos = videos.without(read_quarantine(quarantine))
    if verbose:
        for note in videos.notes:
            print(f"Note: {note}", file=sys.stderr, flush=True)
    cluster.check_equal("the workers have different data", describe_videos(videos))
    readers, count = _readers(info, clip_spec, decoder), workers or _workers()
    views = _views(info, num_clips, num_crops)
    if out is not None:
        with cluster.together():
            if cluster.is_chief:
                check_writable(out)  # told now, not after an hour
    details = describe_run(
        model=model if isinstance(model, str | os.PathLike) else network.name,
        data=videos.source,
        clip_spec=[reader.spec for reader in readers] if info.members else readers[0].spec,
        precision=precision,
    )
    total = len(videos.records[:: cluster.size])
    with Progress(total, "evaluating", unit="video", quiet=not verbose) as progress:
        result = evaluate_model(
            network,
            videos,
            readers,
            views=views,
            batch_size=batch_size,
            workers=count,
            details=details,
            on_video=lambda _: progress.update(1),
            cluster=cluster,
        )
    if out is not None and cluster.is_chief:
        write_report(result, out, readers[0])
    return result


def predict(
    model: Any,
    files: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    *,
    num_clips: int | None = None,
    num_crops: int | None = None,
    timeline: bool | float = False,
    precision: str = "float32",
    batch_size: int = 8,
    workers: int | None = None,
    decoder: str = "pyav",
    verbose: bool = False,
) -> list[Prediction]:
    """Labels video files; like `kvideo predict`.

    Args:
        model: a `keras.Model` that carries its `ModelInfo`, a `.keras` file or a run's folder.
        files: one or several files; a folder means all videos in it.
        num_clips: clips of each video; by default what the model recommends.
        num_crops: 1 or 3 crops of each clip; by default what the model recommends.
        timeline: probabilities over time as well; a number is the step in seconds, True means
            half a clip. The video's probabilities are then the mean over the timeline's clips. A
            model with a label for each frame always gives them, at the steps of its clips.
        precision: `"float32"`, `"bfloat16"` or `"auto"`.
        batch_size: most clips that are run at once.
        workers: decoding threads; by default as many as processors.
        decoder: the name of a `kvideo.decoders` entry point.
        verbose: progress on standard error.

    Returns:
        One `Prediction` for each file, in order. A file that fails has `error` set.

    Raises:
        ModelFileError: the model cannot be loaded.
        DataError: a folder holds no video.
        UsageError: a value is out of its range.
    """
    from kvideo.data.listing import videos_of
    from kvideo.prediction import predict_files
    from kvideo.saving import model_info
    from kvideo.segmentation.scoring import is_per_frame

    network = _load(model, precision)
    info = model_info(network)
    paths = [files] if isinstance(files, str | os.PathLike) else list(files)
    step = None
    if is_per_frame(network):
        _refuse_views(num_clips, num_crops)
        if timeline is not True and timeline is not False:
            raise UsageError(
                "a model with a label for each frame gives one every "
                f"{1 / info.clip_spec.frame_rate:g} s; leave out the step."
            )
    elif timeline is not False:
        if num_clips is not None or num_crops is not None:
            raise UsageError("a timeline has clips of its own; leave out the numbers of views.")
        longest = max(part.clip_spec.span for part in info.members or (info,))
        step = longest / 2 if timeline is True else float(timeline)
        if not step > 0:
            raise UsageError(f"the timeline's step must be above 0 s, not {step}.")
    videos = videos_of(paths)
    predictions = predict_files(
        network,
        videos,
        _readers(info, None, decoder),
        views=_views(info, num_clips, num_crops),
        timeline_step=step,
        batch_size=batch_size,
        workers=workers or _workers(),
    )
    results = []
    with Progress(len(videos), "predicting", unit="file", quiet=not verbose) as progress:
        for prediction in predictions:
            results.append(prediction)
            progress.update()
    return results


def features(
    model: Any,
    data: str | os.PathLike[str] | VideoSet,
    *,
    layer: str = "features",
    pool: str = "mean",
    out: str | os.PathLike[str] | None = None,
    root: str | os.PathLike[str] | None = None,
    split: str = "all",
    num_clips: int | None = None,
    num_crops: int | None = None,
    stride: float | None = None,
    clip_spec: ClipSpec | None = None,
    precision: str = "float32",
    batch_size: int = 8,
    workers: int | None = None,
    decoder: str = "pyav",
    quarantine: str | None = None,
    verbose: bool = True,
) -> FeatureSet:
    """Writes what a layer of a model says of each video into a file; like `kvideo features`.

    Each video gets one `.npy` file, (views, C) float32, in a folder that mirrors the paths of
    `data`; `index.json` and `index.csv` name videos, files and labels. What is there already, from
    the same model and video, is not computed again. A video that cannot be read is named in the
    index, and the work goes on.

    Args:
        model: a `keras.Model` that carries its `ModelInfo`, a `.keras` file or a run's folder.
        data: as in `fit`, or a `VideoSet`; also a folder of videos without labels, or one video.
            Its classes need not be the model's.
        layer: the name of a layer.
        pool: `"mean"`: the mean over the places in a clip, where the layer gives a map;
            `"none"`: the whole map, (views, T', H', W', C).
        out: the folder for the files; by default `features/DATA-LAYER` beside the model's file.
        root: folder that the annotation file's paths are relative to.
        split: which part of the data; by default all of it.
        num_clips: clips of each video; by default what the model recommends.
        num_crops: 1 or 3 crops of each clip; by default what the model recommends.
        stride: seconds between the middles of clips that slide over the whole of each video, in
            the place of `num_clips` and `num_crops`; for temporal localization.
        clip_spec: another frame rate or framing than the model's; the shape must be the same.
        precision: `"float32"`, `"bfloat16"` or `"auto"`.
        batch_size: most clips that are run at once.
        workers: decoding threads; by default as many as processors.
        decoder: the name of a `kvideo.decoders` entry point.
        quarantine: a file of `kvideo check --quarantine`, whose videos are left out.
        verbose: progress on standard error.

    Returns:
        The index: files, labels, times of the clips.

    Raises:
        ModelFileError: the model cannot be loaded.
        UsageError: no such layer, no folder to write to, or both a stride and numbers of views.
        DataError: the data cannot be used, or no video gave features.
    """
    from kvideo.data.annotations import VideoSet
    from kvideo.features import extract_features, feature_folder, feature_videos, mirrored_root
    from kvideo.saving import check_single, model_info
    from kvideo.scores import describe_run

    if stride is not None:
        if num_clips is not None or num_crops is not None:
            raise UsageError("with a stride, clips slide over the video; leave out the views.")
        if not 0 < stride < float("inf"):
            raise UsageError(f"the stride must be above 0 s, not {stride}.")
    folder = feature_folder(model, data, layer, out)
    check_writable(folder)  # told now, not after an hour
    network = _load(model, precision)
    info = model_info(network)
    check_single(info, "features are taken from")
    if isinstance(data, VideoSet):
        videos = data
    else:
        videos = feature_videos(data, root, split, whole=stride is not None)
    if quarantine is not None:
        from kvideo.data.check import read_quarantine

        videos = videos.without(read_quarantine(quarantine))
    if verbose:
        for note in videos.notes:
            print(f"Note: {note}", file=sys.stderr, flush=True)
    (reader,) = _readers(info, clip_spec, decoder)
    details = describe_run(
        model=model if isinstance(model, str | os.PathLike) else network.name,
        data=videos.source,
        clip_spec=reader.spec,
        precision=precision,
        decoder=decoder,
    )
    with Progress(len(videos.records), "extracting", unit="video", quiet=not verbose) as progress:
        return extract_features(
            network,
            videos,
            reader,
            folder,
            layer=layer,
            pool=pool,
            views=_views(info, num_clips, num_crops)[0],
            stride=stride,
            root=mirrored_root(videos, root),
            batch_size=batch_size,
            workers=workers or _workers(),
            details=details,
            on_video=lambda _: progress.update(),
        )


def _load(model: Any, precision: str) -> keras.Model:
    if not isinstance(model, str | os.PathLike):
        return model
    from kvideo.hardware import choose_precision
    from kvideo.saving import load_model, model_file, read_info

    path = model_file(model)
    read_info(path)  # a wrong file is told before TensorFlow is imported
    return load_model(path, precision=choose_precision(precision))


def _refuse_views(num_clips: int | None, num_crops: int | None) -> None:
    if num_clips is not None or num_crops is not None:
        raise UsageError(
            "a model with a label for each frame looks at the whole of every video; leave out the "
            "numbers of views."
        )


def _test_part(
    data: Any, root: Any, split: str | None, info: ModelInfo, per_frame: bool
) -> VideoSet:
    from kvideo.data.held_out import TEST_PARTS, read_held_out

    return read_held_out(
        data,
        prefer=TEST_PARTS,
        class_names=info.class_names,
        multi_label=info.multi_label,
        root=root,
        split=split,
        per_frame=per_frame,
    )


def _readers(info: ModelInfo, changed: ClipSpec | None, decoder: str) -> list[ClipReader]:
    """One for the model, or for each member of a late fusion."""
    from kvideo.data.pipeline import clip_readers
    from kvideo.saving import check_single

    if changed is not None:
        check_single(info, "other clips are for")
        if changed.shape != info.clip_spec.shape:
            raise UsageError(
                f"the model takes clips of {info.clip_spec.shape}, not {changed.shape}."
            )
        return clip_readers([changed], decoder)
    return clip_readers([part.clip_spec for part in info.members or (info,)], decoder)


def _views(info: ModelInfo, num_clips: int | None, num_crops: int | None) -> list[Views]:
    """Likewise."""
    return [
        Views(
            part.views.num_clips if num_clips is None else num_clips,
            part.views.num_crops if num_crops is None else num_crops,
        )
        for part in info.members or (info,)
    ]


def _workers() -> int:
    from kvideo.data.threads import default_workers

    return default_workers()
