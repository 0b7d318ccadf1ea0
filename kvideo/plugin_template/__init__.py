"""A plugin to begin with: a distribution with a model, an entry point, tests and a README."""

from __future__ import annotations

import keyword
import os
import re
from importlib import resources
from pathlib import Path

from kvideo.errors import UsageError
from kvideo.files import check_target, write_text_atomic
from kvideo.registry import MODELS, entries

_NAME = re.compile(r"[a-z][a-z0-9]*([_-][a-z0-9]+)*")
_PREFIX = "kvideo-"
_ENDING = ".txt"  # of the template's files, which are no code of kvideo's


def new_plugin(name: str, folder: str | os.PathLike[str] | None = None) -> Path:
    """Writes a working plugin.

    Args:
        name: of the model, and of the distribution with `kvideo-` before it: small letters, digits
            and hyphens.
        folder: to make; by default the distribution's name.

    Returns:
        The folder.

    Raises:
        UsageError: the name is none, or kvideo has a model of that name; or the folder is there.
        KVideoError: it cannot be written.
    """
    bare = name.removeprefix(_PREFIX)
    if not _NAME.fullmatch(bare) or keyword.iskeyword(bare):
        raise UsageError(
            "a plugin's name is of small letters, digits and hyphens, begins with a letter, and is "
            f"no word of Python's own, such as my-net; not {name!r}."
        )
    model = bare.replace("-", "_")
    if (known := entries(MODELS).get(model)) is not None and known.builtin:
        raise UsageError(f'kvideo itself has a model "{model}"; give the plugin another name.')
    distribution = _PREFIX + bare.replace("_", "-")
    target = Path(folder) if folder is not None else Path(distribution)
    if target.exists():
        raise UsageError(f"{target} is there already.")
    check_target(target)
    words = {
        "name": model,
        "package": distribution.replace("-", "_"),
        "distribution": distribution,
    }
    top = resources.files("kvideo.plugin_template").joinpath("files")
    for place, text in _files(top).items():
        for word, value in words.items():
            text = text.replace("{{" + word + "}}", value)
        path = target / place.replace("package/", words["package"] + "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text_atomic(path, text)
    return target


def _files(folder: resources.abc.Traversable, before: str = "") -> dict[str, str]:
    """The template's texts by their places."""
    found: dict[str, str] = {}
    for each in folder.iterdir():
        if each.is_dir():
            found |= _files(each, f"{before}{each.name}/")
        elif each.name.endswith(_ENDING):
            found[before + each.name.removesuffix(_ENDING)] = each.read_text("utf-8")
    return found
