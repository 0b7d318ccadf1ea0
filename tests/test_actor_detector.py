"""`actor_detector` and its parts: outputs, cells, losses, the scene, maps with smaller cells."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import kvideo.models
from kvideo.clip_spec import ClipSpec
from kvideo.detection.cells import boxes_of_cells, giou_loss, owners_of_cells, pairwise_iou
from kvideo.detection.detector import ActorSettings, Detector
from kvideo.detection.metrics import box_iou
from kvideo.detection.stages import split
from kvideo.detection.suppression import suppress
from kvideo.errors import UsageError
from kvideo.layers.scene import ActorSceneBlock
from kvideo.models.actor_detector import actor_detector
from kvideo.saving import ModelInfo, load_model, read_info, save_model

SHAPE = (4, 32, 48, 3)
BOXES = np.array([[[0, 0, 0.5, 0.5], [0.2, 0.3, 0.9, 1.0], [0, 0, 1, 1]]], np.float32)


def backbone(name: str = "slow_fusion", shape=SHAPE, **options) -> keras.Model:
    return getattr(kvideo.models, name)(3, input_shape=shape, **options)


def clips(count: int = 1, shape=SHAPE) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, *shape), np.uint8)


@pytest.mark.parametrize(
    ("name", "shape", "options"),
    [
        ("slow_fusion", SHAPE, {}),
        ("single_frame", SHAPE, {}),
        ("slowfast", (8, 64, 96, 3), {"stem_filters": 8, "output_stride": 16}),
        ("two_stream", (4, 32, 48, 5), {}),
    ],
)
def test_works_on_any_feature_map(name, shape, options):
    body = backbone(name, shape, **options)
    model = actor_detector(body, 5)
    height, width = body.get_layer("feature_map").output.shape[2:4]
    given = np.repeat(clips(2, (*shape[:3], 3)), 2, axis=-1)[..., : shape[-1]]
    found = model({"clip": given, "boxes": np.repeat(BOXES, 2, axis=0)})
    assert found["actorness"].shape == (2, height, width)
    assert found["sides"].shape == (2, height, width, 4)
    assert found["logits"].shape == (2, 3, 5)
    assert (np.asarray(found["sides"]) > 0).all() and (np.asarray(found["sides"]) < 1).all()


def test_a_box_changes_nothing_for_another():
    model = actor_detector(backbone(), 5, context=True, scene_attention=True)
    all_three = model({"clip": clips(), "boxes": BOXES})["logits"]
    alone = model({"clip": clips(), "boxes": BOXES[:, 1:2]})["logits"]
    np.testing.assert_allclose(all_three[:, 1:2], alone, atol=1e-5)
    assert np.ptp(np.asarray(all_three), axis=1).max() > 1e-4  # boxes do not all look alike


def test_actions_come_from_inside_the_box():
    """Without context what lies far outside a box has no influence."""
    model = actor_detector(backbone(shape=(4, 32, 192, 3)), 5)
    first, second = clips(2, (4, 32, 192, 3))[:, None]
    second = np.concatenate([first[..., :96, :], second[..., 96:, :]], axis=3)
    box = np.array([[[0.0, 0.0, 0.2, 1.0]]], np.float32)
    one, two = (model({"clip": each, "boxes": box})["logits"] for each in (first, second))
    np.testing.assert_allclose(one, two, atol=1e-6)
    wide = np.array([[[0.0, 0.0, 1.0, 1.0]]], np.float32)
    one, two = (model({"clip": each, "boxes": wide})["logits"] for each in (first, second))
    assert np.abs(one - two).max() > 1e-3


def test_without_a_person_head():
    model = actor_detector(backbone(), 5, person_head=False)
    assert set(model.output) == {"logits"}
    with pytest.raises(UsageError, match="no person head"):
        Detector(model)(clips())
    ((boxes, scores, actions),) = Detector(model)(clips(), [(BOXES[0], np.ones(3))])
    assert boxes.shape == (3, 4) and scores.tolist() == [1, 1, 1] and actions.shape == (3, 5)


def test_a_detector_is_saved_and_loaded(tmp_path):
    model = actor_detector(backbone(), 2, context=True, scene_attention=True)
    info = ModelInfo(ClipSpec(4, size=(32, 48)), ("run", "sit"), True, detector={"context": True})
    save_model(model, tmp_path / "model.keras", info)
    assert read_info(tmp_path / "model.keras").detector == {"context": True}
    again = load_model(tmp_path / "model.keras")
    given = {"clip": clips(), "boxes": BOXES}
    for name, values in model(given).items():
        np.testing.assert_allclose(values, again(given)[name], atol=1e-6)
    half = load_model(tmp_path / "model.keras", precision="bfloat16")
    np.testing.assert_allclose(half(given)["logits"], model(given)["logits"], atol=0.1)
    with pytest.raises(UsageError, match="3 class names"):
        save_model(model, tmp_path / "wrong.keras", ModelInfo(info.clip_spec, ("a", "b", "c")))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_classes": 0}, "num_classes"),
        ({"filters": 0}, "filters"),
        ({"dropout": 1.0}, "dropout"),
    ],
)
def test_wrong_arguments(change, message):
    with pytest.raises(UsageError, match=message):
        actor_detector(backbone(), **{"num_classes": 3, **change})


def test_a_model_without_a_map_is_refused():
    inputs = keras.Input((4, 8))
    with pytest.raises(UsageError, match="feature_map"):
        actor_detector(keras.Model(inputs, keras.layers.Dense(2)(inputs)), 3)
    with pytest.raises(UsageError, match="no actor detector"):
        split(backbone())


def test_smaller_cells():
    """`output_stride=16`: the same weights, four times the cells, holes in res5 only."""
    shape = (8, 64, 96, 3)
    plain, dense = (
        backbone("slowfast", shape, stem_filters=8, output_stride=stride) for stride in (32, 16)
    )
    for one, two in zip(plain.weights, dense.weights, strict=True):
        assert (one.path, one.shape) == (two.path, two.shape)
    maps = [model.get_layer("feature_map").output.shape for model in (plain, dense)]
    assert [shape[2:4] for shape in maps] == [(2, 3), (4, 6)]
    holes = {
        layer.name for layer in dense.layers
        if isinstance(layer, keras.layers.Conv3D) and layer.dilation_rate != (1, 1, 1)
    }  # fmt: skip
    assert holes == {f"{path}_res5_{n}_b" for path in ("slow", "fast") for n in range(3)}
    with pytest.raises(UsageError, match="output_stride"):
        backbone("slow", shape, output_stride=8)


def test_scene_block_against_its_formula():
    rng = np.random.default_rng(0)
    actors, scene = rng.normal(size=(2, 3, 6)), rng.normal(size=(2, 2, 3, 4, 5))
    layer = ActorSceneBlock(inner_channels=4)
    given = [actors.astype("float32"), scene.astype("float32")]
    np.testing.assert_allclose(layer(given), given[0])  # the identity at first
    for dense in (layer.theta, layer.phi, layer.g, layer.out):
        dense.set_weights([rng.normal(size=w.shape) for w in dense.get_weights()])

    def through(dense, x):
        kernel, bias = dense.get_weights()
        return x @ kernel + bias

    places = scene.reshape(2, 24, 5)
    affinity = np.einsum("bni,bmi->bnm", through(layer.theta, actors), through(layer.phi, places))
    affinity /= 2  # sqrt(4)
    weights = np.exp(affinity - affinity.max(axis=-1, keepdims=True))
    weights /= weights.sum(axis=-1, keepdims=True)
    taken = np.einsum("bnm,bmi->bni", weights, through(layer.g, places))
    expected = actors + through(layer.out, taken)
    np.testing.assert_allclose(layer(given), expected, atol=1e-4)
    np.testing.assert_allclose(layer.attention(given), weights, atol=1e-5)
    again = ActorSceneBlock.from_config(layer.get_config())
    assert again.inner_channels == 4
    assert layer.compute_output_shape([(2, 3, 6), (2, 2, 3, 4, 5)]) == (2, 3, 6)
    with pytest.raises(UsageError, match="inner_channels"):
        ActorSceneBlock(0)


def test_owners_of_cells():
    """A plain second writing of the rule, cell by cell."""
    rng = np.random.default_rng(1)
    height, width, count = 5, 7, 4
    low = rng.uniform(0, 0.7, (3, count, 2))
    boxes = np.concatenate([low, np.minimum(low + rng.uniform(0.02, 0.6, low.shape), 1)], axis=-1)
    known = rng.random((3, count)) < 0.7
    owner, taken, free = (
        each.numpy()
        for each in owners_of_cells(tf.constant(boxes, tf.float32), known, height, width)
    )
    for b, i, j in np.ndindex(3, height, width):
        x, y = (j + 0.5) / width, (i + 0.5) / height
        own, inside = [], False
        for n in np.flatnonzero(known[b]):
            x1, y1, x2, y2 = boxes[b, n]
            right, down = abs(x - (x1 + x2) / 2), abs(y - (y1 + y2) / 2)
            inside |= right <= (x2 - x1) / 2 and down <= (y2 - y1) / 2
            near = max((x2 - x1) / 4, 0.5 / width), max((y2 - y1) / 4, 0.5 / height)
            if right <= near[0] and down <= near[1]:
                own.append(((x2 - x1) * (y2 - y1), n))
        assert taken[b, i, j] == bool(own)
        assert free[b, i, j] == (not own and not inside)
        if own:
            assert owner[b, i, j] == min(own)[1]


def test_every_box_has_a_cell():
    rng = np.random.default_rng(2)
    for _ in range(50):
        low = rng.uniform(0, 0.98, (1, 1, 2))
        box = np.concatenate([low, low + 0.02], axis=-1).astype("float32")
        _, taken, _ = owners_of_cells(tf.constant(box), tf.constant([[True]]), 4, 6)
        assert taken.numpy().any()


def test_boxes_of_cells_and_overlaps():
    sides = np.full((1, 2, 4, 4), 0.1, np.float32)
    boxes = boxes_of_cells(sides).numpy()[0]
    np.testing.assert_allclose(boxes[0, 0], [0.025, 0.15, 0.225, 0.35], atol=1e-6)
    np.testing.assert_allclose(boxes[1, 3], [0.775, 0.65, 0.975, 0.85], atol=1e-6)
    assert boxes_of_cells(sides * 20).numpy().max() == 1  # within the picture
    rng = np.random.default_rng(3)
    low = rng.uniform(0, 0.5, (2, 1, 6, 2))
    one, two = np.concatenate([low, low + rng.uniform(0, 0.5, low.shape)], -1).astype("float32")
    np.testing.assert_allclose(pairwise_iou(one, two)[0], box_iou(one[0], two[0]), atol=1e-6)


def test_giou_loss():
    box = np.array([0.2, 0.2, 0.6, 0.6], np.float32)
    assert giou_loss(box, box).numpy() == pytest.approx(0, abs=1e-6)
    apart = np.array([0.8, 0.2, 1.0, 0.6], np.float32)
    # No overlap; the hull is 0.8 × 0.4, of which 0.6 × 0.4 is covered.
    assert giou_loss(box, apart).numpy() == pytest.approx(1 + 0.25, abs=1e-5)
    half = np.array([0.2, 0.2, 0.4, 0.6], np.float32)
    assert giou_loss(box, half).numpy() == pytest.approx(0.5, abs=1e-5)
    empty = np.zeros(4, np.float32)
    assert np.isfinite(giou_loss(empty, empty).numpy())


def test_suppression():
    boxes = np.array([[0, 0, 10, 10], [1, 0, 11, 10], [20, 0, 30, 10], [0, 0, 10, 9]], float)
    assert suppress(boxes, 0.5, 10).tolist() == [0, 2]
    assert suppress(boxes, 0.5, 1).tolist() == [0]
    assert suppress(boxes, 0.85, 10).tolist() == [0, 1, 2]
    assert suppress(np.zeros((0, 4)), 0.5, 3).tolist() == []


@pytest.mark.parametrize("wrong", [{"threshold": 2}, {"nms": 0}, {"most": 0}])
def test_wrong_settings(wrong):
    with pytest.raises(UsageError):
        ActorSettings(**wrong)
