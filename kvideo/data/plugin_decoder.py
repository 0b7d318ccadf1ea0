"""Decoders of plugins, of which any error is one of the file that was read."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

from kvideo.errors import DecodeError, KVideoError


@dataclasses.dataclass(frozen=True)
class PluginDecoder:
    """Opens videos by a decoder that may raise anything.

    Attributes:
        decoder: has the signature of `kvideo.data.open_video`.
        title: the decoder's name and where it comes from, for messages.
    """

    decoder: Callable[..., Any]
    title: str

    def __call__(self, path: Any, **options: Any) -> Any:
        """An open video, whose methods raise `DecodeError` instead of what is not kvideo's."""
        errors = _Errors(str(path), self.title)
        with errors:
            return _Reader(self.decoder(path, **options), errors)


@dataclasses.dataclass(frozen=True)
class _Errors(contextlib.AbstractContextManager[None]):
    path: str
    title: str

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, Exception) and not isinstance(error, KVideoError | MemoryError):
            text = " ".join(str(error).split())
            detail = f"the decoder {self.title} failed: {type(error).__name__}: {text}"
            raise DecodeError(self.path, "unreadable", detail) from error


class _Reader:
    """A reader of a plugin, as it is but for its errors."""

    def __init__(self, reader: Any, errors: _Errors) -> None:
        self._reader, self._errors = reader, errors

    def __enter__(self) -> _Reader:
        with self._errors:
            self._reader.__enter__()
        return self

    def __exit__(self, *exception: Any) -> None:
        with self._errors:
            self._reader.__exit__(*exception)

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._reader, name)
        return self._guarded(value) if callable(value) else value

    def _guarded(self, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            with self._errors:
                result = method(*args, **options)
            return self._each(result) if isinstance(result, Iterator) else result

        return call

    def _each(self, results: Iterator[Any]) -> Iterator[Any]:
        with self._errors:
            yield from results
