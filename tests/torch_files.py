"""Files as PyTorch writes them, byte by byte and without PyTorch."""

import io
import pickle
import struct
import zipfile

import numpy as np


def zip_file(path, pickled: bytes, storages: dict[str, bytes], order: bytes | None = None):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("m/data.pkl", pickled)
        for key, raw in storages.items():
            archive.writestr(f"m/data/{key}", raw)
        if order is not None:
            archive.writestr("m/byteorder", order)
    return path


def legacy_file(path, pickled: bytes, storages: dict[str, tuple[int, bytes]], little=True):
    stream = io.BytesIO()
    for value in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": little}):
        pickle.dump(value, stream, protocol=2)
    stream.write(pickled)
    pickle.dump(list(storages), stream, protocol=2)
    for count, raw in storages.values():
        stream.write(struct.pack("<q" if little else ">q", count) + raw)
    path.write_bytes(stream.getvalue())
    return path


class Global:
    """Pickles as a name, or as a call of it, without anything of that name here."""

    def __init__(self, module, name, *arguments):
        self.module, self.name, self.arguments = module, name, arguments


class Storage:
    def __init__(self, kind, key, elements):
        self.kind, self.key, self.elements = kind, key, elements


class Writer(pickle._Pickler):
    """Writes what PyTorch writes."""

    view_field = False  # the older format has a sixth field

    def persistent_id(self, thing):
        if isinstance(thing, Storage):
            kind = Global("torch", f"{thing.kind}Storage")
            fields = ("storage", kind, thing.key, "cpu", thing.elements)
            return (*fields, None) if self.view_field else fields
        return None

    def save(self, thing, save_persistent_id=True):
        if not isinstance(thing, Global):
            return super().save(thing, save_persistent_id)
        self.write(b"c" + f"{thing.module}\n{thing.name}\n".encode())
        if thing.arguments:
            super().save(thing.arguments)
            self.write(pickle.REDUCE)
        return None


def dump(content, view_field=False) -> bytes:
    stream = io.BytesIO()
    writer = Writer(stream, protocol=2)
    writer.view_field = view_field
    writer.dump(content)
    return stream.getvalue()


def tensor(storage, offset, size, strides):
    no_hooks = Global("collections", "OrderedDict", *())
    rebuild = ("torch._utils", "_rebuild_tensor_v2")
    return Global(*rebuild, storage, offset, size, strides, False, no_hooks)


def write_state(path, state):
    """A bare state dict of float32 arrays in the zip format."""
    arrays = {key: np.ascontiguousarray(value, "<f4") for key, value in state.items()}
    content, storages = {}, {}
    for number, (key, array) in enumerate(arrays.items()):
        strides = tuple(step // array.itemsize for step in array.strides)
        storage = Storage("Float", str(number), array.size)
        content[key] = tensor(storage, 0, array.shape, strides)
        storages[str(number)] = array.tobytes()
    return zip_file(path, dump(content), storages)
