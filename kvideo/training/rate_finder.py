"""The learning-rate finder: one short run in which the rate grows until the loss explodes.

Smith 2017, "Cyclical Learning Rates for Training Neural Networks", section 3.3.
"""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import io
import math
import os
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np

from kvideo.errors import KVideoError, UsageError
from kvideo.files import make_folder, write_bytes_atomic, write_text_atomic
from kvideo.hardware import cluster_addresses, import_tensorflow
from kvideo.progress import Progress, say_nothing, say_to_stderr
from kvideo.training.experiment import Experiment
from kvideo.training.videos import read_videos

LOWEST, HIGHEST = 1e-6, 10.0
_HIGHEST_OF_LARS = 1000.0
_KEEP = 0.9  # of the running mean of the losses
_SETTLED = 10  # steps before the running mean says something
_EXPLODED = 4.0  # times the lowest loss
_SAFETY = 10.0  # the suggested rate is so much below the one with the lowest loss
_FALL = 0.98  # a loss that does not fall to this share of the first one has not fallen


@dataclasses.dataclass(frozen=True)
class RateSearch:
    """What a learning-rate finder saw.

    Attributes:
        rates: of the steps, growing.
        losses: of the steps' batches.
        smoothed: their running mean.
        suggestion: a learning rate for the run's peak; None: no rate made the loss fall.
        exploded: whether the loss exploded before the last rate was reached.
        folder: with learning_rate.csv and learning_rate.png; None: nothing was written.
    """

    rates: list[float]
    losses: list[float]
    smoothed: list[float]
    suggestion: float | None
    exploded: bool
    folder: Path | None = None

    def to_csv(self) -> str:
        """A row for each step."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["learning_rate", "loss", "smoothed_loss"])
        for row in zip(self.rates, self.losses, self.smoothed, strict=True):
            writer.writerow([f"{value:.6g}" for value in row])
        return text.getvalue()

    def to_json(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        values = dataclasses.asdict(self)
        # What is not a number has no place in JSON.
        for name in ("losses", "smoothed"):
            values[name] = [x if math.isfinite(x) else None for x in values[name]]
        return {**values, "folder": self.folder and str(self.folder)}

    def __str__(self) -> str:
        """The result in a sentence."""
        if self.suggestion is None:
            return (
                f"No learning rate from {self.rates[0]:.1g} to {self.rates[-1]:.1g} made the loss "
                "fall; see the picture, or take more steps."
            )
        end = "exploded" if self.exploded else "was still finite"
        return (
            f"Suggestion: --lr {self.suggestion:.2g} (a tenth of the rate with the lowest loss; at "
            f"{self.rates[-1]:.2g} the loss {end})."
        )


def growing_rates(lowest: float, highest: float, steps: int) -> np.ndarray:
    """Rates that grow by the same factor at each step, (steps,)."""
    return np.geomspace(lowest, highest, steps)


def search_rates(rates: Iterable[float], losses: Iterable[float]) -> RateSearch:
    """Follows the losses until they explode, and says which rate to take.

    Args:
        rates: growing.
        losses: of one step at each of them; no more of them are asked for than needed.
    """
    seen: list[tuple[float, float, float]] = []
    mean, best, exploded = 0.0, math.inf, False
    for number, (rate, loss) in enumerate(zip(rates, losses, strict=False), start=1):
        mean = _KEEP * mean + (1 - _KEEP) * loss
        smoothed = mean / (1 - _KEEP**number)  # as if it had always been running
        seen.append((float(rate), float(loss), float(smoothed)))
        settled = number >= _SETTLED
        if not math.isfinite(smoothed) or (settled and smoothed > _EXPLODED * best):
            exploded = True
            break
        best = min(best, smoothed) if settled else best
    columns = [list(column) for column in zip(*seen, strict=True)]
    finite = [x if math.isfinite(x) else math.inf for x in columns[2]][_SETTLED - 1 :]
    suggestion = None
    if finite and min(finite) < _FALL * finite[0]:
        suggestion = columns[0][int(np.argmin(finite)) + _SETTLED - 1] / _SAFETY
    return RateSearch(columns[0], columns[1], columns[2], suggestion, exploded)


def find_learning_rate(
    experiment: Experiment,
    *,
    steps: int = 150,
    quiet: bool = False,
    prepare: Callable[[], AbstractContextManager[Any]] = contextlib.nullcontext,
) -> RateSearch:
    """Tries learning rates on an experiment's model and data; the run itself is not touched.

    Args:
        experiment: its model, data, batch size and optimizer are used; its folder receives
            learning_rate.csv and learning_rate.png. Without one they come to
            `runs/DATA-MODEL-lr`.
        steps: at most; the rate grows from 1e-6 to 10 (for LARS to 1,000) in so many.
        quiet: no progress and no remarks on standard error.
        prepare: TensorFlow is imported inside of what it returns.

    Raises:
        UsageError, DataError, KVideoError: as in `kvideo.training.run`.
    """
    if experiment.strategy == "multiworker" or cluster_addresses(experiment.strategy):
        raise UsageError("the learning-rate finder runs in one process; start it without workers.")
    say = say_nothing if quiet else say_to_stderr
    # The whole of the model is tried, and nothing is tested.
    plain = dataclasses.replace(
        experiment, ema=None, precise_bn=None, unfreeze_epochs=None, multigrid=False
    )
    videos, _ = read_videos(plain, say)
    with prepare():
        import_tensorflow()
    from kvideo.report.rate_plot import rate_png
    from kvideo.training.assembly import assemble
    from kvideo.training.optimizers import LEARNING_RATES

    folder = Path(experiment.out or _folder(experiment))
    highest = _HIGHEST_OF_LARS if experiment.optimizer == "lars" else HIGHEST
    asked = experiment.learning_rate or LEARNING_RATES[experiment.optimizer]
    rates = growing_rates(LOWEST, highest, steps)
    with assemble(plain, videos, None, folder, say, quiet) as loop:
        scale = loop.options.learning_rate / asked  # of lr_batch_size

        def losses() -> Iterable[float]:
            with Progress(steps, "learning rates", unit="step", quiet=quiet) as progress:
                for loss in loop.losses_at(rate * scale for rate in rates):
                    progress.update(1, loss=loss)
                    yield loss

        found = search_rates(rates, losses())
    if not found.rates:
        raise KVideoError("no step could be taken.")
    make_folder(folder)
    write_text_atomic(folder / "learning_rate.csv", found.to_csv())
    write_bytes_atomic(folder / "learning_rate.png", rate_png(found))
    say(str(found))
    say(f"Wrote {os.path.join(folder, 'learning_rate.png')}")
    return dataclasses.replace(found, folder=folder)


def _folder(experiment: Experiment) -> Path:
    model = experiment.model or Path(experiment.weights or "model").stem
    return Path("runs") / f"{Path(experiment.data).stem or 'data'}-{model}-lr"
