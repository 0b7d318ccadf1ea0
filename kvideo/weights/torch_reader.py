"""Reads PyTorch checkpoint files without PyTorch, and without running anything that is in them.

A checkpoint is a pickle, and a pickle is a program. The unpickler here admits tensors, plain
containers, numbers and text; any other name in the file is refused before it is looked up. Both
file formats are read: the zip archive (PyTorch 1.6 and later) and the older run of pickles.

Formats: `torch/serialization.py` of PyTorch writes them; what matters of it is said below.
"""

from __future__ import annotations

import io
import operator
import os
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO, Literal, NamedTuple

import numpy as np

from kvideo.errors import ModelFileError

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_PROTOCOL = 1001
_ZIP_MAGIC = b"PK\x03\x04"
_BFLOAT16 = "bfloat16"
_PLACES = ("model_state", "state_dict", "model")
_PARALLEL = "module."

_STORAGES = {  # torch.<name>Storage -> element type
    "Float": "float32",
    "Double": "float64",
    "Half": "float16",
    "BFloat16": _BFLOAT16,
    "Long": "int64",
    "Int": "int32",
    "Short": "int16",
    "Char": "int8",
    "Byte": "uint8",
    "Bool": "bool",
}
_STORAGE_MODULES = ("torch", "torch.cuda")
_CONTAINERS: dict[str, Callable[..., Any]] = {
    "collections.OrderedDict": OrderedDict,
    "torch.Size": tuple,
    "builtins.set": set,
    "__builtin__.set": set,
    "builtins.frozenset": frozenset,
    "__builtin__.frozenset": frozenset,
}


class _Storage(NamedTuple):
    """A run of numbers in the file, named but not yet read."""

    key: str
    dtype: str
    elements: int
    start: int = 0  # of a view into it, in elements


class _Tensor(NamedTuple):
    """A tensor as the pickle describes it; offset and strides count elements."""

    storage: _Storage
    offset: int
    size: tuple[int, ...]
    strides: tuple[int, ...]


def read_torch(path: str | os.PathLike[str], *, values: bool = True) -> Any:
    """What a checkpoint file holds, with NumPy arrays for tensors.

    Strides, offsets and shared storages are respected. Arrays are read-only; bfloat16, which NumPy
    lacks, comes as float32 (which holds it exactly). A `Parameter` comes as its array, an
    `OrderedDict` as a `dict`.

    Args:
        path: a `.pt`, `.pth` or `.pyth` file.
        values: False gives arrays of the right shapes and types that are all zero and take no
            memory; only the description of the tensors is read then.

    Raises:
        ModelFileError: no such file, cut off, damaged, not a checkpoint; or it names anything but
            tensors and plain containers, and then the message says which name.
    """
    path = os.fspath(path)
    try:
        with open(path, "rb") as file:
            magic = file.read(len(_ZIP_MAGIC))
            file.seek(0)
            if not magic:
                raise ModelFileError("the file is empty.")
            if magic.lstrip()[:1] == b"<":
                raise ModelFileError("it is a web page, not a checkpoint: the download went wrong.")
            read = _read_zip if magic == _ZIP_MAGIC else _read_legacy
            content = read(file, values)
    except FileNotFoundError:
        raise ModelFileError(f"there is no checkpoint file {path}.") from None
    except ModelFileError as refusal:
        raise ModelFileError(f"{path}: {refusal}") from refusal.__cause__
    except Exception as cause:  # a damaged pickle can make the unpickler raise almost anything
        raise ModelFileError(
            f"{path} cannot be read as a PyTorch checkpoint: it is cut off, damaged, or another "
            f"kind of file ({type(cause).__name__}: {cause})."
        ) from cause
    return content


def read_state_dict(path: str | os.PathLike[str], *, values: bool = True) -> dict[str, np.ndarray]:
    """The tensors of a checkpoint by name, wherever in the file they are.

    They may be the file's whole content or under `model_state`, `state_dict` or `model`; a prefix
    `module.` that all names share (from data-parallel training) is taken off.

    Args:
        path: as for `read_torch`.
        values: as for `read_torch`.

    Raises:
        ModelFileError: see `read_torch`; or the file holds no tensors by name.
    """
    content = read_torch(path, values=values)
    places = (content, *(content.get(key) for key in _PLACES)) if _is_dict(content) else ()
    for place in places:
        if _is_dict(place) and place:
            tensors = {k: v for k, v in place.items() if isinstance(v, np.ndarray)}
            if tensors and all(isinstance(key, str) for key in tensors):
                shared = all(key.startswith(_PARALLEL) for key in tensors)
                return {k.removeprefix(_PARALLEL) if shared else k: v for k, v in tensors.items()}
    raise ModelFileError(
        f"{os.fspath(path)} holds no tensors by name, neither at the top nor under "
        f"{', '.join(_PLACES)}."
    )


def _is_dict(value: Any) -> bool:
    return isinstance(value, Mapping)


class _Unpickler(pickle.Unpickler):
    """Builds plain containers and `_Tensor`s; refuses every other name.

    What it hands to the pickle can be neither changed nor used to reach anything else: built-in
    containers, slotless callables that make named tuples, and text in the place of storage types.
    """

    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file, encoding="utf-8")

    def find_class(self, module: str, name: str) -> Any:
        """The few admitted names."""
        full = f"{module}.{name}"
        if full in _CONTAINERS:
            return _CONTAINERS[full]
        if module in _STORAGE_MODULES and name.endswith("Storage") and name[:-7] in _STORAGES:
            return _STORAGES[name[:-7]]
        if module == "torch._utils" and name in _REBUILDERS:
            return _REBUILDERS[name]
        raise ModelFileError(
            f"refused: it names {full}. A file of weights may hold tensors and plain containers "
            "only; nothing of it was run."
        )

    def persistent_load(self, pid: Any) -> _Storage:
        """("storage", type, key, device, elements[, view]); the view is (key, start, elements)."""
        kind, dtype, key, _, elements, *rest = pid
        if kind != "storage" or dtype not in (*_STORAGES.values(),):
            raise ModelFileError(f"refused: it refers to a {str(kind)[:40]} of unknown form.")
        view = rest[0] if rest else None
        start = operator.index(view[1]) if view is not None else 0
        return _Storage(str(key), dtype, operator.index(elements), start)


class _RebuildTensor:
    """(storage, offset, size, strides); the second version adds what arrays do not have."""

    __slots__ = ()

    def __call__(self, storage: Any, offset: Any, size: Any, strides: Any, *_: Any) -> _Tensor:
        if not isinstance(storage, _Storage):
            raise ModelFileError("a tensor in it has no storage.")
        return _Tensor(
            storage,
            operator.index(offset),
            tuple(operator.index(length) for length in size),
            tuple(operator.index(stride) for stride in strides),
        )


class _RebuildParameter:
    """(tensor, requires_grad, hooks): the tensor."""

    __slots__ = ()

    def __call__(self, tensor: Any, *_: Any) -> Any:
        return tensor


_REBUILDERS: dict[str, Callable[..., Any]] = {
    "_rebuild_tensor": _RebuildTensor(),
    "_rebuild_tensor_v2": _RebuildTensor(),
    "_rebuild_parameter": _RebuildParameter(),
    "_rebuild_parameter_with_state": _RebuildParameter(),
}


def _read_zip(file: BinaryIO, values: bool) -> Any:
    """Members: STEM/data.pkl, STEM/data/KEY (raw numbers), and perhaps STEM/byteorder."""
    with zipfile.ZipFile(file) as archive:
        pickles = [name for name in archive.namelist() if name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise ModelFileError("it is a zip archive, but not a PyTorch checkpoint (no data.pkl).")
        stem = pickles[0].removesuffix("data.pkl")
        order = b"little"
        if f"{stem}byteorder" in archive.namelist():
            order = archive.read(f"{stem}byteorder").strip()

        def load(storage: _Storage) -> np.ndarray:
            raw = archive.read(f"{stem}data/{storage.key}")
            return _numbers(raw, storage.dtype, big_endian=order == b"big")

        content = _Unpickler(io.BytesIO(archive.read(pickles[0]))).load()
        return _Resolver(load if values else None).resolve(content)


def _read_legacy(file: BinaryIO, values: bool) -> Any:
    """Five pickles (magic, protocol, system, content, storage keys), then each key's numbers.

    The numbers are an 8-byte count and the raw values.
    """
    if _Unpickler(file).load() != _LEGACY_MAGIC:
        raise ModelFileError("it is no PyTorch checkpoint.")
    if _Unpickler(file).load() != _LEGACY_PROTOCOL:
        raise ModelFileError("it is a PyTorch checkpoint of an unknown version.")
    big_endian = not _Unpickler(file).load().get("little_endian", True)
    content = _Unpickler(file).load()
    if not values:
        return _Resolver(None).resolve(content)
    keys = [str(key) for key in _Unpickler(file).load()]
    begin = file.tell()
    arrays: dict[str, np.ndarray] = {}
    dtypes = _storage_types(content)

    def read_all() -> None:
        file.seek(begin)
        for key in keys:
            if key not in dtypes:
                raise ModelFileError(f"no tensor uses its storage {key[:40]}, of unknown type.")
            count = int.from_bytes(_exactly(file, 8), "big" if big_endian else "little")
            size = count * _item_size(dtypes[key])
            arrays[key] = _numbers(_exactly(file, size), dtypes[key], big_endian)

    def load(storage: _Storage) -> np.ndarray:
        if not arrays:
            read_all()
        return arrays[storage.key]

    return _Resolver(load).resolve(content)


def _exactly(file: BinaryIO, size: int) -> bytes:
    left = os.fstat(file.fileno()).st_size - file.tell()
    if size > left:
        raise ModelFileError("it is cut off: a storage is longer than the rest of the file.")
    return file.read(size)


def _item_size(dtype: str) -> int:
    return 2 if dtype == _BFLOAT16 else np.dtype(dtype).itemsize


def _numbers(raw: bytes, dtype: str, big_endian: bool) -> np.ndarray:
    """The values as a read-only array in this machine's byte order."""
    order: Literal[">", "<"] = ">" if big_endian else "<"
    if dtype == _BFLOAT16:  # the upper half of a float32
        halves = np.frombuffer(raw, f"{order}u2").astype(np.uint32)
        return (halves << 16).view(np.float32)
    stored = np.dtype(dtype).newbyteorder(order)
    return np.frombuffer(raw, stored).astype(np.dtype(dtype), copy=False)


def _storage_types(content: Any) -> dict[str, str]:
    """Element type by storage key, of all tensors in `content`."""
    resolver = _Resolver(None)
    resolver.resolve(content)
    return resolver.storage_types


class _Resolver:
    """Replaces every `_Tensor` in nested containers by its array.

    Args:
        load: reads a storage; called once per key. None: zeros without memory for all of them.

    Attributes:
        storage_types: the element type of every storage that was met, by its key.
    """

    def __init__(self, load: Callable[[_Storage], np.ndarray] | None) -> None:
        self._load = load
        self._arrays: dict[tuple[str, str], np.ndarray] = {}
        self._open: set[int] = set()
        self.storage_types: dict[str, str] = {}

    def resolve(self, value: Any) -> Any:
        """`value`, with arrays for tensors and plain dicts for ordered ones."""
        if isinstance(value, _Tensor):
            return self._array(value)
        if isinstance(value, _Storage):
            return self._array(_Tensor(value, 0, (value.elements,), (1,)))
        if not isinstance(value, dict | list | tuple | set | frozenset):
            return value
        if id(value) in self._open:
            raise ModelFileError("a container in it holds itself.")
        self._open.add(id(value))
        result: Any
        if isinstance(value, dict):
            result = {key: self.resolve(item) for key, item in value.items()}
        elif isinstance(value, list):
            result = [self.resolve(item) for item in value]
        elif isinstance(value, tuple):
            result = tuple(self.resolve(item) for item in value)
        else:
            result = value
        self._open.discard(id(value))
        return result

    def _array(self, tensor: _Tensor) -> np.ndarray:
        storage, offset, size, strides = tensor
        key = (storage.key, storage.dtype)
        self.storage_types[storage.key] = storage.dtype
        if self._load is None:
            dtype = "float32" if storage.dtype == _BFLOAT16 else storage.dtype
            return np.broadcast_to(np.zeros((), dtype), size)
        if key not in self._arrays:
            self._arrays[key] = self._load(storage)
        numbers = self._arrays[key]
        offset += storage.start
        if len(size) != len(strides) or min((offset, *size, *strides)) < 0:
            raise ModelFileError(f"a tensor has size {size} but strides {strides}.")
        if 0 in size:
            return np.empty(size, numbers.dtype)
        last = offset + sum((length - 1) * step for length, step in zip(size, strides, strict=True))
        if last >= len(numbers):
            raise ModelFileError(
                f"a tensor reaches beyond its storage ({last + 1} of {len(numbers)} numbers)."
            )
        return np.lib.stride_tricks.as_strided(
            numbers[offset:],
            size,
            tuple(step * numbers.itemsize for step in strides),
            writeable=False,
        )
