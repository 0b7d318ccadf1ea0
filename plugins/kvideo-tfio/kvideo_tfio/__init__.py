"""tensorflow-io's FFmpeg decoder as a decoder of kvideo: `--decoder tfio`."""

__version__ = "0.1.0"
