"""What users type, made of every kind of markup, in documents whose nodes stand in any order: it arrives as typed.

The first byte says which kind of message it is, the second in which order its nodes stand. Each other byte is a piece
of what is typed, markup or a character; 255 goes on to the next field.
"""

import re
from base64 import b64encode
from random import Random

from tests.fuzz.envelope import AES_KEY, APPID, COMPAT, RANDOM, query_for
from wechat.errors import Unreadable
from wechat.message import LISTS, Message, without_forbidden
from wechat.protocol.envelope import Cipher
from wechat.protocol.parser import parse
from wechat.protocol.typed import CONTROL, FILLED

COMMON = {"ToUserName": "gh_account", "FromUserName": "o_user", "CreateTime": "1714037059"}
NUMBERS = ("CreateTime", "MsgId", "Scale", "FileTotalLen", "RetryTimes")
EVENT = {"MsgType": "event", "Event": "scancode_waitmsg", "EventKey": "scan"}
PLACE = {"Location_X": "31.23", "Scale": "15", "Label": None, "Poiname": None}
PICTURES = {"Count": "2", "PicList": {"item": [{"PicMd5Sum": "a"}, {"PicMd5Sum": "b"}]}}

# None is what a user types; the order is that of WeChat's documentation.
KINDS = (
    {"MsgType": "text", "Content": None, "MsgId": "71", "UnionId": "o_union", "bizmsgmenuid": "101"},
    {"MsgType": "voice", "MediaId": "m", "Format": "amr", "MsgId": "71", "MediaId16K": "m16", "Recognition": None},
    {"MsgType": "location", "Location_X": "31.23", "Scale": "15", "Label": None, "MsgId": "71"},
    {"MsgType": "file", "Title": None, "Description": "2 KB", "FileTotalLen": "5", "MsgId": "71"},
    {"MsgType": "link", "Title": None, "Description": None, "Url": "https://example.com/", "MsgId": "71"},
    {"MsgType": "miniprogrampage", "MsgId": "71", "Title": None, "AppId": "wx1", "PagePath": "pages/index"},
    {"MsgType": "wish", "MsgId": "71", "Wish": None, "New": ["a", "b"]},
    {**EVENT, "ScanCodeInfo": {"ScanType": "qrcode", "ScanResult": None}},
    {**EVENT, "Event": "pic_weixin", "SendPicsInfo": PICTURES, "Label": None},
    {**EVENT, "Event": "location_select", "SendLocationInfo": PLACE},
    {"MsgType": "event", "Event": "submit_invoice_title", "title": None, "phone": None, "title_type": "t"},
)
OTHERS = ("Content", "Title", "Description", "Label", "ScanResult", "Foo", "item", "xml")
NAMES = (*COMMON, "MsgType", "Event", "EventKey", "MsgId", *OTHERS)
MARKUP = (
    *("]]>", "]]", "]", ">", "<", "<![CDATA[", "]]]]><![CDATA[>", "<!--", "-->", "<?", "?>", "<!DOCTYPE", "&lt;", "&"),
    *("\n", "\r", "\x1d", " ", "</", "/>", '="', "你好", "😀", "event", "71", "CLICK"),
    *(form.replace("N", name) for name in NAMES for form in ("<N>", "</N>", "<N><![CDATA[", "]]></N>", "<N>1</N>")),
)
MOST = 200  # pieces; more are only slower
WHOLE, REST, NEXT = 253, 254, 255  # the whole document, what follows the field in it, and the next field


def check(data):
    """Raises where a message is not what was typed, or what was typed changes who answers."""
    kind, order = KINDS[data[0] % len(KINDS)] if data else KINDS[0], data[1] if data[1:] else 0
    fields = shuffled({**COMMON, **kind}, Random(order) if order else None)
    slots = slots_in(fields)
    texts = dict(zip(slots, data[2 : MOST + 2].split(bytes([NEXT]), len(slots) - 1), strict=False))
    typed = {name: typed_by(texts.get(name, b""), fields, name) for name in slots}
    document = written(filled(fields, typed))
    check_message(document, filled(fields, {name: as_parsed(text) for name, text in typed.items()}))
    check_compat(document, filled(fields, typed), order)


def check_message(document, fields):
    message, expected = message_in(document), as_message(fields)
    filled_names = [name for name in names_in(fields) if name in FILLED]
    if message is None:
        assert may_be_refused(document, fields, filled_names), "refused"
        return
    for name in CONTROL:
        assert message.get(name) == expected.get(name), name
    if len(filled_names) == 1:
        assert message == expected, "not what was typed"
    else:  # other texts in two fields may make the same bytes; then others come out
        assert re.fullmatch(pattern("xml", message), as_parsed(document)), "not what WeChat can have meant"


def may_be_refused(document, fields, filled_names):
    """Whether what was typed can make several documents of one: in some of them WeChat's own nodes would differ."""
    around = [index for index, value in enumerate(fields.values()) if not FILLED.isdisjoint(names_in(value))]
    around += [index for index, name in enumerate(fields) if name in FILLED or name == "Wish"]
    between = list(fields)[min(around) : max(around)]
    is_open = not set(CONTROL).isdisjoint(between) or ("Event" in fields and "EventKey" not in fields)
    return len(filled_names) != 1 and (is_open or len(document) > 1_000)


def names_in(value):
    """The names of all nodes inside."""
    return [inner for name in value for inner in (name, *names_in(value[name]))] if isinstance(value, dict) else []


def check_compat(document, fields, order):
    """No node that somebody types is taken for WeChat's `Encrypt`, wherever that stands."""
    encrypted = b64encode(Cipher(AES_KEY).seal(document.encode(), APPID.encode(), RANDOM)).decode()
    body = written(shuffled({**fields, "Encrypt": encrypted}, Random(order)))
    assert COMPAT.open(body.encode(), query_for(encrypted))[0] == document.encode()


def shuffled(fields, chance):
    """The fields in another order, where there is a chance; those inside them too."""
    names = list(fields)
    if chance:
        chance.shuffle(names)
    return {name: shuffled(fields[name], chance) if isinstance(fields[name], dict) else fields[name] for name in names}


def slots_in(fields):
    """The names of the fields that a user fills."""
    inner = [name for value in fields.values() if isinstance(value, dict) for name in slots_in(value)]
    return [*inner, *(name for name, value in fields.items() if value is None)]


def filled(fields, typed):
    """The fields with what was typed."""
    return {
        name: filled(value, typed) if isinstance(value, dict) else typed[name] if value is None else value
        for name, value in fields.items()
    }


def typed_by(data, fields, name):
    """The text that the bytes stand for, in the field of that name."""
    honest = written(filled(fields, dict.fromkeys(slots_in(fields), "x")))
    rest = honest.partition(f"<{name}><![CDATA[x")[2]
    pieces = {WHOLE: honest, REST: rest, **dict(enumerate(MARKUP))}
    return "".join(pieces.get(byte, chr(byte)) for byte in data)


def written(value, name="xml"):
    """The node as WeChat writes it: nothing that was typed is split or escaped."""
    if isinstance(value, list):
        return "".join(written(each, name) for each in value)
    if isinstance(value, dict):
        return f"<{name}>{''.join(written(inner, key) for key, inner in value.items())}</{name}>"
    return f"<{name}>{value}</{name}>" if name in NUMBERS else f"<{name}><![CDATA[{value}]]></{name}>"


def as_parsed(text):
    """The text without what XML forbids, and with the line breaks that it makes of others."""
    return without_forbidden(text).replace("\r\n", "\n").replace("\r", "\n")


def as_message(value, name=""):
    """The value as a message holds it."""
    if isinstance(value, dict):
        return Message({key: as_message(inner, key) for key, inner in value.items()})
    values = [as_message(each) for each in value] if isinstance(value, list) else value
    return [values] if name in LISTS and not isinstance(values, list) else values


def pattern(name, value):
    """What stands in a document from which the value is read."""
    if isinstance(value, list):
        return "".join(pattern(name, each) for each in value)
    if isinstance(value, Message):
        inside = "".join(pattern(key, inner) for key, inner in value.items())
        return rf"\s*<{name}>{inside}\s*</{name}>"
    plain = re.escape(value.replace("&", "&amp;").replace("<", "&lt;"))
    return rf"\s*(?:<{name}><!\[CDATA\[{re.escape(value)}\]\]></{name}>|<{name}>{plain}</{name}>|<{name}/>)"


def message_in(document):
    """The message, or None where it is refused."""
    try:
        return parse(document.encode())
    except Unreadable:
        return None
