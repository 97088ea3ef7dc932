"""Where connections may lead, and that each step of theirs ends."""

import datetime
import socket
import ssl
import threading
import time
from contextlib import closing

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.connect_proxy import MADE, ConnectProxy
from tests.raw_server import RawServer, answer, drip, read_head
from wechat.errors import TransportError
from wechat.platform.files import is_public
from wechat.platform.transport import Transport


def get(transport, timeout=5):
    """One call, and the end of the connection."""
    with closing(transport), transport.open("GET", "/x", timeout=timeout) as received:
        return received.read(1000)


def addresses(*hosts, port):
    """What the resolver gives for a name with these addresses."""
    return [(socket.AF_INET, socket.SOCK_STREAM, 0, "", (host, port)) for host in hosts]


def noting(heads):
    """Answers one request of each connection, and keeps its head."""

    def talk(connection, _):
        heads.append(read_head(connection))
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    return talk


@pytest.fixture
def server():
    with RawServer(lambda connection, _: answer(connection)) as started:
        yield started


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "127.8.8.8", "10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1", "0.0.0.0", "0.1.2.3"),
        *("169.254.169.254", "100.64.0.1", "100.100.100.200", "192.0.0.192", "192.0.2.1", "198.18.0.5", "203.0.113.9"),
        *("224.0.0.1", "239.1.2.3", "240.0.0.1", "255.255.255.255", "192.88.99.1"),
        *("::1", "::", "fe80::1", "fe80::1%1", "fc00::1", "fd00:ec2::254", "fec0::1", "ff02::1", "ff0e::1"),
        *("::ffff:127.0.0.1", "::ffff:10.0.0.1", "::127.0.0.1", "64:ff9b::127.0.0.1", "64:ff9b:1::1"),
        *("2001:db8::1", "2001::1", "2002:7f00:1::", "3fff::1", "5f00::1", "100::1", "4000::1"),
    ],
)
def test_what_is_not_on_the_public_internet_is_known(address):
    assert not is_public(address)


@pytest.mark.parametrize(
    "address",
    [
        "8.8.8.8",
        "101.91.37.129",
        "172.32.0.1",
        "2402:4e00::1",
        "2001:4860:4860::8888",
        "::ffff:8.8.8.8",
        "64:ff9b::808:808",
    ],
)
def test_a_public_address_is_known(address):
    assert is_public(address)


@pytest.mark.parametrize("hosts", [["127.0.0.1"], ["8.8.8.8", "127.0.0.1"], ["127.0.0.1", "8.8.8.8"]])
def test_a_name_with_an_address_that_is_not_public_is_refused_before_anything_is_sent(server, hosts):
    found = addresses(*hosts, port=server.port)
    transport = Transport("http://videos.example", may_reach=is_public, look_up=lambda *_: found)
    with pytest.raises(TransportError, match=r"127\.0\.0\.1 is not a public address"):
        get(transport)
    assert server.connections == 0


def test_a_name_is_looked_up_once_and_the_address_that_was_found_is_the_one_that_is_used(server):
    asked = []

    def look_up(*name):
        asked.append(name)
        return addresses("127.0.0.1", port=server.port)

    server._talk = lambda connection, _: connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n" + read_head(connection))
    assert b"Host: videos.example:81\r\n" in get(Transport("http://videos.example:81", look_up=look_up))
    assert asked == [("videos.example", 81)]


def test_a_resolver_that_hangs_ends_with_the_time_of_the_call():
    over = threading.Event()
    with pytest.raises(TransportError, match="GET /x: TimeoutError"):
        get(Transport("http://videos.example", look_up=lambda *_: over.wait(10)), timeout=0.3)
    over.set()


def test_a_name_that_nobody_knows_is_a_transport_error():
    def look_up(*_):
        raise socket.gaierror(socket.EAI_NONAME, "no such name")

    for looked_up in (look_up, lambda *_: []):
        with pytest.raises(TransportError, match="GET /x: "):
            get(Transport("http://videos.example", look_up=looked_up))


def test_an_address_that_is_silent_leaves_time_for_the_next(server):
    with socket.create_server(("127.0.0.2", server.port), backlog=0) as full:
        waiting = [socket.socket() for _ in range(3)]
        for client in waiting:  # from the second on, nobody answers
            client.setblocking(False)
            client.connect_ex(full.getsockname())
        found = addresses("127.0.0.2", "127.0.0.1", port=server.port)
        assert get(Transport("http://videos.example", look_up=lambda *_: found), timeout=1) == b"ok"
        for client in waiting:
            client.close()


# TLS


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A file with a key, and a certificate for videos.example that trusts itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "videos.example")])
    now = datetime.datetime.now(datetime.UTC)
    names = x509.SubjectAlternativeName([x509.DNSName("videos.example")])
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(now).not_valid_after(now + datetime.timedelta(1))
    made = builder.add_extension(names, critical=False).sign(key, hashes.SHA256())
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    file = tmp_path_factory.mktemp("tls") / "both.pem"
    file.write_bytes(private + made.public_bytes(serialization.Encoding.PEM))
    return file


@pytest.fixture
def connect_by_tls(certificate, monkeypatch):
    """A function that makes a transport to a server which talks like that over TLS."""
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    made = []

    def make(host, talk, **more):
        def talk_by_tls(connection, number):
            with context.wrap_socket(connection, server_side=True) as secured:
                talk(secured, number)

        server = RawServer(talk_by_tls)
        look_up = {"look_up": lambda *_: addresses("127.0.0.1", port=server.port)} if not more else {}
        made.append(server)
        return Transport(f"https://{host}:{server.port}", **look_up, **more)

    yield make
    for server in made:
        server.close()


def test_a_certificate_is_verified_against_the_name_and_not_the_address(connect_by_tls):
    def talk(connection, _):
        answer(connection)

    assert get(connect_by_tls("videos.example", talk)) == b"ok"
    for host in ("other.example", "127.0.0.1"):
        with pytest.raises(TransportError, match="SSLCertVerificationError"):
            get(connect_by_tls(host, talk))


def test_a_connection_over_tls_is_used_again(connect_by_tls):
    numbers = []

    def talk(connection, number):
        while answer(connection):
            numbers.append(number)

    with closing(connect_by_tls("videos.example", talk)) as transport:
        for _ in range(3):
            with transport.open("GET", "/x") as received:
                assert received.read(10) == b"ok"
    assert set(numbers) == {1}


def test_an_answer_that_drips_over_tls_ends_with_the_time_of_the_call(connect_by_tls):
    begin = b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n"
    transport = connect_by_tls("videos.example", lambda connection, _: drip(connection, begin, b"x"))
    with pytest.raises(TransportError, match="GET /x: TimeoutError"):
        get(transport, timeout=0.5)


def test_a_handshake_that_never_ends_ends_with_the_time_of_the_call(server):
    server._talk = lambda connection, _: time.sleep(5)
    with pytest.raises(TransportError, match="GET /x: TimeoutError"):
        get(Transport(f"https://127.0.0.1:{server.port}"), timeout=0.3)


# Through a proxy


@pytest.fixture
def proxy():
    with ConnectProxy() as started:
        yield started


@pytest.fixture
def guarded():
    """A proxy that one has to log in to."""
    with ConnectProxy("user:p@ss:wörd") as started:
        yield started


LOGIN = "user:p%40ss:w%C3%B6rd@"


def test_a_proxy_passes_on_what_it_cannot_read(connect_by_tls, proxy):
    transport = connect_by_tls(
        "videos.example", lambda connection, _: answer(connection, b"an answer"), proxy=proxy.url
    )
    with closing(transport), transport.open("GET", "/x?access_token=secret") as received:
        assert received.read(1000) == b"an answer"
    assert [target.partition(":")[0] for target in proxy.targets] == ["videos.example"]
    assert len(proxy.passed) > 1000  # the handshake
    for readable in (b"/x?access_token", b"secret", b"an answer"):
        assert readable not in proxy.passed


@pytest.mark.parametrize("host", ["other.example", "127.0.0.1"])
def test_a_certificate_is_verified_against_the_platform_behind_a_proxy_too(connect_by_tls, proxy, host):
    heads = []
    transport = connect_by_tls(host, lambda connection, _: heads.append(read_head(connection)), proxy=proxy.url)
    with pytest.raises(TransportError, match="GET /x: SSLCertVerificationError"):
        get(transport)
    assert heads == []


def test_a_connection_through_a_proxy_is_used_again(connect_by_tls, proxy):
    def talk(connection, _):
        while answer(connection):
            pass

    with closing(connect_by_tls("videos.example", talk, proxy=proxy.url)) as transport:
        for _ in range(3):
            with transport.open("GET", "/x") as received:
                assert received.read(10) == b"ok"
    assert proxy.connections == 1


def test_what_it_takes_to_log_in_goes_to_the_proxy_alone(server, guarded):
    heads = []
    server._talk = noting(heads)
    assert get(Transport(server.url, proxy=guarded.url.replace("//", f"//{LOGIN}"))) == b"ok"
    assert b"Proxy-Authorization" not in heads[0]
    assert guarded.heads[0].startswith(b"CONNECT 127.0.0.1:%d HTTP/1.1\r\n" % server.port)


@pytest.mark.parametrize("login", ["", "user:p%40ss@", "user@"])
def test_a_proxy_that_one_has_to_log_in_to_says_which_setting_is_wrong_and_not_what_it_is(guarded, caplog, login):
    with pytest.raises(TransportError) as caught:
        get(Transport("https://videos.example", proxy=guarded.url.replace("//", f"//{login}")))
    said = f"the proxy 127.0.0.1:{guarded.port} answered 407: are the user and the password in WECHAT_PROXY right?"
    assert str(caught.value) == said
    assert "p%40ss" not in caplog.text


def test_a_proxy_that_nobody_answers_at_is_named():
    with pytest.raises(TransportError, match=r"^the proxy 127\.0\.0\.1:1: ConnectionRefusedError$"):
        get(Transport("https://videos.example", proxy="http://user:secret@127.0.0.1:1"))


@pytest.mark.parametrize(
    ("said", "error"),
    [
        (b"HTTP/1.1 403 Forbidden\r\nContent-Length: 3\r\n\r\nno!", "answered 403: it does not let calls through to "),
        (b"HTTP/1.1 401 Unauthorized\r\n\r\n", "answered 401: are the user and the password in WECHAT_PROXY right"),
        (b"HTTP/1.1 502 Bad Gateway\r\n\r\n", "answered 502: it does not let calls through to videos.example:443"),
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", "BadStatusLine"),
        (b"HTTP/1.1 200 OK\r\nA: " + b"x" * 70_000, "LineTooLong"),
        (b"HTTP/1.1 2", "RemoteDisconnected|BadStatusLine|ConnectionResetError"),
        (b"", "RemoteDisconnected"),
    ],
)
def test_a_proxy_that_makes_no_connection_is_named_with_what_it_said(server, said, error):
    def talk(connection, _):
        read_head(connection)
        connection.sendall(said)

    server._talk = talk
    with pytest.raises(TransportError, match=f"the proxy 127.0.0.1:{server.port}:? ({error})"):
        get(Transport("https://videos.example", proxy=server.url))


@pytest.mark.parametrize(
    ("begin", "piece"),
    [(b"", b"H"), (b"", b"HTTP/1.1 100 Continue\r\n\r\n"), (b"HTTP/1.1 200 OK\r\n", b"A: b\r\n")],
    ids=["status", "continue", "header"],
)
def test_a_proxy_that_drips_ends_with_the_time_of_the_call(server, begin, piece):
    server._talk = lambda connection, _: drip(connection, begin, piece)
    before = time.monotonic()
    with pytest.raises(TransportError, match=r"the proxy 127\.0\.0\.1:[0-9]+: TimeoutError"):
        get(Transport("https://videos.example", proxy=server.url), timeout=0.4)
    assert time.monotonic() - before < 1


def test_a_handshake_behind_a_proxy_that_took_its_time_ends_with_the_time_of_the_call(server):
    def talk(connection, _):
        read_head(connection)
        time.sleep(0.3)
        connection.sendall(MADE)
        time.sleep(2)

    server._talk = talk
    before = time.monotonic()
    with pytest.raises(TransportError, match="GET /x: TimeoutError"):
        get(Transport("https://videos.example", proxy=server.url), timeout=0.5)
    assert time.monotonic() - before < 0.75


def test_an_answer_that_drips_through_a_proxy_ends_with_the_time_of_the_call(connect_by_tls, proxy):
    begin = b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n"
    transport = connect_by_tls("videos.example", lambda connection, _: drip(connection, begin, b"x"), proxy=proxy.url)
    with pytest.raises(TransportError, match="GET /x: TimeoutError"):
        get(transport, timeout=0.5)


def test_the_proxy_looks_up_the_platform_and_this_machine_the_proxy(server, proxy):
    asked = []

    def look_up(*name):
        asked.append(name)
        return addresses("127.0.0.1", port=proxy.port)

    at = f"http://proxy.example:{proxy.port}"
    assert get(Transport(f"http://videos.example:{server.port}", proxy=at, look_up=look_up)) == b"ok"
    assert asked == [("proxy.example", proxy.port)]
    assert proxy.targets == [f"videos.example:{server.port}"]


@pytest.mark.parametrize("hosts", [["127.0.0.1"], ["8.8.8.8", "10.0.0.1"], []])
def test_a_proxy_leads_nobody_to_an_address_that_is_not_public(proxy, hosts):
    found = addresses(*hosts, port=80)
    transport = Transport("http://videos.example", may_reach=is_public, look_up=lambda *_: found, proxy=proxy.url)
    with pytest.raises(TransportError):
        get(transport)
    assert proxy.connections == 0


def test_a_proxy_is_asked_for_the_very_address_that_was_checked(server, proxy):
    def look_up(host, port):
        return addresses("8.8.8.8" if host == "videos.example" else "127.0.0.1", port=port)

    url = f"http://videos.example:{server.port}"
    assert get(Transport(url, may_reach=is_public, look_up=look_up, proxy=proxy.url)) == b"ok"
    assert proxy.targets == [f"8.8.8.8:{server.port}"]


# Another server where the first cannot be reached

NOBODY = "http://127.0.0.1:1"


def test_another_server_is_asked_where_the_first_cannot_be_reached(server, caplog):
    assert get(Transport(NOBODY, server.url)) == b"ok"
    assert "127.0.0.1:1 cannot be reached (ConnectionRefusedError), another server is asked" in caplog.text


def test_each_server_has_a_path_of_its_own(server):
    heads = []
    server._talk = noting(heads)
    get(Transport(f"{NOBODY}/first", f"{server.url}/second"))
    assert heads[0].startswith(b"GET /second/x ")


def test_a_server_that_is_silent_leaves_time_for_the_other(server):
    with RawServer(lambda *_: time.sleep(3)) as silent:  # it never says hello
        assert get(Transport(silent.url.replace("http", "https"), server.url), timeout=1) == b"ok"


def test_a_server_with_another_certificate_is_not_asked(connect_by_tls, server):
    wrong = connect_by_tls("other.example", lambda connection, _: answer(connection))._servers[0]
    port = int(wrong.netloc.partition(":")[2])
    found = {"look_up": lambda host, number: addresses("127.0.0.1", port=number)}
    assert get(Transport(f"https://other.example:{port}", server.url, **found)) == b"ok"


def test_a_server_that_answers_with_an_error_is_the_one_that_answers(server):
    def talk(connection, _):
        connection.sendall(b"HTTP/1.1 502 Bad Gateway\r\n\r\n")

    with RawServer(talk) as failing, Transport(failing.url, server.url).open("GET", "/x") as received:
        assert received.status == 502
    assert server.connections == 0


@pytest.mark.parametrize("is_repeatable", [True, False])
def test_a_call_that_a_server_may_have_taken_is_not_made_at_the_other_and_the_next_one_is(server, is_repeatable):
    heads = []
    taking = RawServer(lambda connection, _: heads.append(read_head(connection)))
    with taking, closing(Transport(taking.url, server.url)) as transport:
        with pytest.raises(TransportError), transport.open("POST", "/once", is_repeatable=is_repeatable):
            pass
        assert (len(heads), server.connections) == (1, 0)
        with transport.open("POST", "/next") as received:
            assert received.read(10) == b"ok"
    assert (len(heads), server.connections) == (1, 1)


def test_the_first_server_is_asked_again_after_a_minute(server, clock):
    def talk(connection, _):
        while answer(connection, b"second"):
            pass

    server._talk = talk
    with socket.create_server(("127.0.0.1", 0)) as place:
        port = place.getsockname()[1]
    with closing(Transport(f"http://127.0.0.1:{port}", server.url, clock=clock)) as transport:

        def ask():
            with transport.open("GET", "/x") as received:
                return received.read(10)

        assert ask() == b"second"
        with RawServer(lambda connection, _: answer(connection, b"first"), port) as first:
            clock.now += 59
            assert [ask(), ask()] == [b"second", b"second"]
            clock.now += 1
            assert [ask(), ask()] == [b"second", b"first"]  # by the connection that was kept, and no longer is
            assert (server.connections, first.connections) == (1, 1)


def test_where_no_server_can_be_reached_that_is_the_error():
    with pytest.raises(TransportError, match="GET /x: ConnectionRefusedError"):
        get(Transport(NOBODY, NOBODY + "/other"))
