"""TensorFlow imported without its start-up messages, which no setting silences."""

from __future__ import annotations

import os
import sys
import tempfile


def import_quietly() -> None:
    """Imports TensorFlow and looks for devices; shows its messages only if that fails."""
    if "tensorflow" in sys.modules:
        return
    sys.stderr.flush()
    with tempfile.TemporaryFile() as messages:
        kept = os.dup(2)
        os.dup2(messages.fileno(), 2)
        try:
            import tensorflow as tf

            tf.config.list_logical_devices()
        except Exception:
            messages.seek(0)
            os.write(kept, messages.read())
            raise
        finally:
            os.dup2(kept, 2)
            os.close(kept)
