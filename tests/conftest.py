"""Fixtures that every test may use."""

import contextlib
import ctypes
import gc
import os
import sys
from pathlib import Path

import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
if "PYTEST_XDIST_WORKER" in os.environ:  # several processes share the processors: a fifth faster
    os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

ROOT = Path(__file__).resolve().parent.parent


GROWTH = 2**30  # bytes; to look for garbage takes seconds once there have been many models

# What `kvideo.fit` needs to train a tiny model on tiny videos in a second.
TINY_RUN = {
    "model": "slow_fusion",
    "num_frames": 4,
    "size": (16, 16),
    "model_options": {"widths": (4, 6)},
    "batch_size": 4,
    "precision": "float32",
    "verbose": False,
}


@pytest.fixture(autouse=True)
def same_weights_every_time():
    """Models begin with random weights; a test must not depend on luck."""
    if keras := sys.modules.get("keras"):
        keras.utils.set_random_seed(0)


_kept = [GROWTH]  # bytes that the last look for garbage left


@pytest.fixture(autouse=True)
def free_memory():
    """Models are cycles of references: many large ones would wait long for the collector."""
    yield
    if _resident_bytes() > _kept[-1] + GROWTH:
        gc.collect()
        _give_back()
        _kept[-1] = _resident_bytes()


def _resident_bytes() -> int:
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:  # not Linux
        return 0


def _give_back() -> None:
    """Hands freed memory back to the system, where the C library can."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real videos and oracles: `KVIDEO_TEST_DATA`, by default ../shared."""
    folder = Path(os.environ.get("KVIDEO_TEST_DATA", ROOT.parent / "shared"))
    if not (folder / "data").is_dir():
        pytest.skip(f"no test data at {folder} (set KVIDEO_TEST_DATA)")
    return folder


def write_video(path: Path, frames, rate: int = 10) -> Path:
    """Writes (T, H, W, 3) uint8 frames as an H.264 file."""
    import av
    import numpy as np

    path.parent.mkdir(parents=True, exist_ok=True)
    frames = np.asarray(frames)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=rate)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        for picture in frames:
            for packet in stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return path


def drifting(step: int, seed: int, frames: int = 12, side: int = 32):
    """(T, side, side, 3) uint8: a random texture that moves `step` pixels a frame to the right."""
    import numpy as np

    texture = np.random.default_rng(seed).integers(0, 256, (side // 4, side // 4, 3), np.uint8)
    texture = texture.repeat(4, axis=0).repeat(4, axis=1)
    return np.stack([np.roll(texture, step * index, axis=1) for index in range(frames)])


@pytest.fixture(scope="session")
def tiny_videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of two classes with six small videos each: textures that move left or right."""
    folder = tmp_path_factory.mktemp("tiny_videos")
    for name, step in (("left", -2), ("right", 2)):
        for seed in range(6):
            write_video(folder / name / f"{seed}.mp4", drifting(step, seed))
    return folder
