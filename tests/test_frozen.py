"""A frozen backbone's features: computed once, trained on, and the whole model saved."""

import os
from pathlib import Path

import keras
import numpy as np
import pytest
from conftest import drifting, write_video

import kvideo
from kvideo.data.pipeline import clip_reader
from kvideo.data.records import VideoRecord
from kvideo.errors import UsageError
from kvideo.training.frozen import FrozenFrames, FrozenParts

OPTIONS = {"frozen_backbone": True, "states": "vector", "widths": (4, 6), "units": 8, "grid": 2}


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("KVIDEO_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "frames"


def fit(data, out, **settings):
    options = {**OPTIONS, **settings.pop("model_options", {})}
    common = {
        "num_frames": 4, "frame_rate": 10.0, "size": (16, 16), "batch_size": 4, "epochs": 2,
        "precision": "float32", "learning_rate": 0.01, "overwrite": True,
    }  # fmt: skip
    return kvideo.fit(data, "cnn_rnn", out=str(out), model_options=options, **common | settings)


def test_features_are_computed_once(tiny_videos: Path, tmp_path: Path, cache: Path) -> None:
    first = fit(tiny_videos, tmp_path / "one")
    files = sorted(cache.glob("*/*.npy"))
    assert 0 < len(files) <= 12  # the training videos
    times = [os.stat(file).st_mtime_ns for file in files]
    again = fit(tiny_videos, tmp_path / "two")
    assert sorted(cache.glob("*/*.npy")) == files
    assert [os.stat(file).st_mtime_ns for file in files] == times
    assert first.history[-1]["loss"] == pytest.approx(again.history[-1]["loss"], rel=1e-4)
    begun = kvideo.models.cnn_rnn(2, input_shape=(4, 16, 16, 3), **OPTIONS)
    trained = kvideo.load_model(first.model_path)
    keras.utils.set_random_seed(0)
    assert [w.shape for w in begun.weights] == [w.shape for w in trained.weights]
    prediction = kvideo.predict(first.folder, next((tiny_videos / "left").iterdir()))[0]
    assert sum(prediction.probabilities) == pytest.approx(1, abs=1e-5)


def test_the_backbone_stays_and_the_head_learns(
    tiny_videos: Path, tmp_path: Path, cache: Path
) -> None:
    start = fit(tiny_videos, tmp_path / "start", epochs=1, learning_rate=1e-9)
    run = fit(tiny_videos, tmp_path / "run", weights=str(start.model_path), epochs=3)
    before, after = (kvideo.load_model(r.model_path) for r in (start, run))
    for old, new in zip(before.weights, after.weights, strict=True):
        frozen = old.path.split("/")[0] not in ("rnn1", "logits")
        assert (np.abs(old.numpy() - new.numpy()).max() == 0) == frozen, old.path


def test_features_are_those_of_each_frame(tmp_path: Path, cache: Path) -> None:
    video = write_video(tmp_path / "v.mp4", drifting(2, 0, frames=11))  # at 10/s
    model = kvideo.models.cnn_rnn(2, input_shape=(4, 16, 16, 3), **OPTIONS)
    parts = FrozenParts.of(model)
    spec = kvideo.ClipSpec(4, 10.0, (16, 16))
    reader = clip_reader(spec)
    frames = FrozenFrames(parts.backbone, reader, 2)
    features = frames.of(VideoRecord(str(video)))
    assert features.shape == (11, 4 * 6)
    clips = np.concatenate(list(reader.clips_at(VideoRecord(str(video)), np.array([0.0, 0.4]), 9)))
    expected = np.asarray(parts.backbone(clips.astype("float32"))).reshape(8, -1)
    np.testing.assert_allclose(features[:8], expected, atol=1e-5)
    whole = np.asarray(model(clips.astype("float32")))
    np.testing.assert_allclose(parts.head(features[:8].reshape(2, 4, -1)), whole, atol=1e-5)
    part = frames.of(VideoRecord(str(video), start=0.3, end=0.65))
    np.testing.assert_allclose(part[0], features[3], atol=1e-5)
    assert len(part) == 4
    (cached,) = (file for file in cache.glob("*/*.npy") if np.load(file).shape[0] == 11)
    cached.write_bytes(cached.read_bytes()[:100])  # cut off: computed anew
    np.testing.assert_allclose(frames.of(VideoRecord(str(video))), features, atol=1e-6)


def test_labels_for_each_frame(tmp_path: Path, cache: Path) -> None:
    rows = ["path,start,end,label"]
    for seed in range(4):
        write_video(tmp_path / f"{seed}.mp4", drifting(2, seed))
        rows += [f"{seed}.mp4,0,0.6,first", f"{seed}.mp4,0.6,1.2,second"]
    (tmp_path / "labels.csv").write_text("\n".join(rows))
    result = fit(
        tmp_path / "labels.csv",
        tmp_path / "run",
        num_frames=16,  # longer than the videos: the rest is padding
        val=str(tmp_path / "labels.csv"),
        model_options={"output": "frames"},
        bptt=5,
    )
    assert 0 <= result.history[-1]["val_accuracy"] <= 1
    assert np.isfinite(result.history[-1]["loss"])


def test_it_is_said_that_clips_are_not_mirrored(
    tiny_videos: Path, tmp_path: Path, cache: Path, capsys: pytest.CaptureFixture
) -> None:
    fit(tiny_videos, tmp_path / "run", epochs=1, flip="on")
    shown = capsys.readouterr().err
    assert "not mirrored (the backbone is frozen)" in shown and "at random" not in shown


def test_a_backbone_that_is_trained_is_refused(tiny_videos: Path, tmp_path: Path) -> None:
    model = kvideo.models.cnn_rnn(2, input_shape=(4, 16, 16, 3), states="vector")
    with pytest.raises(UsageError, match="are trained"):
        FrozenParts.of(model)
    with pytest.raises(UsageError, match='no layer "frame_features"'):
        FrozenParts.of(kvideo.models.slow_fusion(2, input_shape=(4, 16, 16, 3)))
    with pytest.raises(UsageError, match='states="vector"'):
        fit(tiny_videos, tmp_path / "run", model_options={"states": "map", "grid": 1})
