"""Models and decoders by name, found through entry points.

Built-in and third-party models use one mechanism: the entry-point group `kvideo.models`, value
`module:builder`. Decoders likewise: `kvideo.decoders`. Listing imports nothing; only the entry
point asked for is loaded.
"""

from __future__ import annotations

import dataclasses
import difflib
import warnings
from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from kvideo.errors import PluginLoadError, UnknownNameError

MODELS, DECODERS = "kvideo.models", "kvideo.decoders"
PERSON_DETECTORS = "kvideo.person_detectors"
_OURS = "kvideo"
_KINDS = {
    MODELS: ("model", "`kvideo models`"),
    DECODERS: ("decoder", "`kvideo models --decoders`"),
    PERSON_DETECTORS: ("person detector", "`kvideo models --person-detectors`"),
}


@dataclasses.dataclass(frozen=True)
class Entry:
    """One entry point: its name, `module:attribute`, and the distribution it comes from."""

    name: str
    value: str
    distribution: str
    version: str
    point: EntryPoint = dataclasses.field(repr=False, compare=False)

    @property
    def builtin(self) -> bool:
        """Whether kvideo itself provides it."""
        return self.distribution == _OURS

    def load(self) -> Callable[..., Any]:
        """Imports it.

        Raises:
            PluginLoadError: the import failed, whatever the reason, or gave nothing that can be
                called; the cause is chained.
        """
        try:
            found = self.point.load()
        except (Exception, SystemExit) as cause:  # a plugin may raise anything
            raise self.failure("could not be loaded", cause) from cause
        if not callable(found):
            raise PluginLoadError(
                f"{self._place()} is {found!r}, which cannot be called; it must name a function."
            )
        return found

    def failure(self, what: str, cause: BaseException) -> PluginLoadError:
        """What to raise where the plugin failed.

        Args:
            what: that happened, such as "could not be loaded".
            cause: what it raised.
        """
        text = " ".join(str(cause).split())
        return PluginLoadError(
            f"{self._place()} {what}: {type(cause).__name__}: {text}{self._remedy(cause)}"
        )

    def _place(self) -> str:
        return (
            f'the entry point "{self.name} = {self.value}" of the distribution '
            f"{self.distribution} {self.version}"
        )

    def _remedy(self, cause: BaseException) -> str:
        """What to do about a failed import, where that is clear."""
        if not isinstance(cause, ModuleNotFoundError) or not cause.name:
            return ""
        lacking = cause.name.partition(".")[0]
        if lacking == self.value.partition(":")[0].partition(".")[0]:
            return f". Install {self.distribution} anew."
        return f". It needs the package {lacking}: pip install {lacking}"


def entries(group: str) -> dict[str, Entry]:
    """All entries of a group by name, built-in ones first, then by name. Imports none of them.

    A plugin cannot take a built-in's name, and of two plugins with one name the first
    distribution (by name) wins; both cases warn.
    """
    found: dict[str, Entry] = {}
    candidates = []
    for point in entry_points(group=group):
        distribution = point.dist
        candidates.append(
            Entry(
                point.name,
                point.value,
                distribution.name if distribution else "?",
                distribution.version if distribution else "?",
                point,
            )
        )
    candidates.sort(key=lambda entry: (not entry.builtin, entry.name, entry.distribution))
    for entry in candidates:
        if (first := found.setdefault(entry.name, entry)) != entry:
            warnings.warn(
                f'{entry.distribution} offers "{entry.name}" in {group}, a name that '
                f"{first.distribution} has already; {first.value} is used.",
                stacklevel=2,
            )
    return found


def find(group: str, name: str) -> Entry:
    """The entry of that name.

    Raises:
        UnknownNameError: there is none; the message suggests a near one.
    """
    known = entries(group)
    if name in known:
        return known[name]
    kind, listing = _KINDS[group]
    near = difflib.get_close_matches(name, known, n=1)
    hint = f' Did you mean "{near[0]}"?' if near else ""
    raise UnknownNameError(f'there is no {kind} "{name}".{hint} {listing} lists all {len(known)}.')


def get_builder(name: str) -> Callable[..., Any]:
    """The model builder of that name.

    Raises:
        UnknownNameError: there is none.
        PluginLoadError: it cannot be imported.
    """
    return find(MODELS, name).load()


def get_decoder(name: str = "pyav") -> Callable[..., Any]:
    """The decoder of that name: a callable like `kvideo.data.decode.open_video`.

    Raises:
        UnknownNameError: there is none.
        PluginLoadError: it cannot be imported.
    """
    entry = find(DECODERS, name)
    if entry.builtin:
        return entry.load()
    from kvideo.data.plugin_decoder import PluginDecoder

    return PluginDecoder(entry.load(), f'"{name}" ({entry.distribution} {entry.version})')


def get_person_detector(name: str) -> Callable[..., Any]:
    """The person detector of that name: from pictures (N, H, W, 3) uint8 to boxes and scores.

    It gives a list with a pair for each picture: boxes (K, 4), x1, y1, x2, y2 as fractions of width
    and height, and scores (K,) from 0 to 1.

    Raises:
        UnknownNameError: there is none.
        PluginLoadError: it cannot be imported.
    """
    return find(PERSON_DETECTORS, name).load()
