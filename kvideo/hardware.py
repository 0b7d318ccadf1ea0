"""What the machine offers, and what follows: precision, XLA, strategy. Decided here only."""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kvideo.cluster.addresses import Addresses, find_addresses
from kvideo.cluster.processes import Cluster, WorkerLost, Workers
from kvideo.errors import KVideoError, UsageError
from kvideo.ports import check_port

if TYPE_CHECKING:
    import keras
    import tensorflow as tf

_BFLOAT16_FLAGS = {"amx_bf16", "avx512_bf16"}
_WORTH_PARAMETERS = 1_000_000
_JOIN_SECONDS = 600  # for the chief to come
STRATEGIES = ("auto", "one", "mirrored", "multiworker")


@functools.cache
def cpu_flags() -> frozenset[str]:
    """Instruction sets of the processor, as Linux names them; empty elsewhere."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return frozenset()
    for line in text.splitlines():
        if line.startswith("flags"):
            return frozenset(line.split(":", 1)[1].split())
    return frozenset()


def choose_precision(asked: str = "auto") -> str:
    """`"float32"`, `"bfloat16"` or `"float16"`; `"auto"` takes bfloat16 where it is fast.

    That is on processors with AMX or AVX512-BF16 and on GPUs from compute capability 8.0 on.
    """
    if asked != "auto":
        return asked
    import tensorflow as tf

    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        details = [tf.config.experimental.get_device_details(gpu) for gpu in gpus]
        capable = all(detail.get("compute_capability", (0, 0)) >= (8, 0) for detail in details)
        return "bfloat16" if capable else "float32"
    return "bfloat16" if _BFLOAT16_FLAGS & cpu_flags() else "float32"


def suits_precision(model: keras.Model, precision: str) -> bool:
    """Whether a model gains from that precision.

    On a CPU small networks gain nothing, and depthwise convolutions lose: EfficientNet-Lite0 takes
    1.6 to 3.5 times as long in bfloat16, while a ResNet-50 takes less than half as long.
    """
    import tensorflow as tf

    if precision == "float32" or tf.config.list_physical_devices("GPU"):
        return True
    if model.count_params() < _WORTH_PARAMETERS:
        return False
    return not any("Depthwise" in type(layer).__name__ for layer in model._flatten_layers())


def use_xla() -> bool:
    """Whether to compile with XLA: on GPUs only.

    On a CPU XLA's 3D convolution is 3 to 50 times slower than oneDNN's.
    """
    import tensorflow as tf

    return bool(tf.config.list_physical_devices("GPU"))


def import_tensorflow() -> None:
    """Imports TensorFlow and looks for devices, which takes seconds and makes it talk."""
    import tensorflow as tf

    tf.config.list_logical_devices()


def choose_strategy(name: str = "auto") -> tf.distribute.Strategy:
    """The distribution strategy of that name, for one process.

    Args:
        name: `"one"`: a single device; `"mirrored"`: all GPUs of this machine, or where there is
            none all (logical) CPU devices; `"auto"`: mirrored for two GPUs or more, else one.

    Raises:
        UsageError: an unknown name.
    """
    import tensorflow as tf

    gpus = tf.config.list_logical_devices("GPU")
    if name == "auto":
        name = "mirrored" if len(gpus) > 1 else "one"
    if name == "one":
        return tf.distribute.get_strategy()
    if name == "mirrored":
        devices = gpus or tf.config.list_logical_devices("CPU")
        return _mirrored(tuple(device.name for device in devices))
    raise UsageError(f'strategy must be one of {", ".join(STRATEGIES)}, not "{name}".')


@functools.cache
def _mirrored(devices: tuple[str, ...]) -> tf.distribute.Strategy:
    """One for the whole process: what the devices of two add up would get mixed."""
    import tensorflow as tf

    return tf.distribute.MirroredStrategy(list(devices))


def cluster_addresses(strategy: str) -> Addresses | None:
    """The processes that a strategy spreads over; None: this one alone.

    Args:
        strategy: `"multiworker"` needs several, `"auto"` takes them where the environment tells of
            them (see `find_addresses`), the others never do.

    Raises:
        UsageError: `TF_CONFIG` is wrong, or `"multiworker"` was asked for and there is one process.
    """
    if strategy not in ("auto", "multiworker"):
        return None
    addresses = find_addresses()
    if addresses is None and strategy == "multiworker":
        raise UsageError(
            "the strategy multiworker needs several workers, told by TF_CONFIG or SLURM. To start "
            "some on this machine: kvideo launch --workers 2 -- fit …"
        )
    return addresses


@functools.cache
def join_cluster(addresses: Addresses) -> Cluster:
    """Waits for the other processes, and joins them. To be called before TensorFlow does anything.

    Raises:
        KVideoError: the own port is taken, or TensorFlow has begun already.
        WorkerLost: the others did not come in time. The chief is waited for `_JOIN_SECONDS`, and
            the chief itself waits for an hour, which TensorFlow fixes.
    """
    check_port(addresses.port, "It is the one that this worker has in TF_CONFIG or of SLURM.")
    os.environ["TF_CONFIG"] = addresses.to_json()
    import tensorflow as tf

    try:
        with _ending_by_signals(), _bounded_registering():
            strategy = tf.distribute.MultiWorkerMirroredStrategy()
    except tf.errors.DeadlineExceededError as error:
        raise WorkerLost(_describe_absent(addresses)) from error
    except RuntimeError as error:
        if "program startup" not in str(error):
            raise
        raise KVideoError(
            "the workers must be joined before TensorFlow is used for anything else in the program."
        ) from error
    return Workers(strategy, addresses.index, len(addresses.hosts))


@contextlib.contextmanager
def _bounded_registering() -> Iterator[None]:
    """Within it a strategy waits for its chief `_JOIN_SECONDS`. There is no public way to that."""
    from tensorflow.python.eager.context import context

    configure = context().configure_coordination_service
    context().configure_coordination_service = functools.partial(
        configure, cluster_register_timeout_in_ms=1000 * _JOIN_SECONDS
    )
    try:
        yield
    finally:
        del context().configure_coordination_service


def _describe_absent(addresses: Addresses) -> str:
    def answers(host: str) -> bool:
        name, _, port = host.rpartition(":")
        try:
            socket.create_connection((name.strip("[]"), int(port)), timeout=5).close()
        except OSError:
            return False
        return True

    absent = [host for host in addresses.hosts if not answers(host)]
    return (
        "the workers did not all come together in time"
        + (f": nobody answers at {', '.join(absent)}" if absent else "")
        + ". They have to be started within ten minutes, and have to reach each other at the "
        "addresses of TF_CONFIG or SLURM."
    )


@contextlib.contextmanager
def _ending_by_signals() -> Iterator[None]:
    """Within it Ctrl-C and SIGTERM end the process at once: TensorFlow waits without Python."""
    before: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        for ending in (signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(ending) not in (None, signal.SIG_IGN):
                before[ending] = signal.signal(ending, signal.SIG_DFL)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
