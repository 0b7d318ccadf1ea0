"""What the processes of a training run tell each other."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from kvideo.errors import TEMPORARY_FAILURE, KVideoError

if TYPE_CHECKING:
    import tensorflow as tf

_OF_CONNECTIONS = ("ollective", "recvmsg", "onnect", "Socket closed", "GRPC", "heartbeat")


class WorkerLost(KVideoError):
    """Another process of the run does not answer any more. Exit status 75."""

    exit_status = TEMPORARY_FAILURE


class AnotherFailed(KVideoError):
    """Another process of the run could not do its part; it has said why itself."""

    def __init__(self, number: int, reason: str, exit_status: int) -> None:
        self.exit_status = exit_status
        super().__init__(f"worker {number} stopped: {reason}")


class Cluster:
    """The processes that train one model. This class: a process that is alone.

    Attributes:
        strategy: of the processes together; None: nothing is shared.
        index: of this process; 0 is the chief, who alone writes files.
        size: how many processes there are.
    """

    strategy: tf.distribute.Strategy | None = None
    index = 0
    size = 1

    @property
    def is_chief(self) -> bool:
        """Whether this process writes what all have made."""
        return self.index == 0

    def sum(self, values: np.ndarray) -> np.ndarray:
        """The sum of all processes' arrays, which have one shape; float32 or int32.

        Raises:
            WorkerLost: a process is gone.
        """
        return values

    def broadcast(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        """The chief's arrays; the others' have the same shapes and types.

        Raises:
            WorkerLost: a process is gone.
        """
        return list(arrays)

    def gather_bytes(self, data: bytes) -> list[bytes]:
        """Every process's bytes, in the order of the processes.

        Raises:
            WorkerLost: a process is gone.
        """
        return [data]

    def gather(self, value: Any) -> list[Any]:
        """Every process's value, JSON-able, in the order of the processes.

        Raises:
            WorkerLost: a process is gone.
        """
        return [json.loads(data) for data in self.gather_bytes(json.dumps(value).encode())]

    def check_equal(self, what: str, value: str) -> None:
        """Compares a text with the chief's.

        Args:
            what: begins the message, as "the versions of kvideo differ".
            value: short, for people to read.

        Raises:
            KVideoError: on all processes, where it is not the same everywhere.
        """
        values = self.gather(value)
        for number, other in enumerate(values):
            if other != values[0]:
                raise KVideoError(
                    f"{what}: worker 0 (chief) has {values[0]}, worker {number} has {other}."
                )

    def watched(self) -> contextlib.AbstractContextManager[None]:
        """Within it TensorFlow's operations may fail since another process is gone.

        Raises:
            WorkerLost: one is.
        """
        return contextlib.nullcontext()

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """Within it each process works on its own; if one fails, all fail.

        Raises:
            KVideoError: of this process, its own; of another one, a sentence with its reason.
            WorkerLost: a process is gone.
        """
        try:
            yield
        except WorkerLost:
            raise
        except Exception as error:
            self.gather([str(error), getattr(error, "exit_status", 1)])
            raise
        for number, failure in enumerate(self.gather(None)):
            if failure is not None:
                raise AnotherFailed(number, *failure)


class Workers(Cluster):
    """Several processes, which talk through the collective operations of `tf.distribute`.

    Args:
        strategy: a `MultiWorkerMirroredStrategy`.
        index: of this process.
        size: how many processes there are.
    """

    def __init__(self, strategy: tf.distribute.Strategy, index: int, size: int) -> None:
        self.strategy, self.index, self.size = strategy, index, size

    def sum(self, values: np.ndarray) -> np.ndarray:
        """See `Cluster`."""
        return self._sums([values])[0]

    def watched(self) -> contextlib.AbstractContextManager[None]:
        """See `Cluster`."""
        return _lost_worker()

    def broadcast(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        """See `Cluster`."""
        words = [_as_words(array) for array in arrays]
        if not self.is_chief:
            words = [np.zeros_like(each) for each in words]
        sums = self._sums(words)
        return [_from_words(total, array) for total, array in zip(sums, arrays, strict=True)]

    def gather_bytes(self, data: bytes) -> list[bytes]:
        """See `Cluster`."""
        lengths = np.zeros(self.size, np.int32)
        lengths[self.index] = len(data)
        lengths = self.sum(lengths)
        own = _as_words(np.frombuffer(data, np.uint8))
        words = np.zeros((self.size, -(-int(lengths.max()) // 4)), np.int32)
        words[self.index, : len(own)] = own
        rows = self.sum(words)
        return [row.tobytes()[:length] for row, length in zip(rows, lengths.tolist(), strict=True)]

    def _sums(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        import tensorflow as tf

        strategy = self.strategy
        if strategy is None:
            raise ValueError("Workers need a strategy.")
        replicas = strategy.num_replicas_in_sync // self.size

        def on_first_device(array: np.ndarray) -> Any:
            def value(context: Any) -> np.ndarray:
                first = context.replica_id_in_sync_group % replicas == 0
                return array if first else np.zeros_like(array)

            return strategy.experimental_distribute_values_from_function(value)

        with self.watched():
            return [
                strategy.reduce(tf.distribute.ReduceOp.SUM, on_first_device(array), None).numpy()
                for array in arrays
            ]


@contextlib.contextmanager
def _lost_worker() -> Iterator[None]:
    """Turns TensorFlow's errors about processes that do not answer into a sentence.

    Raises:
        WorkerLost: another process is gone, or hangs.
    """
    import tensorflow as tf

    try:
        yield
    except tf.errors.OpError as error:
        # The error's class depends on where the operation was when the connection broke.
        if not any(word in error.message for word in _OF_CONNECTIONS):
            raise
        raise WorkerLost("another worker is gone or does not answer.") from error


def _as_words(array: np.ndarray) -> np.ndarray:
    """The bytes of an array as int32: in sums with 0 they stay what they are, as -0.0 would not."""
    data = np.ascontiguousarray(array).tobytes()
    return np.frombuffer(data.ljust(-(-len(data) // 4) * 4, b"\0"), np.int32)


def _from_words(words: np.ndarray, like: np.ndarray) -> np.ndarray:
    return np.frombuffer(words.tobytes()[: like.nbytes], like.dtype).reshape(like.shape)
