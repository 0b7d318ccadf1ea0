"""Ports of this machine."""

from __future__ import annotations

import contextlib
import socket

from kvideo.errors import KVideoError


def check_port(port: int, remedy: str) -> None:
    """Sees whether a program of this machine may listen at a port.

    Args:
        port: 1 to 65535.
        remedy: a sentence for who cannot.

    Raises:
        KVideoError: another program listens there, or the port may not be used.
    """
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("", port))
        except OSError as cause:
            reason = (cause.strerror or str(cause)).lower()
            raise KVideoError(f"cannot listen on port {port}: {reason}. {remedy}") from cause


def free_ports(count: int) -> list[int]:
    """Ports at which nobody listens just now.

    Raises:
        KVideoError: there are none.
    """
    with contextlib.ExitStack() as stack:
        try:
            sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
            for each in sockets:
                each.bind(("", 0))
        except OSError as cause:
            raise KVideoError(f"no free ports on this machine: {cause.strerror}.") from cause
        return [each.getsockname()[1] for each in sockets]
