"""A server on loopback that says what a test tells it to, byte by byte."""

import contextlib
import itertools
import socket
import threading
import time


class RawServer:
    """Runs `talk(connection, number)` for each connection, in a thread of its own; `connections` counts them."""

    def __init__(self, talk, port=0):
        self._talk, self.connections = talk, 0
        self._listener = socket.create_server(("127.0.0.1", port))
        self.port = self._listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self._listener.close()

    def _accept(self):
        with contextlib.suppress(OSError):
            for number in itertools.count(1):
                connection, _ = self._listener.accept()
                self.connections = number
                threading.Thread(target=self._serve, args=(connection, number), daemon=True).start()

    def _serve(self, connection, number):
        with contextlib.suppress(OSError), connection:
            self._talk(connection, number)


def read_head(connection):
    """The head of a request; empty where the client went away."""
    head = b""
    while b"\r\n\r\n" not in head:
        piece = connection.recv(1)
        if not piece:
            return b""
        head += piece
    return head


def answer(connection, body=b"ok"):
    """Answers one request, and keeps the connection."""
    head = read_head(connection)
    if head:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
    return head


def drip(connection, begin, piece):
    """Answers one request with `begin`, and then with a piece every 50 ms until the client goes away."""
    read_head(connection)
    connection.sendall(begin)
    while True:
        time.sleep(0.05)
        connection.sendall(piece)
