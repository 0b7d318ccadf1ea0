"""What all classifiers share: checked arguments, the first layer, the three named layers.

Every classifier names `feature_map` (B, T', H', W', C), `features` (B, C) and `logits`
(B, num_classes). That is the only hook that feature extraction, activation maps, localization and
detection use.
"""

from __future__ import annotations

import functools
import inspect
import numbers
import os
import re
import warnings
import zipfile
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import keras

from kvideo.clip_spec import ClipSpec, Views
from kvideo.errors import UsageError
from kvideo.layers.dropout import Dropout
from kvideo.layers.flow import FlowNormalization
from kvideo.layers.pixels import PixelNormalization
from kvideo.models.pretrained import fit_to_weights
from kvideo.saving import extracted_weights
from kvideo.weights.checkpoints import FORMS, checkpoint_kind
from kvideo.weights.families import Family
from kvideo.weights.loading import LoadReport, load_checkpoint

RESERVED_NAMES = ("clip", "normalization", "feature_map", "features", "logits", "predictions")

_CHANNELS = {3: "RGB", 2: "optical flow", 5: "RGB and optical flow"}
FLOW_LIMIT = 20.0  # pixels per frame

_MOST_CLASSES = 1_000_000  # more is a mistake, and would take all memory
WEIGHT_FILES = (".keras", ".weights.h5")

Builder = TypeVar("Builder", bound=Callable[..., Any])
Shape = tuple[int, int, int, int]


def made_for(
    clip_spec: ClipSpec,
    views: Views,
    clip_spec_for: Callable[..., ClipSpec] | None = None,
    *,
    family: Family | None = None,
) -> Callable[[Builder], Builder]:
    """Decorator: gives a builder attributes that others ask it for.

    A builder with a `family` takes the names of published weights as `weights` too, and is built
    with the widths of a file of weights; see `kvideo.models.pretrained`. Every builder takes
    `channels` too, 3 for RGB or 2 for optical flow, in place of the last number of `input_shape`.

    Args:
        clip_spec: the clip that it is made for.
        views: for testing.
        clip_spec_for: from the builder's options to the clip, where it depends on them.
        family: the published checkpoints that it takes.
    """

    def decorate(builder: Builder) -> Builder:
        builder = fit_to_weights(builder, family)
        builder.__dict__.update(
            clip_spec=clip_spec, views=views, clip_spec_for=clip_spec_for, family=family
        )
        return _with_channels(builder, clip_spec)  # with the attributes

    return decorate


def _with_channels(builder: Builder, clip_spec: ClipSpec) -> Builder:
    """The builder with a further argument `channels`."""
    signature = inspect.signature(builder)

    @functools.wraps(builder)
    def build(num_classes: int, *, channels: int | None = None, **options: Any) -> keras.Model:
        if channels is not None:
            shape = tuple(options.get("input_shape") or (*clip_spec.shape[:-1], channels))
            if shape[-1] != channels:
                raise UsageError(f"input_shape is {shape}, and channels {channels}: they differ.")
            options["input_shape"] = shape
        return builder(num_classes, **options)

    kind = inspect.Parameter.KEYWORD_ONLY
    added = inspect.Parameter("channels", kind, default=None, annotation="int | None")
    parameters = list(signature.parameters.values())
    names = list(signature.parameters)
    place = names.index("input_shape") + 1 if "input_shape" in names else 1
    parameters.insert(place, added)
    build.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    return build  # type: ignore[return-value]


def check_count(name: str, value: Any, least: int = 1) -> int:
    """A whole number of at least `least`.

    Raises:
        UsageError: it is not; the message names the argument.
    """
    if isinstance(value, bool) or not hasattr(value, "__index__") or int(value) < least:
        raise UsageError(f"{name} must be a whole number of at least {least}, not {value!r}.")
    return int(value)


def check_input_shape(input_shape: Sequence[int], channels: Sequence[int] = (3, 2)) -> Shape:
    """(T, H, W, C) as plain integers.

    Args:
        input_shape: what the user gave.
        channels: what C may be: 3 for RGB, 2 for optical flow, 5 for both.

    Raises:
        UsageError: it has another form, or a size that is unknown or less than 1.
    """
    try:
        frames, height, width, last = (int(side) for side in input_shape)
    except (TypeError, ValueError):
        raise UsageError(
            f"input_shape must be (frames, height, width, 3) in whole numbers, not {input_shape!r}."
        ) from None
    if min(frames, height, width) < 1:
        raise UsageError(f"input_shape must hold sizes of at least 1, not {input_shape!r}.")
    if last not in channels:
        kinds = " or ".join(f"{number} channels ({_CHANNELS[number]})" for number in channels)
        other = f" ({_CHANNELS[last]})" if last in _CHANNELS else ""
        raise UsageError(f"input_shape must end in {kinds}, not {last}{other}.")
    return frames, height, width, last


def check_dropout(dropout: float, name: str = "dropout") -> float:
    """A share of 0 <= dropout < 1.

    Raises:
        UsageError: it is not; the message names the argument.
    """
    if not isinstance(dropout, numbers.Real) or not 0 <= dropout < 1:
        raise UsageError(f"{name} must be at least 0 and less than 1, not {dropout!r}.")
    return dropout


def check_weights(
    weights: Any,
    known: Sequence[str] = (),
    *,
    family: Family | None = None,
) -> tuple[str | None, str | None]:
    """Splits the argument `weights` into a name that the builder knows and a file, or None each.

    Args:
        weights: what the user gave.
        known: names that the builder understands itself, such as `"imagenet"`.
        family: whose published checkpoints the builder takes (`kvideo.weights.resnet3d.RESNET3D`,
            `.torchvision.VIDEO_RESNET`, `.inception.INCEPTION`, `.c3d.C3D`); give it to `finish`
            too. None: only files of kvideo's own models.

    Raises:
        UsageError: it is neither; the message says what there is.
    """
    if weights is None or weights in known:
        return weights, None
    path = os.fspath(weights)
    kind = checkpoint_kind(path)
    if kind == "keras" or (kind and family):
        if kind == "tensorflow" or os.path.exists(path):
            return None, path
        raise UsageError(f"there is no weights file {path}.")
    names = "".join(f', "{name}"' for name in known)
    forms = FORMS if family else f"a {' or '.join(WEIGHT_FILES)} file"
    raise UsageError(f"weights must be None{names} or {forms}, not {path!r}.")


def finish(
    inputs: Any,
    outputs: Any,
    name: str,
    weights_file: str | None,
    *,
    family: Family | None = None,
) -> keras.Model:
    """The functional model, with the weights of a file where one is given.

    Args:
        inputs: Keras tensor.
        outputs: Keras tensor.
        name: the model's name.
        weights_file: what `check_weights` gave.
        family: as for `check_weights`.

    Raises:
        UsageError: the file's weights do not fit.
        ModelFileError: a published checkpoint cannot be read or does not fit.
    """
    model = keras.Model(inputs, outputs, name=name)
    if weights_file is None:
        return model
    if family is not None and checkpoint_kind(weights_file) != "keras":
        load_checkpoint(model, weights_file, family).announce()
    else:
        _load_weights(model, weights_file)
    return model


def _load_weights(model: keras.Model, path: str) -> None:
    """Loads a file of Keras's; a last layer of another number of classes stays as it is."""
    with warnings.catch_warnings(record=True) as skipped:  # Keras only warns of some misfits
        warnings.simplefilter("always")
        try:
            with extracted_weights(path) as weights:
                model.load_weights(weights)
        except (ValueError, KeyError, OSError, zipfile.BadZipFile) as cause:
            if not (classes := _other_classes(str(cause))):
                raise _misfit(model, path, str(cause)) from cause
            with extracted_weights(path) as weights:
                model.load_weights(weights, skip_mismatch=True)
            LoadReport(path, "Keras", 0, classes, fresh_head=True).announce()
            return
    if skipped:
        raise UsageError(f"the weights in {path} do not fit {model.name}: {skipped[0].message}")


def _misfit(model: keras.Model, path: str, message: str) -> UsageError:
    layer = re.search(r"name=(\w+)", message)
    where = f'its layer "{layer[1]}" has other shapes' if layer else message
    return UsageError(f"the weights in {path} do not fit {model.name}: {where}.")


def _other_classes(message: str) -> int:
    """How many classes a file has if, by Keras's message, they are all that does not fit; or 0."""
    alone = re.match(r"A total of 1 objects could not be loaded\..*name=logits\b", message)
    shapes = re.findall(r"\.shape=\(([\d, ]+)\)", message)[:2]  # of the variable, of the value
    if not alone or len(shapes) < 2:
        return 0
    (*inner, _), (*inner_of_file, classes) = (shape.split(", ") for shape in shapes)
    return int(classes) if inner == inner_of_file else 0


def clip_input(
    input_shape: Shape,
    *,
    mean: float | Sequence[float] = 127.5,
    std: float | Sequence[float] = 63.75,
    channel_order: str = "rgb",
) -> tuple[Any, Any]:
    """The model's input, and the output of its first layer, `normalization`.

    The input is RGB 0..255, or with two channels optical flow in pixels per frame, which is cut to
    [-20, 20] and divided by 20.

    Args:
        input_shape: (T, H, W, 3) or (T, H, W, 2).
        mean: of pixels, see `PixelNormalization`.
        std: likewise.
        channel_order: likewise.
    """
    inputs = keras.Input(input_shape, name="clip", dtype="float32")
    normalization: keras.Layer
    if input_shape[-1] == 2:
        normalization = FlowNormalization(FLOW_LIMIT, name="normalization")
    else:
        normalization = PixelNormalization(mean, std, channel_order, name="normalization")
    return inputs, normalization(inputs)


def pooled_features(feature_map: Any, window: Sequence[int] | None = None) -> Any:
    """`features` (B, C): the mean of a map (B, T, H, W, C), as the layer of that name.

    Args:
        feature_map: Keras tensor of known T, H and W.
        window: (T, H, W) of a window that is averaged first, at every place that it fits in
            (cut to the map's size where that is smaller); then what lies at the edges counts
            less. Published heads do so. None: the plain mean.

    Raises:
        UsageError: `window` is not three whole numbers.
    """
    if window is not None:
        if isinstance(window, int) or len(window) != 3:
            raise UsageError(f"head_window must be (T, H, W), not {window!r}.")
        sizes = zip(window, feature_map.shape[1:4], strict=True)
        cut = tuple(min(check_count("head_window", asked), there) for asked, there in sizes)
        pool = keras.layers.AveragePooling3D(cut, strides=1, name="head_window")
        feature_map = pool(feature_map)
    return keras.layers.GlobalAveragePooling3D(name="features")(feature_map)


def classifier_head(
    features: Any, num_classes: int, classifier_activation: Any, dropout: float
) -> Any:
    """Dropout, `logits` and `predictions`; the last two in float32 whatever the policy.

    Args:
        features: Keras tensor (B, C).
        num_classes: at least 1.
        classifier_activation: `"softmax"`, `"sigmoid"` for several labels a video, or None.
        dropout: share of the features set to 0 in training, 0 <= dropout < 1.

    Returns:
        Keras tensor (B, num_classes).

    Raises:
        UsageError: an argument is out of its range.
    """
    num_classes = check_count("num_classes", num_classes)
    if num_classes > _MOST_CLASSES:
        raise UsageError(f"num_classes must be at most {_MOST_CLASSES:,}, not {num_classes}.")
    try:
        activation = keras.activations.get(classifier_activation)
    except (TypeError, ValueError):
        raise UsageError(
            f'classifier_activation must be "softmax", "sigmoid" or None, '
            f"not {classifier_activation!r}."
        ) from None
    if check_dropout(dropout):
        features = Dropout(dropout, name="dropout")(features)
    logits = keras.layers.Dense(num_classes, name="logits", dtype="float32")(features)
    return keras.layers.Activation(activation, name="predictions", dtype="float32")(logits)
