import json
import random
import time
import tracemalloc
from base64 import b64decode, b64encode
from urllib.parse import parse_qsl, urlencode

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sandbox.messages import text_message, to_json
from sandbox.platform import Platform, signed_query
from sandbox.testing import APPID
from tests.conftest import AES_KEY, COMPAT, PLAIN, SAFE, TOKEN
from tests.vectors import VECTORS
from wechat.errors import Forbidden
from wechat.protocol.envelope import Cipher, Sealed, envelope_for, sign
from wechat.protocol.parser import parse, read_fields
from wechat.settings import read

ECHO = '@on("text")\ndef echo(msg): return msg.Content\n'
KEY = b64decode(AES_KEY + "=")
OTHER_KEY = "Z" * 42 + "G"


def cipher_of(vector):
    return Cipher(b64decode(vector["key"] + "="))


# The official vectors, both ways


@pytest.mark.parametrize("name", ["A", "A2", "F_in", "F_out"])
def test_the_official_ciphertext_opens_to_its_plain_text(name):
    vector = VECTORS[name]
    content, appid = cipher_of(vector).open(b64decode(vector["cipher"]))
    assert (content.decode(), appid.decode()) == (vector["plain"], vector["appid"])


@pytest.mark.parametrize("name", ["A", "A2", "F_in", "F_out"])
def test_the_official_plain_text_is_sealed_byte_for_byte(name):
    vector = VECTORS[name]
    sealed = cipher_of(vector).seal(vector["plain"].encode(), vector["appid"].encode(), vector["random"].encode())
    assert b64encode(sealed).decode() == vector["cipher"]


def test_the_official_push_is_opened_and_its_reply_sealed_with_the_official_keys():
    vector = VECTORS["F_in"]
    environ = {"WECHAT_TOKEN": vector["token"], "WECHAT_AES_KEY": vector["key"], "WECHAT_APPID": vector["appid"]}
    envelope = envelope_for(read({**environ, "WECHAT_MAX_AGE": "0"}), clock=lambda: int(VECTORS["F_out"]["timestamp"]))
    body = json.dumps({"ToUserName": "gh_97417a04a28d", "Encrypt": vector["cipher"]}).encode()
    query = {name: vector[name] for name in ("timestamp", "nonce", "signature", "msg_signature")}
    content, seal = envelope.open(body, query)
    assert content.decode() == vector["plain"]
    reply = json.loads(seal(VECTORS["F_out"]["plain"].encode()))
    assert list(reply) == ["Encrypt", "MsgSignature", "TimeStamp", "Nonce"]
    assert reply["TimeStamp"] == 1713424427
    assert reply["MsgSignature"] == sign(vector["token"], "1713424427", reply["Nonce"], reply["Encrypt"])
    platform = Platform(vector["token"], "safe", b64decode(vector["key"] + "="), vector["appid"])
    assert platform.open(json.dumps(reply).encode()) == VECTORS["F_out"]["plain"]


@settings(max_examples=1_000)
@given(st.text(), st.binary(min_size=16, max_size=16))
def test_sealing_and_opening_is_the_identity(text, salt):
    content = text.encode(errors="surrogatepass")
    sealed = Cipher(KEY).seal(content, APPID.encode(), salt)
    assert Cipher(KEY).open(sealed) == (content, APPID.encode())
    assert len(sealed) % 32 == 0


# What each mode takes


@pytest.mark.parametrize("make_content", [text_message, lambda text: to_json(parse(text_message(text).encode()))])
@pytest.mark.parametrize("platform", [PLAIN, COMPAT, SAFE], ids=lambda platform: platform.mode)
def test_each_mode_answers_in_its_own_form(make_account, platform, make_content):
    account = make_account(ECHO, platform=platform)
    content = make_content("你好😀 ]]>")
    response, reply = account.deliver(content)
    assert read_fields(reply.encode()).Content == "你好😀 ]]>"
    is_sealed_json = platform is not PLAIN and content.startswith("{")
    assert response.content_type == ("application/json" if is_sealed_json else "application/xml")


@pytest.mark.parametrize("platform", [PLAIN, COMPAT, SAFE], ids=lambda platform: platform.mode)
def test_success_is_never_sealed(make_account, platform):
    response, _ = make_account("", platform=platform).deliver(text_message("x"))
    assert response.body == b"success"


def test_safe_mode_refuses_plain_text(make_account, log):
    account = make_account(ECHO, platform=SAFE)
    assert account.post(text_message("x")).status_code == 403
    assert "WECHAT_MODE is safe" in log.text


def test_compat_mode_takes_plain_text_and_answers_in_plain(make_account):
    account = make_account(ECHO, platform=COMPAT)
    assert account.say("x")["Content"] == "x"


def test_compat_mode_believes_the_sealed_part(make_account):
    account = make_account(ECHO, platform=COMPAT)
    query, body = COMPAT.push(text_message("the truth"))
    response = account.post(body.replace(b"the truth", b"a forgery"), query)
    assert "the truth" in COMPAT.open(response.body)


def test_compat_mode_takes_a_plain_body_though_the_query_has_a_message_signature(make_account):
    """Seen in the field: encrypt_type=raw beside a msg_signature."""
    account = make_account(ECHO, platform=COMPAT)
    query = signed_query(TOKEN) + "&encrypt_type=raw&msg_signature=" + "0" * 40
    assert account.post(text_message("x"), query).status_code == 200


def test_compat_mode_refuses_a_body_without_a_sealed_text_where_the_query_says_that_it_is_sealed(make_account, log):
    """Else a body of one's own would do with a URL that WeChat signed for a sealed one."""
    account = make_account(ECHO, platform=COMPAT)
    query, _ = COMPAT.push(text_message("the truth"))
    assert "encrypt_type=aes" in query
    for forged in ("a forgery", "<Encrypt>QUJD</Encrypt>", f"<Encrypt>{'QUJD' * 99}</Encrypt>"):
        assert account.post(text_message(forged), query).status_code == 403
    assert "its query says encrypt_type=aes" in log.text


LONG = f"<Encrypt>{'QUJD' * 99}</Encrypt>"


@pytest.mark.parametrize("typed", ["<Encrypt>QUJD</Encrypt>", LONG, LONG * 3, f"]]></Content>{LONG}<Content><![CDATA["])
@pytest.mark.parametrize("behind", ["<Content>", "<MsgId>", "</xml>"])
def test_what_a_user_types_is_no_envelope(make_account, typed, behind):
    """Wherever WeChat writes its own."""
    query, body = COMPAT.push(text_message(typed))
    start, end = body.rindex(b"<Encrypt>"), body.rindex(b"</xml>")
    others, sealed = body[:start] + body[end:], body[start:end]
    response = make_account(ECHO, platform=COMPAT).post(
        others.replace(behind.encode(), sealed + behind.encode(), 1), query
    )
    assert read_fields(COMPAT.open(response.body).encode()).Content == typed


@pytest.mark.parametrize("more", ["", "&encrypt_type=raw", f"&encrypt_type=raw&msg_signature={'0' * 40}"])
def test_what_a_user_types_is_no_envelope_in_a_plain_push_either(make_account, more):
    response = make_account(ECHO, platform=COMPAT).post(text_message(LONG), signed_query(TOKEN) + more)
    assert read_fields(response.body).Content == LONG


def test_plain_mode_refuses_a_sealed_push_and_names_the_setting(make_account, log):
    query, body = SAFE.push(text_message("x"))
    assert make_account(ECHO).post(body, query).status_code == 403
    assert "set WECHAT_AES_KEY" in log.text


def test_plain_mode_answers_what_compat_mode_pushes(make_account):
    query, body = COMPAT.push(text_message("x"))
    assert b"x" in make_account(ECHO).post(body, query).body


def test_safe_mode_looks_at_the_message_signature_alone(make_account):
    account = make_account(ECHO, platform=SAFE)
    query, body = SAFE.push(text_message("x"))
    fields = dict(parse_qsl(query))
    del fields["signature"]
    assert account.post(body, urlencode(fields)).status_code == 200
    fields["signature"], fields["msg_signature"] = dict(parse_qsl(query))["signature"], "0" * 40
    assert account.post(body, urlencode(fields)).status_code == 403


def test_the_address_is_verified_in_plain_in_every_mode(make_account):
    account = make_account(ECHO, platform=SAFE)
    assert account.get(query=signed_query(TOKEN) + "&echostr=42").body == b"42"


def test_a_sealed_push_grows_stale_too(make_account):
    account = make_account(ECHO, platform=SAFE, clock=lambda: 1714037059)
    for timestamp, status in ((1714037059 - 299, 200), (1714037059 - 301, 403)):
        query, body = SAFE.push(text_message("x"), timestamp)
        assert account.post(body, query).status_code == status


# Keys and tokens that change


def test_what_opened_a_push_seals_its_reply(make_account):
    both = {"WECHAT_TOKEN": f"fresh,{TOKEN}", "WECHAT_AES_KEY": f"{OTHER_KEY},{AES_KEY}"}
    account = make_account(ECHO, platform=SAFE, **both)
    for platform in (SAFE, Platform("fresh", "safe", b64decode(OTHER_KEY + "="), APPID)):
        query, body = platform.push(text_message("x"))
        assert "x" in platform.open(account.post(body, query).body)


def test_blanks_around_the_sealed_text_do_not_break_its_signature(make_account):
    account = make_account(ECHO, platform=SAFE)
    query, body = SAFE.push(text_message("x"))
    body = body.replace(b"<Encrypt><![CDATA[", b"<Encrypt><![CDATA[\n  ").replace(b"]]></Encrypt>", b"\n]]></Encrypt>")
    assert account.post(body, query).status_code == 200


@pytest.mark.parametrize("blank", [" ", "\n", "\r\n\t "])
def test_blanks_around_the_cdata_section_do_not_matter(make_account, blank):
    account = make_account(ECHO, platform=SAFE)
    query, body = SAFE.push(text_message("x"))
    for start, end in ((blank, blank), (blank, ""), ("", blank)):
        spaced = body.replace(b"<Encrypt>", b"<Encrypt>" + start.encode())
        spaced = spaced.replace(b"</Encrypt>", end.encode() + b"</Encrypt>")
        assert account.post(spaced, query).status_code == 200
        bare = spaced.replace(b"<![CDATA[", b"").replace(b"]]>", b"")
        assert account.post(bare, query).status_code == 200


def test_slashes_that_a_json_encoder_escaped_are_slashes(make_account):
    account = make_account(ECHO, platform=SAFE)
    while True:
        query, body = SAFE.push(to_json(parse(text_message("x").encode())))
        if b"/" in body:
            break
    assert account.post(body.replace(b"/", b"\\/"), query).status_code == 200


# What is refused, in one way


def refused(account, encrypted, query=None):
    body = f"<xml><Encrypt><![CDATA[{encrypted}]]></Encrypt></xml>"
    response = account.post(body, query or signed_query(TOKEN, encrypted=encrypted))
    return response.status_code, response.body


def sealed(key=KEY, appid=APPID):
    return Cipher(key).seal(b"x", appid.encode(), b"0123456789abcdef")


def raw_cipher(padded):
    """The padded bytes encrypted as they are."""
    return Cipher(KEY)._cipher.encryptor().update(padded)


HEAD = b"0123456789abcdef" + (1).to_bytes(4, "big") + b"x" + APPID.encode()


@pytest.mark.parametrize(
    "data",
    [
        sealed(key=b64decode(OTHER_KEY + "=")),
        sealed(appid="wx0000000000000000"),
        sealed(appid=""),
        sealed()[:-16],
        sealed()[:-1],
        sealed()[:16],
        b"",
        raw_cipher(HEAD.ljust(64, b"\x00")),
        raw_cipher(HEAD.ljust(64, b"\x21")),
        raw_cipher(HEAD.ljust(63, b"\x01") + b"\x1a"),
        raw_cipher((b"0" * 16 + b"\xff\xff\xff\xff" + b"x" * 28).ljust(64, b"\x10")),
        raw_cipher(b"\x20" * 32),
    ],
    ids=[
        "key",
        "appid",
        "no appid",
        "cut",
        "cut in a block",
        "short",
        "empty",
        "pad 0",
        "pad 33",
        "odd pad",
        "length",
        "pad only",
    ],
)
def test_whatever_does_not_open_is_refused_in_one_way(make_account, data, log):
    account = make_account(ECHO, platform=SAFE)
    assert refused(account, b64encode(data).decode()) == (403, b"refused\n")
    for secret in (TOKEN, AES_KEY):
        assert secret not in log.text


@pytest.mark.parametrize("encrypted", ["QUJ", "====", "=", "A", "AAAA=AAAA", " ", "QUJD" * 50_000])
def test_what_is_no_base64_is_refused_in_the_same_way(make_account, encrypted):
    assert refused(make_account(ECHO, platform=SAFE), encrypted) == (403, b"refused\n")


@pytest.mark.parametrize(
    "body", [b"", b"{}", b"[]", b"<xml>", b"\xff", b'{"Encrypt": 5}', b'{"Encrypt": ""}', b"<Encrypt>" * 9_000]
)
def test_a_body_without_a_sealed_text_is_refused_before_it_is_parsed(make_account, body):
    assert make_account(ECHO, platform=SAFE).post(body).status_code == 403


FULL = 256 * 1024  # bytes that a body may have
UNSIGNED = {
    "small nodes": b"<xml>" + b"<Encrypt>QUJD</Encrypt>" * 20_000,
    "sealed nodes": b"<xml>" + (b"<Encrypt>" + b"QUJD" * 11 + b"</Encrypt>") * 4_000,
    "beginnings": b"<Encrypt>" * (FULL // 9),
    "CDATA": b"<Encrypt><![CDATA[" * (FULL // 18),
    "XML without an end": b"<Encrypt>" + b"A" * FULL,
    "blanks in XML": b"<Encrypt>" + b" " * FULL,
    "blanks behind a CDATA section": b"<Encrypt>" + b"A" * 44 + b"]]>" + b" " * FULL,
    "JSON without an end": b'{"Encrypt":"' + b"A" * FULL,
    "slashes in JSON": b'{"Encrypt":"' + b"\\/" * (FULL // 2),
    "blanks in JSON": b'{"Encrypt"' + b" " * FULL,
    "members": b"{" + b'"Encrypt":"A",' * (FULL // 14),
    "sealed members": b"{" + (b'"Encrypt":"' + b"QUJD" * 11 + b'",') * 4_000,
}


def refuse_all(envelope, body):
    with pytest.raises(Forbidden):
        envelope.open(body, {"timestamp": "1", "nonce": "1", "msg_signature": "0" * 40, "encrypt_type": "aes"})


def cost_of(envelope, body):
    """The seconds of processor time that a body takes, and the bytes of memory."""
    times = []
    for _ in range(3):
        started = time.process_time()
        refuse_all(envelope, body)
        times.append(time.process_time() - started)
    tracemalloc.start()
    refuse_all(envelope, body)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return min(times), peak


@pytest.mark.parametrize("name", UNSIGNED)
@pytest.mark.parametrize("mode", ["compat", "safe"])
def test_an_unsigned_body_costs_no_more_than_one_long_sealed_text(mode, name):
    environ = {"WECHAT_TOKEN": TOKEN, "WECHAT_AES_KEY": AES_KEY, "WECHAT_APPID": APPID, "WECHAT_MODE": mode}
    envelope = envelope_for(read(environ))
    peer_time, peer_memory = cost_of(envelope, b"<Encrypt>" + b"A" * FULL + b"</Encrypt>")
    taken, memory = cost_of(envelope, UNSIGNED[name])
    assert memory < 2 * peer_memory
    assert taken < 3 * peer_time


def test_of_20_000_nodes_no_more_than_one_is_looked_at():
    looked_at = []

    class Watched(Sealed):
        def check_query(self, query, name="signature", signed=""):
            looked_at.append(signed)
            return super().check_query(query, name, signed)

    nodes = b"".join(b"<Encrypt>" + b"QUJD" * (11 + number % 7) + b"</Encrypt>" for number in range(20_000))
    refuse_all(Watched(read({"WECHAT_TOKEN": TOKEN, "WECHAT_AES_KEY": AES_KEY, "WECHAT_APPID": APPID})), nodes)
    assert len(looked_at) == 1


def test_signed_and_sealed_nonsense_is_400(make_account):
    account = make_account(ECHO, platform=SAFE)
    query, body = SAFE.push("nonsense")
    assert account.post(body, query).status_code == 400


@pytest.mark.parametrize("as_json", [False, True])
def test_10_000_changes_of_one_byte_of_a_sealed_body_are_refused(make_account, as_json):
    account = make_account(ECHO, platform=SAFE)
    content = text_message("你好")
    query, body = SAFE.push(to_json(parse(content.encode())) if as_json else content)
    start = body.index(b'"Encrypt": "' if as_json else b"<Encrypt>")
    end = body.index(b'"}' if as_json else b"</Encrypt>", start)
    chance = random.Random(3)
    for _ in range(5_000):
        place, byte = chance.randrange(start, end), chance.randrange(256)
        changed = body[:place] + bytes([byte]) + body[place + 1 :]
        is_same_text = changed == body or (chr(byte).isspace() and body[place : place + 1].isspace())
        status = account.post(changed, query).status_code
        assert status == 403 or (is_same_text and status == 200), (place, byte, status)


@given(st.binary(max_size=200), st.text(st.characters(max_codepoint=255), max_size=60))
def test_any_body_and_any_message_signature_are_refused(body, signature):
    envelope = envelope_for(read({"WECHAT_TOKEN": TOKEN, "WECHAT_AES_KEY": AES_KEY, "WECHAT_APPID": APPID}))
    query = {"timestamp": "1", "nonce": "1", "msg_signature": signature}
    for content in (body, b"<Encrypt>" + body + b"</Encrypt>", b'{"Encrypt":"' + body + b'"}'):
        with pytest.raises(Forbidden):
            envelope.open(content, query)
