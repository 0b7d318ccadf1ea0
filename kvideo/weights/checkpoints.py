"""Checkpoint files of any kind as tensors by name; nothing in a file is ever run."""

from __future__ import annotations

import os
import re
from typing import Any

import numpy as np

from kvideo.errors import ModelFileError
from kvideo.weights.torch_reader import read_state_dict

_TORCH = (".pyth", ".pth", ".pt", ".pth.tar")
_KERAS = (".keras", ".weights.h5")
_HDF5 = (".h5", ".hdf5")
_TF_SHARD = re.compile(r"\.(index|data-\d+-of-\d+|meta)$")

_KERAS_1 = {"W": "kernel", "b": "bias"}

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


def read_checkpoint(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """The tensors of a PyTorch, TensorFlow or Keras `.h5` file by name.

    Names in a `.h5` file come as `layer/variable`.

    Raises:
        ModelFileError: no such file, another kind of file, damaged, or refused.
    """
    path = os.fspath(path)
    readers = {"torch": read_state_dict, "hdf5": read_hdf5, "tensorflow": read_tensorflow}
    kind = checkpoint_kind(path)
    if kind not in readers:
        raise ModelFileError(
            f"{path} is no published checkpoint by its name: these are .pyth, .pth, .pt (PyTorch), "
            ".h5 (Keras) and .index (TensorFlow)."
        )
    return readers[kind](path)


def read_hdf5(path: str) -> dict[str, np.ndarray]:
    """The arrays of a Keras 1 or 2 weight or model file, as `layer/variable`.

    Such a file has one group per layer, perhaps within `model_weights`, and in it, perhaps a few
    groups deeper, the arrays. The model's description, which may hold code, is not looked at.

    Raises:
        ModelFileError: no such file, or no HDF5 file with arrays.
    """
    import h5py

    if not os.path.exists(path):
        raise ModelFileError(f"there is no checkpoint file {path}.")
    tensors: dict[str, np.ndarray] = {}

    def note(place: str, item: Any) -> None:
        if not isinstance(item, h5py.Dataset) or place.startswith("optimizer_weights/"):
            return
        if item.external or item.is_virtual:
            raise ModelFileError(f"{path} is refused: it takes {place} from another file.")
        layer, *_, variable = place.removeprefix("model_weights/").split("/")
        tensors[f"{layer}/{_variable(variable, layer)}"] = np.asarray(item)

    try:
        with h5py.File(path, "r") as file:
            file.visititems(note)  # follows no links, neither within the file nor to other files
    except (OSError, KeyError, RuntimeError, ValueError, TypeError) as cause:
        raise ModelFileError(f"{path} cannot be read as a Keras .h5 file: {cause}.") from cause
    if not tensors:
        raise ModelFileError(f"{path} holds no arrays by layer, as Keras's .h5 files do.")
    return tensors


def _variable(name: str, layer: str) -> str:
    """`kernel` of `kernel:0` (Keras 2) or of `conv1_W` (Keras 1)."""
    last = name.split(":")[0].removeprefix(f"{layer}_")
    return _KERAS_1.get(last, last)


def read_tensorflow(path: str) -> dict[str, np.ndarray]:
    """The variables of a TensorFlow checkpoint; no graph is loaded.

    Raises:
        ModelFileError: no such files, or damaged.
    """
    import tensorflow as tf

    prefix = _TF_SHARD.sub("", path)
    if not os.path.exists(f"{prefix}.index"):
        raise ModelFileError(f"there is no TensorFlow checkpoint {prefix} (no {prefix}.index).")
    try:
        reader = tf.train.load_checkpoint(prefix)
        return {
            name: reader.get_tensor(name) for name in sorted(reader.get_variable_to_shape_map())
        }
    except (tf.errors.OpError, ValueError, RuntimeError) as cause:
        raise ModelFileError(
            f"{prefix} cannot be read as a TensorFlow checkpoint: {cause}"
        ) from cause
