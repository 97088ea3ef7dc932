"""An HTTP proxy on loopback that passes connections on by CONNECT."""

import contextlib
import socket
import threading
from base64 import b64encode

from tests.raw_server import RawServer, read_head

MADE, LOG_IN = b"HTTP/1.1 200 Connection established\r\n\r\n", b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n"


class ConnectProxy(RawServer):
    """Leads every CONNECT to the port that it names on 127.0.0.1, whatever the host; that needs no resolver.

    `targets` are what was asked for, `heads` the requests, and `passed` is all that went through, both ways. With a
    `login`, like `user:password`, it takes nobody else.
    """

    def __init__(self, login=""):
        self.targets, self.heads, self.passed = [], [], b""
        self._login = b"Basic " + b64encode(login.encode()) if login else b""
        super().__init__(self._serve_one)

    def _serve_one(self, connection, _):
        head = read_head(connection)
        method, target, *_ = head.decode().split()
        self.heads.append(head)
        if self._login and b"Proxy-Authorization: " + self._login + b"\r\n" not in head:
            connection.sendall(LOG_IN)
            return
        assert method == "CONNECT"
        self.targets.append(target)
        with socket.create_connection(("127.0.0.1", int(target.rpartition(":")[2]))) as server:
            connection.sendall(MADE)
            back = threading.Thread(target=self._pass, args=(server, connection), daemon=True)
            back.start()
            self._pass(connection, server)
            back.join()

    def _pass(self, source, sink):
        with contextlib.suppress(OSError):
            while piece := source.recv(65536):
                self.passed += piece
                sink.sendall(piece)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
