"""From scores of several models to those of one: average, best weights, a linear machine."""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from kvideo.errors import DataError
from kvideo.score_fusion.scores import MemberScores
from kvideo.text import enumerate_words

if TYPE_CHECKING:
    import keras

    from kvideo.saving import ModelInfo

METHODS = ("average", "weighted", "svm")
_FINEST, _MOST_TRIALS = 20, 5000  # shares of 1/20 each, unless there are too many models for that
_COSTS = (0.01, 0.1, 1.0, 10.0, 100.0)
_SCALES = tuple(2.0 ** (power / 2) for power in range(-4, 13))  # 1/4 to 64
_FOLDS = 5


def make_fusion(
    method: str, weights: Sequence[float] | None, scored: MemberScores, info: ModelInfo
) -> tuple[keras.Model, tuple[float, ...] | None, float | None]:
    """The model from scores to scores, its weights, and the machine's cross-validated accuracy.

    Args:
        method: one of `METHODS`.
        weights: for `"weighted"`; None: the best ones.
        scored: what to choose by.
        info: of the models.

    Raises:
        DataError: the machine needs more videos.
    """
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
    kernel, bias, accuracy = fit_machine(scored, info.class_names)
    norms = [
        keras.layers.UnitNormalization(name=f"unit_{n + 1}", **float32)(x)
        for n, x in enumerate(inputs)
    ]
    x = keras.layers.Concatenate(name="features", **float32)(norms)
    logits = keras.layers.Dense(classes, name="logits", **float32)
    outputs = keras.layers.Activation("softmax", name="predictions", **float32)(logits(x))
    logits.set_weights([kernel, bias])
    return keras.Model(inputs, outputs, name="fusion"), None, accuracy


def best_weights(scored: MemberScores) -> tuple[float, ...]:
    """Shares, in whole parts of a grid, that are right most often, then most probable."""
    count = len(scored.scores)
    parts = _FINEST
    while parts > 1 and math.comb(parts + count - 1, count - 1) > _MOST_TRIALS:
        parts -= 1

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


def fit_machine(
    scored: MemberScores, names: Sequence[str]
) -> tuple[np.ndarray, np.ndarray, float | None]:
    """Kernel (M*C, C) and bias (C,) of one linear machine against the rest for each class.

    The cost is the one of `_COSTS` that is right most often in cross-validation. All decision
    values are multiplied by one number, so that their softmax fits the true classes there best.

    Raises:
        DataError: a class has no video.
    """
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
