"""What the platform's answers can look like, and what is made of them."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wechat.errors import WeChatError
from wechat.platform.answers import check_errcode, number, parse


def errcode(body):
    """The errcode in an answer, None where it says that all is well."""
    try:
        check_errcode(parse(body))
    except WeChatError as error:
        return error.errcode


@pytest.mark.parametrize(
    "body",
    [
        b'{"errcode":45015,"errmsg":"out of \xe5\x93 limit"}',
        b'{"errcode":45015,"errmsg":"out of \xe5"}',
        b'{"errcode":45015,"errmsg":"\xff\xfe\xfd"}',
        b'{"errcode":45015,"errmsg":"\xe5\\" quoted"}',
        '{"errcode":45015,"errmsg":"回复时间超过限制"}'.encode("gbk"),
        '{"errmsg":"許可誠","errcode":45015}'.encode("gbk"),
        b'{"errcode":45015,"errmsg":"a\x00\x1d\nb\tc"}',
        b'\xef\xbb\xbf{"errcode":45015}',
        b' \r\n{"errcode":45015}\n',
        b'{"errcode":45015,"errmsg":"\\ud800"}',
        b'{"errcode":45015,"n":%s}' % (b"9" * 5000),
        b'{"errcode":"45015"}',
        b'{"errcode":" 45015 "}',
        b'{"errcode":45015.0}',
        b'{"errcode":"45015.0"}',
        b'{"errcode":4.5015e4}',
        b'{"base_resp":{},"errcode":45015}',
        b'{"base_resp":{"errcode":"45015"},"errcode":0}',
        b'{"base_resp":{"ret":45015}}',
        b'{"ret":45015}',
    ],
)
def test_an_errcode_is_read_whatever_is_around_it(body):
    assert errcode(body) == 45015


@pytest.mark.parametrize(
    "value",
    ["0", '"0"', "0.0", '"0.0"', '""', "-0", "false"],
)
def test_an_errcode_that_says_nothing_is_no_error(value):
    check_errcode(parse(b'{"errcode":%s}' % value.encode()))


@pytest.mark.parametrize("answer", [{}, {"errcode": "0", "errmsg": "ok"}, {"base_resp": {"ret": 0}}, {"base_resp": []}])
def test_no_errcode_is_no_error(answer):
    check_errcode(answer)


@pytest.mark.parametrize(
    "value",
    [
        *('"--5"', '"-"', '"+-5"', '"5-"', '"1_0"', '"odd"', '"²"', '" "', '"\\ud800"', "null", "[]", "[40001]", "{}"),
        *('{"a":1}', "NaN", "Infinity", "-Infinity", "1e999", "0.5", '"0.5"', "9" * 20, "9" * 5000, f'"{"9" * 5000}"'),
        "[" * 500 + "]" * 500,
    ],
)
def test_an_errcode_that_cannot_be_read_is_a_failure_with_errcode_0(value):
    with pytest.raises(WeChatError) as caught:
        check_errcode(parse(b'{"errcode":%s,"errmsg":"why"}' % value.encode()))
    assert (caught.value.errcode, caught.value.errmsg) == (0, "why")


@pytest.mark.parametrize(
    "value",
    ["null", "5", "[]", "{}", '["a", {"b": 1}]', "9" * 5000, "[" * 500 + "]" * 500, '"\\ud800"', '"\\u2028\\n\\u009b"'],
)
def test_an_errmsg_of_any_kind_is_one_line_that_can_be_written(value):
    with pytest.raises(WeChatError) as caught:
        check_errcode(parse(b'{"errcode":40003,"errmsg":%s}' % value.encode()))
    assert len(str(caught.value).encode().decode().splitlines()) == 1
    assert caught.value.errcode == 40003


def test_a_long_errmsg_is_cut():
    with pytest.raises(WeChatError) as caught:
        check_errcode({"errcode": 1, "errmsg": "x " * 10_000})
    assert len(caught.value.errmsg) == 200


@pytest.mark.parametrize("secret", ["9_aB-" * 30, "0123456789abcdef" * 2])
def test_a_token_or_a_secret_that_an_errmsg_quotes_is_masked_and_a_rid_stays(secret):
    said = f"invalid credential {secret}, rid: 5f8e3a1c-1b2c3d4e-5f6a7b8c of o9AgO5Kd5ggOC-bXrbNODIiE3bGY"
    with pytest.raises(WeChatError) as caught:
        check_errcode({"errcode": 40001, "errmsg": said})
    assert caught.value.errmsg == said.replace(secret, "…")


@pytest.mark.parametrize("body", [b"", b"<html>", b"\x1f\x8b\x08{\xff", b"{", b"[" * 100_000, b"nil"])
def test_what_is_no_json_is_nothing(body):
    assert parse(body) is None


def test_the_largest_numbers_that_are_used_stay_exact():
    assert parse(b'{"msg_id":22220946756594166123}') == {"msg_id": 22220946756594166123}


@pytest.mark.parametrize(
    ("value", "expected"),
    [(7200, 7200), ("7200", 7200), (" 7200.5 ", 7200.5), (7200.5, 7200.5), (-1, -1), ("-1", -1)]
    + [(value, None) for value in (None, "", "7200s", "1e3", [], {}, "9" * 99, 10**400, float("nan"), float("inf"))],
)
def test_a_number_is_read_in_every_form(value, expected):
    assert number(value) == expected


LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9) | st.lists(st.none(), max_size=2)
RESULTS = st.fixed_dictionaries({}, optional=dict.fromkeys(("errcode", "errmsg", "ret"), LEAVES))


@given(RESULTS, RESULTS | LEAVES)
def test_nothing_in_an_answer_raises_anything_else(answer, inner):
    with suppress(WeChatError):
        check_errcode({**answer, "base_resp": inner})


@given(st.binary(max_size=50))
def test_no_bytes_raise_anything(body):
    parse(body)
    parse(b'{"errcode":1,"errmsg":"' + body + b'"}')
