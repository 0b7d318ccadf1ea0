"""Training: `Experiment` (what a run is made of) and `run` (carries it out)."""

from kvideo.training.experiment import Experiment
from kvideo.training.rate_finder import RateSearch, find_learning_rate
from kvideo.training.run import FitResult, run

__all__ = ["Experiment", "FitResult", "RateSearch", "find_learning_rate", "run"]
