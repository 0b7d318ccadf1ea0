"""Results as bytes, so that the processes can hand them to each other."""

from __future__ import annotations

import base64
import dataclasses
import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import numpy as np

from kvideo.cluster.processes import Cluster

Item = TypeVar("Item")
Result = TypeVar("Result")

_ARRAY = "array"


def shared_out(
    cluster: Cluster,
    work: Callable[[Sequence[Item]], Iterable[Result]],
    items: Sequence[Item],
    kind: type[Result],
) -> list[Result]:
    """`work` of all items, of which each process does its share; every process gets all results.

    Args:
        cluster: the processes.
        work: gives one result for each item, in order.
        items: the same in every process.
        kind: the results' class, a flat dataclass.

    Returns:
        The results in the order of the items, the same whatever the number of processes.

    Raises:
        AnotherFailed: another process could not do its share.
        WorkerLost: a process is gone.
    """
    if cluster.size == 1:
        return list(work(items))
    own: list[Result] = []
    with cluster.together():
        own += work(items[cluster.index :: cluster.size])
    results: list[Any] = [None] * len(items)
    for number, data in enumerate(cluster.gather_bytes(pack(own))):
        results[number :: cluster.size] = unpack(kind, data)
    return results


def pack(results: Iterable[Any]) -> bytes:
    """Flat dataclasses of numbers, texts, tuples and arrays."""

    def plain(value: Any) -> Any:
        if isinstance(value, np.ndarray):
            data = base64.b85encode(np.ascontiguousarray(value).tobytes()).decode()
            return {_ARRAY: data, "type": value.dtype.str, "shape": value.shape}
        return value

    rows = [
        {field.name: plain(getattr(result, field.name)) for field in dataclasses.fields(result)}
        for result in results
    ]
    return json.dumps(rows).encode()


def unpack(kind: type[Result], data: bytes) -> list[Result]:
    """What `pack` packed, of dataclasses of that kind."""

    def restored(value: Any) -> Any:
        if isinstance(value, dict) and _ARRAY in value:
            flat = np.frombuffer(base64.b85decode(value[_ARRAY]), value["type"])
            return flat.reshape(value["shape"])
        return tuple(value) if isinstance(value, list) else value

    return [
        kind(**{name: restored(value) for name, value in row.items()}) for row in json.loads(data)
    ]
