"""A published checkpoint becomes a self-describing model file: `kvideo convert`."""

from __future__ import annotations

import dataclasses
import difflib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kvideo.clip_spec import recommended_clip, recommended_views
from kvideo.errors import DataError, ModelFileError, UsageError
from kvideo.files import check_target
from kvideo.registry import MODELS, Entry, find
from kvideo.saving import BuilderInfo, ModelInfo, read_info, save_model
from kvideo.text import enumerate_words, plural
from kvideo.weights.labels import LABEL_SETS, published_class_names

if TYPE_CHECKING:
    import keras

    from kvideo.clip_spec import ClipSpec
    from kvideo.weights.families import Family
    from kvideo.weights.loading import LoadReport

_KERAS_FILES = (b"PK\x03\x04", b"\x89HDF")  # how .keras and .h5 files begin


@dataclasses.dataclass(frozen=True)
class ConversionResult:
    """What `convert` made.

    Args:
        path: the model file.
        model: the registered name.
        checkpoint: the file that the weights come from.
        dialect: who named its tensors.
        tensors: how many were put into the model; None for a Keras file.
        info: what the model file says of clips and classes.
        labels: where the class names come from: a file, `"kinetics400"`, `"sports1m"`, or None if
            nobody knows them.
        remarks: sentences about what is not as one may expect.
    """

    path: str
    model: str
    checkpoint: str
    dialect: str
    tensors: int | None
    info: ModelInfo
    labels: str | None
    remarks: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        info = self.info.to_json()
        return {
            **values,
            "remarks": list(self.remarks),
            "info": {key: info[key] for key in ("clip_spec", "class_names", "views", "builder")},
        }


def convert(
    checkpoint: str | os.PathLike[str],
    model: str,
    out: str | os.PathLike[str],
    *,
    options: Mapping[str, Any] | None = None,
    labels: str | os.PathLike[str] | Sequence[str] | None = None,
    num_classes: int | None = None,
    num_frames: int | None = None,
    frame_rate: float | None = None,
    size: tuple[int, int] | None = None,
    mean_cube: str | os.PathLike[str] | None = None,
    multi_label: bool = False,
    overwrite: bool = False,
) -> ConversionResult:
    """Makes a model file of published weights; like `kvideo convert`.

    Nothing that a checkpoint holds besides numbers is used, and nothing in it is run.

    Args:
        checkpoint: a PyTorch file (`.pyth`, `.pth`, `.pt`), a TensorFlow checkpoint (its prefix or
            any of its files), a Keras `.h5`, `.weights.h5` or `.keras` file, or the name of
            published weights of the model, such as `"kinetics400"`.
        model: a registered model's name.
        out: the `.keras` file to make.
        options: further arguments of the model's builder.
        labels: the class names, in the order of the outputs; or a file of them; or
            `"kinetics400"` or `"sports1m"`. By default those of the data set that the model is
            published for, where the number of classes is that data set's.
        num_classes: by default as many as the checkpoint or `labels` has. If it is another number
            than the checkpoint's, the last layer is fresh.
        num_frames: frames in a clip, if not as the builder recommends.
        frame_rate: frames per second of the clip, likewise.
        size: height and width of the clip, likewise.
        mean_cube: for C3D: a `.npy` file with Sports-1M's mean clip.
        multi_label: whether a video may have several labels (sigmoid instead of softmax).
        overwrite: replace `out`.

    Returns:
        What was made; `info` is what `kvideo.load_model(out)` knows.

    Raises:
        ModelFileError: the checkpoint is missing, damaged, refused, or does not fit; then the
            message is a table and no file is written.
        UsageError: an argument is wrong, or `out` exists.
        KVideoError: `out` cannot be written; the download failed.
    """
    from kvideo.models.pretrained import clip_of

    target = _check_target(out, overwrite)
    entry = find(MODELS, model)
    builder = entry.load()
    file, published_for = _locate(checkpoint, entry)
    given = dict(options or {})
    if mean_cube is not None:
        given["preprocessing"] = "mean_cube"
    family, in_file, needed = _look_into(file, builder, model)
    given = {**needed, **given}
    spec = recommended_clip(builder, **given)
    if "input_shape" in given:
        spec = clip_of(spec, given.pop("input_shape"))
    spec = spec.replace(**_changes(num_frames=num_frames, frame_rate=frame_rate, size=size))
    names, source = _given_names(labels)
    classes = num_classes or len(names) or in_file
    if not classes:
        raise UsageError(
            f"{file} does not say how many classes there are: give num_classes (--num-classes)."
        )
    if not names:
        names, source = _known_names(classes, in_file, published_for, file)
    if len(names) != classes:
        raise UsageError(f"{source} has {plural(len(names), 'name')} for {classes} classes.")
    # The mean cube becomes a weight: the file is needed now, and never again.
    once = {} if mean_cube is None else {"mean_cube": os.fspath(mean_cube)}
    network, report = _build(entry, classes, spec, multi_label, {**given, **once}, file, family)
    info = ModelInfo(
        clip_spec=spec,
        class_names=names,
        multi_label=multi_label,
        views=recommended_views(builder),
        builder=BuilderInfo(entry.name, entry.value, entry.distribution, entry.version, given),
    )
    save_model(network, target, info)
    remarks = report.remarks() if report else []
    if source is None:
        remarks.append(
            "The names of its classes are not known, so they are numbers: give labels (--labels)."
        )
    return ConversionResult(
        path=str(target),
        model=model,
        checkpoint=file,
        dialect=report.dialect if report else "Keras",
        tensors=report.tensors if report else None,
        info=info,
        labels=source,
        remarks=tuple(remarks),
    )


def _check_target(out: str | os.PathLike[str], overwrite: bool) -> Path:
    target = Path(out)
    if target.suffix != ".keras":
        raise UsageError(f"a model file's name ends in .keras; {target} does not.")
    if target.exists() and not overwrite:
        raise UsageError(f"{target} exists; give another name, or overwrite it (--overwrite).")
    check_target(target)
    return target


def _locate(checkpoint: str | os.PathLike[str], entry: Entry) -> tuple[str, dict[int, str]]:
    """The file, and by number of classes the label set that the model is published for."""
    from kvideo.models.pretrained import download
    from kvideo.weights.checkpoints import FORMS, checkpoint_kind
    from kvideo.weights.published import PUBLISHED

    names = PUBLISHED.get(entry.name, {}) if entry.builtin else {}
    published_for = {weights.classes: weights.labels for weights in names.values()}
    path = os.fspath(checkpoint)
    if path in names and not os.path.exists(path):
        return download(names[path]), published_for
    kind = checkpoint_kind(path)
    if kind is None:
        _check_published_name(path, entry.name, names)
        known = "".join(f', or "{name}"' for name in names)
        what = "is not" if os.path.exists(path) else "does not exist, nor is its name that of"
        raise UsageError(f"{path} {what} {FORMS}{known}.")
    if kind != "tensorflow" and not os.path.isfile(path):
        raise ModelFileError(f"there is no checkpoint file {path}.")
    return path, published_for


def _check_published_name(name: str, model: str, names: Mapping[str, Any]) -> None:
    """Refuses, with a better word, published names of other models and misspelt ones."""
    from kvideo.weights.published import PUBLISHED

    if os.path.exists(name):
        return
    others = [other for other, published in PUBLISHED.items() if name in published]
    if others:
        own = " or ".join(f'"{each}"' for each in names)
        has = f"it has {own}" if own else f"it has none, but {enumerate_words(others)} have"
        raise UsageError(f'there are no weights "{name}" of {model}; {has}.')
    if near := difflib.get_close_matches(name, names, n=1):
        raise UsageError(f'{model} has no weights "{name}". Did you mean "{near[0]}"?')


def _look_into(file: str, builder: Any, model: str) -> tuple[Family | None, int, dict[str, Any]]:
    """The family, the number of classes in the file (0: unknown), and options that it needs."""
    from kvideo.weights.checkpoints import checkpoint_kind, read_checkpoint
    from kvideo.weights.loading import find_dialect

    family = getattr(builder, "family", None)
    if checkpoint_kind(file) == "keras":
        try:
            info = read_info(file)
        except ModelFileError:  # a Keras file of the user's own
            with open(file, "rb") as opened:
                beginning = opened.read(4)
            if beginning not in _KERAS_FILES:
                raise ModelFileError(
                    f"{file} is not a Keras file: it is cut off, damaged, or of another kind."
                ) from None
            return family, 0, {}
        same = info.builder if info.builder and info.builder.name == model else None
        options = dict(same.options) if same else {}
        options.pop("weights", None)  # which its builder began with
        return family, len(info.class_names), options
    if family is None:
        raise UsageError(
            f'kvideo knows no published checkpoints of the model "{model}"; it takes .keras and '
            ".weights.h5 files only."
        )
    tensors = read_checkpoint(file, values=False)
    dialect = find_dialect(tensors, family, file)
    return family, dialect.count_classes(tensors), dialect.options(tensors)


def _build(
    entry: Entry,
    classes: int,
    spec: ClipSpec,
    multi_label: bool,
    options: dict[str, Any],
    file: str,
    family: Family | None,
) -> tuple[keras.Model, LoadReport | None]:
    """The model with its weights; a report where they are a published checkpoint's."""
    from kvideo.building import build_model
    from kvideo.weights.checkpoints import checkpoint_kind
    from kvideo.weights.loading import load_checkpoint

    published = family is not None and checkpoint_kind(file) != "keras"
    network = build_model(
        entry,
        classes,
        spec.shape,
        classifier_activation="sigmoid" if multi_label else "softmax",
        options=options if published else {**options, "weights": file},
    )
    if family is None or not published:
        return network, None
    return network, load_checkpoint(network, file, family)


def _given_names(labels: Any) -> tuple[tuple[str, ...], str | None]:
    """Class names that the user gave, and where they come from; none if nothing was given."""
    if labels is None:
        return (), None
    if not isinstance(labels, str | os.PathLike):
        return tuple(str(name) for name in labels), "the list of labels"
    path = os.fspath(labels)
    if path in LABEL_SETS and not os.path.exists(path):
        return published_class_names(path), path
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as cause:
        known = ", ".join(LABEL_SETS)
        raise UsageError(
            f"the labels {path} cannot be read ({cause}); give a text file with a name a line, or "
            f"one of {known}."
        ) from cause
    if path.endswith(".json"):
        return _names_in_json(text, path), path
    from kvideo.data.class_names import parse_class_names

    return parse_class_names(text, path).names, path


def _names_in_json(text: str, path: str) -> tuple[str, ...]:
    """A list of names, or an object of names with their numbers, as PyTorchVideo has it."""
    try:
        content = json.loads(text)
    except ValueError as cause:
        raise DataError(f"{path} is not JSON: {cause}.") from cause
    if isinstance(content, dict) and all(isinstance(n, int) for n in content.values()):
        content = sorted(content, key=content.__getitem__)
    if not isinstance(content, list) or not all(isinstance(name, str) for name in content):
        raise DataError(f"{path} must hold a list of names, or an object of names with numbers.")
    return tuple(name.strip('"') for name in content)


def _known_names(
    classes: int, in_file: int, published_for: Mapping[int, str], file: str
) -> tuple[tuple[str, ...], str | None]:
    """The names in a kvideo file or of the published data set; else numbers from 0."""
    if classes == in_file:
        if file.endswith(".keras"):
            return read_info(file).class_names, file
        if label_set := published_for.get(classes):
            return published_class_names(label_set), label_set
    return tuple(str(number) for number in range(classes)), None


def _changes(**values: Any) -> dict[str, Any]:
    """What is to be changed of a `ClipSpec`; another size takes the usual short side."""
    changes = {name: value for name, value in values.items() if value is not None}
    return {**changes, "short_side": None} if "size" in changes else changes
