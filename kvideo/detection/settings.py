"""Which settings are a detector's, rather than an experiment's. No TensorFlow."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

OF_MODEL = ("person_head", "filters", "context", "scene_attention", "dropout")
OF_DATA = ("classes", "excluded", "val_excluded")
OF_TRAINING = ("shift",)


def split_settings(given: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Settings of the detector, and all others."""
    names = {*OF_MODEL, *OF_DATA, *OF_TRAINING}
    return (
        {name: value for name, value in given.items() if name in names},
        {name: value for name, value in given.items() if name not in names},
    )
