"""`localizer.json`: by it a folder is a localizer. No TensorFlow."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from kvideo.errors import ModelFileError

INDEX = "localizer.json"
FORMAT = 1


def is_localizer(path: str | os.PathLike[str]) -> bool:
    """Whether a folder, or the file in it, is one that `Localizer.save` has written."""
    return index_file(path).is_file()


def read_index(path: str | os.PathLike[str]) -> dict[str, Any]:
    """What `localizer.json` says, without TensorFlow.

    Raises:
        ModelFileError: there is none, or a damaged or later one.
    """
    file = index_file(path)
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
        if document["format"] > FORMAT:
            raise ModelFileError(
                f"{file} was written by kvideo {document['kvideo_version']}, which is later than "
                "this one."
            )
        return document
    except FileNotFoundError:
        raise ModelFileError(
            f"{os.fspath(path)} is no localizer: it has no {INDEX}. `kvideo localize fit` makes "
            "one."
        ) from None
    except (OSError, ValueError, KeyError, TypeError) as cause:
        raise ModelFileError(f"{file} is damaged: {cause!r}.") from cause


def index_file(path: str | os.PathLike[str]) -> Path:
    """The index of a folder; `path` may be that file itself."""
    place = Path(path)
    return place if place.name == INDEX else place / INDEX
