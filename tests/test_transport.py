import contextlib
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler

import pytest

from tests.raw_server import RawServer, answer, drip, read_head
from wechat.errors import TransportError
from wechat.platform.answers import to_text
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

    def make(url, **more):
        made.append(Transport(url, **more))
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


def test_the_answer_behind_an_early_hint_is_not_that_of_the_next_call(connect):
    def talk(connection, _):
        while head := read_head(connection):
            connection.sendall(b"HTTP/1.1 103 Early Hints\r\n\r\n")
            time.sleep(0.1)
            target = head.split()[1]
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(target), target))

    with RawServer(talk) as server:
        transport = connect(server.url)
        get(transport, "/first")
        assert get(transport, "/second") != b"/first"


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


HEAD = b"HTTP/1.1 200 OK\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("begin", "piece"),
    [
        (b"", b"H"),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
        (HEAD, b"a"),
        (HEAD, b"A: b\r\n"),
        (HEAD + b"Content-Length: 900\r\n\r\n", b"x"),
        (HEAD + b"\r\n", b"x"),
        (CHUNKED, b"1\r\nx\r\n"),
        (CHUNKED + b"0\r\n", b"A: b\r\n"),
    ],
    ids=["status", "continue", "header", "headers", "length", "close", "chunks", "trailers"],
)
def test_an_answer_that_drips_ends_with_the_time_of_the_call(connect, begin, piece):
    dripping = RawServer(lambda connection, _: drip(connection, begin, piece))
    with dripping as server, pytest.raises(TransportError, match="GET /x: TimeoutError"):
        get(connect(server.url), timeout=0.3)


def test_a_server_that_does_not_read_ends_an_upload_with_the_time_of_the_call(connect):
    done = threading.Event()

    def body():
        while not done.is_set():
            yield b"x" * 65536

    with RawServer(lambda connection, _: done.wait(10)) as server:
        headers = {"Content-Length": str(10**12)}
        transport = connect(server.url)
        with (
            pytest.raises(TransportError, match="POST /x: TimeoutError"),
            transport.open("POST", "/x", body, headers, timeout=0.3),
        ):
            pass
        done.set()


@pytest.mark.parametrize("begin", [HEAD + b"\r\n", CHUNKED + b"-1\r\n", CHUNKED + b"fffffffffff\r\n"])
def test_an_answer_without_an_end_is_too_large_and_takes_no_memory(connect, begin):
    sent = []

    def talk(connection, _):
        read_head(connection)
        connection.sendall(begin)
        while True:
            sent.append(connection.send(b"x" * 65536))

    with RawServer(talk) as server, pytest.raises(TransportError, match=r"GET /x: (an answer of over|LineTooLong)"):
        get(connect(server.url))
    assert sum(sent) < 32 * 1024 * 1024  # what the buffers of the kernel take


def test_a_length_beside_chunks_does_not_count(connect, http_server):
    raw = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
    assert get(connect(http_server(answering(raw)))) == b"abc"


# Connections that are kept


@pytest.mark.parametrize(("seconds", "connections"), [(59, 1), (60, 2)])
def test_a_connection_that_nobody_used_for_a_minute_is_not_used_again(
    http_server, connect, clock, seconds, connections
):
    class Server(Quiet):
        connections = 0

    transport = connect(http_server(Server), clock=clock)
    get(transport)
    clock.now += seconds
    get(transport)
    assert Server.connections == connections


def six_connections(transport):
    with contextlib.ExitStack() as stack:
        for _ in range(6):
            stack.enter_context(transport.open("GET", "/x")).read(10)


def test_connections_that_nobody_used_for_a_minute_are_closed_when_another_one_is_kept(connect, clock):
    closed = []

    def talk(connection, number):
        while answer(connection):
            pass
        closed.append(number)

    with RawServer(talk) as server:
        transport = connect(server.url, clock=clock)
        six_connections(transport)
        clock.now = 40
        get(transport)
        clock.now = 70
        get(transport)
        wait_for(lambda: len(closed) == 5)
    assert server.connections == 6


def asked_twice(then):
    """Answers the first request of each of six connections, and does `then` with the second; notes what came."""
    heads = []

    def talk(connection, number):
        answer(connection)
        if number > 6:
            return
        heads.append(read_head(connection))
        then()

    return RawServer(talk), heads


def test_six_connections_that_died_in_silence_cost_one_wait_and_one_fresh_connection(connect):
    over = threading.Event()
    server, heads = asked_twice(lambda: over.wait(10))
    with server:
        transport = connect(server.url)
        six_connections(transport)
        assert get(transport, timeout=2, is_repeatable=True) == b"ok"
        assert server.connections == 7
        over.set()
    assert sum(map(bool, heads)) == 1


def test_a_kept_connection_that_breaks_is_replaced_at_once_where_the_call_can_be_repeated(connect):
    server, _ = asked_twice(lambda: None)
    with server:
        transport = connect(server.url)
        get(transport)
        assert get(transport, is_repeatable=True) == b"ok"


def test_a_call_that_may_have_been_carried_out_is_not_made_again(connect):
    server, heads = asked_twice(lambda: None)
    with server:
        transport = connect(server.url)
        get(transport)
        with pytest.raises(TransportError, match="GET /once"):
            get(transport, "/once")
        assert server.connections == 1
        assert get(transport) == b"ok"
    assert len(heads) == 1


def test_a_body_is_begun_anew_on_the_fresh_connection(connect):
    server, _ = asked_twice(lambda: None)
    begun = []

    def body():
        begun.append(1)
        yield b"all"

    with server:
        transport = connect(server.url)
        get(transport)
        with transport.open("POST", "/x", body, {"Content-Length": "3"}, is_repeatable=True) as received:
            assert received.read(10) == b"ok"
    assert len(begun) == 2


def wait_for(is_so):
    end = time.monotonic() + 5
    while not is_so() and time.monotonic() < end:
        time.sleep(0.01)
    assert is_so()


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        ("微信".encode(), "微信"),
        ("微信".encode("gbk"), "微信"),
        (b"\xef\xbb\xbfa", "a"),
        (b"a\xff", "a\ufffd"),
    ],
)
def test_text_is_read_as_utf_8_or_as_gbk(raw, text):
    assert to_text(raw) == text


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
