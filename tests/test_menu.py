import copy
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import ROOT
from wechat.platform.menu import menu_faults, read_menu

MENU = json.loads((ROOT / "handlers/menu.json").read_text("utf-8"))


def faults(*path, **fields):
    """The faults of the menu that ships, with some fields of one button changed."""
    menu = copy.deepcopy(MENU)
    button = menu["button"][path[0]]
    button = button["sub_button"][path[1]] if len(path) > 1 else button
    button.update(fields)
    return menu_faults(menu)


def test_the_menu_that_ships_is_taken():
    assert menu_faults(MENU) == []


@pytest.mark.parametrize("size", [16, 17])
def test_a_top_name_has_16_bytes(size):
    expected = [] if size == 16 else ["button 3: name has 17 bytes, 1 to 16 are taken"]
    assert faults(2, name="n" * size) == expected


def test_names_are_counted_in_bytes():
    assert faults(2, name="查" * 5) == []
    assert faults(2, name="查" * 6) == ["button 3: name has 18 bytes, 1 to 16 are taken"]
    assert faults(0, 1, name="查" * 21) == ["button 1.2: name has 63 bytes, 1 to 60 are taken"]


@pytest.mark.parametrize(
    ("fields", "fault"),
    [
        ({"key": "k" * 129}, "button 1.1: key has 129 bytes, 128 are taken"),
        ({"key": ""}, "button 1.1: a button of type click needs key"),
        ({"key": 5}, "button 1.1: a button of type click needs key"),
        ({"type": "view"}, "button 1.1: a button of type view needs url"),
        ({"type": "view", "url": "u" * 1025}, "button 1.1: url has 1025 bytes, 1024 are taken"),
        ({"type": "miniprogram", "url": "u", "appid": "a"}, "button 1.1: a button of type miniprogram needs pagepath"),
        ({"sub_button": [{"name": "x"}]}, "button 1.1: a menu has two levels"),
        ({"name": ""}, "button 1.1: name has 0 bytes, 1 to 60 are taken"),
    ],
)
def test_a_fault_names_its_button(fields, fault):
    assert faults(0, 0, **fields) == [fault]


def test_an_unknown_type_is_told_the_known_ones():
    (fault,) = faults(2, type="press")
    assert fault.startswith("button 3: type is 'press': it takes one of click, ")


def test_a_button_has_a_type_or_sub_buttons():
    assert faults(0, type="click") == ["button 1: has both a type and sub-buttons: one has to go"]


@pytest.mark.parametrize("count", [0, 4])
def test_a_menu_has_one_to_three_buttons(count):
    assert menu_faults({"button": MENU["button"][2:] * count}) == ["the menu: `button` takes a list of 1 to 3 buttons"]


def test_a_button_has_at_most_five_sub_buttons():
    subs = MENU["button"][0]["sub_button"]
    assert faults(0, sub_button=subs[:1] * 5) == []
    assert faults(0, sub_button=subs[:1] * 6) == ["button 1: `sub_button` takes a list of 1 to 5 buttons"]


FIELDS = st.sampled_from(["type", "name", "key", "sub_button"])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=6) | st.dictionaries(st.sampled_from(["type", "name", "key", "sub_button"]), inner)
    ),
    max_leaves=15,
)


@given(JSON)
def test_any_json_is_checked_without_an_error(value):
    for menu in (value, {"button": value}, {"button": [value]}, {"button": [{"sub_button": [value]}]}):
        assert isinstance(menu_faults(menu), list)


NAMED = '{"button": [{"type": "click", "name": "查书", "key": "BOOKS"}]}'


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_a_menu_is_read_with_and_without_a_byte_order_mark(tmp_path, encoding):
    file = tmp_path / "menu.json"
    file.write_text(NAMED, encoding)
    assert read_menu(file) == json.loads(NAMED)


def test_a_menu_is_read_as_menu_get_prints_it(tmp_path):
    file = tmp_path / "menu.json"
    file.write_text(f'{{"menu": {NAMED}, "conditionalmenu": []}}', "utf-8")
    assert read_menu(file) == json.loads(NAMED)


@pytest.mark.parametrize("encoding", ["gbk", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
@pytest.mark.parametrize("text", [NAMED, NAMED.replace("查书", "books")], ids=["chinese", "ascii"])
def test_a_menu_in_another_encoding_is_told_the_right_one(tmp_path, encoding, text):
    file = tmp_path / "menu.json"
    file.write_text(text, encoding)
    if text.isascii() and encoding == "gbk":
        assert read_menu(file) == json.loads(text)
    else:
        with pytest.raises(ValueError, match=r"^it is not UTF-8: save it as UTF-8$"):
            read_menu(file)


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, "9" * 5000])
def test_what_is_no_json_is_one_line(tmp_path, text):
    file = tmp_path / "menu.json"
    file.write_text(text)
    with pytest.raises(ValueError, match=r"^it is not JSON: .+$"):
        read_menu(file)
