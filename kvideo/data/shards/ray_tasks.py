"""Makes shards as tasks of a Ray cluster; a task whose node is lost runs again elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from kvideo.data.failures import Failures
from kvideo.data.shards.plan import PlannedShard, ShardPlan
from kvideo.data.shards.writing import ShardReport, existing, finish, write_shard
from kvideo.errors import DecodeError, KVideoError

_RETRIES = 5  # of a task whose node or process is lost


def write_with_ray(
    plan: ShardPlan,
    folder: str,
    *,
    workers: int | None = None,
    on_video: Callable[[int], None] = lambda count: None,
    strict: bool = False,
) -> ShardReport:
    """Makes all files of a plan, one a task, and the index.

    The cluster is the one that `RAY_ADDRESS` names, or that runs on this machine; otherwise a local
    one is started for this run. Data and `folder` have to be at the same place on all nodes.

    Args:
        plan: what to make.
        folder: as `prepare` gave it.
        workers: threads that decode, and processors that Ray reserves, for each task; by default
            two.
        on_video: is called with the number of videos done since the last call.
        strict: end with an error at the first video that gives no frames.

    Raises:
        KVideoError: Ray is not installed, or a task failed again and again.
        DecodeError: in strict mode.
    """
    try:
        import ray
    except ImportError as error:
        raise KVideoError('--ray needs Ray: pip install "kvideo[ray]"') from error
    started = not ray.is_initialized()
    if started:
        _connect(ray)
    try:
        return _write(ray, plan, folder, workers or 2, on_video, strict)
    finally:
        if started:
            ray.shutdown()


def _connect(ray: Any) -> None:
    quiet = {"log_to_driver": False, "logging_level": "ERROR"}
    try:
        ray.init(address="auto", **quiet)
    except ConnectionError:  # none runs here
        ray.init(**quiet)


def _write(
    ray: Any,
    plan: ShardPlan,
    folder: str,
    workers: int,
    on_video: Callable[[int], None],
    strict: bool,
) -> ShardReport:
    # A file appears when it is whole: to make one a second time does no harm.
    cpus = min(workers, int(ray.cluster_resources().get("CPU", 1)))
    make = ray.remote(num_cpus=cpus, max_retries=_RETRIES)(_make)
    shared = ray.put(plan)
    todo = [shard for shard in plan.shards if existing(shard, folder) is None]
    kept = len(plan.shards) - len(todo)
    on_video(sum(len(shard.records) for shard in plan.shards if shard not in todo))
    waiting = {make.remote(shard, shared, folder, workers, strict): shard for shard in todo}
    failures = Failures()
    while waiting:
        done, _ = ray.wait(list(waiting), num_returns=1)
        shard = waiting.pop(done[0])
        try:
            errors = ray.get(done[0])
        except ray.exceptions.RayTaskError as error:
            for task in waiting:
                ray.cancel(task, force=True)
            cause = error.cause
            if isinstance(cause, KVideoError):
                raise cause from error
            raise
        except ray.exceptions.RayError as error:
            raise KVideoError(
                f"the task that makes {shard.name} failed {_RETRIES + 1} times "
                f"({type(error).__name__}); the same command goes on with what is missing."
            ) from error
        for failure in errors:
            failures.add(failure)
        on_video(len(shard.records))
    return finish(plan, folder, len(todo), kept, failures)


def _make(
    shard: PlannedShard, plan: ShardPlan, folder: str, workers: int, strict: bool
) -> list[DecodeError]:
    """The task: makes one file, and gives the errors of the videos that are not in it."""
    failures = Failures()
    write_shard(shard, plan, folder, workers=workers, failures=failures, strict=strict)
    return failures.errors()
