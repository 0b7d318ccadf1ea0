"""`kvideo.fuse`: several trained models become one, by what they say of whole videos."""

from kvideo.score_fusion.api import FusionResult, fuse

__all__ = ["FusionResult", "fuse"]
