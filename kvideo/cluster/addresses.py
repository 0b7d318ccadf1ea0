"""Which processes train together: told by `TF_CONFIG`, as everywhere in TensorFlow, or by SLURM."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping

from kvideo.errors import UsageError

TASKS = ("chief", "worker")
_MANY = 4096  # tasks of a node at most


@dataclasses.dataclass(frozen=True)
class Addresses:
    """The processes of a cluster, and which one this is.

    Args:
        hosts: `host:port` of each worker, the chief's first.
        index: of this process.
    """

    hosts: tuple[str, ...]
    index: int

    @property
    def port(self) -> int:
        """At which this process listens."""
        return int(self.hosts[self.index].rpartition(":")[2])

    def to_json(self) -> str:
        """The text of `TF_CONFIG`."""
        task = {"type": "worker", "index": self.index}
        return json.dumps({"cluster": {"worker": list(self.hosts)}, "task": task})


def find_addresses(environment: Mapping[str, str] | None = None) -> Addresses | None:
    """The cluster that the environment describes: `TF_CONFIG`, else a step of several SLURM tasks.

    Returns:
        None where there is none, or one process only.

    Raises:
        UsageError: `TF_CONFIG` is wrong.
    """
    environment = os.environ if environment is None else environment
    if environment.get("TF_CONFIG", "").strip():
        addresses = parse_tf_config(environment["TF_CONFIG"])
    elif int(environment.get("SLURM_STEP_NUM_TASKS", "1") or 1) > 1:
        addresses = _of_slurm()
    else:
        return None
    return addresses if len(addresses.hosts) > 1 else None


def parse_tf_config(text: str) -> Addresses:
    """What `TF_CONFIG` says.

    Raises:
        UsageError: it is no JSON, or names no workers, or a task that is not one of them.
    """
    try:
        values = json.loads(text)
        cluster, task = values["cluster"], values["task"]
        kinds = {kind: [str(host) for host in hosts] for kind, hosts in cluster.items()}
        kind, index = str(task["type"]), int(task["index"])
    except ValueError as cause:
        raise UsageError(f"TF_CONFIG is not valid JSON or has wrong values: {cause}.") from cause
    except (KeyError, TypeError, AttributeError) as cause:
        raise UsageError(
            'TF_CONFIG must have the form {"cluster": {"worker": ["host:port", …]}, '
            '"task": {"type": "worker", "index": 0}}.'
        ) from cause
    unknown = sorted(set(kinds) - {*TASKS, "evaluator"})
    if unknown:
        raise UsageError(
            f'TF_CONFIG has tasks of type "{unknown[0]}"; kvideo knows "chief" and "worker".'
        )
    hosts = [host for each in TASKS for host in kinds.get(each, ())]
    for host in hosts:
        name, _, port = host.rpartition(":")
        if not name or not port.isdigit() or not 0 < int(port) < 65536:
            raise UsageError(f'TF_CONFIG has the address "{host}"; it must be host:port.')
    if len(set(hosts)) < len(hosts):
        raise UsageError("TF_CONFIG gives two workers the same address.")
    if kind not in TASKS or not 0 <= index < len(kinds.get(kind, ())):
        raise UsageError(
            f"TF_CONFIG says that this process is {kind} {index}, which the cluster does not have: "
            f"{', '.join(f'{len(kinds[each])} × {each}' for each in TASKS if each in kinds)}."
        )
    return Addresses(tuple(hosts), index + (len(kinds.get("chief", ())) if kind == "worker" else 0))


def _of_slurm() -> Addresses:
    import tensorflow as tf

    try:
        # GPUs are SLURM's matter: the strategy takes those that the process sees. The numbers keep
        # the resolver from asking for them.
        resolver = tf.distribute.cluster_resolver.SlurmClusterResolver(
            gpus_per_node=_MANY, gpus_per_task=1, auto_set_gpu=False
        )
        hosts = tuple(resolver.cluster_spec().as_dict()["worker"])
    except (KeyError, ValueError, RuntimeError, OSError) as cause:
        reason = str(cause).rstrip(".?")
        raise UsageError(f"SLURM's variables do not describe a cluster: {reason}.") from cause
    return Addresses(hosts, int(resolver.task_id))
