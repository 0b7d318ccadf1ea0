"""An empty shared library that gives another one a second name.

tensorflow-io's operations ask the dynamic linker for `libavformat.so.58`. decord's wheel has that
library, but under a name of its own, inside of the file too, and the linker takes a library that
is there already only if one of its names is the one asked for. An empty library of the wanted
name that itself needs the other one leads there: no file of either package is changed.
"""

from __future__ import annotations

import struct

_HEADER, _SEGMENT, _SYMBOL, _ENTRY = 64, 56, 24, 16  # bytes (ELF-64, System V ABI)
_SHARED_OBJECT, _X86_64, _CURRENT = 3, 62, 1
_LOAD, _DYNAMIC, _STACK = 1, 2, 0x6474E551
_READ_WRITE = 6
_NEEDED, _HASH, _STRTAB, _SYMTAB, _STRSZ, _SYMENT, _SONAME = 1, 4, 5, 6, 10, 11, 14


def alias(name: str, target: str) -> bytes:
    """The file of a library for x86-64 Linux that is called `name` and needs `target`.

    Args:
        name: as other libraries ask for it, such as `libavformat.so.58`.
        target: the name inside of the library that is meant.
    """
    names = b"\0" + name.encode() + b"\0" + target.encode() + b"\0"
    names += b"\0" * (-len(names) % 8)
    names_at = _HEADER + 3 * _SEGMENT
    symbols_at = names_at + len(names)
    hash_at = symbols_at + _SYMBOL
    no_symbols = struct.pack("<4I", 1, 1, 0, 0)
    dynamic_at = hash_at + len(no_symbols)
    entries = [
        (_SONAME, 1),
        (_NEEDED, 2 + len(name.encode())),
        (_HASH, hash_at),
        (_STRTAB, names_at),
        (_SYMTAB, symbols_at),
        (_STRSZ, len(names)),
        (_SYMENT, _SYMBOL),
        (0, 0),
    ]
    dynamic = b"".join(struct.pack("<QQ", *entry) for entry in entries)
    size = dynamic_at + len(dynamic)
    header = struct.pack(
        "<4s5B7xHHIQQQIHHHHHH",
        b"\x7fELF", 2, 1, _CURRENT, 0, 0,  # 64 bits, little-endian, System V
        _SHARED_OBJECT, _X86_64, _CURRENT, 0, _HEADER, 0, 0,
        _HEADER, _SEGMENT, 3, 0, 0, 0,
    )  # fmt: skip
    segments = [
        (_LOAD, 0, size, 0x1000),
        (_DYNAMIC, dynamic_at, len(dynamic), 8),
        (_STACK, 0, 0, 16),  # without it the linker would make stacks executable
    ]
    table = b"".join(
        struct.pack("<IIQQQQQQ", kind, _READ_WRITE, at, at, at, length, length, align)
        for kind, at, length, align in segments
    )
    return header + table + names + b"\0" * _SYMBOL + no_symbols + dynamic
