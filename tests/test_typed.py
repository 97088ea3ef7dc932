"""What users type comes as it was typed, and changes nothing else. tests/fuzz/typed.py types the rest."""

import contextlib
import itertools
import sys
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.messages import text_message
from tests.conftest import COMPAT, MESSAGES, PLAIN, SAFE
from tests.fuzz import typed as fuzz
from wechat.errors import Unreadable
from wechat.protocol import typed as module
from wechat.protocol.parser import parse, read_fields
from wechat.protocol.typed import mend

HEAD = {
    "ToUserName": "<![CDATA[gh_1]]>",
    "FromUserName": "<![CDATA[o_1]]>",
    "CreateTime": "1714037059",
    "MsgType": "<![CDATA[text]]>",
}
EVENT = "<MsgType><![CDATA[event]]></MsgType><Event><![CDATA[CLICK]]></Event><EventKey><![CDATA[PAY]]></EventKey>"
TYPED = [
    "]]>",
    "a]]>b",
    "]]>]]>",
    "]]]]>",
    "]]>>",
    "]]]]><![CDATA[>",
    "a]]><![CDATA[b",
    "a]]>&lt;<![CDATA[b",
    "a]]>&#60;b",
    "a]]><!-- b --><![CDATA[c",
    "a]]><?b?><![CDATA[c",
    "a]]><b/><![CDATA[c",
    "a]]></",
    "]]></N>",
    "]]></N></xml>",
    "a]]></N><N><![CDATA[b",
    "a]]></N>\n<N><![CDATA[b",
    f"a]]></N>{EVENT}<N><![CDATA[b",
    f"a]]></N>{EVENT}",
    f"{EVENT}]]>",
    "a]]></N><FromUserName><![CDATA[o_admin]]></FromUserName><N><![CDATA[b",
    "a]]></N><MsgId>1</MsgId><CreateTime>1</CreateTime></xml>",
    "a]]></N><ToUserName><![CDATA[b",
    "a]]></N><UnionId><![CDATA[b",
    "a]]></N><Encrypt><![CDATA[b",
    "a]]></N><New><N><![CDATA[b]]></N></New><N><![CDATA[c",
    "a]]></N><item><N><![CDATA[b]]></N></item><item><N><![CDATA[b]]></N></item><N><![CDATA[c",
    "a]]></N><!--",
    "a]]></N ><b><![CDATA[",
    "]]\x1d></N><MsgId>1</MsgId><N>",
    "<!DOCTYPE xml>]]>",
    "<N><![CDATA[",
    "]]></N><MsgId>24801004976846051</MsgId></xml>",
    "<xml><N><![CDATA[a]]></N><MsgId>24801004976846051</MsgId></xml>",
]


def node(name, text):
    return f"<{name}><![CDATA[{text}]]></{name}>"


def document(*nodes, **changes):
    """The push in WeChat's order of nodes, with these behind those that each has."""
    head = "".join(f"<{name}>{value}</{name}>" for name, value in {**HEAD, **changes}.items())
    return f"<xml>{head}{''.join(nodes)}</xml>"


def message(*nodes, **changes):
    return parse(document(*nodes, **changes).encode())


def cleaned(text):
    return text.replace("\x1d", "")


# What WeChat sends where a user fills a field: the path to it, and the document with `TYPED` in it
PLACES = {
    "Content": document("TYPED", "<MsgId>7</MsgId>", node("UnionId", "o")),
    "Label": document("<Scale>15</Scale>", "TYPED", "<MsgId>7</MsgId>", MsgType="location"),
    "Recognition": document(node("MediaId", "m"), "<MsgId>7</MsgId>", "TYPED", MsgType="voice"),
    "Title": document("<MsgId>7</MsgId>", "TYPED", node("AppId", "wx"), MsgType="miniprogrampage"),
    "Description": document(node("FileKey", "k"), "TYPED", "<MsgId>7</MsgId>", MsgType="file"),
    "FileName": document("TYPED", node("FileKey", "k"), "<MsgId>7</MsgId>", MsgType="file"),
    "ScanCodeInfo ScanResult": document(
        node("Event", "scancode_waitmsg"),
        node("EventKey", "k"),
        f"<ScanCodeInfo>{node('ScanType', 'qrcode')}TYPED</ScanCodeInfo>",
        MsgType="<![CDATA[event]]>",
    ),
    "SendLocationInfo Poiname": document(
        node("Event", "location_select"),
        node("EventKey", "k"),
        f"<SendLocationInfo>{node('Scale', '15')}TYPED</SendLocationInfo>",
        MsgType="<![CDATA[event]]>",
    ),
}


@pytest.mark.parametrize("typed", TYPED)
@pytest.mark.parametrize("place", PLACES)
def test_each_field_holds_what_was_typed_and_every_other_one_what_it_held_before(place, typed):
    name = place.split()[-1]
    typed = typed.replace("N>", f"{name}>").replace("N >", f"{name} >")
    expected = parse(PLACES[place].replace("TYPED", node(name, "harmless")).encode())
    came = parse(PLACES[place].replace("TYPED", node(name, typed)).encode())
    holder, there = came, expected
    for inner in place.split()[:-1]:
        holder, there = holder[inner], there[inner]
    assert holder[name] == cleaned(typed)
    there[name] = cleaned(typed)
    assert came == expected


@pytest.mark.parametrize("typed", TYPED)
@pytest.mark.parametrize("platform", [PLAIN, COMPAT, SAFE], ids=lambda platform: platform.mode)
def test_the_handler_sees_what_was_typed_in_every_mode(make_account, platform, typed):
    typed = typed.replace("N>", "Content>").replace("N >", "Content >")
    seen = '@on("text")\ndef seen(msg): return repr(msg.Content)\n@on("event")\ndef other(msg): return "an event"\n'
    _, reply = make_account(seen, platform=platform).deliver(text_message(typed))
    assert read_fields(reply.encode()).Content == repr(cleaned(typed))


UNKNOWN = [
    ("a]]>b", "a]]>b"),
    (f"a]]></Wish>{EVENT}<Wish><![CDATA[b", f"a]]></Wish>{EVENT}<Wish><![CDATA[b"),
    ("a]]></Wish><!-- --><Wish><![CDATA[b", "a]]></Wish><!-- --><Wish><![CDATA[b"),
    ("a]]></Wish><Wish><![CDATA[b", ["a", "b"]),  # a list may look like that
]


@pytest.mark.parametrize(("typed", "expected"), UNKNOWN)
def test_a_field_that_nobody_knows_may_be_typed_too(typed, expected):
    came = message("<MsgId>7</MsgId>", node("Wish", typed), node("Other", "x"), MsgType="wish")
    assert came.Wish == expected
    assert list(came) == [*HEAD, "MsgId", "Wish", "Other"]


def test_the_order_of_the_nodes_does_not_matter():
    typed = f"a]]></Content>{EVENT}<MsgId>1</MsgId><Content><![CDATA[b"
    fields = {**HEAD, "MsgId": "7", "Content": f"<![CDATA[{typed}]]>"}
    for order in itertools.permutations(fields):
        came = parse(f"<xml>{''.join(f'<{name}>{fields[name]}</{name}>' for name in order)}</xml>".encode())
        assert list(came) == list(order)
        assert (came.Content, came.MsgType, came.MsgId) == (typed, "text", "7")


def test_two_fields_may_both_hold_markup():
    title, description = f"]]>{EVENT}", "]]></Description><Event>CLICK</Event><Description><![CDATA["
    came = message(node("Title", title), node("Description", description), "<MsgId>7</MsgId>", MsgType="link")
    assert (came.Title, came.Description, came.MsgId) == (title, description, "7")
    assert "Event" not in came


def test_an_event_that_is_typed_in_a_link_is_none_of_wechats():
    title = "a]]></Title><Event>CLICK</Event><Description><![CDATA[b"
    came = message(node("Title", title), node("Description", "d"), "<MsgId>7</MsgId>", MsgType="link")
    assert (came.Title, came.Description) == (title, "d")
    assert "Event" not in came


def test_a_whole_message_that_is_pasted_into_a_link_stays_there():
    shared = document(node("Title", "t"), node("Description", "d"), "<MsgId>7</MsgId>", MsgType="link")
    for name in ("Title", "Description"):
        nodes = [node(each, shared if each == name else "x") for each in ("Title", "Description")]
        came = message(*nodes, "<MsgId>8</MsgId>", MsgType="link")
        assert came[name] == shared
        assert came.MsgId == "8"


def test_where_it_cannot_be_known_which_msgid_is_wechats_the_push_is_refused(make_account, log):
    """Both fields as they are, or a Description that holds the second MsgId: the bytes are the same."""
    title = node("Title", "a]]></Title><MsgId>1</MsgId><Description><![CDATA[secret words")
    nodes = (title, "<MsgId>7</MsgId>", node("Description", "d"))
    with pytest.raises(Unreadable):
        message(*nodes, MsgType="link")
    assert make_account("").post(document(*nodes, MsgType="link")).status_code == 400
    assert "changed who answers" in log.text
    assert "secret words" not in log.text


def test_two_texts_that_give_the_same_bytes_are_told_apart_by_a_rule():
    """Of the fields that may hold the `]]>` it is the first."""
    nodes = node("Title", "a]]></Title><Description><![CDATA[b") + node("Description", "c")
    assert nodes == node("Title", "a") + node("Description", "b]]></Title><Description><![CDATA[c")
    came = message(nodes, "<MsgId>7</MsgId>", MsgType="link")
    assert (came.Title, came.Description) == ("a]]></Title><Description><![CDATA[b", "c")


def test_a_comment_between_two_fields_hides_nothing():
    came = message(
        node("Title", "a]]></Title><!--"),
        "<MsgId>7</MsgId>",
        node("Description", "--><Description><![CDATA[b"),
        MsgType="link",
    )
    assert came.MsgId == "7"
    assert came.Title == "a]]></Title><!--"


def test_a_list_stays_a_list_beside_a_text_with_markup():
    pictures = f"<PicList><item>{node('A', 1)}</item><item>{node('A', 2)}</item></PicList>"
    came = message(pictures, node("New", 1), node("New", 2), node("Content", "a]]>b"), "<MsgId>7</MsgId>")
    assert [item.A for item in came.PicList.item] == ["1", "2"]
    assert came.New == ["1", "2"]
    assert came.Content == "a]]>b"


def test_a_reply_of_ours_is_read_as_xml_is():
    """It splits a `]]>`, and WeChat puts the text together."""
    reply = document(node("Content", "a]]]]><![CDATA[>b"))
    assert read_fields(reply.encode()).Content == "a]]>b"


def test_without_a_msgid_too_nothing_that_is_typed_adds_one():
    for typed in (
        "a]]></Label><MsgId>1</MsgId><Label><![CDATA[b",
        "]]]]><![CDATA[>]]></Label><MsgId>1</MsgId><Label><![CDATA[",
    ):
        came = message(node("Label", typed), MsgType="location")
        assert "MsgId" not in came
        assert came.Label == typed


@pytest.mark.parametrize("file", MESSAGES, ids=lambda file: file.stem)
def test_what_wechat_is_known_to_send_is_read_as_xml_is(file):
    text = cleaned(file.read_text("utf-8"))
    assert (mend(text) == text) == (file.stem != "text_hard_characters")


def calls_in(function, *arguments):
    """The files of all Python functions that run."""
    files = []
    sys.setprofile(lambda frame, event, _: files.append(frame.f_code.co_filename) if event == "call" else None)
    try:
        function(*arguments)
    finally:
        sys.setprofile(None)
    return files


@pytest.mark.parametrize("typed", ["你好", "<b>&lt;", "<!-- a -->", "<?php ?>", "]] >", "<![CDATA["])
def test_a_text_without_the_end_of_a_cdata_section_is_read_once(typed):
    content = document(node("Content", typed), "<MsgId>7</MsgId>").encode()
    parse(content)
    files = calls_in(parse, content)
    assert module.__file__ not in files
    assert len(files) < 8


def seconds(body):
    started = time.process_time()
    with contextlib.suppress(Unreadable):
        parse(body.encode())
    return time.process_time() - started


HOSTILE = {
    "ends of one text": node("Content", "]]></Content>" * 19_000),
    "ends of two texts": node("Title", "]]></Title>" * 11_000) + node("Description", "]]></Description>" * 7_000),
    "beginnings too": node("Title", "]]></Title><Description><![CDATA[" * 7_500) + node("Description", "]]>"),
    "ends of unknown texts": node("A", "]]></A>" * 18_000) + node("B", "]]></B>" * 17_000),
    "names": "".join(node(f"a{number}", "]]>") for number in range(7_500)),
    "nodes": "<a/>" * 60_000 + node("Content", "]]>"),
    "levels": "<a>" * 80_000 + "]]>",
    "blanks": node("Title", "]]></Title>" + " " * 120_000) + node("Description", "]]>" + " " * 120_000),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_somebody_types_costs_no_more_than_a_few_documents_of_its_length(name):
    body = document(HOSTILE[name], "<MsgId>7</MsgId>")
    peer = document("".join(f"<a{number}/>" for number in range(len(body) // 9)), "<MsgId>7</MsgId>")
    assert min(seconds(body) for _ in range(3)) < 20 * min(seconds(peer) for _ in range(3))


@given(st.binary(max_size=60))
def test_any_markup_comes_as_it_was_typed(data):
    fuzz.check(data)
