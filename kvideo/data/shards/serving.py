"""The servers of a data service: a dispatcher, and workers. See `kvideo.data.shards.service`."""

from __future__ import annotations

import os
import socket
import threading
from typing import Any

import tensorflow as tf

from kvideo.data.shards.service import PROTOCOL, parse_address, wait_for
from kvideo.errors import KVideoError
from kvideo.files import cache_folder, check_writable, make_folder
from kvideo.ports import check_port, free_ports

DEFAULT_PORT = 5050
# How long the others may take to see that a worker has come or gone, in milliseconds.
_HEARTBEAT, _TIMEOUT = 2_000, 20_000
_START_SECONDS = 60.0
_STOP_SECONDS = 10.0
_OTHER_PORT = "Choose another --port."


def start_dispatcher(port: int, work_dir: str | None = None) -> tuple[Any, str]:
    """Starts a dispatcher that survives a restart: what it gave out is in its journal.

    Args:
        port: to listen on.
        work_dir: folder of the journal, which the next start goes on with; by default one for
            each port, in the cache.

    Returns:
        The server, and its folder.

    Raises:
        KVideoError: the port is in use, or the folder cannot be written or read.
    """
    folder = os.fspath(work_dir or cache_folder() / "data-service" / str(port))
    check_port(port, _OTHER_PORT)
    if "://" not in folder:
        check_writable(folder)
        make_folder(folder)
        _lock(folder)
    config = tf.data.experimental.service.DispatcherConfig(
        port=port,
        protocol="grpc",
        work_dir=folder,
        fault_tolerant_mode=True,
        worker_timeout_ms=_TIMEOUT,
    )
    try:
        return tf.data.experimental.service.DispatchServer(config), folder
    except tf.errors.OpError as error:
        raise KVideoError(
            f"the dispatcher cannot start on port {port} with the state in {folder}: "
            f"{_first_line(error)}"
        ) from error


def _lock(folder: str) -> None:
    """Keeps the journal for this process, to its end.

    Raises:
        KVideoError: another dispatcher has it.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        return
    descriptor = os.open(os.path.join(folder, "lock"), os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as cause:
        os.close(descriptor)
        raise KVideoError(
            f"another dispatcher writes its journal to {folder}: name another --work-dir."
        ) from cause
    except OSError:  # a file system without locks
        os.close(descriptor)


def start_worker(dispatcher: str, port: int = 0, host: str | None = None) -> tuple[Any, str]:
    """Starts a worker and tells the dispatcher of it.

    Args:
        dispatcher: its address, `grpc://host:port`.
        port: to listen on; 0: any free one.
        host: the name by which training processes reach this machine; by default its own name, or
            localhost where the dispatcher is on it.

    Returns:
        The server, and the address that it told.

    Raises:
        UsageError: the address is of another form.
        KVideoError: no dispatcher answers, or the port is in use.
    """
    wait_for(dispatcher, _START_SECONDS)
    if host is None:
        local = parse_address(dispatcher)[0] in ("localhost", "127.0.0.1", "::1")
        host = "localhost" if local else socket.getfqdn()
    port = port or free_ports(1)[0]
    check_port(port, _OTHER_PORT)
    address = f"{host}:{port}"
    config = tf.data.experimental.service.WorkerConfig(
        dispatcher_address=dispatcher.removeprefix(PROTOCOL),
        worker_address=address,
        port=port,
        protocol="grpc",
        heartbeat_interval_ms=_HEARTBEAT,
    )
    try:
        return tf.data.experimental.service.WorkerServer(config), address
    except tf.errors.OpError as error:
        raise KVideoError(f"the worker cannot start: {_first_line(error)}") from error


def stop(server: Any) -> None:
    """Ends a server; one that waits for others is left after a while."""
    thread = threading.Thread(target=server._stop, daemon=True)
    thread.start()
    thread.join(_STOP_SECONDS)


def _first_line(error: tf.errors.OpError) -> str:
    return error.message.strip().split("\n")[0]
