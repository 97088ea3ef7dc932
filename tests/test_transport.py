import socket
import threading
import time
from http.server import BaseHTTPRequestHandler

import pytest

from wechat.errors import TransportError
from wechat.platform.transport import Transport


class Quiet(BaseHTTPRequestHandler):
    """Answers with its path; counts connections."""

    protocol_version = "HTTP/1.1"
    connections = 0

    def setup(self):
        type(self).connections += 1
        super().setup()

    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.path)))
        self.end_headers()
        self.wfile.write(self.path.encode())

    def log_message(self, *_):
        pass


def get(transport, target="/x", **more):
    with transport.open("GET", target, **more) as received:
        return received.read(1000)


@pytest.fixture
def connect():
    """A function that makes a transport, closed at the end."""
    made = []

    def make(url):
        made.append(Transport(url))
        return made[-1]

    yield make
    for transport in made:
        transport.close()


def test_a_connection_is_used_again(http_server, connect):
    class Server(Quiet):
        connections = 0

    transport = connect(http_server(Server))
    assert [get(transport, f"/{number}") for number in range(5)] == [f"/{number}".encode() for number in range(5)]
    assert Server.connections == 1


def test_a_connection_that_the_other_side_closed_is_not_used_again(http_server, connect):
    class Server(Quiet):
        def do_GET(self):
            super().do_GET()
            self.close_connection = True

    transport = connect(http_server(Server))
    for _ in range(3):
        assert get(transport) == b"/x"
        time.sleep(0.05)  # the end of the connection is on its way


def test_a_body_that_nobody_read_does_not_spoil_the_next_answer(http_server, connect):
    transport = connect(http_server(Quiet))
    with transport.open("GET", "/unread") as received:
        assert received.status == 200
    assert get(transport) == b"/x"


def test_a_path_in_the_base_address_comes_first(http_server, connect):
    assert get(connect(http_server(Quiet) + "/proxy"), "/y") == b"/proxy/y"


def test_calls_at_the_same_time_have_a_connection_each(http_server, connect):
    barrier = threading.Barrier(4, timeout=5)

    class Server(Quiet):
        connections = 0

        def do_GET(self):
            barrier.wait()
            super().do_GET()

    transport = connect(http_server(Server))
    threads = [threading.Thread(target=get, args=(transport,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert Server.connections == 4


def answering(raw):
    class Server(Quiet):
        def do_GET(self):
            self.wfile.write(raw)
            self.close_connection = True

    return Server


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"garbage\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhal",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxx\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2000\r\n\r\n" + b"x" * 2000,
        b"HTTP/1.1 200 OK\r\nA: " + b"x" * 70_000,
    ],
)
def test_whatever_is_wrong_on_the_wire_is_one_error_without_the_query(http_server, connect, raw):
    transport = connect(http_server(answering(raw)))
    with pytest.raises(TransportError, match="GET /x") as caught:
        get(transport, "/x?access_token=secret")
    assert "secret" not in str(caught.value)


def test_a_length_that_no_body_can_have_counts_as_none(http_server, connect):
    raw = b"HTTP/1.1 200 OK\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\nall"
    assert get(connect(http_server(answering(raw))), "/x") == b"all"


def test_nobody_there_is_the_same_error(connect):
    with pytest.raises(TransportError, match="GET /x: ConnectionRefusedError"):
        get(connect("http://127.0.0.1:1"))


def test_nobody_answering_is_the_same_error(connect):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        transport = connect(f"http://127.0.0.1:{silent.getsockname()[1]}")
        with pytest.raises(TransportError, match="TimeoutError"):
            get(transport, timeout=0.2)


def test_an_untrusted_certificate_is_the_same_error(http_server, connect):
    with pytest.raises(TransportError, match="SSL"):
        get(connect(http_server(Quiet).replace("http:", "https:")))


def test_an_error_of_the_reader_is_its_own(http_server, connect):
    transport = connect(http_server(Quiet))
    with pytest.raises(OSError, match="disk"), transport.open("GET", "/x"):
        raise OSError("disk full")
    assert get(transport) == b"/x"
