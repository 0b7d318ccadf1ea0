"""kvideo: video recognition with Keras 3.

Importing this package imports neither TensorFlow nor Keras; public names load on first use.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_PUBLIC = {
    "ClipSpec": "kvideo.clip_spec",
    "Views": "kvideo.clip_spec",
    "Experiment": "kvideo.training",
    "KVideoError": "kvideo.errors",
    "compare": "kvideo.comparison",
    "convert": "kvideo.conversion",
    "evaluate": "kvideo.api",
    "export": "kvideo.exporting",
    "features": "kvideo.api",
    "fit": "kvideo.api",
    "fuse": "kvideo.score_fusion",
    "inflate": "kvideo.inflation",
    "fold_batch_norm": "kvideo.folding",
    "insert_nonlocal": "kvideo.insertion",
    "load_model": "kvideo.saving",
    "model_info": "kvideo.saving",
    "predict": "kvideo.api",
    "save_model": "kvideo.saving",
    "stream": "kvideo.streaming",
    "summary": "kvideo.summarizing",
}
_SUBMODULES = (
    "analysis", "data", "detection", "flow", "layers", "localization", "models", "recipes",
    "training", "visualization",
)  # fmt: skip

__all__ = sorted([*_PUBLIC, *_SUBMODULES, "__version__"])

if TYPE_CHECKING:
    from kvideo.api import evaluate, features, fit, predict
    from kvideo.clip_spec import ClipSpec, Views
    from kvideo.comparison import compare
    from kvideo.conversion import convert
    from kvideo.errors import KVideoError
    from kvideo.exporting import export
    from kvideo.folding import fold_batch_norm
    from kvideo.inflation import inflate
    from kvideo.insertion import insert_nonlocal
    from kvideo.saving import load_model, model_info, save_model
    from kvideo.score_fusion import fuse
    from kvideo.streaming import stream
    from kvideo.summarizing import summary
    from kvideo.training import Experiment


class _Package(ModuleType):
    """Where a module has a public function's name, as `features`, the attribute is the function.

    Python binds a submodule in its package when the submodule is imported;
    `from kvideo.features import feature_extractor` does not need that.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in _PUBLIC and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(import_module(_PUBLIC[name]), name)
    if name in _SUBMODULES:
        return import_module(f"kvideo.{name}")
    raise AttributeError(f"module 'kvideo' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))
