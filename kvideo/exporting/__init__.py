"""Trained models as files that other programs run: SavedModel, ONNX, LiteRT."""

from kvideo.exporting.api import DYNAMIC, FORMATS, ExportResult, export

__all__ = ["DYNAMIC", "FORMATS", "ExportResult", "export"]
