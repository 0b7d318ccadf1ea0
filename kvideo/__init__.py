"""kvideo: video recognition with Keras 3.

Importing this package imports neither TensorFlow nor Keras; public names load on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_PUBLIC = {
    "ClipSpec": "kvideo.clip_spec",
    "Views": "kvideo.clip_spec",
    "Experiment": "kvideo.training",
    "KVideoError": "kvideo.errors",
    "evaluate": "kvideo.api",
    "fit": "kvideo.api",
    "load_model": "kvideo.saving",
    "model_info": "kvideo.saving",
    "predict": "kvideo.api",
    "save_model": "kvideo.saving",
}
_SUBMODULES = ("data", "layers", "models", "training")

__all__ = sorted([*_PUBLIC, *_SUBMODULES, "__version__"])

if TYPE_CHECKING:
    from kvideo.api import evaluate, fit, predict
    from kvideo.clip_spec import ClipSpec, Views
    from kvideo.errors import KVideoError
    from kvideo.saving import load_model, model_info, save_model
    from kvideo.training import Experiment


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(import_module(_PUBLIC[name]), name)
    if name in _SUBMODULES:
        return import_module(f"kvideo.{name}")
    raise AttributeError(f"module 'kvideo' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))
