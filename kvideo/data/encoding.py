"""Writing video files."""

from __future__ import annotations

from kvideo.errors import KVideoError

H264_ENCODERS = ("libx264", "libopenh264", "h264")


def h264_encoder() -> str:
    """The name of this FFmpeg's H.264 encoder.

    Raises:
        KVideoError: it has none.
    """
    import av

    for name in H264_ENCODERS:
        try:
            av.Codec(name, "w")
        except ValueError:  # av.codec.UnknownCodecError
            continue
        return name
    raise KVideoError(
        "this build of PyAV has no H.264 encoder; install PyAV from PyPI "
        "(pip install --force-reinstall --only-binary :all: av)."
    )
