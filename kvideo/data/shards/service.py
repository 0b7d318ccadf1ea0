"""Training clips made by other machines, through TensorFlow's `tf.data` service.

A dispatcher gives out the records of an epoch one after the other to whatever workers there are
(dynamic sharding); these read, decode and change them, and the training process fetches clips
from all workers. Each record is read at most once in an epoch; it is missed only where a worker
goes away with it.
"""

from __future__ import annotations

import math
import queue
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from kvideo.data.shards.clips import make_clips, read_records, replace_damaged
from kvideo.data.shards.source import ShardSource
from kvideo.data.shares import WHOLE, Share
from kvideo.errors import DataError, KVideoError, UsageError
from kvideo.text import plural

PROTOCOL = "grpc://"
# Every one is a request to the dispatcher and a line in its journal.
_MOST_PIECES = 4096
_REACH_SECONDS = 120.0  # for a dispatcher that is being started anew
_SILENCE_SECONDS = 20.0
# What workers hold in their hands, about: not more is taken for lost.
_MOST_LOST = 128
_AHEAD = 16  # clips that wait in the training process


def parse_address(address: str) -> tuple[str, int]:
    """Host and port of `grpc://host:port`.

    Raises:
        UsageError: it is of another form.
    """
    host, _, port = address.removeprefix(PROTOCOL).rpartition(":")
    if not address.startswith(PROTOCOL) or not host or not port.isdecimal():
        raise UsageError(
            f"a data service's address is of the form {PROTOCOL}HOST:PORT, not {address!r}."
        )
    return host.strip("[]"), int(port)


def wait_for(address: str, seconds: float) -> None:
    """Returns when a dispatcher accepts connections.

    Raises:
        UsageError: the address is of another form.
        KVideoError: none does so in that time.
    """
    place = parse_address(address)
    until = time.monotonic() + seconds
    while True:
        try:
            socket.create_connection(place, timeout=5).close()
            return
        except OSError as error:
            if time.monotonic() > until:
                reason = (error.strerror or str(error)).lower()
                raise KVideoError(
                    f"no data service answers at {address} ({reason}). `kvideo serve-data "
                    f"--dispatcher --port {place[1]}` on that machine starts it."
                ) from error
        time.sleep(0.5)


class ServiceSource(ShardSource):
    """As `ShardSource`, with the work done by the workers of a data service.

    Which clips come when depends on the workers; a batch holds what is there.

    Args:
        service: the dispatcher's address, `grpc://host:port`.
        **options: see `ShardSource`.

    Attributes:
        missed: epoch → videos of this process that were missed in it.

    Raises:
        UsageError: the address is of another form.
        KVideoError: no dispatcher answers.
    """

    def __init__(self, *args: Any, service: str, **options: Any) -> None:
        super().__init__(*args, **options)
        wait_for(service, 5.0)
        self.service = service
        self.missed: dict[int, int] = {}
        self._run = secrets.token_hex(4)
        self._jobs = 0
        self._epoch, self._wanted, self._rows = 0, 0, 0
        self._seen = 0

    def batches(
        self, batch_size: int, *, epoch: int, first_batch: int = 0, share: Share = WHOLE
    ) -> tf.data.Dataset:
        """See `ClipSource`."""
        num_batches = math.ceil(self.num_clips / batch_size)
        places = np.fromiter(share.places(batch_size, first_batch, num_batches), np.int64)
        rows = self.rows(places[places < self.num_clips], batch_size, epoch, share)
        wait_for(self.service, _REACH_SECONDS)
        self._jobs += 1
        dataset = self._pieces(rows)
        dataset = make_clips(
            replace_damaged(read_records(dataset, self.table.files, ordered=False)),
            self.recipe,
            ordered=False,
        )
        dataset = dataset.apply(
            tf.data.experimental.service.distribute(
                processing_mode=tf.data.experimental.service.ShardingPolicy.DYNAMIC,
                service=self.service,
                # Each process has a job of its own, which gives it its own records.
                job_name=f"{self._run}-{self._jobs}-{share.worker}",
                compression=None,
            )
        )
        self._epoch, self._seen, self._rows = epoch, 0, len(places)
        wanted = self._wanted = len(rows["number"])
        spec = dataset.element_spec
        arrived = tf.data.Dataset.from_generator(
            lambda: self._arrivals(dataset, wanted), output_signature=spec
        )
        arrived = arrived.concatenate(self._rest(places, batch_size, epoch, share))
        return self.finish(arrived.take(len(places)), batch_size // share.parts)

    def _arrivals(self, dataset: tf.data.Dataset, wanted: int) -> Iterator[Any]:
        """Clips as they come, until all are there or the rest is lost.

        The runtime waits for ever for a worker that does not come back. So a thread waits for it,
        and is left alone when nothing has come for a while.
        """
        waiting, left = _Waiting(dataset), wanted
        silent_since = time.monotonic()
        said = False
        try:
            while left > 0:
                element = waiting.next(seconds=1.0)
                if element is _ENDED:
                    return
                if element is not None:
                    *clip_and_label, number, damaged, bad = element
                    left -= 1
                    yield (*clip_and_label, np.int64(-1) if bad else number, damaged, bad)
                    silent_since, said = time.monotonic(), False
                    continue
                if not _reachable(self.service):  # it may come back, and nothing is lost then
                    silent_since = time.monotonic()
                if time.monotonic() - silent_since < _SILENCE_SECONDS:
                    continue
                if left < wanted and left <= max(_MOST_LOST, wanted // 10):
                    return
                if not said:
                    self.say(_silence(self.service))
                    said = True
        except KVideoError as error:
            self.error = error
            raise
        finally:
            waiting.stop()

    def took(self, numbers: np.ndarray) -> None:
        """Counts what came, and says at the end what did not."""
        self._rows -= len(numbers)
        self._seen += int((numbers >= 0).sum())
        if self._rows > 0:
            return
        missed = self.missed[self._epoch] = self._wanted - self._seen
        if missed:
            self.say(
                f"Note: {missed} of {plural(self._wanted, 'clip')} were missed in epoch "
                f"{self._epoch + 1}: a worker of the data service went away with them."
            )

    def unreadable(self, bad: np.ndarray) -> None:
        """One such record counts as missed; if the first ones are, the folder cannot be read."""
        if not self._seen:
            raise DataError(
                f"the workers of the data service at {self.service} cannot read the shards: "
                f"{self.table.files[0]} has to be at the same place there."
            )

    def _pieces(self, rows: dict[str, np.ndarray]) -> tf.data.Dataset:
        """The rows as a dataset whose elements the dispatcher gives out in pieces."""
        count = len(rows["number"])
        size = max(1, -(-count // _MOST_PIECES))
        if size == 1:
            return tf.data.Dataset.from_tensor_slices(rows)
        missing = -count % size
        padded = {name: np.concatenate([v, v[:missing]]) for name, v in rows.items()}
        padded["number"][count:] = -1
        pieces = {
            name: values.reshape(-1, size, *values.shape[1:]) for name, values in padded.items()
        }
        dataset = tf.data.Dataset.from_tensor_slices(pieces).unbatch()
        return dataset.filter(lambda row: row["number"] >= 0)

    def _rest(
        self, places: np.ndarray, batch_size: int, epoch: int, share: Share
    ) -> tf.data.Dataset:
        """Clips that do not count, made here: they fill up the last batch, and what was missed."""
        rows = self.rows(places[: 4 * batch_size], batch_size, epoch, share)
        rows["number"] = np.full_like(rows["number"], -1)
        rows["counts"] = np.zeros_like(rows["counts"])
        dataset = tf.data.Dataset.from_tensor_slices(rows)
        dataset = replace_damaged(read_records(dataset, self.table.files, ordered=True))
        return make_clips(dataset, self.recipe, ordered=True).repeat()


_ENDED = object()


class _Waiting:
    """A thread that iterates a dataset, so that one can stop waiting for it."""

    def __init__(self, dataset: tf.data.Dataset) -> None:
        self._queue: queue.Queue[Any] = queue.Queue(maxsize=_AHEAD)
        self._stopped = threading.Event()
        threading.Thread(target=self._run, args=(dataset,), daemon=True).start()

    def next(self, seconds: float) -> Any:
        """The next element, `_ENDED`, or None if none has come in that time.

        Raises:
            KVideoError: the service failed.
        """
        try:
            element = self._queue.get(timeout=seconds)
        except queue.Empty:
            return None
        if isinstance(element, tf.errors.OpError):
            reason = element.message.strip().split("\n")[0]
            raise KVideoError(f"the data service failed: {reason}") from element
        return element

    def stop(self) -> None:
        """Lets the thread end with the element that it waits for."""
        self._stopped.set()

    def _run(self, dataset: tf.data.Dataset) -> None:
        try:
            for element in dataset.as_numpy_iterator():
                self._put(element)
                if self._stopped.is_set():
                    return
            self._put(_ENDED)
        except tf.errors.OpError as error:
            self._put(error)

    def _put(self, element: Any) -> None:
        while not self._stopped.is_set():
            try:
                self._queue.put(element, timeout=0.5)
                return
            except queue.Full:
                continue


def _reachable(address: str) -> bool:
    try:
        socket.create_connection(parse_address(address), timeout=2).close()
    except OSError:
        return False
    return True


def _silence(address: str) -> str:
    return (
        f"Note: no clip has come from the data service at {address} for {_SILENCE_SECONDS:.0f} s; "
        f"it may have no workers. `kvideo serve-data --worker --dispatcher-address {address}` "
        "starts one."
    )
