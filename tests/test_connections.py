"""Slow and hostile clients against waitress itself, in a loop that the test turns, at times that it chooses."""

import logging
import os
import socket
import threading
import time

import pytest
import waitress
from waitress import wasyncore
from waitress.parser import ParsingError
from waitress.task import ErrorTask

from wechat.channel import IDLE, WITHIN
from wechat.heads import MAX_HEAD, Parser, check_head
from wechat.serving import GRACE, Connections

REQUEST = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
WAIT = REQUEST.replace(b"/", b"/wait", 1)
DRIPS = {
    "nothing at all": b"",
    "empty lines": b"\r\n" * 8,
    "half a line": b"GET / HT",
    "half a head": b"GET / HTTP/1.1\r\nX: ",
    "half a body": b"POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\nabc",
    "half a chunk": b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabc",
    "a body that was asked for": b"POST / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n",
}


class Site:
    """waitress with a WSGI application that waits where the path is `/wait`, until `go_on` is set."""

    def __init__(self, limit=1000, size=2):
        self.go_on, self.size, self.waiting = threading.Event(), size, []
        settings = {"connection_limit": limit, "max_request_header_size": MAX_HEAD, "outbuf_overflow": 10_000_000}
        self.server = waitress.create_server(self, host="127.0.0.1", port=0, threads=2, **settings)
        self.sockets, self.clients = self.server._map, []
        self.connections = Connections(self.sockets, limit)

    def __call__(self, environ, start_response):
        if environ["PATH_INFO"] == "/wait":
            self.waiting.append(environ)
            self.go_on.wait(10)
        start_response("200 OK", [("Content-Length", str(self.size))])
        return [b"x" * self.size]

    def connect(self, content=b"", **options):
        client = socket.socket()
        if "receives" in options:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, options["receives"])
        client.settimeout(5)
        client.connect(("127.0.0.1", int(self.server.effective_port)))
        client.sendall(content)
        self.clients.append(client)
        self.turn()
        return client

    def turn(self, later=0.0):
        """Turns the loop until nothing happens; it is so many seconds later at the end."""
        for _ in range(10):
            wasyncore.loop(timeout=0.002, map=self.sockets, use_poll=True, count=1)
            self.connections.look_after(time.monotonic())
        if later:
            self.connections.look_after(time.monotonic() + later)

    def channels(self):
        return len(self.server.active_channels)

    def wait_for_work(self, requests=1):
        end = time.monotonic() + 5
        while len(self.waiting) < requests and time.monotonic() < end:
            self.turn()

    def close(self):
        self.go_on.set()
        for client in self.clients:
            client.close()
        self.server.task_dispatcher.shutdown()
        wasyncore.close_all(self.sockets)


@pytest.fixture
def make_site():
    sites = []

    def make(**options):
        sites.append(Site(**options))
        return sites[-1]

    yield make
    for site in sites:
        site.close()


def test_answers_that_are_ready_at_once_wake_the_loop_once(make_site):
    site = make_site()
    site.turn()
    for _ in range(3):
        site.server.pull_trigger()
    assert os.read(site.server.trigger.socket.fileno(), 9) == b"x"


def test_an_answer_that_is_ready_while_the_loop_hears_of_another_one_keeps_none_from_waking_it(make_site):
    site = make_site()
    recv = site.server.trigger.recv

    def recv_while_another_is_ready(size):
        heard = recv(size)
        site.server.pull_trigger()
        return heard

    site.server.trigger.recv = recv_while_another_is_ready
    site.server.pull_trigger()
    site.turn()
    site.server.pull_trigger()
    assert os.read(site.server.trigger.socket.fileno(), 9) == b"x"


def answered(site, client):
    """The answer, for which the loop is turned; its head may come alone."""
    client.settimeout(0.01)
    content = b""
    for _ in range(200):
        site.turn()
        try:
            content += (piece := client.recv(1000))
        except TimeoutError:
            continue
        if not (piece and content.endswith(b"\r\n\r\n")):
            return content
    raise AssertionError("no answer")


def is_open(client):
    client.settimeout(0.05)
    try:
        return client.recv(1000) != b""
    except TimeoutError:
        return True
    except ConnectionError:
        return False


@pytest.mark.parametrize("content", DRIPS.values(), ids=DRIPS)
def test_a_request_has_ten_seconds_in_all(make_site, content):
    site = make_site()
    site.connect(content)
    site.turn(later=WITHIN - 1)
    assert site.channels() == 1
    site.turn(later=WITHIN + 1)
    assert site.channels() == 0


def test_bytes_that_come_meanwhile_buy_no_time(make_site):
    site = make_site()
    client = site.connect(b"GET / ")
    since = next(iter(site.server.active_channels.values())).since
    client.sendall(b"HTTP")
    site.turn()
    assert next(iter(site.server.active_channels.values())).since == since


@pytest.mark.parametrize("content", list(DRIPS.values())[2:], ids=list(DRIPS)[2:])
def test_a_later_request_has_them_from_its_first_byte(make_site, content):
    site = make_site()
    client = site.connect(REQUEST)
    assert answered(site, client).startswith(b"HTTP/1.1 200")
    (channel,) = site.server.active_channels.values()
    channel.since -= WITHIN * 5
    client.sendall(content)
    site.turn(later=WITHIN - 1)
    assert site.channels() == 1
    site.turn(later=WITHIN + 1)
    assert site.channels() == 0


def test_between_two_requests_a_connection_may_stay_idle_for_two_minutes(make_site, log):
    site = make_site()
    client = site.connect(REQUEST)
    assert answered(site, client).startswith(b"HTTP/1.1 200")
    site.turn(later=IDLE - 10)
    client.sendall(b"\r\n\r\n")
    assert site.channels() == 1
    client.sendall(b"\r\n" + REQUEST)
    assert answered(site, client).startswith(b"HTTP/1.1 200")
    client.sendall(b"\r\n\r\n")
    site.turn(later=IDLE + 10)
    assert site.channels() == 0
    assert "closed" not in log.text


@pytest.mark.parametrize("first", [0, 5], ids=["in one piece", "in two"])
def test_the_second_of_two_that_came_together_has_its_own(make_site, first):
    site = make_site()
    both = WAIT + REQUEST[:5]
    client = site.connect(both[:first])
    (channel,) = site.server.active_channels.values()
    channel.since -= WITHIN - 1
    client.sendall(both[first:])
    site.wait_for_work()
    site.go_on.set()
    assert answered(site, client).startswith(b"HTTP/1.1 200")
    site.turn(later=WITHIN - 1)
    client.sendall(REQUEST[5:])
    assert answered(site, client).startswith(b"HTTP/1.1 200")


def test_a_request_that_a_worker_has_is_never_cut_off(make_site):
    site = make_site()
    client = site.connect(WAIT)
    site.wait_for_work()
    site.turn(later=WITHIN * 5)
    site.go_on.set()
    assert answered(site, client).startswith(b"HTTP/1.1 200")


def test_what_is_pipelined_behind_a_slow_request_has_its_time_after_that(make_site):
    site = make_site()
    client = site.connect(WAIT + REQUEST[:5])
    site.wait_for_work()
    (channel,) = site.server.active_channels.values()
    channel.since -= WITHIN * 5
    site.turn(later=2)  # the time does not run
    site.go_on.set()
    assert answered(site, client).startswith(b"HTTP/1.1 200")
    site.turn(later=WITHIN)
    client.sendall(REQUEST[5:])
    assert answered(site, client).startswith(b"HTTP/1.1 200")


def test_an_answer_waits_for_no_request_that_is_pipelined_behind_it(make_site):
    site = make_site()
    site.server.adj.send_bytes = 18_000  # as in `bind()`
    client = site.connect(REQUEST + WAIT)
    site.wait_for_work()
    assert answered(site, client).startswith(b"HTTP/1.1 200")
    (channel,) = site.server.active_channels.values()
    assert channel.requests
    assert not channel.writable(), "the loop would spin"


def test_what_is_sent_as_the_connection_is_closed_is_no_error(make_site, log):
    """A worker says that a client may continue, who left a moment ago."""
    site = make_site()
    site.connect(b"POST / HTTP/1.1\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n")
    site.turn()
    (channel,) = site.server.active_channels.values()
    channel.handle_close()
    channel.send_continue()
    channel._flush_exception(channel._flush_some)
    assert "flushing" not in log.text


def test_a_client_that_does_not_take_its_answer_is_let_go(make_site):
    """waitress marks it as to be closed, and waits until it can write to it, which is never."""
    site = make_site(size=8_000_000)
    site.connect(REQUEST, receives=4096)
    (channel,) = site.server.active_channels.values()
    while channel.requests:
        site.turn()
    assert channel.total_outbufs_len > 0
    site.turn(later=WITHIN - 2)
    assert site.channels() == 1
    site.turn(later=WITHIN + 1)
    assert (site.channels(), channel.total_outbufs_len) == (0, 0)


def test_where_connections_run_out_the_oldest_without_a_whole_request_goes(make_site):
    site = make_site(limit=6)  # of which waitress itself has two
    slow = site.connect(WAIT)
    site.wait_for_work()
    old, young = site.connect(b"GET"), site.connect(b"GET")
    time.sleep(GRACE)
    assert answered(site, site.connect(REQUEST)).startswith(b"HTTP/1.1 200")
    assert not is_open(old)
    assert is_open(young)
    time.sleep(GRACE)
    assert answered(site, site.connect(REQUEST)).startswith(b"HTTP/1.1 200")
    assert not is_open(young)
    site.go_on.set()
    assert answered(site, slow).startswith(b"HTTP/1.1 200")


def test_where_all_are_in_work_a_new_one_waits_and_is_not_turned_away(make_site):
    site = make_site(limit=4)
    slow = [site.connect(WAIT) for _ in range(2)]
    site.wait_for_work(2)
    late = site.connect(REQUEST)
    time.sleep(GRACE)
    site.turn(later=1)
    site.go_on.set()
    assert answered(site, slow[0]).startswith(b"HTTP/1.1 200")
    assert answered(site, late).startswith(b"HTTP/1.1 200")


def test_a_client_that_has_just_connected_is_not_the_one_to_go(make_site):
    site = make_site(limit=5)
    for _ in range(2):
        site.connect(WAIT)
    site.wait_for_work(2)
    late = site.connect()
    late.sendall(REQUEST)
    site.turn(later=GRACE * 2)
    site.go_on.set()
    assert answered(site, late).startswith(b"HTTP/1.1 200")


def test_many_that_wait_are_accepted_at_once(make_site):
    site = make_site()
    waiting = [socket.create_connection(("127.0.0.1", int(site.server.effective_port))) for _ in range(50)]
    site.clients += waiting
    wasyncore.loop(timeout=1, map=site.sockets, use_poll=True, count=1)
    site.connections.look_after(time.monotonic())
    assert site.channels() == 50


def test_the_log_says_once_a_minute_how_many_were_closed(make_site, log):
    site = make_site(limit=5)
    site.connect(b"GET")
    site.turn(later=WITHIN + 1)
    assert log.messages[-1] == "closed 1 connections that took over 10 s for a request or an answer"
    for _ in range(5):
        site.connect(b"GET")
        time.sleep(GRACE)
    site.turn(later=WITHIN + 30)
    assert len(log.records) == 1
    site.turn(later=WITHIN + 100)
    assert "connections ran out: closed 3 early" in log.messages[1]
    assert [record.levelno for record in log.records] == [logging.INFO, logging.WARNING, logging.INFO]


def test_urgent_data_is_answered_with_a_close_and_no_line_in_the_log(make_site, log):
    site = make_site()
    site.connect(b"GET").send(b"!", socket.MSG_OOB)
    site.turn()
    assert site.channels() == 0
    assert log.text == ""


# Heads


HOSTILE_HEADS = {
    "no version, many digits": b"GET a://" + b"1" * 15_000 + b" HTTP/1.1x\r\n\r\n",
    "a path like a scheme": b"GET /a://" + b"1" * 15_000 + b" x\r\n\r\n",
    "blanks before a value": b"GET / HTTP/1.1\r\nX:" + b" " * 15_000 + b"y\r\n\r\n",
    "tabs before a value": b"GET / HTTP/1.1\r\nX:" + b" \t" * 7_500 + b"y\r\n\r\n",
    "blanks of folded lines": b"GET / HTTP/1.1\r\nX:\r\n" + b" \r\n" * 5_000 + b" y\r\n\r\n",
}


@pytest.mark.parametrize("head", HOSTILE_HEADS.values(), ids=HOSTILE_HEADS)
def test_a_head_on_which_the_parser_would_take_seconds_is_refused_unread(head):
    with pytest.raises(ParsingError):
        check_head(head)


HEADS_FOR_400 = {
    **HOSTILE_HEADS,
    "no end of the address": b"GET http://[ HTTP/1.1\r\n\r\n",
    "half an address": b"GET http://[::1 HTTP/1.1\r\nHost: x\r\n\r\n",
    "a host in no alphabet": b"GET http://\xe2\x84\x80/ HTTP/1.1\r\n\r\n",
    "a length of 5,000 digits": b"POST / HTTP/1.1\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n",
    "a method alone": b"GET\r\n\r\n",
    "another protocol": b"\x16\x03\x01\x02\r\n\r\n",
}


@pytest.mark.parametrize("head", HEADS_FOR_400.values(), ids=HEADS_FOR_400)
def test_a_hostile_head_is_answered_with_400_and_no_line_in_the_log(make_site, head, log):
    site = make_site()
    assert b" 400 Bad Request\r\n" in answered(site, site.connect(head))
    assert [record for record in log.records if record.name != "waitress.queue"] == []


def test_a_head_of_over_16_kb_is_answered_with_431(make_site):
    site = make_site()
    head = b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 3_000
    assert answered(site, site.connect(head)).startswith(b"HTTP/1.0 431 ")


@pytest.mark.parametrize(
    "head",
    [
        b"POST /weixin?signature=a&openid=b HTTP/1.1\r\nUser-Agent: Mozilla/4.0\r\nX:   few blanks\r\n\r\n",
        b"GET http://example.com/weixin HTTP/1.1\r\nHost: example.com\r\n\r\n",
        b"GET / HTTP/1.0\r\n\r\n",
        b"GET /a://1 HTTP/1.1\r\nX:\r\nY:y\r\n\r\n",
    ],
    ids=lambda head: ascii(head[:24]),
)
def test_an_honest_head_is_taken(make_site, head):
    site = make_site()
    assert b" 200 OK" in answered(site, site.connect(head))


class LeftMeanwhile(ErrorTask):
    def service(self):
        self.channel.connected = False
        super().service()


def test_a_client_that_leaves_before_its_refusal_is_no_fault_of_the_server(make_site):
    site = make_site()
    site.connect()
    (channel,) = site.server.active_channels.values()
    request = Parser(channel.adj)
    request.received(b"GET http://[ HTTP/1.1\r\n\r\n")
    assert request.error
    channel.requests, channel.error_task_class = [request], LeftMeanwhile
    channel.service()


# Requests that are prepared


class Hands:
    """Workers who do nothing by themselves."""

    def __init__(self):
        self.tasks = []

    def add_task(self, channel):
        self.tasks.append(channel)

    def shutdown(self):
        pass


@pytest.fixture
def channel(make_site):
    """A channel with a request that no worker has taken, and its site."""
    site = make_site()
    site.server.task_dispatcher.shutdown()
    site.server.task_dispatcher = Hands()
    site.connect(WAIT)
    site.go_on.set()
    (taken,) = site.server.task_dispatcher.tasks
    return taken, site


def test_a_request_that_is_prepared_is_answered_once_with_what_was_prepared(channel):
    taken, site = channel
    environ = taken.prepare()
    assert environ["PATH_INFO"] == "/wait"
    taken.service()
    site.turn()
    assert site.clients[0].recv(99).startswith(b"HTTP/1.1 200 OK")
    assert [each is environ for each in site.waiting] == [True]


def test_a_request_that_is_prepared_is_done_also_where_its_client_has_left(channel):
    """Its record was written: each retry would wait for the one before it."""
    taken, site = channel
    environ = taken.prepare()
    taken.handle_close()
    taken.service()
    assert [each is environ for each in site.waiting] == [True]


def test_a_request_whose_client_has_left_is_not_prepared(channel):
    taken, site = channel
    taken.handle_close()
    assert taken.prepare() is None
    taken.service()
    assert site.waiting == []
