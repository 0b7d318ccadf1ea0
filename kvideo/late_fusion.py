"""`kvideo.fuse`: several trained models become one, by the scores that they give to whole videos.

Source: Simonyan & Zisserman 2014, "Two-Stream Convolutional Networks for Action Recognition in
Videos", section 4: averaging, or a linear support vector machine on L2-normalized softmax scores.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import math
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kvideo import metrics
from kvideo.errors import DataError, KVideoError, UsageError, check_choice
from kvideo.files import check_target, make_folder
from kvideo.progress import Progress
from kvideo.saving import load_model, model_file, read_info, save_model
from kvideo.text import enumerate_words, plural

if TYPE_CHECKING:
    import keras

    from kvideo.data.annotations import VideoSet
    from kvideo.saving import ModelInfo

METHODS = ("average", "weighted", "svm")
_FINEST, _MOST_TRIALS = 20, 5000  # shares of 1/20 each, unless there are too many models for that
_COSTS = (0.01, 0.1, 1.0, 10.0, 100.0)
_SCALES = tuple(2.0 ** (power / 2) for power in range(-4, 13))  # 1/4 to 64
_FOLDS = 5


@dataclasses.dataclass(frozen=True)
class FusionResult:
    """What `fuse` made.

    Attributes:
        model_path: the file.
        method: one of `METHODS`.
        weights: of the models, for `"average"` and `"weighted"`.
        accuracy: of the fusion on the videos that it was chosen on; for several labels a video,
            mean average precision.
        accuracies: of each model on the same videos.
        cross_validated: of `"svm"`: on videos that the machine was not fitted to.
        num_videos: how many were used.
        failures: sentences about videos that could not be read.
    """

    model_path: Path
    method: str
    weights: tuple[float, ...] | None
    accuracy: float
    accuracies: dict[str, float]
    cross_validated: float | None
    num_videos: int
    failures: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {**dataclasses.asdict(self), "model_path": str(self.model_path)}


def fuse(
    models: Sequence[str | os.PathLike[str]],
    data: str | os.PathLike[str] | VideoSet,
    *,
    method: str = "average",
    weights: Sequence[float] | None = None,
    out: str | os.PathLike[str] | None = None,
    root: str | os.PathLike[str] | None = None,
    split: str | None = None,
    num_clips: int | None = None,
    batch_size: int = 8,
    workers: int | None = None,
    decoder: str = "pyav",
    overwrite: bool = False,
    verbose: bool = True,
) -> FusionResult:
    """Joins trained models to one by late fusion; like `kvideo fuse`.

    The models may be of any kind and take any clips; their classes must be the same. Each looks at
    its own views of a video, whose probabilities are averaged, and these averages are fused. The
    result is one model file for `evaluate`, `predict` and `export`.

    Args:
        models: at least two `.keras` files or runs' folders.
        data: as in `fit`, or a `VideoSet`; what the fusion is chosen on. By default its validation
            part, or else all of its videos that no run of `models` was trained on.
        method: `"average"`; `"weighted"`: the mean with the weights that are most often right, of
            these the most probable ones; `"svm"`: a linear support vector machine (one against the
            rest) on the scores, each model's of length 1. What is given out then is the softmax of
            its decision values times a number, chosen in cross-validation like the machine's cost.
        weights: for `"weighted"`: these, none negative, instead of the best ones.
        out: a `.keras` file, or a folder for `model.keras`; None makes `runs/A+B`, with a number if
            that exists.
        root: folder that the annotation file's paths are relative to.
        split: which part of the data, whether trained on or not.
        num_clips: clips of each video; by default what each model recommends.
        batch_size: most clips that are run at once.
        workers: decoding threads; by default as many as processors.
        decoder: the name of a `kvideo.decoders` entry point.
        overwrite: replace what is there.
        verbose: progress and remarks on standard error.

    Raises:
        UsageError: fewer than two models, models of different classes, a fusion, something there.
        ModelFileError: a model cannot be loaded.
        DataError: the data cannot be used, or the method needs more of it.
    """
    check_choice("method", method, METHODS)
    if isinstance(models, str | os.PathLike):
        raise UsageError("models must be a list of at least two models.")
    paths = [model_file(model) for model in models]
    infos = [read_info(path) for path in paths]
    _check_models(models, infos)
    if weights is not None:
        _check_weights(weights, method, len(models))
    if method == "svm" and infos[0].multi_label:
        raise UsageError('method="svm" is for one label a video; these models give several.')
    target = _target(models, out, overwrite)
    say = _to_stderr if verbose else _silent
    videos = _videos(data, models, root, split, infos[0], say)
    networks = [load_model(path) for path in paths]
    total = len(videos.records)
    with Progress(total, "scoring", unit="video", quiet=not verbose) as progress:
        scored = _Scores.of(
            networks,
            videos,
            num_clips=num_clips,
            batch_size=batch_size,
            workers=workers,
            decoder=decoder,
            on_video=progress.update,
        )
    for sentence in scored.failures[:10]:
        say(f"Left out: {sentence}")
    fusion, chosen, cross_validated = _fusion(method, weights, scored, infos[0])
    if method == "svm" and cross_validated is None:
        say(
            "A class has a single video: no cross-validation, so cost and probabilities of the "
            "machine are mere guesses."
        )
    from kvideo.members import fuse_scores, join_members

    model = join_members(networks, fusion)
    make_folder(target.parent)
    save_model(model, target)
    names = _names(models)
    return FusionResult(
        model_path=target,
        method=method,
        weights=chosen,
        accuracy=scored.accuracy(fuse_scores(model, scored.scores)),
        accuracies=dict(zip(names, map(scored.accuracy, scored.scores), strict=True)),
        cross_validated=cross_validated,
        num_videos=len(scored.targets),
        failures=scored.failures,
    )


# -- what is fused -------------------------------------------------------------------------------


def _check_models(models: Sequence[Any], infos: Sequence[ModelInfo]) -> None:
    if len(models) < 2:
        raise UsageError("a fusion needs at least two models, and behind them the data.")
    for model, info in zip(models, infos, strict=True):
        if info.members:
            raise UsageError(f"{model} is a fusion itself; name the models that it was made of.")
        if info.per_frame:
            raise UsageError(f"{model} gives a label for each frame; a fusion needs one a video.")
    first = infos[0]
    for model, info in zip(models[1:], infos[1:], strict=True):
        if info.class_names != first.class_names:
            raise UsageError(_difference(models[0], first, model, info))
        if info.multi_label != first.multi_label:
            raise UsageError(f"of {models[0]} and {model} only one gives several labels a video.")


def _difference(a: Any, first: ModelInfo, b: Any, other: ModelInfo) -> str:
    only = [set(first.class_names) - set(other.class_names)]
    only.append(set(other.class_names) - set(first.class_names))
    if not any(only):
        return f"{a} and {b} have the same classes in another order; train both on one data set."
    parts = [
        f"only {model} has {enumerate_words(sorted(names))}"
        for model, names in zip((a, b), only, strict=True)
        if names
    ]
    return f"{a} and {b} have different classes: {'; '.join(parts)}."


def _check_weights(weights: Sequence[float], method: str, count: int) -> None:
    if method != "weighted":
        raise UsageError(f'weights are for method="weighted", not "{method}".')
    good = len(weights) == count and all(0 <= weight < math.inf for weight in weights)
    if not good or not sum(weights):
        raise UsageError(
            f"weights must be {count} numbers from 0 on, not all 0, not {list(weights)}."
        )


def _names(models: Sequence[Any]) -> list[str]:
    """Short names of the models, each once."""
    paths = [Path(model) for model in models]
    names = [path.stem if path.suffix == ".keras" else path.name for path in paths]
    if len(set(names)) < len(set(paths)):
        names = [str(path) for path in paths]
    seen = [names[: place + 1].count(name) for place, name in enumerate(names)]
    return [f"{name} ({n})" if n > 1 else name for name, n in zip(names, seen, strict=True)]


def _target(models: Sequence[Any], out: Any, overwrite: bool) -> Path:
    if out is None:
        stem = "+".join(
            path.stem if path.suffix == ".keras" else path.name for path in map(Path, models)
        )
        folders = (Path("runs") / f"{stem}{end}" for end in ("", *(f"-{n}" for n in range(2, 999))))
        return next(folder for folder in folders if not folder.exists()) / "model.keras"
    path = Path(out)
    target = path if path.suffix == ".keras" else path / "model.keras"
    if target.resolve() in [model_file(model).resolve() for model in models]:
        raise UsageError(f"{target} is one of the models to fuse.")
    if target.exists() and not overwrite:
        raise UsageError(f"{target} exists; --overwrite replaces it.")
    if path.suffix == ".keras":
        check_target(target)
    return target


# -- the videos ----------------------------------------------------------------------------------


def _videos(
    data: Any,
    models: Sequence[Any],
    root: Any,
    split: str | None,
    info: ModelInfo,
    say: Callable[[str], None],
) -> VideoSet:
    """Labelled videos that none of the runs has been trained on, unless a part is named."""
    from kvideo.data.annotations import VideoSet, find_splits, read_data
    from kvideo.data.remote import list_remote, open_remote

    if isinstance(data, VideoSet):
        videos = data
    else:
        part = split
        if part is None:
            parts = find_splits(data, listdir=list_remote, opener=open_remote)
            part = next((name for name in ("val", "test") if name in parts), None)
        videos = read_data(
            data,
            root=root,
            split=part,
            class_names=info.class_names,
            multi_label=info.multi_label,
            listdir=list_remote,
            opener=open_remote,
        )
    for note in videos.notes:
        say(f"Note: {note}")
    records = [record for record in videos.records if record.labels]
    if split is None:
        seen: set[Any] = set()
        for model in models:
            keys = _trained_on(model)
            seen |= keys or set()
            if keys is None:
                say(f"Nothing is known of the videos that {model} was trained on: choose others.")
        fresh = [record for record in records if not seen.intersection(_keys(record))]
        if left_out := len(records) - len(fresh):
            say(f"{plural(left_out, 'video')} that the runs were trained on are left out.")
        if records and not fresh:
            raise DataError(
                f"the runs were trained on all videos of {videos.source}: name other ones, or a "
                "part of it with --split."
            )
        records = fresh
    if not records:
        raise DataError(f"{videos.source or 'the data set'} has no labelled videos.")
    return dataclasses.replace(videos, records=tuple(records))


def _keys(record: Any) -> list[Any]:
    """What a record is known by: its path, and wherever it lies, its name and size."""
    part = record.start, record.end
    if "://" in record.path:
        return [(record.path, part)]
    keys: list[Any] = [(os.path.realpath(record.path), part)]
    with contextlib.suppress(OSError):
        keys.append((os.path.basename(record.path), os.path.getsize(record.path), part))
    return keys


def _trained_on(model: Any) -> set[Any] | None:
    """Keys of the videos that a run was trained on; None if they are not known any more."""
    from kvideo.training.experiment import EXPERIMENT, Experiment
    from kvideo.training.videos import read_videos

    folder = Path(model) if Path(model).is_dir() else Path(model).parent
    if not (folder / EXPERIMENT).exists():
        return None
    try:
        videos, _ = read_videos(Experiment.from_folder(folder), _silent)
    except KVideoError:  # moved or removed since
        return None
    return {key for record in videos.records for key in _keys(record)}


# -- the scores ----------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, eq=False)
class _Scores:
    """What the models say of the videos that all of them could read.

    Attributes:
        scores: (N, num_classes) of each model, averaged over the views.
        targets: (N, num_classes) bool, the true classes.
        failures: sentences about the others.
        multi_label: whether there may be several.
    """

    scores: list[np.ndarray]
    targets: np.ndarray
    failures: tuple[str, ...]
    multi_label: bool

    @classmethod
    def of(
        cls,
        networks: Sequence[keras.Model],
        videos: VideoSet,
        *,
        num_clips: int | None,
        batch_size: int,
        workers: int | None,
        decoder: str,
        on_video: Callable[[], None],
    ) -> _Scores:
        from kvideo.data.pipeline import clip_readers
        from kvideo.data.threads import default_workers
        from kvideo.evaluation import score_videos
        from kvideo.inference import Predictor
        from kvideo.saving import model_info
        from kvideo.scores import check_labels

        infos = [model_info(network) for network in networks]
        multi_label = infos[0].multi_label
        classes = len(videos.class_names)
        for record in videos.records:
            check_labels(record.path, record.labels, classes, multi_label)
        each = []
        readers = clip_readers([info.clip_spec for info in infos], decoder)
        for network, info, reader in zip(networks, infos, readers, strict=True):
            views = dataclasses.replace(info.views, num_clips=num_clips or info.views.num_clips)
            predictor = Predictor(network, batch_size)
            each.append(
                score_videos(predictor, videos, reader, views, workers or default_workers())
            )
        rows, targets, failures = [], [], []
        for results in zip(*each, strict=True):
            on_video()
            bad = next((r for r in results if r.probabilities is None), None)
            if bad is not None:
                failures.append(f"{bad.name}: {bad.error}")
                continue
            rows.append([np.asarray(result.probabilities) for result in results])
            targets.append(np.isin(np.arange(classes), results[0].labels))
        if not rows:
            raise DataError(f"none of {plural(len(failures), 'video')} could be read.")
        scores = [np.stack(column) for column in zip(*rows, strict=True)]
        if not all(np.isfinite(score).all() for score in scores):
            raise DataError("a model's output is not a finite number.")
        return cls(scores, np.stack(targets), tuple(failures), multi_label)

    @property
    def labels(self) -> np.ndarray:
        """(N,) class indices, for one label a video."""
        return self.targets.argmax(axis=1)

    def accuracy(self, scores: np.ndarray) -> float:
        """Top-1 accuracy, or mean average precision, of (N, num_classes)."""
        if self.multi_label:
            return float(np.nanmean(metrics.average_precisions(scores, self.targets)))
        return float(metrics.top_k_accuracy(scores, self.labels, 1))

    def log_likelihood(self, scores: np.ndarray) -> float:
        """Mean logarithm of what is given to the true classes."""
        safe = np.clip(scores, 1e-7, 1 - 1e-7)
        if self.multi_label:
            return float(np.where(self.targets, np.log(safe), np.log1p(-safe)).mean())
        return float(np.log(safe[self.targets]).mean())


# -- the fusion ----------------------------------------------------------------------------------


def _fusion(
    method: str, weights: Sequence[float] | None, scored: _Scores, info: ModelInfo
) -> tuple[keras.Model, tuple[float, ...] | None, float | None]:
    """The model from scores to scores, its weights, and the machine's cross-validated accuracy."""
    import keras

    from kvideo.layers.score_fusion import WeightedMean

    count, classes = len(scored.scores), len(info.class_names)
    inputs = [keras.Input((classes,), name=f"scores_{n + 1}") for n in range(count)]
    float32 = {"dtype": "float32"}
    if method != "svm":
        if method == "average":
            weights = [1.0] * count
        chosen = best_weights(scored) if weights is None else tuple(map(float, weights))
        chosen = tuple(weight / sum(chosen) for weight in chosen)
        mean = WeightedMean(chosen, name="predictions", **float32)
        return keras.Model(inputs, mean(inputs), name="fusion"), chosen, None
    kernel, bias, accuracy = _fit_machine(scored, info.class_names)
    norms = [
        keras.layers.UnitNormalization(name=f"unit_{n + 1}", **float32)(x)
        for n, x in enumerate(inputs)
    ]
    x = keras.layers.Concatenate(name="features", **float32)(norms)
    logits = keras.layers.Dense(classes, name="logits", **float32)
    outputs = keras.layers.Activation("softmax", name="predictions", **float32)(logits(x))
    logits.set_weights([kernel, bias])
    return keras.Model(inputs, outputs, name="fusion"), None, accuracy


def best_weights(scored: _Scores) -> tuple[float, ...]:
    """Shares, in whole parts of a grid, that are right most often, then most probable."""
    count = len(scored.scores)
    parts = next(
        p
        for p in range(_FINEST, 0, -1)
        if math.comb(p + count - 1, count - 1) < _MOST_TRIALS or p == 1
    )

    def quality(shares: tuple[int, ...]) -> tuple[float, float]:
        mean = sum(s / parts * each for s, each in zip(shares, scored.scores, strict=True))
        return scored.accuracy(np.asarray(mean)), scored.log_likelihood(np.asarray(mean))

    best = max(_compositions(parts, count), key=quality)
    return tuple(share / parts for share in best)


def _compositions(total: int, count: int) -> Iterator[tuple[int, ...]]:
    """All ways to share out `total` among `count`."""
    for bars in itertools.combinations(range(total + count - 1), count - 1):
        edges = (-1, *bars, total + count - 1)
        yield tuple(b - a - 1 for a, b in itertools.pairwise(edges))


def _fit_machine(
    scored: _Scores, names: Sequence[str]
) -> tuple[np.ndarray, np.ndarray, float | None]:
    """Kernel (M*C, C) and bias (C,) of one linear machine against the rest for each class.

    The cost is the one of `_COSTS` that is right most often in cross-validation. All decision
    values are multiplied by one number, so that their softmax fits the true classes there best.
    """
    import warnings

    from sklearn.exceptions import ConvergenceWarning
    from sklearn.model_selection import StratifiedKFold, cross_val_predict
    from sklearn.svm import LinearSVC

    labels = scored.labels
    counts = np.bincount(labels, minlength=len(names))
    if missing := [name for name, number in zip(names, counts, strict=True) if not number]:
        raise DataError(
            f"a support vector machine needs videos of every class; there is none of "
            f"{enumerate_words(missing)}."
        )
    norms = [np.linalg.norm(each, axis=1, keepdims=True) for each in scored.scores]
    rows = np.concatenate(
        [each / np.maximum(norm, 1e-12) for each, norm in zip(scored.scores, norms, strict=True)],
        axis=1,
    )

    def machine(cost: float) -> LinearSVC:
        return LinearSVC(C=cost, random_state=0, max_iter=20000)

    cost, decisions, accuracy = 1.0, None, None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # close enough for that
        if (folds := min(_FOLDS, int(counts.min()))) >= 2:
            parts = StratifiedKFold(folds, shuffle=True, random_state=0)
            for candidate in _COSTS:
                found = cross_val_predict(
                    machine(candidate), rows, labels, cv=parts, method="decision_function"
                )
                found = _two_sided(found) if len(names) == 2 else found
                right = scored.accuracy(found)
                if accuracy is None or right > accuracy:
                    cost, decisions, accuracy = candidate, found, right
        fitted = machine(cost).fit(rows, labels)
    kernel, bias = fitted.coef_.T, fitted.intercept_
    if len(names) == 2:
        kernel, bias = _two_sided(fitted.coef_[0]), _two_sided(fitted.intercept_[0])
    if decisions is None:
        decisions = rows @ kernel + bias
    # As in Platt's scaling nothing is taken for certain, however far apart the classes are.
    doubt = 1 / (len(labels) + 2)
    targets = np.where(scored.targets, 1 - doubt, doubt / (len(names) - 1))
    scale = max(_SCALES, key=lambda factor: (targets * _log_softmax(factor * decisions)).sum())
    return (scale * kernel).astype(np.float32), (scale * bias).astype(np.float32), accuracy


def _two_sided(values: np.ndarray) -> np.ndarray:
    """Of two classes scikit-learn has one machine, for the second: (...) to (..., 2)."""
    return np.stack([-values, values], axis=-1)


def _log_softmax(values: np.ndarray) -> np.ndarray:
    values = values - values.max(axis=1, keepdims=True)
    return values - np.log(np.exp(values).sum(axis=1, keepdims=True))


def _to_stderr(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _silent(line: str) -> None:
    pass
