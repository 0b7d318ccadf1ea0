"""`kvideo fuse`: the scores of several models become those of one."""

import json
import shutil
import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest
from click.testing import CliRunner
from conftest import drifting, write_video
from sklearn.svm import LinearSVC

import kvideo
from kvideo.cli import cli
from kvideo.clip_spec import ClipSpec, Views
from kvideo.errors import DataError, UsageError
from kvideo.layers import WeightedMean
from kvideo.members import fuse_scores, members_of
from kvideo.saving import ModelInfo, load_model, save_model
from kvideo.score_fusion import fuse
from kvideo.score_fusion.methods import best_weights, fit_machine, make_fusion
from kvideo.score_fusion.scores import MemberScores

NARROW = {"widths": (4, 6)}
CLASSES = ("left", "right")


def model_file(path: Path, name: str, spec: ClipSpec, names=CLASSES, seed: int = 0, **changes):
    keras.utils.set_random_seed(seed)
    builder = getattr(kvideo.models, name)
    activation = "sigmoid" if changes.get("multi_label") else "softmax"
    model = builder(len(names), input_shape=spec.shape, classifier_activation=activation, **NARROW)
    rng = np.random.default_rng(seed)
    for weight in model.get_layer("logits").weights:  # probabilities that differ
        weight.assign(rng.normal(0, 2, weight.shape))
    save_model(model, path, ModelInfo(spec, tuple(names), views=Views(3), **changes))
    return path


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> list[Path]:
    """Three models that look at videos in different ways."""
    folder = tmp_path_factory.mktemp("members")
    return [
        model_file(folder / "frames.keras", "late_fusion", ClipSpec(3, 5.0, (16, 16)), seed=1),
        model_file(
            folder / "flow.keras", "two_stream", ClipSpec(4, 10.0, (24, 24), "flow"), seed=2
        ),
        model_file(folder / "volume.keras", "slow_fusion", ClipSpec(6, 8.0, (20, 20)), seed=3),
    ]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("KVIDEO_CACHE", str(tmp_path / "cache"))


def probabilities(model: Path, data: Path) -> np.ndarray:
    result = kvideo.evaluate(model, data, verbose=False)
    return np.stack([video.probabilities for video in result.videos])


def invoke(*arguments: object):
    return CliRunner().invoke(cli, ["fuse", *map(str, arguments)])


# -- what is fused, and how ----------------------------------------------------------------------


def test_the_average_of_three_models(runs: list[Path], tiny_videos: Path, tmp_path: Path) -> None:
    out = tmp_path / "fused.keras"
    result = fuse(runs, tiny_videos, out=out, verbose=False)
    each = [probabilities(model, tiny_videos) for model in runs]
    np.testing.assert_allclose(probabilities(out, tiny_videos), np.mean(each, axis=0), atol=1e-6)
    labels = np.repeat([0, 1], 6)
    expected = [float((one.argmax(axis=1) == labels).mean()) for one in each]
    assert list(result.accuracies.values()) == expected
    assert list(result.accuracies) == ["frames", "flow", "volume"]
    assert result.weights == pytest.approx([1 / 3] * 3) and result.num_videos == 12
    assert result.accuracy == (np.mean(each, axis=0).argmax(axis=1) == labels).mean()


def test_given_weights(runs: list[Path], tiny_videos: Path, tmp_path: Path) -> None:
    out = tmp_path / "fused"
    fuse(runs[:2], tiny_videos, method="weighted", weights=[3, 1], out=out, verbose=False)
    first, second = (probabilities(model, tiny_videos) for model in runs[:2])
    expected = 0.75 * first + 0.25 * second
    np.testing.assert_allclose(probabilities(out, tiny_videos), expected, atol=1e-6)


def scores_of(*scores: np.ndarray, labels: np.ndarray) -> MemberScores:
    targets = np.eye(scores[0].shape[1], dtype=bool)[labels]
    return MemberScores(list(scores), targets, (), False)


def test_the_best_weights_by_hand() -> None:
    """The first model knows class 0, the second one knows class 1, the third knows nothing."""
    labels = np.array([0, 0, 1, 1])
    first = np.array([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4], [0.6, 0.4]])
    second = np.array([[0.4, 0.6], [0.4, 0.6], [0.1, 0.9], [0.1, 0.9]])
    wrong = 1 - first
    weights = best_weights(scores_of(first, second, wrong, labels=labels))
    assert sum(weights) == pytest.approx(1) and weights[2] == 0
    assert weights[0] == pytest.approx(weights[1], abs=0.1) and min(weights[:2]) > 0.3
    alone = best_weights(scores_of(np.eye(2)[labels] * 0.98 + 0.01, second, labels=labels))
    assert alone == (1.0, 0.0)  # nothing is more probable than what is nearly certain
    many = best_weights(scores_of(*[first, second] * 4, labels=labels))
    assert len(many) == 8 and sum(many) == pytest.approx(1)


@pytest.mark.parametrize("classes", [2, 4])
def test_the_machine_is_scikit_learns(classes: int) -> None:
    """On scores of length 1, one against the rest; a factor that changes no order."""
    rng = np.random.default_rng(0)
    labels = np.arange(40) % classes
    scores = []
    for noise in (1.0, 2.0):
        logits = 2 * np.eye(classes)[labels] + rng.normal(0, noise, (40, classes))
        scores.append(np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True))
    names = tuple("abcd"[:classes])
    scored = scores_of(*scores, labels=labels)
    kernel, bias, accuracy = fit_machine(scored, names)
    assert kernel.shape == (2 * classes, classes) and bias.shape == (classes,)
    rows = np.hstack([s / np.linalg.norm(s, axis=1, keepdims=True) for s in scores])
    ours = rows @ kernel + bias
    matches = []
    for cost in (0.01, 0.1, 1.0, 10.0, 100.0):
        theirs = LinearSVC(C=cost, random_state=0, max_iter=20000).fit(rows, labels)
        values = theirs.decision_function(rows)
        values = np.stack([-values, values], axis=1) if classes == 2 else values
        factor = ours.ravel() @ values.ravel() / (values.ravel() @ values.ravel())
        matches.append(np.allclose(ours, factor * values, atol=1e-3) and factor > 0)
    assert any(matches) and 0.5 < accuracy <= 1
    spec = ClipSpec(1, size=(8, 8))
    fusion, weights, crossed = make_fusion("svm", None, scored, ModelInfo(spec, names))
    assert weights is None and crossed == accuracy
    outputs = np.asarray(fusion([s.astype(np.float32) for s in scores]))
    expected = np.exp(ours - ours.max(axis=1, keepdims=True))
    np.testing.assert_allclose(outputs, expected / expected.sum(axis=1, keepdims=True), atol=1e-4)


def test_a_machine_is_never_certain() -> None:
    labels = np.arange(30) % 3
    scored = scores_of(*[np.eye(3)[labels] * 0.97 + 0.01] * 2, labels=labels)
    info = ModelInfo(ClipSpec(1, size=(8, 8)), ("a", "b", "c"))
    fusion, _, accuracy = make_fusion("svm", None, scored, info)
    outputs = np.asarray(fusion([s.astype(np.float32) for s in scored.scores]))
    assert accuracy == 1.0 and 0.9 < outputs.max() < 0.99


def test_a_machine_that_beats_the_average() -> None:
    """The second model is always wrong in the same way: the machine learns to turn it round."""
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 3
    wrong = np.eye(3)[(labels + 1) % 3] * 0.9 + 0.1 / 3
    noise = rng.dirichlet([1, 1, 1], 60)
    scored = scores_of(noise, wrong, labels=labels)
    assert scored.accuracy((noise + wrong) / 2) < 0.5
    assert fit_machine(scored, ("a", "b", "c"))[2] == 1.0


# -- the file ------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["average", "weighted", "svm"])
def test_one_model_for_all_that_follows(runs, tiny_videos, tmp_path, method) -> None:
    out = tmp_path / "fused"
    result = invoke(*runs[:2], tiny_videos, "--method", method, "-o", out)
    assert result.exit_code == 0, result.output
    assert f"fused ({method})" in result.output and "Accuracy on 12 videos" in result.output
    with zipfile.ZipFile(out / "model.keras") as archive:
        assert not [name for name in archive.namelist() if "pkl" in name or "pickle" in name]
    info = kvideo.model_info(out)
    assert [member.clip_spec.modality for member in info.members] == ["rgb", "flow"]
    before = probabilities(out, tiny_videos)
    model = load_model(out)
    assert len(members_of(model)) == 2
    parts = [probabilities(run, tiny_videos) for run in runs[:2]]
    np.testing.assert_allclose(fuse_scores(model, parts), before, atol=1e-5)
    (prediction,) = kvideo.predict(out, tiny_videos / "left" / "0.mp4", num_clips=3)
    np.testing.assert_allclose(prediction.probabilities, before[0], atol=1e-5)
    half = kvideo.evaluate(out, tiny_videos, precision="bfloat16", verbose=False)
    np.testing.assert_allclose(half.videos[0].probabilities, before[0], atol=0.05)
    report = CliRunner().invoke(cli, ["evaluate", str(out), str(tiny_videos)])
    assert report.exit_code == 0 and (out / "report.html").exists()
    assert "Views                6 a video" in report.output


@pytest.mark.parametrize(
    ("ending", "method"), [("onnx", "average"), ("tflite", "svm"), ("folder", "weighted")]
)
def test_export(runs, tiny_videos, tmp_path, ending, method) -> None:
    fuse(runs[:2], tiny_videos, method=method, out=tmp_path / "fused", verbose=False)
    name = "exported" if ending == "folder" else f"exported.{ending}"
    result = kvideo.export(tmp_path / "fused", tmp_path / name)
    assert [tensor["name"] for tensor in result.inputs] == ["clip_1", "clip_2"]
    assert [tensor["shape"][1:] for tensor in result.inputs] == [[3, 16, 16, 3], [4, 24, 24, 2]]
    assert [tensor["dtype"] for tensor in result.inputs] == ["uint8", "float32"]
    assert len(json.loads(Path(result.info).read_text())["members"]) == 2


def test_two_members_of_flow_share_it(runs, tiny_videos, tmp_path, monkeypatch) -> None:
    from kvideo.flow.coding import FlowCoder

    calls, original = [], FlowCoder.estimate
    monkeypatch.setattr(
        FlowCoder, "estimate", lambda self, a, b: calls.append(1) or original(self, a, b)
    )
    spec = ClipSpec(5, 10.0, (16, 16), "flow")
    other = model_file(tmp_path / "other.keras", "slow_fusion", spec, seed=4)
    fuse([runs[1], other], tiny_videos, out=tmp_path / "fused", verbose=False)
    kvideo.evaluate(tmp_path / "fused", tiny_videos, verbose=False)
    assert len(calls) == 12 * 11


def test_a_timeline_of_clips_with_the_same_middles(runs, tiny_videos, tmp_path) -> None:
    long = write_video(tmp_path / "long.mp4", drifting(2, 5, frames=50))
    fuse(runs[:2], tiny_videos, out=tmp_path / "fused", verbose=False)
    (fused,) = kvideo.predict(tmp_path / "fused", long, timeline=0.5)
    times = fused.timeline.times
    assert len(times) == 9 and np.allclose(np.diff(times), 0.5)
    rows = []
    for run in runs[:2]:
        model = load_model(run)
        from kvideo.data.annotations import VideoRecord
        from kvideo.data.pipeline import clip_reader
        from kvideo.inference import Predictor

        blocks = clip_reader(kvideo.model_info(run).clip_spec).clips_around(
            VideoRecord(str(long)), times
        )
        rows.append(np.concatenate([Predictor(model)(block) for block in blocks]))
    np.testing.assert_allclose(fused.timeline.probabilities, np.mean(rows, axis=0), atol=1e-5)


def test_several_labels_a_video(tmp_path: Path, tiny_videos: Path) -> None:
    names, files = ("a", "b", "c"), []
    for seed in (1, 2):
        files.append(
            model_file(
                tmp_path / f"{seed}.keras",
                "late_fusion",
                ClipSpec(2, 5.0, (16, 16)),
                names,
                seed,
                multi_label=True,
            )  # fmt: skip
        )
    rows = [f"{path},{labels}" for path, labels in zip(
        sorted(tiny_videos.glob("*/*.mp4")), ["a;b", "b", "c", "a", "b;c", "a;c"] * 2, strict=True
    )]  # fmt: skip
    data = tmp_path / "data.csv"
    data.write_text("\n".join(["path,labels", *rows]))
    result = fuse(files, data, method="weighted", out=tmp_path / "fused", verbose=False)
    best = max(result.accuracies.values())
    assert result.accuracy >= best - 1e-9 and 0 < best <= 1
    with pytest.raises(UsageError, match="is for one label a video"):
        fuse(files, data, method="svm", out=tmp_path / "other", verbose=False)


# -- which videos --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(tiny_videos: Path, tmp_path_factory) -> list[Path]:
    """Two runs on the folder, each of which kept a fifth of it, another one, for validation."""
    folder, runs = tmp_path_factory.mktemp("trained"), []
    for seed in (0, 1):
        result = kvideo.fit(
            tiny_videos, "single_frame", out=folder / f"run{seed}", epochs=1, size=(16, 16),
            seed=seed, val_fraction=0.34, model_options={"widths": [4, 6]}, verbose=False,
        )  # fmt: skip
        runs.append(result.folder)
    return runs


def test_videos_that_a_run_was_trained_on_are_left_out(trained, tiny_videos, tmp_path) -> None:
    same = fuse([trained[0], trained[0] / "model.keras"], tiny_videos, out=tmp_path / "a")
    assert same.num_videos == 4
    result = invoke(*trained, tiny_videos, "-o", tmp_path / "b")
    number = json.loads(invoke(*trained, tiny_videos, "-o", tmp_path / "c", "--json").stdout)
    assert number["num_videos"] < 4  # in the validation part of both
    assert f"{12 - number['num_videos']} videos that the runs were trained on" in result.output
    insists = fuse(trained, tiny_videos, split="all", out=tmp_path / "d", verbose=False)
    assert insists.num_videos == 12


def test_copies_are_known_and_strangers_are_named(trained, tiny_videos, tmp_path) -> None:
    copy = shutil.copytree(tiny_videos, tmp_path / "copy")
    same = fuse([trained[0]] * 2, copy, out=tmp_path / "a", verbose=False)
    assert same.num_videos == 4 and list(same.accuracies) == ["run0", "run0 (2)"]
    alone = shutil.copy(trained[0] / "model.keras", tmp_path / "alone.keras")
    result = invoke(alone, trained[0], tiny_videos, "-o", tmp_path / "b", "--method", "weighted")
    assert result.exit_code == 0
    assert f"Nothing is known of the videos that {alone} was trained on" in result.output


def test_nothing_is_left(trained, tiny_videos, tmp_path) -> None:
    seen = tmp_path / "seen.csv"
    kept = fuse([trained[0]] * 2, tiny_videos, out=tmp_path / "x", verbose=False)
    assert kept.num_videos == 4
    from kvideo.training import Experiment
    from kvideo.training.videos import read_videos

    videos, _ = read_videos(Experiment.from_folder(trained[0]), lambda line: None)
    rows = [f"{r.path},{videos.class_names[r.labels[0]]}" for r in videos.records]
    seen.write_text("\n".join(["path,label", *rows]))
    for options in ({"method": "svm"}, {"method": "weighted"}):
        with pytest.raises(DataError, match="were trained on all videos of .*--split"):
            fuse(trained, seen, out=tmp_path / "y", verbose=False, **options)
    assert not (tmp_path / "y").exists()
    result = invoke(*trained, seen, "-o", tmp_path / "z")  # nothing is chosen for an average
    assert result.exit_code == 0 and "so the accuracies say little" in result.output


def test_a_bad_video_is_named_and_left_out(runs, tiny_videos, tmp_path) -> None:
    folder = tmp_path / "videos"
    for name in CLASSES:
        (folder / name).mkdir(parents=True)
        for number in range(3):
            source = tiny_videos / name / f"{number}.mp4"
            (folder / name / source.name).write_bytes(source.read_bytes())
    (folder / "left" / "1.mp4").write_bytes(b"no video")
    write_video(folder / "right" / "2.mp4", drifting(2, 1, frames=1))  # no flow
    result = invoke(*runs[:2], folder, "-o", tmp_path / "fused")
    assert result.exit_code == 0 and "Accuracy on 4 videos" in result.output
    assert "Left out: left/1.mp4" in result.output or "1.mp4" in result.output
    assert "optical flow needs two" in result.output
    evaluation = kvideo.evaluate(tmp_path / "fused", folder, verbose=False)
    assert evaluation.metrics["num_failed"] == 2 and evaluation.metrics["num_videos"] == 4


# -- wrong use -----------------------------------------------------------------------------------


def test_different_classes_are_named(runs, tiny_videos, tmp_path) -> None:
    spec = ClipSpec(2, 5.0, (16, 16))
    other = model_file(tmp_path / "other.keras", "late_fusion", spec, ("left", "up", "down"))
    result = invoke(runs[0], other, tiny_videos, "-o", tmp_path / "fused")
    assert result.exit_code == 2
    assert "only" in result.output and "has right" in result.output
    assert "has down and up" in result.output
    turned = model_file(tmp_path / "turned.keras", "late_fusion", spec, ("right", "left"))
    result = invoke(runs[0], turned, tiny_videos, "-o", tmp_path / "fused")
    assert result.exit_code == 2 and "another order" in result.output
    assert not (tmp_path / "fused").exists()


def test_what_cannot_be_fused(runs, tiny_videos, tmp_path) -> None:
    out = tmp_path / "fused"
    with pytest.raises(UsageError, match="at least two models"):
        fuse(runs[:1], tiny_videos, out=out)
    with pytest.raises(UsageError, match="method must be one of average, weighted, svm"):
        fuse(runs, tiny_videos, method="median", out=out)
    with pytest.raises(UsageError, match='weights are for method="weighted"'):
        fuse(runs[:2], tiny_videos, weights=[1, 2], out=out)
    for weights in ([1], [0, 0], [-1, 2], [float("nan"), 1]):
        with pytest.raises(UsageError, match="weights must be 2 numbers"):
            fuse(runs[:2], tiny_videos, method="weighted", weights=weights, out=out)
    fuse(runs[:2], tiny_videos, out=out, verbose=False)
    with pytest.raises(UsageError, match="exists; --overwrite"):
        fuse(runs[:2], tiny_videos, out=out)
    with pytest.raises(UsageError, match="is a fusion itself"):
        fuse([runs[0], out], tiny_videos, out=tmp_path / "again")
    with pytest.raises(UsageError, match="is one of the models"):
        fuse(runs[:2], tiny_videos, out=runs[0], overwrite=True)
    with pytest.raises(UsageError, match="must be a list"):
        fuse(str(runs[0]), tiny_videos, out=tmp_path / "again")
    keras.utils.set_random_seed(0)
    frames = kvideo.models.recurrent_conv(
        2, input_shape=(4, 16, 16, 3), output="frames", widths=(4, 6)
    )
    save_model(frames, tmp_path / "t.keras", ModelInfo(ClipSpec(4, 5.0, (16, 16)), CLASSES))
    with pytest.raises(UsageError, match="a label for each frame"):
        fuse([runs[0], tmp_path / "t.keras"], tiny_videos, out=tmp_path / "again")
    assert invoke(*runs[:2], tiny_videos, "--weights", "1,b").exit_code == 2
    missing = invoke(runs[0], tmp_path / "nothing.keras", tiny_videos)
    assert missing.exit_code != 0 and "there is no model file" in missing.output


def test_a_class_without_videos(runs, tiny_videos, tmp_path) -> None:
    only = tmp_path / "only.csv"
    rows = [f"{path},left" for path in sorted(tiny_videos.glob("left/*.mp4"))]
    only.write_text("\n".join(["path,label", *rows]))
    with pytest.raises(DataError, match="there is none of right"):
        fuse(runs[:2], only, method="svm", out=tmp_path / "fused", verbose=False)
    assert fuse(runs[:2], only, out=tmp_path / "fused", verbose=False).num_videos == 6


@pytest.mark.parametrize(
    "command",
    [
        ("features", "{model}", "{data}"),
        ("fit", "{data}", "--weights", "{model}"),
        ("benchmark", "model", "{model}"),
        ("predict", "{model}", "--stream", "{video}"),
    ],
)
def test_what_takes_a_single_model_says_so(runs, tiny_videos, tmp_path, command) -> None:
    out = tmp_path / "fused.keras"
    fuse(runs[::2], tiny_videos, out=out, verbose=False)
    words = {"model": out, "data": tiny_videos, "video": tiny_videos / "left" / "0.mp4"}
    arguments = [part.format(**words) for part in command]
    if command[0] == "fit":
        arguments += ["--out", str(tmp_path / "run")]
    result = CliRunner().invoke(cli, arguments)
    assert result.exit_code == 2, result.output
    assert "this is a fusion of 2. Name one of them." in result.output


def test_the_weighted_mean_layer() -> None:
    layer = WeightedMean([2, 6])
    np.testing.assert_allclose(layer([np.ones((2, 3)), np.full((2, 3), 5.0)]), np.full((2, 3), 4.0))
    assert WeightedMean.from_config(layer.get_config()).shares == [0.25, 0.75]
    for wrong in ([], [0, 0], [-1, 2], [float("inf"), 1]):
        with pytest.raises(UsageError, match="weights must be numbers from 0 on"):
            WeightedMean(wrong)
