"""Results for people: as text, as one HTML file, as pictures. No TensorFlow."""

from kvideo.report.page import Thumbnail, report_html, thumbnail_jpeg, write_report
from kvideo.report.text import format_result

__all__ = ["Thumbnail", "format_result", "report_html", "thumbnail_jpeg", "write_report"]
