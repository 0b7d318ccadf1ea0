"""One self-describing `.keras` file: model, ClipSpec, class names, recommended views, builder.

The additional facts are one more member, `kvideo.json`, of the zip archive that Keras writes;
Keras itself ignores it. Saved models are always float32: precision is chosen at load.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import tempfile
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kvideo import __version__
from kvideo.clip_spec import ClipSpec, Views
from kvideo.errors import KVideoError, ModelFileError, PluginLoadError, UsageError, check_choice
from kvideo.files import atomic_path
from kvideo.registry import MODELS, entries

if TYPE_CHECKING:
    import keras

_MEMBER, _CONFIG, _WEIGHTS = "kvideo.json", "config.json", "model.weights.h5"
_FORMAT = 1
_FLOAT32_LAYERS = ("logits", "predictions")
PRECISIONS = {"float32": "float32", "bfloat16": "mixed_bfloat16", "float16": "mixed_float16"}


# What `zipfile` and `json` raise for files that are cut off, altered, or never were archives.
_DAMAGE = (zipfile.BadZipFile, zlib.error, OSError, EOFError, RuntimeError, ValueError)


@dataclasses.dataclass(frozen=True)
class BuilderInfo:
    """Where a model's code comes from, and how it was called.

    Args:
        name: the registered name.
        entry_point: `module:function`.
        distribution: what to install to have it.
        version: of the distribution, when the model was built.
        options: keyword arguments besides `num_classes`, `input_shape`, `classifier_activation`.
    """

    name: str
    entry_point: str
    distribution: str
    version: str
    options: dict[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Member:
    """One of the models of a late fusion.

    Args:
        clip_spec: what one of its clips is.
        views: recommended for testing.
        builder: where its code comes from.
    """

    clip_spec: ClipSpec
    views: Views
    builder: BuilderInfo | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "clip_spec": self.clip_spec.to_json(),
            "views": dataclasses.asdict(self.views),
            "builder": dataclasses.asdict(self.builder) if self.builder else None,
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Member:
        """The inverse of `to_json`."""
        builder = values["builder"]
        return cls(
            ClipSpec.from_json(values["clip_spec"]),
            Views(**values["views"]),
            BuilderInfo(**builder) if builder else None,
        )


@dataclasses.dataclass(frozen=True)
class ModelInfo:
    """What a model file says besides weights and graph.

    Args:
        clip_spec: what one clip is.
        class_names: in the order of the model's outputs.
        multi_label: several labels a video (sigmoid) rather than one (softmax).
        views: recommended for testing.
        builder: where the model's code comes from; None for a model of the user's own.
        per_frame: a label for each frame, (B, T, C), rather than one for the clip; `save_model`
            finds that out.
        members: of a late fusion, the models that it is made of, each with clips of its own; then
            `clip_spec`, `views` and `builder` are those of the first.
        detector: of an `actor_detector` on that builder's model: its options.
        class_numbers: of a detector: what stands for the classes in AVA's files; by default their
            positions, from 1.
    """

    clip_spec: ClipSpec
    class_names: tuple[str, ...]
    multi_label: bool = False
    views: Views = Views()
    builder: BuilderInfo | None = None
    per_frame: bool = False
    members: tuple[Member, ...] = ()
    detector: dict[str, Any] | None = None
    class_numbers: tuple[int, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "format": _FORMAT,
            "kvideo_version": __version__,
            **Member(self.clip_spec, self.views, self.builder).to_json(),
            "class_names": list(self.class_names),
            "multi_label": self.multi_label,
            "per_frame": self.per_frame,
            "members": [member.to_json() for member in self.members],
            "detector": self.detector,
            "class_numbers": list(self.class_numbers),
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> ModelInfo:
        """The inverse of `to_json`.

        Raises:
            ModelFileError: a later version of kvideo wrote it.
        """
        if values.get("format") != _FORMAT:
            raise ModelFileError(
                f"it was written by kvideo {values.get('kvideo_version')}, this is {__version__}: "
                "`pip install -U kvideo`."
            )
        first = Member.from_json(values)
        return cls(
            clip_spec=first.clip_spec,
            class_names=tuple(values["class_names"]),
            multi_label=values["multi_label"],
            views=first.views,
            builder=first.builder,
            per_frame=values.get("per_frame", False),
            members=tuple(Member.from_json(member) for member in values.get("members", ())),
            detector=values.get("detector"),
            class_numbers=tuple(values.get("class_numbers", ())),
        )


def model_file(model: str | os.PathLike[str]) -> Path:
    """The model file that a path means: itself, or the best model of a run's folder."""
    path = Path(model)
    return path / "model.keras" if path.is_dir() else path


def model_info(model: keras.Model | str | os.PathLike[str]) -> ModelInfo:
    """The `ModelInfo` that a model was loaded or saved with, or that a file or a run holds.

    Raises:
        ModelFileError: see `read_info`.
        UsageError: the model has none; `save_model(model, path, info)` gives it one.
    """
    if isinstance(model, str | os.PathLike):
        return read_info(model_file(model))
    info = getattr(model, "kvideo_info", None)
    if not isinstance(info, ModelInfo):
        if not hasattr(model, "layers"):
            raise UsageError(
                f"model must be a keras.Model, a .keras file or a run's folder, not {model!r}."
            )
        raise UsageError(
            f'the model "{model.name}" carries no ClipSpec and class names; '
            "give it `model.kvideo_info = kvideo.saving.ModelInfo(…)`."
        )
    return info


def check_single(info: ModelInfo, what: str) -> None:
    """Refuses a detector, and a late fusion where one model with one kind of clip is needed.

    Raises:
        UsageError: it is one; the message begins with `what`.
    """
    if info.detector is not None:
        raise UsageError(
            f"{what} a classifier; this is an actor detector, which `kvideo detect` works with."
        )
    if info.members:
        raise UsageError(
            f"{what} a single model; this is a fusion of {len(info.members)}. Name one of them."
        )


def save_model(
    model: keras.Model, path: str | os.PathLike[str], info: ModelInfo | None = None
) -> None:
    """Writes model and info to one `.keras` file, in float32, whole or not at all.

    Args:
        model: any Keras model whose layers Keras can save.
        path: ends in `.keras`.
        info: by default what the model carries.

    Raises:
        UsageError: wrong ending, or no info.
        KVideoError: the disk is full, or the folder is missing.
    """
    if Path(path).suffix != ".keras":
        raise UsageError(f"a model file's name ends in .keras; {path} does not.")
    info = info or model_info(model)
    logits = _logits_shape(model)
    num_outputs = logits[-1]
    if num_outputs != len(info.class_names):
        raise UsageError(
            f"the model has {num_outputs} outputs, but {len(info.class_names)} class names came."
        )
    info = dataclasses.replace(
        info,
        per_frame=len(logits) == 3 and info.detector is None,
    )
    with atomic_path(path) as temporary:
        model.save(temporary)
        _finish_archive(temporary, info)
    model.kvideo_info = info


def _logits_shape(model: keras.Model) -> tuple[int | None, ...]:
    """The shape of the output that has a number for each class; of several that called logits."""
    outputs = model.output
    return tuple(outputs["logits"].shape if isinstance(outputs, dict) else model.output_shape)


def _finish_archive(path: Path, info: ModelInfo) -> None:
    """Adds our member; where layers are not float32, rewrites the configuration as well."""
    with zipfile.ZipFile(path) as archive:
        config = json.loads(archive.read(_CONFIG))
    if not (changed := _set_policy(config, lambda name: "float32")):
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr(_MEMBER, json.dumps(info.to_json(), indent=1))
        return
    with atomic_path(path) as temporary:
        with zipfile.ZipFile(path) as old, zipfile.ZipFile(temporary, "w") as new:
            for member in old.infolist():
                if member.filename == _CONFIG:
                    new.writestr(_CONFIG, json.dumps(changed))
                    continue
                with (
                    old.open(member) as source,
                    new.open(member.filename, "w", force_zip64=True) as to,
                ):
                    while block := source.read(2**20):
                        to.write(block)
            new.writestr(_MEMBER, json.dumps(info.to_json(), indent=1))


def read_info(path: str | os.PathLike[str]) -> ModelInfo:
    """The `ModelInfo` of a file, without loading the model (and without TensorFlow).

    Raises:
        ModelFileError: no file, not a model file, cut off, or not saved by kvideo.
    """
    if not os.path.exists(path):
        hint = (
            " That is a registered model; what is needed is one that was trained, its file or run."
        )
        raise ModelFileError(
            f"there is no model file {path}.{hint if os.fspath(path) in entries(MODELS) else ''}"
        )
    try:
        with zipfile.ZipFile(path) as archive:
            if _MEMBER not in archive.namelist():
                raise ModelFileError(
                    f"{path} was not saved by kvideo: it lacks the ClipSpec and the class names. "
                    "`kvideo.save_model(model, path, info)` writes them."
                )
            values = json.loads(archive.read(_MEMBER))
    except _DAMAGE as cause:
        raise ModelFileError(f"{path} is not a whole model file ({cause}).") from cause
    try:
        return ModelInfo.from_json(values)
    except KVideoError as cause:
        raise ModelFileError(f"{path}: {cause}") from cause
    except (KeyError, TypeError, AttributeError, ValueError) as cause:
        raise ModelFileError(f"{path}: its {_MEMBER} is damaged ({cause!r}).") from cause


def load_plain_model(path: str | os.PathLike[str]) -> keras.Model | None:
    """A model from a `.keras` file that Keras itself saved; None of all others.

    Such a file lacks the ClipSpec and the class names; nothing stored in it is executed.

    Raises:
        ModelFileError: it cannot be loaded.
    """
    if Path(path).suffix != ".keras" or not zipfile.is_zipfile(path):
        return None
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    if _MEMBER in names or _CONFIG not in names:
        return None
    import keras

    import kvideo.layers  # noqa: F401  registers the layers

    try:
        return keras.saving.load_model(path, compile=False, safe_mode=True)
    except (*_DAMAGE, LookupError, TypeError, AttributeError, ImportError) as cause:
        raise ModelFileError(f"{path} could not be loaded: {_sentence(cause)}") from cause


def load_model(path: str | os.PathLike[str], *, precision: str = "float32") -> keras.Model:
    """A model from a file that `save_model` wrote; nothing else is needed.

    Nothing stored in the file is executed. The layers' code comes from the registered entry point
    that the file names.

    Args:
        path: a `.keras` file, or a run's folder.
        precision: `"float32"`, `"bfloat16"` or `"float16"`: what the layers compute in. Weights,
            logits and probabilities stay float32.

    Returns:
        The model; `kvideo.model_info(model)` gives ClipSpec, class names and views.

    Raises:
        ModelFileError: no file, not a whole model file, or a package is missing (says which).
        UsageError: unknown precision.
    """
    check_choice("precision", precision, PRECISIONS)
    path = model_file(path)
    info = read_info(path)
    for part in info.members or (info,):
        if part.builder:
            _import_builder(part.builder, path)
    import keras

    import kvideo.layers  # noqa: F401  registers the layers

    policy = PRECISIONS[precision]
    try:
        with zipfile.ZipFile(path) as archive:
            config = json.loads(archive.read(_CONFIG))
        config = (
            _set_policy(config, lambda name: "float32" if name in _FLOAT32_LAYERS else policy)
            or config
        )
        model = keras.saving.deserialize_keras_object(config, safe_mode=True)
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)  # Keras only warns of weights left out
            with extracted_weights(path) as weights:
                model.load_weights(weights)
    except (*_DAMAGE, LookupError, TypeError, AttributeError, ImportError, UserWarning) as cause:
        raise ModelFileError(f"{path} could not be loaded: {_sentence(cause)}") from cause
    model.kvideo_info = info
    return model


def _sentence(cause: Exception) -> str:
    """What Keras says, without the configuration that it adds."""
    text = str(cause).rpartition("Exception encountered: ")[2]
    return " ".join(text.partition("Full object config")[0].split())


@contextlib.contextmanager
def extracted_weights(path: str | os.PathLike[str]) -> Iterator[str]:
    """The weights of a `.keras` file as a file of their own, while it is needed; others as given.

    Keras reads them out of the archive, where each step back means reading it from the start: 7 s
    instead of 1 s for SlowFast.

    Where there is no room for that, they are left where they are.

    Raises:
        zipfile.BadZipFile: the archive is damaged.
        KeyError: there are none in it.
    """
    with contextlib.ExitStack() as stack:
        weights = os.fspath(path)
        if zipfile.is_zipfile(path):
            with contextlib.suppress(OSError):  # no room, no permission
                folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="kvideo-"))
                with zipfile.ZipFile(path) as archive:
                    weights = archive.extract(_WEIGHTS, folder)
        yield weights


def _import_builder(builder: BuilderInfo, path: str | os.PathLike[str]) -> None:
    entry = entries(MODELS).get(builder.name)
    if entry is None or entry.distribution != builder.distribution:
        raise ModelFileError(
            f'{path} holds the model "{builder.name}" of {builder.distribution} '
            f"{builder.version}, which is not installed: `pip install {builder.distribution}`."
        )
    try:
        entry.load()
    except PluginLoadError as cause:
        raise ModelFileError(f"{path}: {cause}") from cause


def _set_policy(config: Any, policy_of: Callable[[str], str]) -> Any | None:
    """A configuration with the layers' dtype policies replaced; None if nothing changed.

    Args:
        config: what Keras serialized.
        policy_of: from a layer's name to the policy's name.
    """
    changed = False

    def walk(node: Any, layer: str) -> Any:
        nonlocal changed
        if isinstance(node, list):
            return [walk(item, layer) for item in node]
        if not isinstance(node, dict):
            return node
        if node.get("class_name") == "DTypePolicy":
            wanted = policy_of(layer)
            if node["config"]["name"] != wanted:
                changed = True
                return {**node, "config": {**node["config"], "name": wanted}}
            return node
        inner = node.get("config")
        if isinstance(inner, dict) and isinstance(inner.get("name"), str):
            layer = inner["name"]
        return {key: walk(value, layer) for key, value in node.items()}

    result = walk(config, "")
    return result if changed else None
