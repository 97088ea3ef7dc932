"""What the account that ships says: every handler in `handlers/`, asked the way WeChat asks."""

import csv
import json
import sys
import time

import pytest
from conftest import ROOT, TOKEN, nodes
from hypothesis import assume, given
from hypothesis import strategies as st

from sandbox.messages import ACCOUNT, USER
from wechat.message import Message
from wechat.reply import cdata
from wxserver import make_application

ROWS = list(csv.DictReader((ROOT / "handlers/books.csv").read_text("utf-8").splitlines()))
BAD_ISBN = "这个 ISBN 的校验位不对，请核对书背面的 10 位或 13 位数字。"
NOTHING = "没有找到“{}”。\n试试书名的一部分、作者的名字，或者书背面的 ISBN。"
NOT_A_BOOK = "这不是图书条码，请扫描书背面以 978 或 979 开头的条码。"
UNBOUND = "发送“绑定 学号”绑定账号，例如：绑定 2026010203"
BOUND = "你绑定的学号是 2026010203。发送“解绑”解除绑定。"
BAD_NUMBER = "学号由 4 到 20 位数字或字母组成。\n" + UNBOUND
NOT_HEARD = "没有听清，请再说一遍，或者发送文字。"
THREE_BODY = "9787536692930"
NINE_DIGITS = st.text("0123456789", min_size=9, max_size=9)


def shipped(module):
    """A module of the handlers, as the account that was made last has loaded it."""
    return sys.modules[f"handlers.{module}"]


def said(reply):
    """What the user reads; the time and the names of both sides left out."""
    return {name: value for name, value in reply.items() if name not in ("CreateTime", "ToUserName", "FromUserName")}


def isbn10_of(nine):
    """The ISBN-10 that begins with these nine digits, by the rule in ISO 2108:1992."""
    check = -sum(int(digit) * weight for digit, weight in zip(nine, range(10, 1, -1), strict=True)) % 11
    return nine + ("X" if check == 10 else str(check))


def isbn13_of(twelve):
    """The ISBN-13 that begins with these twelve digits."""
    threes, ones = sum(map(int, twelve[1::2])), sum(map(int, twelve[::2]))
    return twelve + str(-(threes * 3 + ones) % 10)


def scan_message(result):
    """The push after somebody scanned a code with the button BOOKS_SCAN."""
    return (
        f"<xml><ToUserName>{ACCOUNT}</ToUserName><FromUserName>{USER}</FromUserName>"
        "<CreateTime>1714037262</CreateTime><MsgType>event</MsgType><Event>scancode_waitmsg</Event>"
        "<EventKey>BOOKS_SCAN</EventKey><ScanCodeInfo><ScanType>barcode</ScanType>"
        f"<ScanResult>{cdata(result)}</ScanResult></ScanCodeInfo></xml>"
    )


def voice(account, **more):
    return account.push(MsgType="voice", MediaId="voice-1", Format="amr", MsgId="24809004976909403", **more)


def menu_keys():
    """The (type, key) of each button in menu.json that has a key."""
    menu = json.loads((ROOT / "handlers/menu.json").read_text("utf-8"))
    buttons = [inner for button in menu["button"] for inner in button.get("sub_button", [button])]
    return [(button["type"], button["key"]) for button in buttons if "key" in button]


@pytest.fixture(scope="module")
def isbn13():
    make_application({"WECHAT_TOKEN": TOKEN})
    return shipped("_book_sources").isbn13


# Books


@pytest.mark.parametrize(
    "text",
    [
        "9787536692930",
        "978-7-5366-9293-0",
        "978 7 5366 9293 0",
        "7536692935",
        "7-5366-9293-5",
        "ISBN 978-7-5366-9293-0",
        "isbn:7536692935",
        "ISBN：9787536692930",
        "  9787536692930\n",
    ],
)
def test_an_isbn_finds_the_same_book_however_it_is_written(account, text):
    assert account.say(text)["Title"] == "三体"


@pytest.mark.parametrize("text", ["750636543X", "7-5063-6543-x", "9787506365437", "978-7-5063-6543-7"])
def test_an_isbn_that_ends_in_x_finds_the_book(account, text):
    assert account.say(text)["Title"] == "活着"


def test_a_book_comes_as_one_article_with_its_facts_cover_and_page(account):
    reply = account.say(THREE_BODY)
    assert reply["MsgType"] == "news"
    assert reply["ArticleCount"] == "1"
    assert reply["articles"] == [
        {
            "Title": "三体",
            "Description": "作者：刘慈欣\n出版：重庆出版社 2008-01\n定价：23.00元\n评分：8.8\nISBN：9787536692930",
            "PicUrl": "https://covers.openlibrary.org/b/isbn/9787536692930-M.jpg",
            "Url": "https://book.douban.com/isbn/9787536692930/",
        }
    ]


def test_a_fact_that_is_unknown_has_no_line(account):
    reply = account.say("球状闪电")
    assert "定价" in reply["Description"]
    assert "评分" not in reply["Description"]


def test_several_authors_are_all_named(account):
    assert "作者：曹雪芹、高鹗\n" in account.say("红楼梦")["Description"]


@pytest.mark.parametrize("text", ["9787536692931", "7536692930", "753669293X", "ISBN 978-7-5366-9293-9"])
def test_a_wrong_check_digit_is_named(account, text):
    assert account.say(text)["Content"] == BAD_ISBN


def test_a_good_isbn_of_a_book_that_is_not_there_says_what_to_try(account):
    assert account.say("0-8044-2957-X")["Content"] == NOTHING.format("9780804429573")


def test_words_that_find_nothing_say_what_to_try(account):
    assert account.say("没有这本书")["Content"] == NOTHING.format("没有这本书")


@pytest.mark.parametrize("text", ["", "   ", "《》"])
def test_a_text_without_words_is_told_what_to_send(account, text):
    assert account.say(text)["Content"] == "发送书名、作者或 ISBN 查书。"


def test_nothing_found_quotes_no_more_than_a_hundred_characters(account):
    assert account.say("无" * 5000)["Content"] == NOTHING.format("无" * 100)


def test_several_hits_are_one_article_with_the_others_as_lines(account):
    reply = account.say("三体")
    assert [article["Title"] for article in reply["articles"]] == ["三体"]
    assert reply["Description"].partition("\n\n还找到：\n")[2].split("\n") == [
        "《三体Ⅱ·黑暗森林》刘慈欣 9787536693968",
        "《三体Ⅲ·死神永生》刘慈欣 9787229030933",
    ]


def test_the_title_that_is_closest_comes_first(account):
    assert account.say("三体II")["Title"] == "三体Ⅱ·黑暗森林"
    assert account.say("Code")["Title"] == "Code: The Hidden Language of Computer Hardware and Software"


def test_no_answer_has_more_than_six_books(account):
    lines = account.say("a")["Description"].partition("还找到：\n")[2].split("\n")
    assert len(lines) == 5


@pytest.mark.parametrize("text", ["数学之美", "《数学之美》", "数学 吴军", "吴军 之美", "数学，之美"])
def test_words_find_the_book_in_any_order_and_with_any_punctuation(account, text):
    assert account.say(text)["Title"] == "数学之美"


@pytest.mark.parametrize("text", ["流畅的python", "流畅的PYTHON", "流畅的Ｐｙｔｈｏｎ", "luciano ramalho"])
def test_letters_count_the_same_in_either_case_and_width(account, text):
    assert account.say(text)["Title"] == "流畅的Python"


def test_four_digits_are_a_title_and_no_isbn(account):
    assert account.say("1984")["Title"] == "1984"


@pytest.mark.parametrize("row", ROWS, ids=[row["isbn"] for row in ROWS])
def test_every_book_of_the_list_is_found_by_its_isbn_and_by_its_title(account, row):
    for text in (row["isbn"], row["title"], f"《{row['title']}》"):
        reply = account.say(text)
        assert reply["Title"] == row["title"]
        assert f"ISBN：{row['isbn']}" in reply["Description"].split("\n")


@pytest.mark.parametrize("row", ROWS, ids=[row["isbn"] for row in ROWS])
def test_every_book_of_the_list_is_found_by_its_isbn_10(account, row):
    assert account.say(isbn10_of(row["isbn"][3:12]))["Title"] == row["title"]


# isbn13


@given(NINE_DIGITS)
def test_any_isbn_10_becomes_the_isbn_13_of_the_same_book(isbn13, nine):
    assert isbn13(isbn10_of(nine)) == isbn13_of("978" + nine)


@given(NINE_DIGITS, st.sampled_from(["978", "979"]))
def test_any_isbn_13_stays_what_it_is(isbn13, nine, prefix):
    isbn = isbn13_of(prefix + nine)
    assert isbn13(isbn) == isbn


@given(NINE_DIGITS, st.lists(st.sampled_from(["", "-", " ", "--"]), min_size=10, max_size=10))
def test_hyphens_and_blanks_change_no_isbn(isbn13, nine, gaps):
    written = "".join(digit + gap for digit, gap in zip(isbn10_of(nine), gaps, strict=True))
    assert isbn13(written) == isbn13_of("978" + nine)
    assert isbn13("ISBN " + written.lower()) == isbn13_of("978" + nine)


@given(NINE_DIGITS, st.integers(0, 9), st.sampled_from("0123456789X"))
def test_any_single_wrong_digit_of_an_isbn_10_is_refused(isbn13, nine, place, wrong):
    isbn = isbn10_of(nine)
    assume(wrong != isbn[place])
    assert isbn13(isbn[:place] + wrong + isbn[place + 1 :]) is None


@given(NINE_DIGITS, st.integers(0, 12), st.sampled_from("0123456789X"))
def test_any_single_wrong_digit_of_an_isbn_13_is_refused(isbn13, nine, place, wrong):
    isbn = isbn13_of("978" + nine)
    assume(wrong != isbn[place])
    assert isbn13(isbn[:place] + wrong + isbn[place + 1 :]) is None


@pytest.mark.parametrize("text", ["", "123", "X536692935", "97875366929X0", "9777536692930", "97875366929301"])
def test_what_has_not_the_form_of_an_isbn_is_none(isbn13, text):
    assert isbn13(text) is None


# Welcome and help


@pytest.mark.parametrize("text", ["帮助", "help", "HELP", "Help", "?", "？", " 帮助 \n"])
def test_help_is_given_by_each_of_its_names(account, text):
    assert account.say(text)["Content"] == shipped("welcome").HELP


def test_help_names_what_the_account_can_do(account):
    content = account.say("帮助")["Content"]
    assert all(word in content for word in ("书名", "作者", "ISBN", "绑定 学号", "解绑", "帮助"))


@pytest.mark.parametrize("key", ["", "last_trade_no_4200001234"])
def test_a_new_follower_is_welcomed_with_help(account, key):
    content = account.event("subscribe", key)["Content"]
    assert content == "欢迎关注！\n\n" + shipped("welcome").HELP


def test_a_new_follower_by_a_scene_is_welcomed_with_the_scene(account):
    content = account.event("subscribe", "qrscene_spring_poster")["Content"]
    assert content == shipped("welcome").WELCOME + "\n\n你扫描的场景是：spring_poster"


def test_a_new_follower_by_the_scene_of_a_book_gets_the_book(account):
    assert account.event("subscribe", "qrscene_" + THREE_BODY)["Title"] == "三体"


def test_a_new_follower_by_the_scene_of_no_book_is_welcomed_all_the_same(account):
    content = account.event("subscribe", "qrscene_9787536692931")["Content"]
    assert content == "欢迎关注！发送“帮助”看看我会什么。\n\n" + BAD_ISBN


def test_a_follower_who_scans_is_told_the_scene(account):
    assert account.event("SCAN", "spring_poster")["Content"] == "你扫描的场景是：spring_poster"


@pytest.mark.parametrize("scene", ["9787536692930", "978-7-5366-9293-0"])
def test_a_follower_who_scans_the_sticker_of_a_book_gets_the_book(account, scene):
    assert account.event("SCAN", scene)["Title"] == "三体"


def test_a_numeric_scene_of_ten_digits_is_no_isbn(account):
    """WeChat's own numeric scenes go up to 4294967295."""
    assert account.event("SCAN", "4294967295")["Content"] == "你扫描的场景是：4294967295"


def test_unsubscribe_is_silent_and_forgets_the_binding(account):
    account.say("绑定 2026010203")
    assert account.event("unsubscribe") == {}
    assert account.say("绑定")["Content"] == UNBOUND


def test_unsubscribe_is_silent_for_a_follower_who_never_bound(account):
    assert account.event("unsubscribe") == {}


# Account


@pytest.mark.parametrize("text", ["绑定 2026010203", "绑定2026010203", "绑定\u30002026010203", "绑定\n2026010203"])
def test_a_follower_binds_a_student_number(account, text):
    assert account.say(text)["Content"] == "已绑定学号 2026010203。发送“解绑”解除绑定。"
    assert account.say("绑定")["Content"] == BOUND


@pytest.mark.parametrize("number", ["abc4", "A" * 20])
def test_the_shortest_and_the_longest_number_are_taken(account, number):
    assert account.say("绑定 " + number)["Content"].startswith(f"已绑定学号 {number}。")


@pytest.mark.parametrize("number", ["123", "1" * 21, "2026-0102", "2026 0102", "二〇二六", "２０２６０１０２"])
def test_a_wrong_number_is_refused_and_binds_nothing(account, number):
    assert account.say("绑定 " + number)["Content"] == BAD_NUMBER
    assert account.say("绑定")["Content"] == UNBOUND


@pytest.mark.parametrize("blank", [" ", "。", "，", "\u3000", " x"])
def test_a_quarter_of_a_megabyte_of_blanks_holds_up_nobody(account, blank):
    """The pattern that looked for the end of a number took minutes for it, and all other messages waited."""
    started = time.process_time()
    for text in ("绑定", "绑定x"):
        assert account.say(text + blank * (80_000 // len(blank)) + "x")["Content"] == BAD_NUMBER
    assert time.process_time() - started < 2


def test_a_wrong_number_leaves_the_one_before(account):
    account.say("绑定 2026010203")
    account.say("绑定 123")
    assert account.say("绑定")["Content"] == BOUND


def test_binding_again_takes_the_new_number(account):
    account.say("绑定 1999")
    account.say("绑定 2026010203")
    assert account.say("绑定")["Content"] == BOUND


def test_unbinding_names_the_number_and_forgets_it(account):
    account.say("绑定 2026010203")
    assert account.say("解绑")["Content"] == "已解除与学号 2026010203 的绑定。"
    assert account.say("解绑")["Content"] == "你还没有绑定学号。\n" + UNBOUND


def test_each_follower_has_a_number_of_his_own(account):
    account.say("绑定 2026010203")
    other = account.push(MsgType="text", Content="绑定", FromUserName="oSomebodyElse")
    assert other["Content"] == UNBOUND


# Menu


@pytest.mark.parametrize(("kind", "key"), menu_keys())
def test_every_key_of_the_menu_has_a_handler_of_its_own(account, kind, key):
    event = "CLICK" if kind == "click" else kind
    found = account.app.delivery._answering.router.find(Message({"MsgType": "event", "Event": event, "EventKey": key}))
    assert len(found.handler.path) == 3
    assert found.handler.name.startswith("handlers.menu.")


@pytest.mark.parametrize("key", [key for kind, key in menu_keys() if kind == "click"])
def test_every_key_of_the_menu_is_answered(account, key):
    assert account.event("CLICK", key)["Content"]


def test_the_guide_to_books_is_help(account):
    assert account.event("CLICK", "BOOKS_GUIDE")["Content"] == shipped("welcome").HELP


def test_an_activity_is_booked_by_the_number_in_its_key(account):
    content = account.event("CLICK", "BOOKING_ACTIVITY_7")["Content"]
    assert content == "已为你登记活动 7。开始前请凭学号签到。"


@pytest.mark.parametrize(
    "key", ["BOOKING_ACTIVITY_", "BOOKING_ACTIVITY_x", "BOOKING_ACTIVITY_7_8", "booking_activity_7"]
)
def test_a_key_that_is_no_activity_books_nothing(account, key):
    assert account.event("CLICK", key) == {}


def test_the_button_of_the_account_tells_what_is_bound(account):
    assert account.event("CLICK", "ACCOUNT_STATUS")["Content"] == UNBOUND
    account.say("绑定 2026010203")
    assert account.event("CLICK", "ACCOUNT_STATUS")["Content"] == BOUND


@pytest.mark.parametrize(
    "result", ["EAN_13,9787536692930", "9787536692930", "ISBN,7536692935", "978-7-5366-9293-0", "978 7 5366 9293 0"]
)
def test_a_scanned_bar_code_finds_the_book(account, result):
    assert nodes(account.post(scan_message(result)))["Title"] == "三体"


@pytest.mark.parametrize("result", ["EAN_13,6923450657713", "https://example.org/", "", "EAN_13,"])
def test_a_scanned_code_that_is_no_book_says_which_would_be(account, result):
    assert nodes(account.post(scan_message(result)))["Content"] == NOT_A_BOOK


def test_a_scanned_bar_code_with_a_wrong_check_digit_is_named(account):
    assert nodes(account.post(scan_message("EAN_13,9787536692931")))["Content"] == BAD_ISBN


# Media


def test_an_image_that_has_no_media_id_is_apologised_for(account):
    assert account.push(MsgType="image", MediaId="", MsgId="1")["Content"] == "出了点问题，请稍后再试。"


def test_an_image_comes_back(account):
    reply = account.push(MsgType="image", MediaId="image-1", PicUrl="http://mmbiz.qpic.cn/1", MsgId="1")
    assert (reply["MsgType"], reply["MediaId"]) == ("image", "image-1")


@pytest.mark.parametrize(
    "text", ["帮助", "help", "三体", "刘慈欣", "9787536692931", "没有这本书", "绑定2026010203", "绑定"]
)
@pytest.mark.parametrize("end", ["", "。", ".", "！", "!"])
def test_a_voice_message_is_answered_exactly_like_the_text(account, text, end):
    assert said(voice(account, Recognition=text + end)) == said(account.say(text))


def test_a_voice_message_binds_and_unbinds(account):
    voice(account, Recognition="绑定2026010203。")
    assert account.say("绑定")["Content"] == BOUND
    assert voice(account, Recognition="解绑。")["Content"] == "已解除与学号 2026010203 的绑定。"


def test_the_answer_to_a_voice_message_goes_to_the_one_who_spoke(account):
    reply = voice(account, Recognition="三体。")
    assert (reply["ToUserName"], reply["FromUserName"]) == (USER, ACCOUNT)


@pytest.mark.parametrize("more", [{}, {"Recognition": ""}, {"Recognition": "。"}])
def test_a_voice_message_that_was_not_understood_says_so(account, more):
    assert voice(account, **more)["Content"] == NOT_HEARD


# Fallback


@pytest.mark.parametrize(
    "kind", ["video", "shortvideo", "location", "link", "file", "miniprogrampage", "never_heard_of"]
)
def test_a_person_is_told_that_this_kind_is_not_understood(account, kind):
    assert account.push(MsgType=kind)["Content"] == "暂时看不懂这类消息。发送“帮助”看看我会什么。"


@pytest.mark.parametrize("event", ["VIEW", "LOCATION", "ENTER", "TEMPLATESENDJOBFINISH", "never_heard_of"])
def test_an_event_that_nobody_handles_is_left_without_an_answer(account, event):
    assert account.event(event) == {}


def test_a_handler_that_fails_apologises(account):
    without_code = scan_message("").replace("ScanCodeInfo", "Other")
    assert nodes(account.post(without_code))["Content"] == "出了点问题，请稍后再试。"
