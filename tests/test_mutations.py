"""20,000 signed bodies that no platform would send."""

import random
import resource

from sandbox.messages import to_json
from sandbox.platform import signed_query
from tests.conftest import MESSAGES, TOKEN
from wechat.protocol.parser import parse

BODIES = [file.read_bytes() for file in MESSAGES]
BODIES += [to_json(parse(body)).encode() for body in BODIES]
DOCTYPE = b'<!DOCTYPE xml [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]>'
INSERTS = [
    b"&b;",
    b"&#0;",
    b"&#x110000;",
    b"<![CDATA[",
    b"]]>",
    b"<a>" * 40,
    b"</xml>",
    b"<?x?>",
    b"<!--",
    b"\x00\x1d",
    b"[[",
    b'"MsgType":',
    b"NaN,",
]
ENCODINGS = ["utf-16", "utf-32", "gb18030", "utf-8-sig", "utf-7", "cp037"]


def flip_bits(body, chance):
    changed = bytearray(body)
    for _ in range(chance.randint(1, 8)):
        changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
    return bytes(changed)


def truncate(body, chance):
    return body[: chance.randrange(len(body))]


def duplicate(body, chance):
    start, end = sorted(chance.randrange(len(body)) for _ in range(2))
    return body[:end] + body[start:end] * chance.randint(1, 3) + body[end:]


def insert(body, chance):
    place = chance.randrange(len(body))
    return body[:place] + chance.choice(INSERTS) + body[place:]


def declare(body, chance):
    return DOCTYPE + insert(body, chance)


def encode(body, chance):
    return body.decode().encode(chance.choice(ENCODINGS), "replace")


MUTATIONS = [flip_bits, truncate, duplicate, insert, declare, encode]


def kilobytes():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def test_20_000_mutated_bodies_leave_no_500_no_traceback_and_a_healthy_server(account, caplog):
    caplog.set_level("CRITICAL", "wxserver")  # what the capture keeps of 20,000 refusals would count as growth
    chance, seen, peak = random.Random(2026), set(), 0
    for number in range(20_000):
        body = MUTATIONS[number % len(MUTATIONS)](chance.choice(BODIES), chance)
        response = account.post(body, signed_query(TOKEN))
        assert response.status_code in (200, 400), body
        assert b"Traceback" not in response.body
        seen.add(response.status_code)
        if number == 2_000:
            peak = kilobytes()
    assert seen == {200, 400}
    assert kilobytes() - peak < 4 * 1024, "memory grew"
    assert account.get("/healthz").status_code == 200
    assert account.say("三体")["articles"]
