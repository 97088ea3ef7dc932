import contextlib
import copy
import json
import logging
import pickle
import time
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.messages import text_message, to_json
from tests.conftest import MESSAGES
from wechat.errors import Unreadable
from wechat.message import Message, without_forbidden
from wechat.protocol.parser import parse, read_fields

COMMON = "<ToUserName>gh_1</ToUserName><FromUserName>o_1</FromUserName><MsgType>text</MsgType>"


def message_with(inner):
    return parse(f"<xml>{COMMON}{inner}</xml>".encode())


def fixture(name):
    (file,) = [file for file in MESSAGES if file.stem == name]
    return parse(file.read_bytes())


@pytest.mark.parametrize("file", MESSAGES, ids=lambda file: file.stem)
def test_every_kind_of_message_is_read(file):
    message = parse(file.read_bytes())
    assert message.ToUserName.startswith("gh_")
    assert message.CreateTime.isdigit()


def test_fields_are_attributes_and_keys_under_wechats_own_names():
    message = fixture("text_msgmenu")
    assert message.Content == message["Content"]
    assert message.bizmsgmenuid == "101"
    assert "MsgId" in message
    assert message.MsgId.isdigit()


def test_an_absent_field_names_those_there_are():
    message = message_with("<Content>x</Content>")
    expected = "no EventKey in this message; there are ToUserName, FromUserName, MsgType, Content"
    with pytest.raises(AttributeError, match=expected):
        _ = message.EventKey
    with pytest.raises(KeyError, match=expected):
        _ = message["EventKey"]
    assert message.get("EventKey", "") == ""
    assert message.get("EventKey") is None


def test_an_empty_node_is_an_empty_string():
    assert fixture("event_subscribe").EventKey == ""
    assert message_with("<Label/>").Label == ""


def test_nested_nodes_nest():
    assert fixture("event_scancode_waitmsg").ScanCodeInfo.ScanResult
    assert fixture("event_location_select").SendLocationInfo.Location_X


def test_a_node_that_repeats_by_design_is_a_list_also_for_one():
    assert [item.PicMd5Sum for item in fixture("event_pic_photo_or_album").SendPicsInfo.PicList["item"]]
    (only,) = message_with("<PicList><item><A>1</A></item></PicList>").PicList.item
    assert only.A == "1"
    assert fixture("event_PUBLISHJOBFINISH_failed").PublishEventInfo.fail_idx == ["1", "2"]
    assert message_with("<fail_idx>1</fail_idx>").fail_idx == ["1"]
    (popup,) = message_with("<E><List><TemplateId>t</TemplateId></List></E>").E.List
    assert popup.TemplateId == "t"


def test_an_unknown_node_that_repeats_is_a_list():
    assert message_with("<New>1</New>").New == "1"
    assert message_with("<New>1</New><New/><New><A>3</A></New>").New == ["1", "", Message({"A": "3"})]


@pytest.mark.parametrize("beginning", ["\x00", "\x1d", "\ufffe", "\x01\ufeff", "\ufeff"])
def test_neither_a_control_character_nor_a_bom_before_a_message_costs_the_answer(beginning):
    assert parse((beginning + text_message("三体")).encode()).Content == "三体"
    assert parse((beginning + to_json(parse(text_message("三体").encode()))).encode()).Content == "三体"


def test_control_characters_are_dropped():
    """Users' texts arrive with U+001D raw inside CDATA (WeRoBot issue 420)."""
    assert "\x1d" not in fixture("text_control_character").Content
    assert message_with("<Content><![CDATA[a\x00\x1d\ufffe\uffffb\t\n]]></Content>").Content == "ab\t\n"


def test_a_cdata_end_that_the_user_typed_is_part_of_the_text():
    assert fixture("text_hard_characters").Content.endswith("\n第二行 ]]> 结束")


def test_a_split_cdata_end_is_put_together_where_there_is_no_push():
    document = "<xml><Title><![CDATA[a]]]]><![CDATA[>b]]></Title></xml>"
    assert read_fields(document.encode()).Title == "a]]>b"


def test_a_byte_order_mark_and_a_declared_encoding_change_nothing():
    body = f'\ufeff<?xml version="1.0" encoding="gbk"?><xml>{COMMON}<Content>你好😀</Content></xml>'
    assert parse(body.encode()).Content == "你好😀"


def test_a_broken_character_costs_only_itself():
    body = f"<xml>{COMMON}<Label>".encode() + "你好".encode()[:-1] + b"</Label></xml>"
    assert parse(body).Label == "你\ufffd"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"hello",
        b"<xml>",
        b"<xml></xml>",
        b"<xml/>",
        b"<xml>text only</xml>",
        b"\xff\xfe<\x00x\x00",
        b"[]",
        f"<xml>{COMMON}</xml><xml/>".encode(),
        f"<xml>{COMMON}&undefined;</xml>".encode(),
        f"<xml>{COMMON}<A>&#0;</A></xml>".encode(),
        "<xml>你好</xml>".encode("utf-16"),
    ],
)
def test_what_is_no_message_is_refused(body):
    with pytest.raises(Unreadable):
        parse(body)


@pytest.mark.parametrize("name", ["MsgType", "FromUserName", "ToUserName"])
@pytest.mark.parametrize("value", ["", "<A>1</A>"])
def test_the_fields_that_carry_an_answer_must_be_there(name, value):
    body = f"<xml>{COMMON}</xml>".replace(f"<{name}>", f"<Other>x</Other><{name}>", 1)
    start, end = body.index(f"<{name}>") + len(name) + 2, body.index(f"</{name}>")
    with pytest.raises(Unreadable, match=name):
        parse((body[:start] + value + body[end:]).encode())


@pytest.mark.parametrize("name", ["CreateTime", "MsgId", "Content", "Recognition", "Event", "EventKey"])
def test_a_field_that_decides_who_answers_is_one_text(name):
    for value in ("<A>1</A>", f"</{name}><{name}>"):
        with pytest.raises(Unreadable, match=f"{name} is not one text"):
            message_with(f"<{name}>{value}</{name}>")


def json_with(inner):
    return parse(b'{"ToUserName": "gh_1", "FromUserName": "o_1", "MsgType": "event"' + inner.encode() + b"}")


def test_json_scalars_are_the_texts_that_xml_would_give():
    message = json_with(', "MsgId": 22850641670526495123, "Scale": 1.50, "A": true, "B": null, "C": {}, "D": false')
    assert [message[name] for name in ("MsgId", "Scale", "A", "B", "C", "D")] == [
        "22850641670526495123",
        "1.50",
        "true",
        "",
        "",
        "false",
    ]
    assert json_with(', "MsgId": "49d72d67b16d115e7935ac386f2f0fa4_1555684067"').MsgId.startswith("49d7")


def test_json_has_its_forbidden_characters_dropped_however_they_are_written():
    assert json_with(', "A": "a\x1d\\u001d\\ud800b\\ud83d\\ude00"').A == "ab😀"


def test_a_name_in_json_has_its_forbidden_characters_dropped_too():
    assert list(json_with(', "A\\ud800": "x"'))[-1] == "A"
    with pytest.raises(Unreadable, match="a key stands twice"):
        json_with(', "A": 1, "A\\u0000": 2')


SUBSCRIPTIONS = [
    '"List": {"TemplateId": "t"}',
    '"List": [{"TemplateId": "t"}]',
    '"SubscribeMsgSentEvent": [{"TemplateId": "t"}]',
    '"SubscribeMsgSentEvent": {"List": {"TemplateId": "t"}}',
    '"SubscribeMsgSentEvent": {"List": [{"TemplateId": "t"}]}',
]


@pytest.mark.parametrize("form", SUBSCRIPTIONS)
def test_a_list_of_subscriptions_is_one_in_every_form_that_wechat_sends(form):
    message = json_with(f', "Event": "subscribe_msg_sent_event", {form}')
    assert message.SubscribeMsgSentEvent.List == [Message({"TemplateId": "t"})]
    assert "List" not in message


@pytest.mark.parametrize(
    "inner",
    [
        ', "MsgType": "text"',
        ', "A": {"B": 1, "B": 2}',
        ', "A": NaN',
        ', "A": Infinity',
        ', "A": -Infinity',
        ', "A": ' + "[" * 40 + "]" * 40,
        ', "A": ' + "[" * 100_000,
        ', "A": ' + '{"a":' * 40 + "1" + "}" * 40,
        ', "A": ' + '{"a":' * 50_000,
        ', "Event": []',
        ', "Event": {"A": 1}',
        ', "FromUserName2": }',
        ",",
    ],
)
def test_json_that_no_platform_sends_is_refused(inner):
    with pytest.raises(Unreadable):
        json_with(inner)


@pytest.mark.parametrize(
    "body", [b"[]", b'[{"MsgType": "text"}]', b'"text"', b"5", b"null", b"{", b"{}", b'{"a": 1} x']
)
def test_json_that_is_no_object_is_refused(body):
    with pytest.raises(Unreadable):
        parse(body)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=20,
)


@given(st.dictionaries(st.sampled_from(["MsgType", "FromUserName", "ToUserName", "Event", "List", "A"]), JSON))
def test_any_json_is_read_or_refused(fields):
    with contextlib.suppress(Unreadable):
        assert parse(json.dumps(fields).encode()).MsgType


def test_a_doctype_is_refused_however_it_is_dressed():
    for head in ("<!DOCTYPE xml>", "<!-- x --><!DOCTYPE xml SYSTEM 'file:///etc/passwd'>", "<?a b?><!DOCTYPE xml [ ]>"):
        with pytest.raises(Unreadable, match="DOCTYPE"):
            parse(f"{head}<xml>{COMMON}</xml>".encode())


def test_the_word_doctype_in_a_text_is_a_text():
    assert message_with("<Content><![CDATA[<!DOCTYPE html>]]></Content>").Content == "<!DOCTYPE html>"


def test_entities_that_multiply_are_not_expanded():
    """519 bytes became 8 MB once."""
    levels = "".join(f'<!ENTITY e{n} "{f"&e{n - 1};" * 10}">' for n in range(1, 8))
    body = f'<!DOCTYPE xml [<!ENTITY e0 "0123456789">{levels}]><xml>{COMMON}<Content>&e7;</Content></xml>'
    started = time.process_time()
    with pytest.raises(Unreadable, match="DOCTYPE"):
        parse(body.encode())
    assert time.process_time() - started < 5


def test_a_namespace_is_not_written_into_each_name():
    """ElementTree does that: 200 KB became 2.5 GB, in 8 seconds."""
    names = "".join(f"<a{number}/>" for number in range(10_000))
    message = message_with(f'<Label xmlns="{"u" * 100_000}" xmlns:b="v"><b:c>x</b:c>{names}</Label>')
    assert message.Label["b:c"] == "x"
    assert sum(map(len, message.Label)) < 100_000


def test_the_namespace_that_needs_no_declaration_is_not_written_into_a_name_either():
    assert message_with("<xml:a>1</xml:a>")["xml:a"] == "1"


def test_xml_with_a_namespace_is_read_like_any_other():
    inner = "<Label{}><A>1 &lt;\n<![CDATA[&]]></A>2<A/></Label><Content>xmlns</Content>"
    assert message_with(inner.format(' xmlns="u"')) == message_with(inner.format(""))
    with pytest.raises(Unreadable, match="not XML"):
        message_with(inner.format(' xmlns="u"') + "</A>")


UNENDED = (
    *("<Content>", "<Content><![CDATA[", "<Content><![CDATA[</xml>", "<Content a='", "<Content", "<", "</", "&", "&am"),
    *("<!--", "<!-- -->", "<?a", "</xml", "</xml>", "</xml><xml>", "</xml></stream>", "</stream>", "</xml>x", "\x00"),
    *("</xml><xml><Content>", "</xml><![CDATA[", "</xml><!--", "</xml><stream>", "<a:b/>", "]]>", "\ufffd"),
)


@pytest.mark.parametrize("end", ["", "</xml>"])
@pytest.mark.parametrize("rest", UNENDED)
def test_whatever_a_message_ends_with_the_next_one_is_read_as_it_is(rest, end):
    bodies = [f"<xml>{COMMON}{rest}{end}".encode(), f"<xml>{COMMON}<Content>{rest}{end}".encode()[:-1]]
    for body in (*bodies, *(body + b"\xe4\xbd" for body in bodies)):
        with contextlib.suppress(Unreadable):
            parse(body)
        assert message_with("<Content><![CDATA[x]]></Content>") == message_with("<Content>x</Content>")
        assert message_with("<Content>x</Content>") == {**message_with(""), "Content": "x"}


def test_the_names_of_nodes_are_not_kept():
    def read(number):
        names = [f"N{number}x{place}" for place in range(100)]
        message_with("".join(f"<{name} {name}=''>1</{name}>" for name in names))

    for number in range(100):
        read(number)
    tracemalloc.start()
    try:
        for number in range(100, 600):
            read(number)
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 4 * 1024**2


def test_32_levels_are_read_and_33_are_refused():
    def nested(levels):
        inside = levels - 1
        return message_with("<A>" * inside + "x" + "</A>" * inside)

    assert nested(32).A.A
    with pytest.raises(Unreadable, match="32 levels"):
        nested(33)


def test_deep_nesting_does_not_end_the_process():
    depth = 256 * 1024 // 7
    with pytest.raises(Unreadable):
        message_with("<A>" * depth + "</A>" * depth)


def test_a_message_can_be_copied_and_does_not_quote_the_user():
    message = message_with("<Content>secret words</Content>")
    assert copy.deepcopy(message) == message == pickle.loads(pickle.dumps(message))
    assert "secret" not in repr(message)
    assert "Content" in str(message)
    assert dict(message)["Content"] == "secret words"
    assert len(message) == 4


def test_a_message_shows_its_values_where_the_log_may_quote(caplog):
    caplog.set_level(logging.DEBUG, "wechat.log")
    assert "Content='secret words'" in str(message_with("<Content>secret words</Content>"))


@given(st.text())
def test_any_text_comes_through_but_for_forbidden_characters(text):
    expected = without_forbidden(text).replace("\r\n", "\n").replace("\r", "\n")  # as every XML parser does
    assert message_with(f"<Content><![CDATA[{text}]]></Content>").Content == expected


@given(st.binary(max_size=300))
def test_any_bytes_are_read_or_refused(body):
    for content in (body, b"<xml>" + body + b"</xml>", f"<xml>{COMMON}".encode() + body + b"</xml>"):
        with contextlib.suppress(Unreadable):
            assert parse(content).MsgType
