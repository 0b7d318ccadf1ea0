"""`kvideo.export`: a model into another format, compared with the Keras model before it is kept."""

from __future__ import annotations

import dataclasses
import functools
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kvideo.errors import KVideoError, UsageError
from kvideo.exporting.formats import FORMATS, Format, choose_format
from kvideo.exporting.places import Place
from kvideo.files import is_disk_full
from kvideo.noise import noise_clips
from kvideo.progress import Progress

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import keras

    from kvideo.saving import ModelInfo

__all__ = ["DYNAMIC", "FORMATS", "ExportResult", "export"]

DYNAMIC = "dynamic"
TOLERANCE = 1e-3
INPUT = "clip"
_LAYOUT = "batch, time, height, width, channels"
_COARSE = 8  # pixels
# Probabilities below and above these tell nothing that a runtime has to keep.
_LEAST, _LEAST_BELOW_ONE = 1e-30, 1e-4


@dataclasses.dataclass(frozen=True)
class ExportResult:
    """What `export` wrote.

    Attributes:
        path: the file, or the folder of a SavedModel.
        format: one of `FORMATS`.
        info: the JSON file that describes it.
        labels: the text file with the class names.
        inputs: name, shape (None: any size), dtype and layout of each; a late fusion has several.
        output: name, shape and dtype.
        max_difference: the largest difference from the Keras model's outputs, on test clips.
        allowed_difference: what would still have been accepted.
        num_bytes: how large it is.
    """

    path: str
    format: str
    info: str
    labels: str
    inputs: list[dict[str, Any]]
    output: dict[str, Any]
    max_difference: float
    allowed_difference: float
    num_bytes: int

    @property
    def input(self) -> dict[str, Any]:
        """The first of `inputs`, mostly the only one."""
        return self.inputs[0]

    def to_json(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {**dataclasses.asdict(self), "input": self.input}


def export(
    model: Any,
    out: str | os.PathLike[str],
    format: str | None = None,
    *,
    batch: int | str | None = None,
    tolerance: float = TOLERANCE,
    overwrite: bool = False,
    verbose: bool = False,
) -> ExportResult:
    """Writes a model for other programs; like `kvideo export`.

    What is written takes clips as they come from a decoder (RGB, 0..255, `uint8`; flow in
    `float32`) and gives probabilities: the normalization is inside. Class names and clip settings
    lie beside it. A late fusion takes a clip for each of its members, `clip_1`, `clip_2` …, and
    fuses what is said of these. Batch norms are folded into the convolutions. Before anything is
    kept, it is loaded again by the program that will run it (TensorFlow, ONNX Runtime, LiteRT's
    plain interpreter), and its outputs on test clips are compared with those of the Keras model.

    Args:
        model: a `keras.Model` that carries its `ModelInfo`, a `.keras` file or a run's folder.
        out: a folder to make for a SavedModel, a `.onnx` file, or a `.tflite` file.
        format: `"saved_model"`, `"onnx"` or `"litert"`; by default what the ending of `out` says.
        batch: clips at once, a number or `"dynamic"`: any number. By default dynamic; 1 for LiteRT.
        tolerance: the largest difference that is accepted, as a share of the largest output (or of
            1, if that is more). Probabilities are compared by their logits, as far as they tell
            them: where one class has all of it, the probabilities themselves say nothing.
        overwrite: replace what is there.
        verbose: progress on standard error.

    Returns:
        Paths, names of input and output, and the largest difference.

    Raises:
        UsageError: an argument is out of its range, or something is there already.
        ModelFileError: the model cannot be loaded.
        KVideoError: a package is missing, the format lacks a layer's operations (the layer is
            named), the outputs differ, or the disk is full. Nothing is left then.
    """
    kind = choose_format(format, out)
    size = _batch_size(batch, kind)
    if not tolerance >= 0:
        raise UsageError(f"tolerance must be at least 0, not {tolerance!r}.")
    place = Place.of(out, folder=kind.ending is None)
    place.check_free(overwrite)
    kind.check_installed()
    with Progress(3, f"exporting to {kind.title}", unit="step", quiet=not verbose) as progress:
        network, info = _load(model)
        clips = _sample_clips(info, size or 2)
        given = list(clips.values())
        expected = np.asarray(network(given if len(given) > 1 else given[0], training=False))
        progress.update()
        with place.writing() as temporary:
            folded = _folded(network)
            scores = functools.partial(_scores, activation=_last_activation(network))
            counts = (size,) if size else (len(expected), 1)  # of any batch size, two are tried
            found = _convert(folded, clips, counts, kind, size, temporary.model)
            progress.update()
            allowed = float(tolerance * max(1.0, np.abs(scores(expected)).max()))
            differences = [np.abs(scores(x) - scores(expected[: len(x)])).max() for x in found]
            difference = float(np.max(differences))  # not Python's max, which may lose a NaN
            if not difference <= allowed:
                raise KVideoError(
                    f"{out} was not written: its outputs differ from those of the Keras model by "
                    f"{difference:.2g}, more than {allowed:.2g}; a larger tolerance admits it."
                )
            result = ExportResult(
                path=str(place.model),
                format=kind.name,
                info=str(place.info),
                labels=str(place.labels),
                inputs=[
                    _tensor(name, size, each) | {"layout": _LAYOUT} for name, each in clips.items()
                ],
                output=_tensor(_output_name(network), size, expected),
                max_difference=difference,
                allowed_difference=allowed,
                num_bytes=_num_bytes(temporary.model),
            )
            kept = ("format", "input", "inputs", "output", "max_difference", "allowed_difference")
            about = {name: getattr(result, name) for name in kept}
            temporary.describe({**info.to_json(), "export": about}, info.class_names)
            progress.update()
    return result


def _batch_size(batch: int | str | None, kind: Format) -> int | None:
    """A number, or None for any."""
    if batch is None:
        return None if kind.dynamic else 1
    if batch == DYNAMIC:
        return None
    if isinstance(batch, bool) or not isinstance(batch, int) or batch < 1:
        raise UsageError(f'batch must be a whole number of at least 1 or "dynamic", not {batch!r}.')
    return batch


def _load(model: Any) -> tuple[keras.Model, ModelInfo]:
    from kvideo.saving import load_model, model_info

    if isinstance(model, str | os.PathLike):
        model = load_model(model)
    info = model_info(model)
    if info.detector is not None:
        raise UsageError(
            f'"{model.name}" is an actor detector, which takes boxes besides clips; only '
            "classifiers can be exported."
        )
    specs = [part.clip_spec for part in info.members or (info,)]
    if len(model.inputs) != len(specs) or len(model.outputs) != 1:
        raise UsageError(
            f'"{model.name}" has {len(model.inputs)} inputs and {len(model.outputs)} outputs; only '
            "models from one clip to one output, and late fusions of these, can be exported."
        )
    for tensor, spec in zip(model.inputs, specs, strict=True):
        if tuple(tensor.shape[1:]) != spec.shape:
            raise UsageError(
                f'"{model.name}" takes clips of {tuple(tensor.shape[1:])}, its ClipSpec says '
                f"{spec.shape}."
            )
    types = {layer.compute_dtype for layer in model._flatten_layers()} - {"float32"}
    if types:
        raise UsageError(
            f'"{model.name}" computes in {types.pop()}, and exported models in float32: load it '
            "with `kvideo.load_model(path)`, or give the path."
        )
    return model, info


def _sample_clips(info: ModelInfo, count: int) -> dict[str, np.ndarray]:
    """Of each input, clips (count, T, H, W, C), always the same: coarse patterns, then noise."""
    specs = [part.clip_spec for part in info.members or (info,)]
    names = [INPUT] if len(specs) == 1 else [f"{INPUT}_{n + 1}" for n in range(len(specs))]
    clips = {}
    for name, spec in zip(names, specs, strict=True):
        _, height, width, _ = spec.shape
        clips[name] = noise_clips(spec.shape, count)
        coarse = clips[name][0, :, ::_COARSE, ::_COARSE].repeat(_COARSE, axis=1)
        clips[name][0] = coarse.repeat(_COARSE, axis=2)[:, :height, :width]
    return clips


def _folded(network: keras.Model) -> keras.Model:
    """The model with its batch norms folded into the convolutions, where that is possible."""
    from kvideo.folding import fold_batch_norm

    try:
        return fold_batch_norm(network)
    except UsageError:  # not functional: it stays as it is
        return network


def _convert(
    network: keras.Model,
    clips: Mapping[str, np.ndarray],
    counts: Sequence[int],
    kind: Format,
    size: int | None,
    path: Path,
) -> list[np.ndarray]:
    """Writes the model to `path`, loads it from there, and runs it on so many of the clips."""
    import tensorflow as tf

    specs = [
        tf.TensorSpec((size, *each.shape[1:]), tf.as_dtype(each.dtype), name=name)
        for name, each in clips.items()
    ]
    module = kind.module()
    try:
        module.write(network, path, specs, _output_name(network))
        run = module.load(path)
        return [
            np.asarray(run({name: each[:count] for name, each in clips.items()}))
            for count in counts
        ]
    except Exception as cause:  # each converter and runtime has its own ways to fail
        if is_disk_full(cause) or isinstance(cause, KVideoError | MemoryError):
            raise
        raise KVideoError(_explain(cause, network, kind, size)) from cause


def _explain(cause: Exception, network: keras.Model, kind: Format, size: int | None) -> str:
    from kvideo.exporting.culprits import refused_layers

    layers = refused_layers(network, kind, size)
    if not layers:
        reason = str(cause).strip().splitlines() or [type(cause).__name__]
        return f'"{network.name}" could not be converted to {kind.title}: {reason[0]}'
    if size is None and not refused_layers(network, kind, 1):
        return (
            f"{kind.title} cannot express the {_listed(layers)} for batches of any size; a fixed "
            "size (--batch 1) works."
        )
    return f"{kind.title} cannot express the {_listed(layers)}; another format may."


def _listed(layers: list[str]) -> str:
    more = len(layers) - 3
    return ", the ".join(layers[:3]) + (f" and {more} more" if more > 0 else "")


def _scores(outputs: np.ndarray, activation: str) -> np.ndarray:
    """What a softmax (up to a constant) or sigmoid was applied to; other outputs as they are."""
    outputs = np.asarray(outputs, np.float64)
    if activation == "softmax":
        logs = np.log(np.maximum(outputs, _LEAST))
        return logs - logs.mean(axis=-1, keepdims=True)
    if activation == "sigmoid":
        inside = np.clip(outputs, _LEAST, 1 - _LEAST_BELOW_ONE)
        return np.log(inside) - np.log1p(-inside)
    return outputs


def _last_activation(network: keras.Model) -> str:
    return getattr(getattr(network.layers[-1], "activation", None), "__name__", "")


def _output_name(network: keras.Model) -> str:
    """`"logits"` for a model without a final activation, else `"probabilities"`."""
    return "logits" if _last_activation(network) == "linear" else "probabilities"


def _tensor(name: str, size: int | None, example: np.ndarray) -> dict[str, Any]:
    return {"name": name, "shape": [size, *example.shape[1:]], "dtype": str(example.dtype)}


def _num_bytes(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())
