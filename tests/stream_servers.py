"""Servers and files for the tests of live streams: real sockets on loopback, real MPEG-TS."""

import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import av


def transport_stream(source: Path, path: Path, seconds: float | None = None) -> Path:
    """The video of a file, its packets as they are, as MPEG-TS, which can be joined anywhere."""
    with av.open(str(source)) as container, av.open(str(path), "w", format="mpegts") as output:
        stream = container.streams.video[0]
        copy = output.add_stream_from_template(stream)
        for packet in container.demux(stream):
            if packet.dts is None:
                continue
            if seconds is not None and packet.pts * packet.time_base > seconds:
                break
            packet.stream = copy
            output.mux(packet)
    return path


class Server:
    """Listens on loopback; every connection is served by `serve(connection, number)`."""

    def __init__(self, serve: Callable[[socket.socket, int], None], port: int = 0) -> None:
        self._serve = serve
        self.connections = 0
        self._socket = socket.create_server(("127.0.0.1", port))
        self.port = self._socket.getsockname()[1]
        self._closed = False
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def __enter__(self) -> "Server":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        self._closed = True
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def url(self, scheme: str = "tcp", path: str = "") -> str:
        return f"{scheme}://127.0.0.1:{self.port}{path}"

    def _accept(self) -> None:
        while not self._closed:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            self.connections += 1
            number = self.connections
            threading.Thread(target=self._handle, args=(connection, number), daemon=True).start()

    def _handle(self, connection: socket.socket, number: int) -> None:
        with connection, contextlib.suppress(OSError):
            self._serve(connection, number)


def pieces(data: bytes, seconds: float) -> Iterator[bytes]:
    """The data in pieces of 20 TS packets, spread over a time."""
    size = 20 * 188
    begun, count = time.monotonic(), -(-len(data) // size)
    for index in range(count):
        time.sleep(max(0.0, begun + seconds * index / count - time.monotonic()))
        yield data[index * size : (index + 1) * size]


def over_tcp(data: bytes, seconds: float = 0.0) -> Callable[[socket.socket, int], None]:
    def serve(connection: socket.socket, number: int) -> None:
        for piece in pieces(data, seconds):
            connection.sendall(piece)

    return serve


def over_http(
    data: bytes, seconds: float = 0.0, *, whole: bool = True
) -> Callable[[socket.socket, int], None]:
    """Chunked, as live servers send; `whole`: with the last chunk, which says that it ends."""

    def serve(connection: socket.socket, number: int) -> None:
        read_request(connection)
        connection.sendall(
            b"HTTP/1.1 200 OK\r\nContent-Type: video/mp2t\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        for piece in pieces(data, seconds):
            connection.sendall(b"%x\r\n%s\r\n" % (len(piece), piece))
        if whole:
            connection.sendall(b"0\r\n\r\n")

    return serve


def read_request(connection: socket.socket) -> bytes:
    request = b""
    while b"\r\n\r\n" not in request:
        part = connection.recv(4096)
        if not part:
            break
        request += part
    return request


def silent(connection: socket.socket, number: int) -> None:
    """Accepts and never says anything."""
    while connection.recv(4096):
        pass


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return listening.getsockname()[1]


def feed(path: Path, data: bytes, seconds: float = 0.0) -> threading.Thread:
    """Writes data into a named pipe, in a thread."""

    def write() -> None:
        with contextlib.suppress(OSError), open(path, "wb", buffering=0) as pipe:
            for piece in pieces(data, seconds):
                os.write(pipe.fileno(), piece)

    thread = threading.Thread(target=write, daemon=True)
    thread.start()
    return thread
