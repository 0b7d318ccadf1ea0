"""One measurement of a model, in a process of its own: `kvideo.benchmarking` starts it.

A process for each measurement keeps them apart: its greatest memory is that of one phase, and the
time of a first call is not that of a second. What is measured is what the commands run: the
`Predictor` of `kvideo predict` and `kvideo evaluate`, the training step of `kvideo fit`.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kvideo.children import end_with_parent
from kvideo.choosing import ModelChoice
from kvideo.errors import KVideoError, UsageError
from kvideo.noise import noise_clips

if TYPE_CHECKING:
    import keras

INFERENCE, TRAINING, PEAK = "inference", "training", "matrix products"
_PEAK_SIZES = (1024, 2048, 3072)
_PEAK_SECONDS = 0.7  # for each size
_PEAK_REPEATS = 3


@dataclasses.dataclass(frozen=True, kw_only=True)
class Request(ModelChoice):
    """What to measure.

    Args:
        phase: `"inference"`, `"training"`, or `"matrix products"`: the machine's greatest speed.
        batch_size: clips at once.
        precision: `"float32"` or `"bfloat16"`.
        repeats: timed calls.
        warmup: calls after the first one that are not timed.
        threads: of one operation; None: TensorFlow's own choice, one for each processor.
    """

    phase: str
    batch_size: int = 1
    precision: str = "float32"
    repeats: int = 10
    warmup: int = 2
    threads: int | None = None


def main() -> None:
    """Reads a request from standard input, and writes the answer to the file that it names.

    Another file, which it names as well, appears when the measuring begins: when nothing is wrong
    with the request.

    The answer is `{"result": …}`, or `{"error": sentence, "status": exit status}`, or
    `{"memory": true}` where that was not enough.
    """
    end_with_parent()
    values = json.load(sys.stdin)
    path, begun = Path(values.pop("answer")), Path(values.pop("begun"))
    with suppress(OSError):  # should memory run out, the system ends this process, no other
        Path("/proc/self/oom_score_adj").write_text("1000")
    answer: dict[str, Any]
    try:
        answer = {"result": measure(Request(**values), begun.touch)}
    except KVideoError as error:
        answer = {"error": str(error), "status": error.exit_status}
    except Exception as error:
        if not (isinstance(error, MemoryError) or "ResourceExhausted" in type(error).__name__):
            raise
        answer = {"memory": True}
    path.write_text(json.dumps(answer))


def measure(request: Request, on_begin: Callable[[], Any] = lambda: None) -> dict[str, Any]:
    """Carries out a request in this process.

    Args:
        request: what to measure.
        on_begin: is called when the model is built.

    Returns:
        Plain values; times in seconds, memory in bytes.

    Raises:
        UsageError: the model cannot be built like that.
        KVideoError: a file cannot be loaded.
    """
    import tensorflow as tf

    if request.threads is not None:
        tf.config.threading.set_intra_op_parallelism_threads(request.threads)
    if request.phase == PEAK:
        on_begin()
        return {"flops_per_second": _matmul_rate(request.precision), **_machine()}
    base = peak_memory()
    begun = time.perf_counter()
    model = request.load(request.precision)
    build = time.perf_counter() - begun
    step = _inference(model, request) if request.phase == INFERENCE else _training(model, request)
    on_begin()
    begun = time.perf_counter()
    step()
    first = time.perf_counter() - begun
    for _ in range(request.warmup):
        step()
    seconds = []
    for _ in range(request.repeats):
        begun = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - begun)
    result = {"build": build, "first": first, "seconds": seconds}
    result |= {"memory": peak_memory(), "memory_before": base}
    return {**result, **_counts(model), **_machine()}


def peak_memory() -> int | None:
    """The most memory that this process has had at once, in bytes; None where nobody tells.

    On Linux the high-water mark of the resident memory, which is that of this program alone:
    `getrusage` there still counts what the process was before it became this program.
    """
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))
    except (OSError, StopIteration):
        pass
    try:
        import resource
    except ImportError:  # Windows
        return None
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


def _clips(model: keras.Model, batch_size: int) -> np.ndarray:
    """(batch_size, T, H, W, C)."""
    shape = model.input_shape[1:]
    if None in shape:
        raise UsageError(f'the model "{model.name}" takes clips of any size: give an input shape.')
    return noise_clips(shape, batch_size)


def _inference(model: keras.Model, request: Request) -> Callable[[], Any]:
    from kvideo.inference import Predictor

    predictor = Predictor(model, request.batch_size, settle_after=0)  # as in a long evaluation
    clips = _clips(model, request.batch_size)
    return lambda: predictor(clips)


def _training(model: keras.Model, request: Request) -> Callable[[], Any]:
    import tensorflow as tf

    from kvideo.hardware import choose_strategy
    from kvideo.saving import ModelInfo
    from kvideo.training.experiment import Experiment
    from kvideo.training.objective import Objective
    from kvideo.training.optimizers import make_optimizer
    from kvideo.training.step import compile_step

    info = getattr(model, "kvideo_info", None)
    multi_label = isinstance(info, ModelInfo) and info.multi_label
    # The optimizer that `kvideo fit` takes unless it is told otherwise.
    optimizer = make_optimizer(Experiment(data="demo", model=request.name or "file"), model)
    optimizer.build(model.trainable_variables)
    run = compile_step(
        model,
        optimizer,
        choose_strategy("one"),
        batch_size=request.batch_size,
        objective=Objective(multi_label=multi_label),
    )
    clips = tf.constant(_clips(model, request.batch_size))
    # One for each clip, or for each of its frames.
    labels = tf.zeros((request.batch_size, *model.output_shape[1:-1]), tf.int32)
    if multi_label:
        labels = tf.zeros((request.batch_size, model.output_shape[-1]))
    return lambda: run(clips, labels).numpy()


def _counts(model: keras.Model) -> dict[str, Any]:
    from kvideo.analysis import count_macs, count_parameters

    counts: dict[str, Any] = {"name": model.name, "input_shape": model.input_shape[1:]}
    counts["parameters"] = count_parameters(model)
    try:
        counts["macs"] = count_macs(model)
    except UsageError as error:  # a plugin's layer that does not tell
        counts |= {"macs": None, "macs_unknown": str(error)}
    return counts


def _machine() -> dict[str, Any]:
    import tensorflow as tf

    threads = tf.config.threading.get_intra_op_parallelism_threads()
    own = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    gpus = [tf.config.experimental.get_device_details(gpu).get("device_name", "GPU")
            for gpu in tf.config.list_physical_devices("GPU")]  # fmt: skip
    return {"threads": threads or own, "device": gpus[0] if gpus else "CPU"}


def _matmul_rate(precision: str) -> float:
    """Floating-point operations per second of the fastest of some square matrix products."""
    import tensorflow as tf

    product = tf.function(tf.linalg.matmul, jit_compile=False)
    best = 0.0
    for size in _PEAK_SIZES:
        shape = (size, size)
        a, b = (tf.cast(tf.random.stateless_normal(shape, (0, n)), precision) for n in (0, 1))
        float(product(a, b)[0, 0])
        started, count = time.perf_counter(), 0
        while count < _PEAK_REPEATS or time.perf_counter() - started < _PEAK_SECONDS:
            begun = time.perf_counter()
            float(product(a, b)[0, 0])  # waits for the device
            best = max(best, 2 * size**3 / (time.perf_counter() - begun))
            count += 1
    return best
