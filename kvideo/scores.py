"""From the probabilities of views to the figures of a whole evaluation. No model, no decoder.

`average_views` makes one row of probabilities per video; `summarize` makes an `EvaluationResult`
of them.
"""

from __future__ import annotations

import dataclasses
import datetime
import platform
import sys
from collections.abc import Iterable, Mapping, Sequence
from importlib import metadata
from typing import Any

import numpy as np

from kvideo import __version__, metrics
from kvideo.clip_spec import Views
from kvideo.errors import DataError, UsageError
from kvideo.results import ClassResult, EvaluationResult, Mistake, VideoResult, plain
from kvideo.text import enumerate_words, plural

__all__ = [
    "ClassResult",
    "EvaluationResult",
    "Mistake",
    "VideoResult",
    "average_views",
    "check_labels",
    "describe_run",
    "summarize",
]

NOT_FINITE = "not_finite"
_TOP = 5

Figures = dict[str, float | int]
Intervals = dict[str, tuple[float, float]]


def average_views(probabilities: np.ndarray | Sequence[np.ndarray]) -> np.ndarray:
    """The mean over the views of every video.

    Args:
        probabilities: (V, K, C) for K views of each of V videos; or a list of V arrays
            (K_i, C), where videos have different numbers of views.

    Returns:
        (V, C) float64. NaN in a view makes the video's row NaN.

    Raises:
        UsageError: shapes that do not fit, or a video without a view.
    """
    if isinstance(probabilities, np.ndarray):
        if probabilities.ndim != 3:
            raise UsageError(
                "probabilities must have the shape (videos, views, classes), "
                f"not {probabilities.shape}."
            )
        if not probabilities.shape[1]:
            raise UsageError("the videos have no views to average.")
        return probabilities.mean(axis=1, dtype=np.float64)
    views = [np.asarray(video) for video in probabilities]
    if not views:
        raise UsageError("there are no videos to average.")
    for index, video in enumerate(views):
        if video.ndim != 2 or video.shape[1] != views[0].shape[1]:
            raise UsageError(f"video {index} has the shape {video.shape} instead of (views, C).")
        if not len(video):
            raise UsageError(f"video {index} has no views to average.")
    return np.stack([video.mean(axis=0, dtype=np.float64) for video in views])


def summarize(
    videos: Iterable[VideoResult],
    class_names: Sequence[str],
    *,
    multi_label: bool = False,
    views: Views | int | None = None,
    details: Mapping[str, Any] | None = None,
) -> EvaluationResult:
    """All the figures for the results of single videos.

    Videos that failed count in no figure: they are counted and named beside them. A video whose
    probabilities are not finite counts as failed too, with the reason `"not_finite"`.

    Args:
        videos: the results, in the data's order.
        class_names: C names.
        multi_label: whether videos may have several labels (or none).
        views: of each video, for the record.
        details: how the figures were made; `describe_run` collects that.

    Raises:
        DataError: no videos, no label where one is needed, a label that is no class index, or all
            of the videos failed; the message says why.
        UsageError: probabilities of another length than C.
    """
    names = tuple(class_names)
    checked = tuple(_check_video(video, len(names), multi_label) for video in videos)
    scored = [video for video in checked if video.probabilities is not None]
    refuse_nothing(checked, scored)
    scores = np.stack([np.asarray(video.probabilities) for video in scored])
    intervals: Intervals = {}
    confusion = None
    if multi_label:
        figures, classes = _multi_label_figures(scores, scored, names)
    else:
        labels = np.array([video.labels[0] for video in scored])
        figures, intervals = _single_label_figures(scores, labels)
        confusion = metrics.confusion_matrix(scores.argmax(axis=1), labels, len(names))
        classes = classes_of(confusion, names)
    figures |= {"num_videos": len(scored), "num_failed": len(checked) - len(scored)}
    facts = plain(dict(details or {}))
    if views is not None:
        figures["views"] = len(views) if isinstance(views, Views) else int(views)
        if isinstance(views, Views):
            facts.setdefault("views", plain(views))
    return EvaluationResult(
        names, multi_label, checked, figures, intervals, classes, confusion, facts
    )


def describe_run(**facts: Any) -> dict[str, Any]:
    """How the figures were made, for `summarize(details=…)`: the facts given, date and versions.

    Args:
        **facts: `model`, `data`, `clip_spec`, `decoder`, …; None is left out. Paths, dataclasses
            and objects with `to_json()` become plain values.
    """
    known = {name: plain(value) for name, value in facts.items() if value is not None}
    versions = {"kvideo": __version__, "python": platform.python_version()}
    for name in ("tensorflow", "keras", "numpy", "av"):
        if (version := _version(name)) is not None:
            versions[name] = version
    now = datetime.datetime.now().astimezone().isoformat(timespec="seconds")
    return {**known, "created": now, "versions": versions}


def _version(package: str) -> str | None:
    """Of what is loaded, or else installed: decoders are loaded only with the first video."""
    if package in sys.modules:
        return str(getattr(sys.modules[package], "__version__", "unknown"))
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def check_labels(name: str, labels: Sequence[int], num_classes: int, multi_label: bool) -> None:
    """Refuse labels that cannot be evaluated; worth doing before an hour of decoding.

    Args:
        name: the video, for the message.
        labels: its class indices.
        num_classes: that the model knows.
        multi_label: whether several labels (or none) are right.

    Raises:
        DataError: not exactly one label where there must be one, or no class of that index.
    """
    if not multi_label and len(labels) != 1:
        raise DataError(
            f"{name} has {plural(len(labels), 'label')}; an evaluation needs exactly one for each "
            "video (or a multi-label model)."
        )
    for label in labels:
        if not 0 <= label < num_classes:
            raise DataError(f"{name} has the label {label}, beyond {num_classes} classes.")


def _check_video(video: VideoResult, num_classes: int, multi_label: bool) -> VideoResult:
    check_labels(video.name, video.labels, num_classes, multi_label)
    if video.probabilities is None:
        return video
    probabilities = np.asarray(video.probabilities)
    if probabilities.shape != (num_classes,):
        raise UsageError(
            f"{video.name} has probabilities of the shape {probabilities.shape} "
            f"for {num_classes} classes."
        )
    if np.isfinite(probabilities).all():
        return dataclasses.replace(video, probabilities=probabilities)
    return dataclasses.replace(
        video,
        probabilities=None,
        error="the model's output is not a finite number",
        reason=NOT_FINITE,
    )


def refuse_nothing(videos: Sequence[Any], scored: Sequence[Any]) -> None:
    """Refuse an evaluation without a result; the sentence says why, by `error` and `reason`.

    Raises:
        DataError: no video, or all have failed.
    """
    if not videos:
        raise DataError("there are no videos to evaluate.")
    if not scored:
        reasons = [video.reason or "failed" for video in videos]
        counts = [f"{reasons.count(r)} {r.replace('_', ' ')}" for r in dict.fromkeys(reasons)]
        first = videos[0]
        raise DataError(
            f"none of {plural(len(videos), 'video')} gave a result: {enumerate_words(counts)}. "
            f"The first is {first.name}: {first.error}."
        )


def _single_label_figures(scores: np.ndarray, labels: np.ndarray) -> tuple[Figures, Intervals]:
    shares: Figures = {"top1": metrics.top_k_accuracy(scores, labels, 1)}
    if scores.shape[1] > _TOP:
        shares["top5"] = metrics.top_k_accuracy(scores, labels, _TOP)
    of = len(labels)
    intervals = {k: metrics.wilson_interval(round(v * of), of) for k, v in shares.items()}
    shares["mean_class_accuracy"] = metrics.mean_class_accuracy(scores, labels)
    return shares, intervals


def _multi_label_figures(
    scores: np.ndarray, videos: Sequence[VideoResult], names: tuple[str, ...]
) -> tuple[Figures, tuple[ClassResult, ...]]:
    targets = np.zeros(scores.shape, dtype=bool)
    for row, video in enumerate(videos):
        targets[row, list(video.labels)] = True
    if not targets.any():
        raise DataError("none of the videos has a label; there is nothing to compare with.")
    areas = metrics.average_precisions(scores, targets)
    figures: Figures = {"mAP": float(np.nanmean(areas))}
    figures["hit1"] = metrics.hit_at_k(scores, targets, 1)
    if scores.shape[1] > _TOP:
        figures["hit5"] = metrics.hit_at_k(scores, targets, _TOP)
    said = scores >= 0.5
    precision, recall, support = metrics.multi_label_precision_recall(scores, targets)
    classes = tuple(
        ClassResult(
            index=c,
            name=name,
            support=int(support[c]),
            predicted=int(said[:, c].sum()),
            right=int((said[:, c] & targets[:, c]).sum()),
            precision=float(precision[c]),
            recall=float(recall[c]),
            average_precision=float(areas[c]),
        )
        for c, name in enumerate(names)
    )
    return figures, classes


def classes_of(confusion: np.ndarray, names: tuple[str, ...]) -> tuple[ClassResult, ...]:
    """The figures of each class from (C, C) counts, rows are true classes."""
    precision, recall, support = metrics.precision_recall_support(confusion)
    predicted = confusion.sum(axis=0)
    results = []
    for c, name in enumerate(names):
        others = [int(o) for o in np.argsort(-confusion[c], kind="stable") if o != c][:3]
        results.append(
            ClassResult(
                index=c,
                name=name,
                support=int(support[c]),
                predicted=int(predicted[c]),
                right=int(confusion[c, c]),
                precision=float(precision[c]),
                recall=float(recall[c]),
                taken_for=tuple((o, int(confusion[c, o])) for o in others if confusion[c, o]),
            )
        )
    return tuple(results)
