"""TensorFlow imported without its start-up messages, which no setting silences."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from kvideo.errors import KVideoError


@contextmanager
def quietly() -> Iterator[None]:
    """Within it nothing comes to standard error; it is shown afterwards if the block fails."""
    sys.stderr.flush()
    with tempfile.TemporaryFile() as messages:
        kept = os.dup(2)
        os.dup2(messages.fileno(), 2)
        try:
            yield
        except KVideoError:  # says all there is to say
            raise
        except Exception:
            messages.seek(0)
            os.write(kept, messages.read())
            raise
        finally:
            os.dup2(kept, 2)
            os.close(kept)


def import_quietly() -> None:
    """Imports TensorFlow and looks for devices; shows its messages only if that fails."""
    if "tensorflow" not in sys.modules:
        from kvideo.hardware import import_tensorflow

        with quietly():
            import_tensorflow()
