"""Every registered model: at full size what the literature counts, and small what it must do.

A model is tested because it is listed. A new one needs nothing here; where the literature (or its
publisher's code) gives numbers, they belong into `PUBLISHED`.
"""

import dataclasses
import functools
import inspect
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

import kvideo
from kvideo import registry
from kvideo.analysis import count_macs, count_parameters, layer_costs
from kvideo.building import build_model
from kvideo.clip_spec import ClipSpec, Views
from kvideo.inference import Predictor
from kvideo.layers import PixelNormalization
from kvideo.saving import BuilderInfo, ModelInfo, load_model, model_info, save_model
from kvideo.training.step import compile_step

ENTRIES = {n: e for n, e in registry.entries(registry.MODELS).items() if e.builtin}
CLASSES = 400  # Kinetics

# Parameters and multiply-adds of one clip (convolutions and head) at 400 classes, and the clip
# where it is not the model's own. The ResNets' and S3D's are those of PyTorchVideo's and
# torchvision's code, counted there; they agree with the papers in all digits that these give.
PUBLISHED: dict[str, tuple[int, int, tuple[int, ...] | None]] = {
    "c2d": (24_327_632, 19_493_191_680, None),
    "i3d_r50": (28_043_472, 28_407_660_544, None),
    "slow": (32_454_096, 41_740_828_672, None),
    "slow_8x8_r50": (32_454_096, 41_740_828_672, None),
    "slowfast": (34_566_488, 50_308_583_424, None),
    "slowfast_4x16_r50": (34_480_216, 27_638_665_216, None),
    "slowfast_8x8_r50": (34_566_488, 50_308_583_424, None),
    "slowfast_8x8_r101": (62_826_968, 96_396_644_352, None),
    "slowfast_16x8_r101": (53_774_808, 163_094_597_632, None),
    "r2plus1d": (28_107_600, 57_533_825_024, None),
    "r3d_18": (33_371_472, 40_696_553_472, None),
    "mc3_18": (11_695_440, 43_342_635_008, None),
    "r2plus1d_18": (31_505_325, 40_519_080_960, None),
    "s3d": (8_320_048, 17_978_771_456, (16, 224, 224, 3)),
    # The publisher's (pytorch-i3d) parameters; DeepMind's have no batch norm scales.
    "i3d": (12_697_264, 111_150_686_208, None),
    # 78,409,573 at 101 classes (Tran et al. 2015), and 4,097 for each class more.
    "c3d": (78_409_573 + 299 * 4_097, 38_548_602_880, None),
}
VARIANTS = [  # further options, and the parameters
    ("i3d_r50", {"nonlocal_blocks": 5}, 35_401_936),
    ("i3d_r50", {"nonlocal_blocks": 5, "nonlocal_mode": "dot_product"}, 35_401_936),
]


# -- full size -------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("name", ENTRIES)
def test_full_size(name: str) -> None:
    builder = ENTRIES[name].load()
    assert isinstance(builder.clip_spec, ClipSpec) and isinstance(builder.views, Views)
    model = builder(CLASSES)
    assert model.name == name and model.output_shape == (None, CLASSES)
    assert model.input_shape == (None, *builder.clip_spec.shape)
    parameters, macs, clip = PUBLISHED.get(name, (None, None, None))
    found = count_parameters(model), count_macs(model, clip)
    assert found == (parameters or found[0], macs or found[1])
    costs = layer_costs(model)
    assert sum(cost.parameters for cost in costs) == found[0]
    trainable = sum(int(np.prod(v.shape)) for v in model.trainable_weights)
    assert trainable == found[0] and found[1] > 0


def test_what_is_published_is_registered() -> None:
    assert set(PUBLISHED) <= set(ENTRIES)


@pytest.mark.slow
def test_slowfast_at_both_sizes_of_the_paper() -> None:
    model = kvideo.models.slowfast_8x8_r50(CLASSES)
    assert f"{count_macs(model) / 1e9:.2f}" == "50.31"
    assert f"{count_macs(model, (32, 256, 256, 3)) / 1e9:.2f}" == "65.71"


@pytest.mark.slow
@pytest.mark.parametrize(("name", "options", "parameters"), VARIANTS)
def test_variants(name: str, options: dict[str, Any], parameters: int) -> None:
    model = ENTRIES[name].load()(CLASSES, **options)
    assert count_parameters(model) == parameters
    assert count_macs(model) > PUBLISHED[name][1]


# -- small -----------------------------------------------------------------------------------------

SMALL = (8, 32, 32, 3)
NARROW = ({"stem_filters": 8}, {"width_multiplier": 0.125}, {"widths": [4, 6]})
NAMES = ("a", "b", "c", "d", "e")


def narrow_options(builder: Callable[..., Any]) -> dict[str, Any]:
    """What makes a model narrow, if it has an option for that."""
    parameters = inspect.signature(builder).parameters.values()
    known = {parameter.name for parameter in parameters}
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        known.add("stem_filters")  # a variant hands on what it is given
    return next((options for options in NARROW if known.issuperset(options)), {})


def build(name: str, **options: Any) -> keras.Model:
    keras.utils.set_random_seed(0)
    builder = ENTRIES[name].load()
    return builder(len(NAMES), input_shape=SMALL, **narrow_options(builder), **options)


def liven(model: keras.Model) -> keras.Model:
    """Batch norms with numbers that show, and the statistics of `clips()`.

    Fresh ones do nothing, or make a branch nothing; then many a mistake would not be seen, and the
    outputs of some networks would hardly depend on the clip.
    """
    rng = np.random.default_rng(0)
    norms = [x for x in model._flatten_layers() if isinstance(x, keras.layers.BatchNormalization)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
        if norm.scale:
            scale = norm.gamma.numpy()
            norm.gamma.assign(np.where(scale == 0, 0.3, scale) * rng.uniform(0.8, 1.2, scale.shape))
        if norm.center:
            norm.beta.assign(rng.normal(0, 0.1, norm.beta.shape))
    model(clips().astype(np.float32), training=True)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
        # A channel that hardly varies would enlarge rounding errors until they show.
        variance = norm.moving_variance.numpy()
        norm.moving_variance.assign(np.maximum(variance, variance.mean()))
    return model


def clips(count: int = 3) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, *SMALL), np.uint8)


@dataclasses.dataclass
class Small:
    """A small model, and what it says of `clips()`."""

    name: str
    model: keras.Model

    @functools.cached_property
    def predictions(self) -> np.ndarray:
        return Predictor(self.model, 2)(clips())

    @property
    def info(self) -> ModelInfo:
        entry, options = ENTRIES[self.name], narrow_options(ENTRIES[self.name].load())
        origin = BuilderInfo(entry.name, entry.value, entry.distribution, entry.version, options)
        return ModelInfo(ClipSpec(SMALL[0], 8.0, SMALL[1:3]), NAMES, builder=origin)


def general(name: str) -> bool:
    """Whether a model is no variant, as `slow_8x8_r50` is one of `slow`: the same code."""
    module = ENTRIES[name].value.partition(":")[0]
    return not any(
        name.startswith(f"{other}_") and entry.value.startswith(f"{module}:")
        for other, entry in ENTRIES.items()
    )


def families() -> list[str]:
    """The first model of each module."""
    modules: dict[str, str] = {}
    for name, entry in ENTRIES.items():
        modules.setdefault(entry.value.partition(":")[0], name)
    return sorted(modules.values())


GENERAL = [name for name in ENTRIES if general(name)]


# One at a time: pytest runs all tests of a model before it makes the next one.
@pytest.fixture(scope="module", params=ENTRIES)
def small(request: pytest.FixtureRequest) -> Small:
    return Small(request.param, liven(build(request.param)))


def test_names_the_three_layers(small: Small) -> None:
    model = small.model
    assert model.name == small.name and model.input_shape == (None, *SMALL)
    assert len(model.get_layer("feature_map").output.shape) == 5
    assert len(model.get_layer("features").output.shape) == 2
    assert model.get_layer("logits").output.shape == model.output_shape == (None, len(NAMES))
    assert isinstance(model.layers[1], PixelNormalization)
    assert [layer.name for layer in model.layers[:2]] == ["clip", "normalization"]
    costs = layer_costs(model)
    assert sum(cost.parameters for cost in costs) == count_parameters(model)


def test_saved_and_loaded_predicts_on_tf_data(small: Small, tmp_path) -> None:
    """Bytes in the model as it was built, floats from tf.data in the one from the file."""
    expected = small.predictions
    assert expected.shape == (3, len(NAMES)) and np.ptp(expected, axis=0).max() > 2e-4
    np.testing.assert_allclose(expected.sum(axis=1), 1, atol=1e-5)
    save_model(small.model, tmp_path / "m.keras", small.info)
    loaded = load_model(tmp_path / "m.keras")
    assert model_info(loaded) == small.info
    loaded.jit_compile = False  # XLA takes minutes to compile 3D convolutions for a CPU
    dataset = tf.data.Dataset.from_tensor_slices(clips().astype(np.float32)).batch(2)
    np.testing.assert_allclose(loaded.predict(dataset, verbose=0), expected, atol=1e-4)


@pytest.mark.slow
def test_training_step(small: Small) -> None:
    model = small.model
    optimizer = keras.optimizers.SGD(0.01)
    optimizer.build(model.trainable_variables)
    step = compile_step(model, optimizer, tf.distribute.get_strategy(), batch_size=2)
    before = [variable.numpy() for variable in model.trainable_variables]
    losses, _, count, _ = step(clips(2), np.array([0, 3], np.int32)).numpy()
    small.__dict__.pop("predictions", None)  # they are others now
    assert np.isfinite(losses) and losses > 0 and count == 2
    changed = [
        not np.array_equal(old, new.numpy())
        for old, new in zip(before, model.trainable_variables, strict=True)
    ]
    assert np.mean(changed) > 0.5 and changed[-1]


@pytest.mark.slow
@pytest.mark.parametrize("name", GENERAL)
def test_half_precision_says_nearly_the_same(name: str) -> None:
    model = liven(build(name))
    arguments = {"precision": "bfloat16", "options": narrow_options(ENTRIES[name].load())}
    half = build_model(ENTRIES[name], len(NAMES), SMALL, **arguments)
    for hook in ("logits", "predictions"):
        assert half.get_layer(hook).output.dtype == "float32"
    half.set_weights(model.get_weights())
    found = Predictor(half, 2)(clips())
    assert found.dtype == np.float32
    assert np.abs(found - Predictor(model, 2)(clips())).mean() < 0.05


@pytest.mark.slow
@pytest.mark.parametrize("name", families())
def test_several_labels_or_none_of_them(name: str) -> None:
    """`classifier_activation` is what the last layer does with the logits."""
    for activation, expected in (("sigmoid", keras.ops.sigmoid), (None, np.array)):
        model = build(name, classifier_activation=activation)
        head = keras.Model(model.get_layer("logits").output, model.output)
        logits = np.linspace(-3, 3, len(NAMES), dtype=np.float32)[None]
        np.testing.assert_allclose(head(logits), expected(logits), atol=1e-6)


@pytest.mark.slow
def test_saved_models_work_in_a_fresh_process(tmp_path) -> None:
    """A file needs nothing but itself: `kvideo.load_model` finds the code."""
    np.save(tmp_path / "clips.npy", clips())
    expected = {}
    for name in families():
        small = Small(name, liven(build(name)))
        save_model(small.model, tmp_path / f"{name}.keras", small.info)
        expected[name] = small.predictions
    program = """
import sys, numpy as np, kvideo
from kvideo.inference import Predictor
folder, *names = sys.argv[1:]
for name in names:
    model = kvideo.load_model(f"{folder}/{name}.keras")
    np.save(f"{folder}/{name}.npy", Predictor(model, 2)(np.load(f"{folder}/clips.npy")))
"""
    subprocess.run([sys.executable, "-c", program, str(tmp_path), *expected], check=True)
    for name, predictions in expected.items():
        np.testing.assert_allclose(np.load(tmp_path / f"{name}.npy"), predictions, atol=1e-5)
