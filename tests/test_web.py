"""The query, as it is spelt and as it is read."""

from urllib.parse import parse_qsl

import pytest
from hypothesis import given
from hypothesis import strategies as st
from webob import Request, Response

from sandbox.messages import text_message
from sandbox.platform import signed_query
from tests.conftest import SAFE, TOKEN
from wechat.errors import Forbidden
from wechat.web import MAX_QUERY_FIELDS, TEXT, Whole, read_query

SPELLINGS = [
    "wechat&{}",
    "{}&",
    "&{}",
    "&&{}&&",
    "x=YQ==&{}",
    "{}&x=YQ==",
    "{}&x=a=b",
    "{}&=",
    "{}&=x",
    "{}&x=",
    "x=%zz&{}&%",
    "a+b=c%20d&{}",
    "{}&x=\xe9\xff",
    "signature=0&timestamp=0&nonce=0&{}",  # of the URL on the platform's page; WeChat appends its own
    "{}" + "&x=1" * (MAX_QUERY_FIELDS - 5),
]


def query_in(text):
    return read_query(Request({"QUERY_STRING": text}))


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_a_query_that_wechat_signed_is_good_however_it_is_spelt(make_account, spelling):
    echo = '@on("text")\ndef echo(msg): return msg.Content\n'
    account = make_account(echo)
    assert account.post(text_message("x"), spelling.format(signed_query(TOKEN))).status_code == 200
    assert account.get(query=spelling.format(signed_query(TOKEN) + "&echostr=42")).body == b"42"


@pytest.mark.parametrize("spelling", SPELLINGS[:-1])
def test_a_sealed_push_has_the_same_liberty(make_account, spelling):
    query, body = SAFE.push(text_message("x"))
    assert make_account("", platform=SAFE).post(body, spelling.format(query)).status_code == 200


def test_the_last_of_two_values_counts_for_the_signature_and_the_age_alike(make_account):
    account = make_account("", clock=lambda: 1714037059)
    stale, fresh = signed_query(TOKEN, 1714000000), signed_query(TOKEN, 1714037059)
    assert account.post(text_message("x"), f"{stale}&{fresh}").status_code == 200
    assert account.post(text_message("x"), f"{fresh}&{stale}").status_code == 403
    assert account.post(text_message("x"), f"{stale}&timestamp=1714037059").status_code == 403
    assert account.post(text_message("x"), f"timestamp=1714037059&{stale}").status_code == 403


def test_more_fields_than_the_limit_are_refused_however_they_are_spelt():
    for field in ("a=b", "a=%41", "a", ""):
        with pytest.raises(Forbidden, match="over 32 fields"):
            query_in("&".join([field] * (MAX_QUERY_FIELDS + 1)))
        query_in("&".join([field] * MAX_QUERY_FIELDS))


def test_no_query_at_all_is_refused():
    with pytest.raises(Forbidden, match="no query at all"):
        query_in("")


PIECES = st.sampled_from(
    ["a", "b", "=", "&", "&&", "==", "+", "%", "%41", "%ff", "%3d", "%26", ";", "\xe9", "signature", "\x00"]
)


@given(st.lists(PIECES, min_size=1, max_size=25).map("".join))
def test_any_query_is_read_as_parse_qsl_reads_it(text):
    assert query_in(text) == dict(parse_qsl(text, keep_blank_values=True, encoding="latin-1"))


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
@pytest.mark.parametrize("status", [None, 403, 503])
def test_a_whole_response_is_what_webob_would_make_of_it(method, status):
    headers = [("Content-Type", TEXT), ("X-Content-Type-Options", "nosniff"), ("Content-Length", "4")]
    theirs, ours = Response(None, status, headers, [b"body"]), Whole(b"body", TEXT, status)
    assert vars(ours) == {**vars(theirs), "_app_iter": [b"body"]}
    request = Request.blank("/", method=method)
    heard = [(got.status, got.headerlist, got.body) for got in map(request.get_response, (ours, theirs))]
    assert heard[0] == heard[1]
    ours.headers["Allow"] = "GET"
    assert request.get_response(ours).headers["Allow"] == "GET"
