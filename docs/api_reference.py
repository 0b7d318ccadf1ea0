"""Writes the reference of every public name into `api.md`.

`<!-- api -->` becomes a section for each public module, with the docstring of each name in its
`__all__`, or a link where another page has it. So no public name can be forgotten.
"""

import importlib
import inspect
import re
import sys
from pathlib import Path

from kvideo import registry

MODULES = (
    "kvideo",
    "kvideo.data",
    "kvideo.training",
    "kvideo.scores",
    "kvideo.report",
    "kvideo.features",
    "kvideo.score_fusion",
    "kvideo.segmentation",
    "kvideo.localization",
    "kvideo.detection",
    "kvideo.flow",
    "kvideo.analysis",
    "kvideo.visualization",
    "kvideo.exporting",
    "kvideo.layers",
)
MARK = "<!-- api -->"
_DIRECTIVE = re.compile(r"^::: ([\w.]+)$", re.M)


def public_names():
    """Pairs of a heading and the public names below it, as dotted paths."""
    found = []
    for module in MODULES:
        names = importlib.import_module(module).__all__
        objects = {name: getattr(importlib.import_module(module), name) for name in names}
        kept = [n for n, o in objects.items() if not inspect.ismodule(o) and not n.startswith("__")]
        found.append((module, [f"{module}.{name}" for name in kept]))
    builders = [e.value for e in registry.entries(registry.MODELS).values() if e.builtin]
    heads = ["kvideo.models.actor_detector:actor_detector", "kvideo.models.tal_net:tal_net"]
    models = [value.replace(":", ".") for value in [*builders, *heads]]
    return [*found, ("kvideo.models", models)]


def documented_elsewhere():
    """The objects whose docstrings other pages show, by where they are defined."""
    found = {}
    for page in sorted(Path(__file__).parent.rglob("*.md")):
        for path in _DIRECTIVE.findall(page.read_text(encoding="utf-8")):
            found.setdefault(_definition(path), path)
    return found


def on_page_markdown(markdown, page, **_):
    """The hook that mkdocs calls for each page."""
    if MARK not in markdown:
        return markdown
    elsewhere, shown, parts = documented_elsewhere(), {}, []
    for heading, paths in public_names():
        links, described = [], []
        for path in paths:
            place = _definition(path)
            known = elsewhere.get(place) or shown.get(place)
            if known is None:  # a module of that name would be taken for what is meant
                known = shown[place] = place if path in sys.modules else path
                described.append(f"::: {known}")
            if known != path or path not in shown.values():
                links.append(f"[`{path}`][{known}]")
        if links:
            described.insert(0, "See " + ", ".join(links) + ".")
        parts += [f"## {heading}", *described]
    return markdown.replace(MARK, "\n\n".join(parts))


def _definition(path):
    """Module and name of what a dotted path leads to; the path itself for plain values."""
    found = _found(path)
    module, name = getattr(found, "__module__", ""), getattr(found, "__qualname__", "")
    return f"{module}.{name}" if module.startswith("kvideo") and name else path


def _found(path):
    """What a dotted path leads to; a function goes before a module of its name."""
    package, *names = path.split(".")
    try:
        found = importlib.import_module(package)
        for name in names:
            found = getattr(found, name)
    except AttributeError:
        module, _, name = path.rpartition(".")
        found = getattr(importlib.import_module(module), name)
    return found
