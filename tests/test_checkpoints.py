"""Checkpoints and what else a run writes: verified, kept, and not stopped by a full disk."""

import contextlib
import itertools
import json
import resource
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

import kvideo
from kvideo.errors import ModelFileError
from kvideo.saving import ModelInfo
from kvideo.training.checkpoint import (
    Checkpoints,
    read_checkpoint,
    restore_variables,
    write_checkpoint,
)
from kvideo.training.run_folder import RunFolder


def test_checkpoints_come_back_and_damage_is_seen(tmp_path) -> None:
    path = tmp_path / "last.npz"
    variables = [tf.Variable([[1.0, 2.0]]), tf.Variable(7, dtype=tf.int64)]
    write_checkpoint(path, [v.numpy() for v in variables], {"epoch": 3})
    arrays, state = read_checkpoint(path)
    assert state == {"epoch": 3} and arrays[1] == 7 and arrays[1].dtype == np.int64
    others = [tf.Variable([[0.0, 0.0]]), tf.Variable(0, dtype=tf.int64)]
    restore_variables(others, arrays, path)
    np.testing.assert_array_equal(others[0], [[1.0, 2.0]])
    with pytest.raises(ModelFileError, match="another model"):
        restore_variables([tf.Variable([1.0])], arrays, path)
    data = bytearray(path.read_bytes())
    data[data.index(np.float32(2.0).tobytes())] ^= 1
    path.write_bytes(data)
    with pytest.raises(ModelFileError, match="damaged"):
        read_checkpoint(path)
    path.write_bytes(bytes(data[: len(data) // 2]))
    with pytest.raises(ModelFileError, match="damaged"):
        read_checkpoint(path)
    with pytest.raises(ModelFileError, match="no checkpoint"):
        read_checkpoint(tmp_path / "none.npz")


def test_a_checkpoint_with_pickled_objects_is_refused(tmp_path) -> None:
    class Dangerous:
        def __reduce__(self):
            return (open, (str(tmp_path / "touched"), "w"))

    path = tmp_path / "last.npz"
    state = np.frombuffer(json.dumps({}).encode(), np.uint8)
    np.savez(path, **{"00000": np.array([Dangerous()], dtype=object)}, state=state)
    with pytest.raises(ModelFileError, match="damaged"):
        read_checkpoint(path)
    assert zipfile.is_zipfile(path) and not (tmp_path / "touched").exists()


def test_the_last_ones_are_kept_and_a_damaged_one_is_passed_over(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path / "checkpoint", keep=3)
    with pytest.raises(ModelFileError, match="there is not a checkpoint in"):
        checkpoints.read(print)
    for step in (9, 10, 99, 100):
        checkpoints.write(step, [np.full(1000, step, np.float32)], {"step": step})
    assert [path.stem for path in checkpoints.paths()] == [
        f"step-{step:08d}" for step in (100, 99, 10)
    ]
    said: list[str] = []
    assert checkpoints.read(said.append)[2] == {"step": 100} and not said
    newest, middle, _ = checkpoints.paths()
    newest.write_bytes(newest.read_bytes()[:2000])
    data = bytearray(middle.read_bytes())
    data[len(data) // 2] ^= 4
    middle.write_bytes(data)
    path, arrays, state = checkpoints.read(said.append)
    assert state == {"step": 10} and arrays[0][0] == 10 and path.stem == "step-00000010"
    assert [newest.name in said[0], middle.name in said[1]] == [True, True]
    assert all("is damaged" in line and "Going back" in line for line in said)
    path.write_bytes(b"")
    with pytest.raises(ModelFileError, match="all checkpoints in .* are damaged: --over"):
        checkpoints.read(said.append)
    checkpoints.clear()
    assert not list(checkpoints.folder.iterdir())


def test_every_flipped_bit_is_noticed_or_harmless(tmp_path: Path) -> None:
    path = tmp_path / "one.npz"
    write_checkpoint(path, [np.arange(6.0)], {"epoch": 1})
    whole = path.read_bytes()
    noticed = 0
    for place, bit in itertools.product(range(len(whole)), range(8)):
        data = bytearray(whole)
        data[place] ^= 1 << bit
        path.write_bytes(data)
        try:
            arrays, state = read_checkpoint(path)
        except ModelFileError:
            noticed += 1
        else:  # a time stamp, or the like
            np.testing.assert_array_equal(arrays[0], np.arange(6.0))
            assert state == {"epoch": 1} and len(arrays) == 1
    assert noticed > 100


@contextlib.contextmanager
def small_files(size: int) -> Iterator[None]:
    """Within it no file may grow beyond so many bytes, as on a disk that is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_is_waited_for(tmp_path: Path) -> None:
    model = kvideo.models.slow_fusion(2, input_shape=(4, 16, 16, 3), widths=(4, 6))
    info = ModelInfo(kvideo.ClipSpec(4, 10.0, (16, 16)), ("a", "b"))
    said: list[str] = []
    files = RunFolder(tmp_path / "run", model, info, 2, said.append)
    files.open([])
    best = [weight.numpy() for weight in model.weights]
    arrays = [variable.numpy() for variable in model.variables]
    with small_files(2_000):
        files.save_best()
        assert not files.save_checkpoint(1, arrays, {})
    assert len(said) == 2 and all("disk is full" in s and "will try again" in s for s in said)
    assert {path.name for path in files.folder.rglob("*") if path.is_file()} <= {
        "history.csv",
        *(path.name for path in (files.folder / "tensorboard").iterdir()),
    }
    for weight in model.weights:
        weight.assign(weight + 1)
    now = [weight.numpy() for weight in model.weights]
    assert files.save_checkpoint(2, arrays, {}) and len(said) == 2
    saved = kvideo.load_model(files.folder / "model.keras").weights
    for written, before in zip(saved, best, strict=True):
        np.testing.assert_array_equal(written, before)  # the best ones, not those of now
    for weight, value in zip(model.weights, now, strict=True):
        np.testing.assert_array_equal(weight, value)
    files.finish()
    files.close()
