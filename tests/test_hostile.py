"""`python wxserver.py` as it stands on the Internet without a proxy: hostile bytes, and clients that never finish.

`python -m tests.fuzz.hostile` and `python -m tests.bench.dripping` do more of it, and say what they saw.
"""

from tests.bench.dripping import Crowd, waits
from tests.fuzz.hostile import FORGED, assault, faults_in, push

REQUESTS, SOCKETS = 2_000, 1_100
PATIENCE = 5  # seconds, those of WeChat; on an idle machine it takes a fifth of one


def test_hostile_requests_get_no_500_and_write_no_line_of_their_own(serve):
    server = serve()
    statuses = assault(server.port, REQUESTS)
    answer, _ = push(server.port)
    server.stop()
    assert faults_in(server.lines) == []
    assert {200, 400, 403, 404, 405, 431} <= set(statuses) <= {100, 200, 400, 403, 404, 405, 413, 431, 501}
    assert "三体" in answer


def test_a_forged_line_would_be_found():
    begin = "2026-11-26 12:00:00,000 INFO waitress: Client disconnected while serving /"
    assert faults_in([begin]) == []
    assert (
        len(faults_in([begin, "", "ERROR forged", f"    {FORGED}", FORGED, "Traceback (most recent call last):"])) == 5
    )


def test_a_push_is_answered_while_slow_clients_hold_all_connections(serve):
    server = serve()
    with Crowd(server.port, SOCKETS):
        found = waits(server.port, seconds=2)
    assert [took for took in found if took is None or took > PATIENCE] == []
    server.stop()
    assert any("connections ran out: closed " in line for line in server.lines)
