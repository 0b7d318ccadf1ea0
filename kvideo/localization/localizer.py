"""A trained localizer: networks that give features, a `tal_net` on each, and one folder for all.

The folder holds all that predicting needs: `localizer.json`, and for each stream the model that its
features come from (`rgb.keras`) and its head (`rgb-tal_net.keras`).
"""

from __future__ import annotations

import dataclasses
import os
import warnings
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kvideo import __version__
from kvideo.errors import ModelFileError, UnknownNameError
from kvideo.files import atomic_path, make_folder, write_text_atomic
from kvideo.localization.detection import Detections, DetectionSettings, detect
from kvideo.localization.index import FORMAT, INDEX, index_file, read_index
from kvideo.localization.proposals import Stages
from kvideo.results import json_text, plain
from kvideo.saving import load_model, save_model

if TYPE_CHECKING:
    import keras

_DAMAGE = (zipfile.BadZipFile, OSError, EOFError, ValueError, LookupError, TypeError)


@dataclasses.dataclass(eq=False)
class Stream:
    """One way of looking at videos.

    Args:
        name: `"rgb"`, `"flow"`, …; names the files.
        extractor: a classifier that carries its `ModelInfo`.
        layer: of the extractor; its output is the features.
        head: a `tal_net` on these features.
    """

    name: str
    extractor: keras.Model
    layer: str
    head: keras.Model

    def __post_init__(self) -> None:
        self.stages = Stages(self.head)


@dataclasses.dataclass(eq=False)
class Localizer:
    """Finds the segments of untrimmed videos in which something happens.

    Args:
        class_names: C names.
        stride: seconds from one row of features to the next.
        scales: lengths of the anchors, in strides.
        streams: at least one; what they say is averaged.
        settings: how segments are made.
        details: how it was made, plain values.
    """

    class_names: tuple[str, ...]
    stride: float
    scales: tuple[float, ...]
    streams: tuple[Stream, ...]
    settings: DetectionSettings = dataclasses.field(default_factory=DetectionSettings)
    details: dict[str, Any] = dataclasses.field(default_factory=dict)

    def detect(self, features: Sequence[np.ndarray], duration: float) -> Detections:
        """The segments of a video, from the features (T, D) of each stream."""
        stages = [stream.stages for stream in self.streams]
        return detect(stages, features, self.scales, self.stride, duration, self.settings)

    def only(self, name: str) -> Localizer:
        """The same with one stream alone.

        Raises:
            UnknownNameError: it has no stream of that name.
        """
        chosen = tuple(stream for stream in self.streams if stream.name == name)
        if not chosen:
            known = ", ".join(stream.name for stream in self.streams)
            raise UnknownNameError(f"this localizer has no stream {name!r}; it has {known}.")
        return dataclasses.replace(self, streams=chosen)

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Writes all files; the index, by which a folder is a localizer, last.

        Raises:
            KVideoError: they cannot be written.
        """
        top, streams = make_folder(folder), []
        for stream in self.streams:
            model, head = f"{stream.name}.keras", f"{stream.name}-tal_net.keras"
            save_model(stream.extractor, top / model)
            with atomic_path(top / head) as temporary:
                stream.head.save(temporary)
            streams.append(
                {"name": stream.name, "model": model, "layer": stream.layer, "head": head}
            )
        document = {
            "format": FORMAT,
            "kvideo_version": __version__,
            "class_names": self.class_names,
            "stride": self.stride,
            "scales": self.scales,
            "streams": streams,
            "settings": dataclasses.asdict(self.settings),
            "details": self.details,
        }
        write_text_atomic(top / INDEX, json_text(plain(document)))


def load_localizer(path: str | os.PathLike[str], *, precision: str = "float32") -> Localizer:
    """A localizer from its folder. Nothing that is stored there is executed.

    Args:
        path: the folder.
        precision: of the networks that give features, see `load_model`; heads are float32.

    Raises:
        ModelFileError: it is none, or a file is missing or damaged.
    """
    document, top = read_index(path), index_file(path).parent
    try:
        streams = tuple(
            Stream(
                values["name"],
                load_model(top / values["model"], precision=precision),
                values["layer"],
                _load_head(top / values["head"]),
            )
            for values in document["streams"]
        )
        return Localizer(
            tuple(document["class_names"]),
            float(document["stride"]),
            tuple(document["scales"]),
            streams,
            DetectionSettings(**document["settings"]),
            document.get("details", {}),
        )
    except (KeyError, TypeError) as cause:
        raise ModelFileError(f"{top / INDEX} is damaged: {cause!r}.") from cause


def _load_head(path: Path) -> keras.Model:
    import keras

    import kvideo.layers  # noqa: F401  registers the layers

    if not path.is_file():
        raise ModelFileError(f"there is no model file {path}.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)
            return keras.models.load_model(path, compile=False, safe_mode=True)
    except (*_DAMAGE, UserWarning) as cause:
        raise ModelFileError(f"{path} could not be loaded: {cause}") from cause
