"""A small model with an output for each frame, and a distribution that offers it.

`offer` writes the distribution's metadata as pip does, so the registry finds it as it finds any.
"""

from pathlib import Path

import keras

from kvideo.clip_spec import ClipSpec
from kvideo.saving import ModelInfo

NAMES = ("tiny_frames", "halving_frames", "stubborn_frames")
SOURCE = """
import keras

from per_frame_model import frames_model


def tiny_frames(num_classes, *, input_shape=(8, 16, 16, 3), classifier_activation="softmax",
                output="video", width=6):
    return frames_model(num_classes, input_shape, classifier_activation, output, width)


def halving_frames(num_classes, *, input_shape=(8, 16, 16, 3), classifier_activation="softmax",
                   output="video"):
    inputs = keras.Input(input_shape)
    x = keras.layers.AveragePooling1D(2)(frames_model(num_classes, input_shape)(inputs))
    return keras.Model(inputs, keras.layers.Dense(num_classes, name="logits")(x), name="halving")


def stubborn_frames(num_classes, *, input_shape=(8, 16, 16, 3), classifier_activation="softmax",
                    output="video"):
    return frames_model(num_classes, input_shape, output="video")
"""


def frames_model(
    num_classes: int,
    input_shape: tuple[int, ...] = (8, 16, 16, 3),
    activation: str = "softmax",
    output: str = "frames",
    width: int = 6,
) -> keras.Model:
    """Two convolutions over space and time; with "frames" only space is pooled."""
    inputs = keras.Input(input_shape)
    x = keras.layers.Rescaling(1 / 127.5, -1)(inputs)
    x = keras.layers.Conv3D(width, (3, 5, 5), strides=(1, 2, 2), padding="same", activation="relu")(
        x
    )
    x = keras.layers.Conv3D(width, 3, padding="same", activation="relu", name="feature_map")(x)
    if output == "video":
        x = keras.layers.GlobalAveragePooling3D(name="features")(x)
    else:
        pool = keras.layers.GlobalAveragePooling2D()
        x = keras.layers.TimeDistributed(pool, name="features")(x)
    x = keras.layers.Dense(num_classes, name="logits", dtype="float32")(x)
    outputs = keras.layers.Activation(activation, name="predictions", dtype="float32")(x)
    return keras.Model(inputs, outputs, name="tiny_frames")


def brightness_model(num_frames: int = 8, side: int = 16, rate: float = 10.0) -> keras.Model:
    """Says "bright" for each frame as surely as its mean is above the middle of the scale."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((num_frames, side, side, 3))
    pool = keras.layers.GlobalAveragePooling2D()
    x = keras.layers.TimeDistributed(pool, name="features")(inputs)
    x = keras.layers.Rescaling(1 / 127.5, -1)(x)
    logits = keras.layers.Dense(2, name="logits")
    outputs = keras.layers.Activation("softmax", name="predictions")(logits(x))
    model = keras.Model(inputs, outputs, name="brightness")
    kernel = [[-4.0, 4.0]] * 3
    logits.set_weights([keras.ops.convert_to_numpy(kernel), keras.ops.zeros(2)])
    spec = ClipSpec(num_frames, rate, (side, side))
    model.kvideo_info = ModelInfo(spec, ("dark", "bright"))
    return model


def offer(folder: Path) -> Path:
    """Puts the distribution `frames-plugin` into a folder, which is to go to `sys.path`."""
    (folder / "frames_plugin.py").write_text(SOURCE)
    facts = folder / "frames_plugin-1.0.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: frames-plugin\nVersion: 1.0\n")
    (facts / "entry_points.txt").write_text(
        "[kvideo.models]\n" + "".join(f"{name} = frames_plugin:{name}\n" for name in NAMES)
    )
    return folder
