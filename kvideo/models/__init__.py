"""Models by name: `kvideo.models.slow_fusion(num_classes)`, and every registered plugin's.

Names are looked up in the registry when first used; importing this package imports no model.
`tal_net` and `actor_detector` are here as well, though not in the registry: they are heads.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import Any

from kvideo import registry
from kvideo.errors import UnknownNameError

_HEADS = ("actor_detector", "tal_net")


class _Models(ModuleType):
    """Where a module has its builder's name, as `c3d`, the attribute is the builder.

    Python binds a submodule in its package when the submodule is imported;
    `from kvideo.models.c3d import STAGES` does not need that.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        builder = getattr(value, name, None) if isinstance(value, ModuleType) else None
        super().__setattr__(name, value if builder is None else builder)


sys.modules[__name__].__class__ = _Models


def __getattr__(name: str) -> Any:
    if name.startswith("_"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name in _HEADS:
        return getattr(import_module(f"{__name__}.{name}"), name)
    try:
        return registry.get_builder(name)
    except UnknownNameError as unknown:
        raise AttributeError(str(unknown)) from None


def __dir__() -> list[str]:
    return sorted({*globals(), *_HEADS, *registry.entries(registry.MODELS)})
