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
    with pytest.raises(TransportError, match=r"127\.0\.0\.1 is no public address"):
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

    def make(host, talk):
        def talk_by_tls(connection, number):
            with context.wrap_socket(connection, server_side=True) as secured:
                talk(secured, number)

        server = RawServer(talk_by_tls)
        transport = Transport(
            f"https://{host}:{server.port}", look_up=lambda *_: addresses("127.0.0.1", port=server.port)
        )
        made.append(server)
        return transport

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
