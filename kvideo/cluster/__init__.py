"""Several processes that train as one: who they are, and what they tell each other."""

from kvideo.cluster.addresses import Addresses, find_addresses
from kvideo.cluster.processes import AnotherFailed, Cluster, WorkerLost

__all__ = ["Addresses", "AnotherFailed", "Cluster", "WorkerLost", "find_addresses"]
