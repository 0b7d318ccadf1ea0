"""Checkpoint files of any kind as tensors by name; nothing in a file is ever run."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from kvideo.errors import ModelFileError
from kvideo.weights.torch_reader import read_state_dict

_TORCH = (".pyth", ".pth", ".pt", ".pth.tar", ".pickle", ".pkl")
_KERAS = (".keras", ".weights.h5")
_HDF5 = (".h5", ".hdf5")
_TF_SHARD = re.compile(r"\.(index|data-\d+-of-\d+|meta)$")

_KERAS_1 = {"W": "kernel", "b": "bias"}
_NOT_LAYERS = ("optimizer_weights/", "top_level_model_weights/", "_")

FORMS = (
    "a .keras, .weights.h5, PyTorch (.pyth, .pth, .pt), Keras .h5 or TensorFlow (.index) checkpoint"
)


def checkpoint_kind(path: str | os.PathLike[str]) -> str | None:
    """`"keras"`, `"torch"`, `"hdf5"`, `"tensorflow"`, or None, by the file's name.

    A TensorFlow checkpoint is several files, PREFIX.index and PREFIX.data-…; any of them, or the
    prefix, names it.
    """
    path = os.fspath(path)
    if path.endswith(_KERAS):
        return "keras"
    if path.endswith(_TORCH):
        return "torch"
    if path.endswith(_HDF5):
        return "hdf5"
    if _TF_SHARD.search(path) or os.path.exists(f"{path}.index"):
        return "tensorflow"
    return None


def read_checkpoint(path: str | os.PathLike[str], *, values: bool = True) -> dict[str, np.ndarray]:
    """The tensors of a PyTorch, TensorFlow or Keras `.h5` file by name.

    Names in a `.h5` file come as `layer/variable`.

    Args:
        path: the file; of a TensorFlow checkpoint the prefix or any of its files.
        values: False gives arrays of the right shapes that are all zero and take no memory.

    Raises:
        ModelFileError: no such file, another kind of file, damaged, or refused.
    """
    path = os.fspath(path)
    kind = checkpoint_kind(path)
    if kind == "torch":
        return read_state_dict(path, values=values)
    if kind == "hdf5":
        return _read_hdf5(path, values)
    if kind == "tensorflow":
        return _read_tensorflow(path, values)
    raise ModelFileError(
        f"{path} is no published checkpoint by its name: these are .pyth, .pth, .pt (PyTorch), "
        ".h5 (Keras) and .index (TensorFlow)."
    )


def _read_hdf5(path: str, values: bool) -> dict[str, np.ndarray]:
    """The arrays of a Keras weight or model file of the older format, as `layer/variable`.

    Such a file has one group per layer, perhaps within `model_weights`, and in it, perhaps a few
    groups deeper, the arrays. The model's description, which may hold code, is not looked at.
    """
    import h5py

    if not os.path.exists(path):
        raise ModelFileError(f"there is no checkpoint file {path}.")
    arrays: dict[str, dict[tuple[str, ...], np.ndarray]] = {}  # by layer, by place in its group

    def note(place: str, item: Any) -> None:
        if not isinstance(item, h5py.Dataset) or place.startswith(_NOT_LAYERS):
            return
        if item.external or item.is_virtual:
            raise ModelFileError(f"{path} is refused: it takes {place} from another file.")
        layer, *inner = place.removeprefix("model_weights/").split("/")
        array = np.asarray(item) if values else _zeros(item.shape)
        arrays.setdefault(layer, {})[tuple(inner)] = array

    try:
        with h5py.File(path, "r") as file:
            file.visititems(note)  # follows no links, neither within the file nor to other files
    except (OSError, KeyError, RuntimeError, ValueError, TypeError) as cause:
        raise ModelFileError(f"{path} cannot be read as a Keras .h5 file: {cause}.") from cause
    tensors = {
        f"{layer}/{name}": array
        for layer, by_place in arrays.items()
        for name, array in _variables(layer, by_place).items()
    }
    if not tensors:
        raise ModelFileError(f"{path} holds no arrays by layer, as Keras's .h5 files do.")
    return tensors


def _variables(layer: str, by_place: dict[tuple[str, ...], np.ndarray]) -> dict[str, np.ndarray]:
    """`kernel`, `bias` of a layer's arrays `conv1/kernel:0`, `conv1/bias:0`.

    Groups within the layer's that hold everything mean nothing: the layer's name again, perhaps
    numbered, or the model's. Keras 1 called the arrays `conv1_W` and `conv1_b`.
    """
    while all(len(place) > 1 for place in by_place) and len({place[0] for place in by_place}) == 1:
        by_place = {place[1:]: array for place, array in by_place.items()}
    found = {}
    for place, array in by_place.items():
        *inner, last = place or ("",)
        last = last.split(":")[0].removeprefix(f"{layer}_")
        found["/".join([*inner, _KERAS_1.get(last, last)])] = array
    return found


def _read_tensorflow(path: str, values: bool) -> dict[str, np.ndarray]:
    """The variables of a TensorFlow checkpoint; no graph is loaded."""
    import tensorflow as tf

    prefix = _TF_SHARD.sub("", path)
    if not os.path.exists(f"{prefix}.index"):
        raise ModelFileError(f"there is no TensorFlow checkpoint {prefix} (no {prefix}.index).")
    try:
        reader = tf.train.load_checkpoint(prefix)
        shapes = reader.get_variable_to_shape_map()
        if not values:
            return {name: _zeros(shapes[name]) for name in sorted(shapes)}
        return {name: np.asarray(reader.get_tensor(name)) for name in sorted(shapes)}
    except (tf.errors.OpError, ValueError, RuntimeError) as cause:
        raise ModelFileError(
            f"{prefix} cannot be read as a TensorFlow checkpoint: {cause}"
        ) from cause


def _zeros(shape: Sequence[int]) -> np.ndarray:
    return np.broadcast_to(np.zeros((), "float32"), tuple(shape))
