"""What a model costs on this machine: time, memory, and share of the machine's greatest speed.

Every phase is measured in a process of its own (see `kvideo.measuring`). This module imports no
TensorFlow.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from kvideo.choosing import choose_model
from kvideo.errors import KVideoError, UsageError, check_choice
from kvideo.measuring import INFERENCE, PEAK, TRAINING, Request
from kvideo.text import plural

PHASES = (INFERENCE, TRAINING)
PRECISIONS = ("float32", "bfloat16")
# Forward, gradient of the inputs, gradient of the weights: each the same multiply-adds.
_PASSES = {INFERENCE: 1, TRAINING: 3}
_THREADS_PER_PROCESSOR = 4  # more are no faster, and each takes memory
_MUCH_LOAD = 0.5  # programs for each processor
_LOOK = 0.1  # seconds
_PROGRAM = "from kvideo.measuring import main; main()"
_OUT_OF_MEMORY = "out of memory", "bad_alloc", "could not create a memory"


@dataclasses.dataclass(frozen=True)
class PhaseResult:
    """What one phase costs. Times in seconds, memory in bytes.

    Args:
        seconds: of each timed call, in order.
        batch_size: clips in a call.
        build: building the model, or loading it.
        first: the first call, which traces and compiles.
        memory: the most that the process held; None where the system does not tell.
        memory_before: of that, before the model was built.
        peak_share: operations per second over those of the fastest matrix product; None where the
            multiply-adds are unknown.
    """

    seconds: tuple[float, ...]
    batch_size: int
    build: float
    first: float
    memory: int | None
    memory_before: int | None
    peak_share: float | None

    @property
    def median(self) -> float:
        """Seconds of a call."""
        return statistics.median(self.seconds)

    @property
    def clips_per_second(self) -> float:
        """Clips in a second."""
        return self.batch_size / self.median

    def to_json(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "ms": round(1000 * self.median, 3),
            "ms_each": [round(1000 * value, 3) for value in self.seconds],
            "clips_per_s": round(self.clips_per_second, 4),
            "build_s": round(self.build, 3),
            "first_call_s": round(self.first, 3),
            "peak_memory_bytes": self.memory,
            "memory_before_model_bytes": self.memory_before,
            "share_of_matmul_peak": self.peak_share and round(self.peak_share, 4),
        }


@dataclasses.dataclass(frozen=True)
class BenchmarkResult:
    """What a model costs.

    Args:
        model: a registered name, or a file.
        input_shape: (T, H, W, 3) of one clip.
        batch_size: clips in a call.
        precision: what the layers compute in.
        device: `"CPU"`, or the GPU's name.
        threads: of one operation on the CPU.
        parameters: as `kvideo.analysis.count_parameters` counts.
        macs: multiply-adds of one clip forward; None where a layer does not tell.
        macs_unknown: then, why.
        matmul_flops: floating-point operations per second of the fastest matrix product.
        load: programs that wanted to run, on average over the minute before; None: nobody tells.
        phases: by name.
    """

    model: str
    input_shape: tuple[int, ...]
    batch_size: int
    precision: str
    device: str
    threads: int
    parameters: int
    macs: int | None
    macs_unknown: str | None
    matmul_flops: float
    load: float | None
    phases: dict[str, PhaseResult]

    @property
    def disturbed(self) -> bool:
        """Whether other programs were at work, which makes all figures too slow."""
        return much_load(self.load)

    def to_json(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "model": self.model,
            "input_shape": list(self.input_shape),
            "batch_size": self.batch_size,
            "precision": self.precision,
            "device": self.device,
            "threads": self.threads,
            "parameters": self.parameters,
            "macs_per_clip": self.macs,
            "macs_unknown": self.macs_unknown,
            "matmul_flops_per_s": round(self.matmul_flops),
            "load_before": self.load and round(self.load, 2),
            "phases": {name: phase.to_json() for name, phase in self.phases.items()},
        }


def benchmark_model(
    model: str | os.PathLike[str],
    *,
    phases: Sequence[str] = PHASES,
    batch_size: int = 1,
    input_shape: Sequence[int] | None = None,
    precision: str = "float32",
    options: Mapping[str, Any] | None = None,
    num_classes: int | None = None,
    repeats: int = 10,
    warmup: int = 2,
    threads: int | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> BenchmarkResult:
    """Measures a model; like `kvideo benchmark model`.

    Args:
        model: a registered model's name, a `.keras` file, or a run's folder.
        phases: `"inference"` (what `predict` and `evaluate` run on a batch), `"training"` (a step
            of `fit` with its default optimizer), or both.
        batch_size: clips at once.
        input_shape: (T, H, W, 3) of a registered model; None: what it is made for.
        precision: `"float32"` or `"bfloat16"`.
        options: further arguments of a registered model's builder.
        num_classes: of a registered model; None: 400.
        repeats: timed calls; their median counts.
        warmup: calls after the first one that are not timed.
        threads: of one operation; None: one for each processor.
        say: takes a line when a measurement begins.

    Raises:
        UsageError: an unknown name, a value out of its range, a model that cannot be built so.
        ModelFileError: the file cannot be loaded.
        KVideoError: the memory is not enough, or the measuring process failed.
    """
    for name, value in (("batch_size", batch_size), ("repeats", repeats), ("threads", threads)):
        if value is not None and value < 1:
            raise UsageError(f"{name} must be at least 1, not {value}.")
    most = _THREADS_PER_PROCESSOR * (os.cpu_count() or 1)
    if threads is not None and threads > most:
        raise UsageError(
            f"threads must be at most {most} here, {_THREADS_PER_PROCESSOR} for each processor, "
            f"not {threads}."
        )
    check_choice("precision", precision, PRECISIONS)
    if not phases or set(phases) - set(PHASES):
        raise UsageError(f"phases must be some of {PHASES}, not {tuple(phases)!r}.")
    common = {
        **vars(choose_model(model, input_shape, options, num_classes, "what is measured is")),
        "batch_size": batch_size,
        "precision": precision,
        "repeats": repeats,
        "warmup": warmup,
        "threads": threads,
    }
    load = load_before()
    found, rates = {}, []
    for phase in phases:
        found[phase] = _measure(Request(phase=phase, **common), say)
        # After each phase, since machines change their speed.
        rates.append(_measure(Request(phase=PEAK, **common), say)["flops_per_second"])
    flops, facts = max(rates), found[phases[0]]
    return BenchmarkResult(
        model=os.fspath(model),
        input_shape=tuple(facts["input_shape"]),
        batch_size=batch_size,
        precision=precision,
        device=facts["device"],
        threads=facts["threads"],
        parameters=facts["parameters"],
        macs=facts["macs"],
        macs_unknown=facts.get("macs_unknown"),
        matmul_flops=flops,
        load=load,
        phases={
            phase: _phase_result(values, batch_size, facts["macs"], _PASSES[phase], flops)
            for phase, values in found.items()
        },
    )


def load_before() -> float | None:
    """Programs that wanted to run, on average over the last minute; None: nobody tells."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None


def much_load(load: float | None) -> bool:
    """Whether so many programs disturb a measurement."""
    return load is not None and load > _MUCH_LOAD * (os.cpu_count() or 1)


def _phase_result(
    values: Mapping[str, Any], batch_size: int, macs: int | None, passes: int, flops: float
) -> PhaseResult:
    seconds = tuple(values["seconds"])
    work = None if macs is None else 2 * macs * batch_size * passes
    return PhaseResult(
        seconds=seconds,
        batch_size=batch_size,
        build=values["build"],
        first=values["first"],
        memory=values["memory"],
        memory_before=values["memory_before"],
        peak_share=None if work is None else work / statistics.median(seconds) / flops,
    )


def _measure(request: Request, say: Callable[[str], None] = lambda line: None) -> dict[str, Any]:
    """Has a request carried out by a fresh process.

    Raises:
        KVideoError: the process's own error, or that it did not live to tell.
    """
    with tempfile.TemporaryDirectory(prefix="kvideo-benchmark-") as folder:
        answer, begun = Path(folder) / "answer.json", Path(folder) / "begun"
        document = {**dataclasses.asdict(request), "answer": str(answer), "begun": str(begun)}
        status, words = _run(
            json.dumps(document), begun, lambda: say(f"measuring {request.phase} …")
        )
        values = json.loads(answer.read_text()) if answer.exists() else None
    if values is not None and "result" in values:
        return values["result"]
    if values is not None and "error" in values:
        kind = UsageError if values["status"] == UsageError.exit_status else KVideoError
        raise kind(values["error"])
    killed = status == -9  # by the system, which gives no other reason
    if killed or values is not None or any(word in words for word in _OUT_OF_MEMORY):
        raise KVideoError(
            f"the memory is not enough to measure {request.phase} with "
            f"{plural(request.batch_size, 'clip')} at once; fewer or smaller ones need less."
        )
    last = (words.strip().splitlines() or ["it said nothing"])[-1]
    raise KVideoError(f"measuring {request.phase} failed (exit status {status}): {last}")


def _run(document: str, begun: Path, on_begin: Callable[[], None]) -> tuple[int, str]:
    """Runs the program with a document as its input; returns exit status and standard error.

    `on_begin` is called when the file `begun` appears.
    """
    path = os.pathsep.join(place for place in sys.path if place)
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", _PROGRAM],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONPATH": path},
    )
    given: str | None = document
    told = False
    with process:
        try:
            while True:
                words: str | None = None
                with contextlib.suppress(subprocess.TimeoutExpired):
                    _, words = process.communicate(given, timeout=None if told else _LOOK)
                given = None  # sent once
                if not told and begun.exists():
                    told = True
                    on_begin()
                if words is not None:
                    return process.returncode, words
        except BaseException:  # an interruption too
            process.kill()
            raise
