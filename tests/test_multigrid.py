"""Multigrid training: shapes and places, shared variables, resuming, refusals."""

import dataclasses
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

import kvideo
from kvideo.clip_spec import ClipSpec
from kvideo.data.annotations import read_data
from kvideo.data.pipeline import VideoSource, clip_reader
from kvideo.data.sampling import Augmentation
from kvideo.data.training_clips import TrainingClips
from kvideo.errors import UsageError
from kvideo.training import multigrid
from kvideo.training.loop import Loop
from kvideo.training.multigrid import Multigrid, MultigridSource, reshaped

SPEC = ClipSpec(16, 8.0, (64, 64))
QUICK = {
    "model": "slow_fusion",
    "num_frames": 8,
    "size": (32, 32),
    "model_options": {"widths": (4, 6), "dropout": 0.5},
    "batch_size": 1,
    "precision": "float32",
    "multigrid": True,
    "deterministic": True,
    "verbose": False,
}


def test_the_long_cycle_grows_clips_and_the_short_one_changes_their_side() -> None:
    plan = Multigrid(SPEC, 8, 10_000, epochs=40)
    assert [plan.stage(epoch) for epoch in (0, 8, 9, 18, 27, 35, 36, 39)] == [
        0, 0, 1, 2, 3, 3, None, None,
    ]  # fmt: skip
    first = [(grid.factor, grid.spec.num_frames, grid.spec.size) for grid in plan.grids(0)]
    assert first == [(32, 4, (24, 24)), (16, 4, (32, 32)), (8, 4, (48, 48))]
    last = [(grid.factor, grid.spec.num_frames, grid.spec.size) for grid in plan.grids(27)]
    assert last == [(4, 16, (32, 32)), (2, 16, (48, 48)), (1, 16, (64, 64))]
    assert [grid.spec for grid in plan.grids(36)] == [SPEC]
    assert [plan.rate(epoch) for epoch in (0, 9, 18, 27, 36)] == [8, 4, 2, 1, 1]
    # A clip shows the same seconds in fewer frames.
    assert {grid.spec.span for epoch in range(40) for grid in plan.grids(epoch)} == {2.0}
    # About the same work a step, in far fewer steps.
    work = sum(
        grid.factor * grid.spec.num_frames * grid.spec.size[0] ** 2 for grid in plan.grids(0)
    )
    assert work < 3.5 * 16 * 64**2
    assert plan.steps(0) < 0.06 * plan.steps(39) == 0.06 * 1250


def test_every_clip_comes_once_an_epoch() -> None:
    plan = Multigrid(SPEC, 4, 99, epochs=10)
    for epoch in range(10):
        starts = plan.starts(epoch)
        factors = [grid.factor for grid in plan.grids(epoch)]
        lengths = np.diff(starts)
        assert starts[0] == 0 and starts[-2] < 99 <= starts[-1]
        assert list(lengths) == [4 * factors[step % len(factors)] for step in range(len(lengths))]
        assert max(factors) == 1  # or too few steps would be left


@dataclasses.dataclass
class NotedClips(TrainingClips):
    """Notes which videos are read."""

    read_paths: list[str] = dataclasses.field(default_factory=list)

    def read(self, record, rngs):
        self.read_paths.append(record.path)
        return super().read(record, rngs)


def test_every_clip_comes_once_where_small_clips_are_of_the_same_shape(tiny_videos: Path) -> None:
    videos, spec = read_data(tiny_videos), ClipSpec(4, 8.0, (16, 16))
    noted: list[NotedClips] = []

    def source_of(spec: ClipSpec) -> VideoSource:
        noted.append(NotedClips(videos, clip_reader(spec), Augmentation(flip=False)))
        return VideoSource(noted[-1])

    plan = Multigrid(spec, 4, len(videos.records), epochs=10)
    shapes = {epoch: len(set(plan.grids(epoch))) for epoch in range(10)}
    assert min(shapes.values()) == 1 and 1 < max(shapes.values()) <= 3
    source = MultigridSource(plan, source_of(spec), source_of)
    for epoch in range(10):
        batches = list(source.batches(4, epoch=epoch))
        assert len(batches) == plan.steps(epoch) == 3
        assert sorted(p for clips in noted for p in clips.read_paths) == sorted(videos.paths)
        for clips in noted:
            clips.read_paths.clear()


def test_other_shapes_share_the_variables() -> None:
    model = kvideo.models.slow_fusion(2, input_shape=(8, 32, 32, 3), widths=(4, 6))
    other = reshaped(model, (4, 24, 24, 3))
    assert {id(v) for v in other.variables} == {id(v) for v in model.variables}
    fresh = kvideo.models.slow_fusion(2, input_shape=(4, 24, 24, 3), widths=(4, 6))
    fresh.set_weights(model.get_weights())
    clips = np.random.default_rng(0).integers(0, 256, (2, 4, 24, 24, 3), np.uint8)
    np.testing.assert_allclose(other(clips), fresh(clips), atol=1e-6)
    assert reshaped(model, (8, 32, 32, 3)) is model


def test_a_model_of_one_shape_is_refused() -> None:
    model = kvideo.models.c3d(2, input_shape=(4, 32, 32, 3))
    with pytest.raises(UsageError, match='take clips of any shape; "c3d" does not take'):
        reshaped(model, (4, 64, 64, 3))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"unfreeze_epochs": 2}, "does not go with unfreeze_epochs"),
        ({"distill": "big/model.keras"}, "does not go with distill"),
        ({"model_options": {"output": "frames"}}, "does not go with output=frames"),
        ({"modality": "flow"}, "does not go with clips of flow"),
    ],
)
def test_what_does_not_go_with_it_is_refused(change: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        kvideo.Experiment("demo", "slow_fusion", multigrid=True, **change)


def test_a_run_sees_every_clip_compiles_each_shape_once_and_resumes(
    tiny_videos: Path, tmp_path: Path, monkeypatch
) -> None:
    seen: list[tuple[int, tuple[int, ...], int]] = []
    traced: list[tuple[int, ...]] = []
    original = Loop._steps

    def watched(loop: Loop, dataset: tf.data.Dataset, *rest):
        step, calls = loop._step, loop._step._compile

        def compile_once(network: keras.Model, clips: int):
            traced.append((clips, *network.input_shape[1:]))
            return calls(network, clips)

        def take(clips, labels, *more):
            seen.append((loop.state.epoch, tuple(clips.shape), int((labels >= 0).numpy().sum())))
            return step(clips, labels, *more)

        step._compile, loop._step = compile_once, take
        try:
            return original(loop, dataset, *rest)
        finally:
            step._compile, loop._step = calls, step

    monkeypatch.setattr(Loop, "_steps", watched)
    monkeypatch.setattr(multigrid, "_STEPS", 1)  # so that batches grow with ten videos, too
    epochs = 5
    whole = kvideo.fit(tiny_videos, out=tmp_path / "whole", epochs=epochs, **QUICK)
    videos = sum(count for epoch, _, count in seen if epoch == 0)
    assert videos == 10
    assert all(
        sum(count for epoch, _, count in seen if epoch == number) == videos
        for number in range(epochs)
    )
    shapes = {shape for _, shape, _ in seen}
    assert len({shape[0] for shape in shapes}) > 2 and len({shape[1:] for shape in shapes}) > 5
    assert (1, 8, 32, 32, 3) in shapes
    assert len(traced) == len(set(traced)) == len(shapes)
    assert {shape for epoch, shape, _ in seen if epoch == epochs - 1} == {(1, 8, 32, 32, 3)}
    assert kvideo.load_model(whole.model_path).input_shape == (None, 8, 32, 32, 3)

    named = Loop._name_failures

    def stop(loop: Loop) -> None:
        named(loop)
        if loop.state.epoch == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Loop, "_name_failures", stop)
        kvideo.fit(tiny_videos, out=tmp_path / "broken", epochs=epochs, **QUICK)
    resumed = kvideo.fit(resume=tmp_path / "broken", verbose=False)
    assert [row["loss"] for row in resumed.history] == [row["loss"] for row in whole.history]
