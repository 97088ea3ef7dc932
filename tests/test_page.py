"""The chat page in a real browser, against a real `python -m sandbox`."""

import json
import os
import subprocess
import sys
from urllib.parse import urlsplit

import pytest
from selenium import webdriver
from selenium.common.exceptions import StaleElementReferenceException, TimeoutException
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select, WebDriverWait

from tests.conftest import program

OPTIONS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --window-size=1280,1000 --lang=en-US"
)
PATIENCE = 15  # seconds
MINE = "import time\nfrom wechat.message import Message\nfrom wechat.reply import *\nfrom wechat.routing import on\n"


def open_browser(profile):
    """A headless Chromium."""
    binary, driver = program("chromium"), program("chromedriver")
    options = webdriver.ChromeOptions()
    for option in [*OPTIONS.split(), f"--user-data-dir={profile}"]:
        options.add_argument(option)
    options.binary_location = binary
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    return webdriver.Chrome(options, webdriver.ChromeService(driver))


@pytest.fixture(scope="session")
def chromium(tmp_path_factory):
    """The browser."""
    browser = open_browser(tmp_path_factory.mktemp("chromium"))
    yield browser
    browser.quit()


class Page:
    """What a person does with the page."""

    def __init__(self, browser, sandbox):
        self.browser, self.sandbox = browser, sandbox
        browser.get(sandbox.page)
        self.until(lambda: self.all("#menu button"))

    def all(self, selector):
        return self.browser.find_elements(By.CSS_SELECTOR, selector)

    def one(self, selector):
        return self.all(selector)[0]

    def until(self, is_so):
        # What has just been drawn anew is looked for again.
        wait = WebDriverWait(self.browser, PATIENCE, 0.05, [StaleElementReferenceException])
        try:
            return wait.until(lambda _: is_so())
        except TimeoutException:
            raise AssertionError(f"the page shows: {self.text()}") from None

    def text(self, selector="body"):
        texts = "return [...document.querySelectorAll(arguments[0])].map((element) => element.innerText).join('\\n')"
        return self.browser.execute_script(texts, selector)

    def sees(self, text, selector="#chat"):
        """Waits for the text."""
        self.until(lambda: text in self.text(selector))

    def says(self, text):
        self.one("#text").send_keys(text, Keys.ENTER)

    def clicks(self, label, selector="button"):
        def click():
            found = [element for element in self.all(selector) if element.text == label]
            return found and (found[0].click() or True)

        self.until(click)

    def chooses(self, switch, value):
        Select(self.one(f"#{switch}")).select_by_value(value)

    def hangs_up_after(self, seconds):
        self.one("#hang_up").clear()
        self.one("#hang_up").send_keys(seconds)

    def does(self, action):
        """One of the actions behind the plus."""
        if not self.one("#plus").is_displayed():
            self.one("#more").click()
        self.clicks(action, "#plus button")

    def fills(self, **values):
        """Fills the fields of a dialog, and confirms it."""
        for name, value in values.items():
            field = self.one(f"dialog [name={name}]")
            field.clear()
            field.send_keys(value)
        self.one("#ok").click()

    def reloads(self, source, name="mine.py"):
        """Changes a file of the handlers, and waits until the page says so."""
        self.sandbox.write(name, source)
        self.sees("loaded anew", "#faults")

    def is_panel_about(self, *texts):
        for text in texts:
            self.sees(text, "#panel")
        return True


@pytest.fixture
def page(chromium, sandbox):
    """A function that opens the page of a new sandbox; no console error, and no request to another host, is allowed."""
    pages = []

    def start(**environ):
        pages.append(Page(chromium, sandbox(**environ)))
        return pages[-1]

    yield start
    console, traffic = chromium.get_log("browser"), chromium.get_log("performance")
    chromium.get("about:blank")  # before its sandbox ends, which would be an error in the next test's console
    chromium.set_window_size(1280, 1000)
    assert [entry for entry in console if entry["level"] != "INFO"] == []
    sent = [json.loads(entry["message"])["message"] for entry in traffic]
    urls = [event["params"]["request"]["url"] for event in sent if event["method"] == "Network.requestWillBeSent"]
    assert {urlsplit(url).hostname for url in urls if url.startswith("http")} <= {"127.0.0.1"}


def test_one_message_gets_its_reply_and_the_panel_tells_how(page):
    chat = page()
    chat.says("三体")
    chat.sees("重庆出版社", "#chat .news")
    assert chat.is_panel_about(
        "handlers.books.book_by_words", "handlers/books.py:", "· 200", "<Content>", "news, direct"
    )
    assert "<ArticleCount>1</ArticleCount>" in chat.text("#panel")
    assert chat.one(".news a").get_attribute("href") == "https://book.douban.com/isbn/9787536692930/"


def test_the_menu_opens_and_every_button_of_it_works(page):
    chat = page()
    chat.clicks("☰ 查书")
    chat.clicks("怎么查书")
    chat.sees("发送书名、作者或 ISBN")
    chat.clicks("☰ 查书")
    chat.clicks("扫条码查书")
    chat.fills(code="EAN_13,9787536692930")
    chat.sees("重庆出版社")
    chat.clicks("☰ 查书")
    chat.clicks("豆瓣读书")
    chat.sees("You opened the page https://book.douban.com/")
    chat.clicks("我的账号")
    chat.sees("绑定账号")


BUTTONS = {
    "扫码推": {"type": "scancode_push", "key": "K1"},
    "系统拍照": {"type": "pic_sysphoto", "key": "K2"},
    "拍照或相册": {"type": "pic_photo_or_album", "key": "K3"},
    "微信相册": {"type": "pic_weixin", "key": "K4"},
    "选位置": {"type": "location_select", "key": "K5"},
    "小程序": {"type": "miniprogram", "url": "https://example.com", "appid": "wx1", "pagepath": "pages/book"},
    "素材": {"type": "media_id", "media_id": "M1"},
    "图文": {"type": "view_limited", "media_id": "M2"},
    "文章": {"type": "article_id", "article_id": "A1"},
    "文章页": {"type": "article_view_limited", "article_id": "A2"},
}
ECHO = (
    MINE + "import json\n@on('event')\ndef event(msg):\n    return json.dumps(msg, ensure_ascii=False)\n"
    "@on('location')\ndef place(msg):\n    return 'place ' + msg.Label\n"
)


def test_every_other_kind_of_button_works(page):
    chat = page()
    named = [{"name": name, **button} for name, button in BUTTONS.items()]
    groups = [{"name": "甲", "sub_button": named[:5]}, {"name": "乙", "sub_button": named[5:]}]
    chat.sandbox.write("menu.json", json.dumps({"button": groups}))
    chat.reloads(ECHO)
    for name in ("扫码推", "系统拍照", "拍照或相册", "微信相册", "选位置"):
        chat.clicks("☰ 甲")
        chat.clicks(name)
        chat.one("#ok").click()
        chat.sees(f'"Event": "{BUTTONS[name]["type"]}", "EventKey": "{BUTTONS[name]["key"]}"')
    chat.sees('"ScanCodeInfo": {"ScanType": "barcode", "ScanResult": "EAN_13,9787536692930"}')
    chat.sees('"SendPicsInfo": {"Count": "1", "PicList": {"item": [{"PicMd5Sum": "')
    chat.sees("place 广州市天河区天河公园")
    chat.until(lambda: len(chat.all("#chat .theirs img")) == 3)  # each picture also comes as a message, and is echoed
    for name in ("小程序", "素材", "图文", "文章", "文章页"):
        chat.clicks("☰ 乙")
        chat.clicks(name)
    chat.sees("You opened the Mini Program page pages/book")
    for button in ("media_id M1", "view_limited M2", "article_id A1", "article_view_limited A2"):
        chat.sees(f"material that the platform sends by itself: {button}")


def test_who_unfollows_cannot_write_and_who_follows_is_welcomed(page):
    chat = page()
    chat.does("Unfollow")
    chat.sees("You no longer follow the account")
    chat.until(lambda: not chat.one("#text").is_enabled())
    assert not chat.one("#menu").is_displayed()
    chat.does("Scan a scene")
    chat.fills(scene="9787536692930")
    chat.sees("qrscene_9787536692930")
    chat.sees("重庆出版社")
    chat.does("Unfollow")
    chat.until(lambda: not chat.one("#text").is_enabled())
    chat.does("Follow")
    chat.sees("欢迎关注！")
    chat.until(lambda: chat.one("#text").is_enabled())
    chat.does("Scan a scene")
    chat.fills(scene="42")
    chat.sees("你扫描的场景是：42")


def test_a_picture_comes_back_as_a_picture(page, tmp_path):
    chat = page()
    chat.does("Image")
    chat.fills()
    chat.until(lambda: len(chat.all("#chat img")) == 2)
    widths = "return [...document.querySelectorAll('#chat img')].map((image) => image.naturalWidth)"
    chat.until(lambda: chat.browser.execute_script(widths) == [360, 360])
    file = tmp_path / "不是图片.txt"
    file.write_text("x")
    chat.does("Image")
    chat.one("dialog [name=file]").send_keys(str(file))
    chat.one("#ok").click()
    chat.sees("Not sent: WeChat refuses this file with 40005")


def test_voice_location_and_link_are_sent(page):
    chat = page()
    chat.does("Voice")
    chat.fills(heard="三体。")
    chat.sees("重庆出版社")
    chat.reloads(ECHO + "@on('link')\ndef link(msg):\n    return msg.Title + '|' + msg.Url\n")
    chat.does("Location")
    chat.fills(latitude="39.9", longitude="116.4", label="天安门")
    chat.sees("place 天安门")
    chat.does("Link")
    chat.fills(title="一个标题", url="https://example.com/x")
    chat.sees("一个标题|https://example.com/x")


@pytest.mark.parametrize(("mode", "format"), [("compat", "xml"), ("safe", "json")])
def test_the_switches_of_mode_and_format_count_for_the_next_message(page, mode, format):
    chat = page()
    chat.chooses("mode", mode)
    chat.chooses("format", format)
    chat.says("帮助")
    chat.sees("发送书名、作者或 ISBN")
    assert chat.is_panel_about("Request, opened", "Reply, opened", "encrypt_type=aes", "Encrypt")


def test_a_mini_program_has_no_menu_and_is_answered_by_customer_messages(page):
    chat = page()
    chat.chooses("account", "miniprogram")
    chat.chooses("format", "json")
    assert not chat.one("#menu").is_displayed()
    chat.does("Enter the chat")
    chat.sees("你好，这里是图书查询。")
    chat.does("Mini Program card")
    chat.fills(title="我的书")
    chat.sees("暂时看不懂这类消息")
    assert chat.is_panel_about("miniprogrampage", "success", "text, pushed after")


SLOW = MINE + ("@on('text', 'slow', slow=True)\ndef slow(msg):\n    time.sleep(2)\n    return 'slow is done'\n")


def test_a_slow_handler_shows_its_attempts_then_typing_and_then_its_message(page):
    chat = page(WECHAT_REPLY_WITHIN="0.3")
    chat.reloads(SLOW)
    chat.says("slow")
    chat.until(lambda: chat.all("#panel .attempt.running"))
    chat.sees("The account is typing")
    chat.sees("slow is done")
    assert "The account is typing" not in chat.text("#chat")
    assert chat.is_panel_about("ms · 200", "text, pushed after 2.", "handlers.mine.slow", "later", '"slow is done"')
    chat.sees("mine.slow · pushed after 2.", ".more")
    assert "no reply" not in chat.text()


def test_an_unverified_account_fetches_a_slow_answer_with_its_next_message(page):
    chat = page(WECHAT_REPLY_WITHIN="0.2")
    chat.reloads(SLOW.replace("sleep(2)", "sleep(6)"))
    chat.chooses("account", "unverified")
    chat.hangs_up_after("1.2")
    chat.says("slow")
    chat.sees("还在处理，稍后回复“继续”获取结果")
    chat.says("继续")
    chat.sees("还没好，请稍后再回复“继续”")
    chat.one(".more").click()
    assert chat.is_panel_about("text of handlers.mine.slow", ": kept")
    chat.says("继续")
    chat.sees("slow is done")


def test_the_banner_appears_where_three_attempts_get_no_answer(page):
    chat = page(WECHAT_REPLY_WITHIN="4.5")
    chat.reloads(SLOW.replace("sleep(2)", "sleep(3)"))
    chat.chooses("account", "unverified")
    chat.hangs_up_after("0.3")
    chat.says("slow")
    chat.sees("该公众号提供的服务出现故障，请稍后再试", "#chat .banner")
    chat.sees("no answer within 0.3 s")
    assert len(chat.all("#panel .attempt.failed")) == 3
    assert chat.is_panel_about("hung up")


def test_a_handler_that_raises_is_seen_with_its_traceback(page):
    chat = page()
    chat.reloads(MINE + "@on('text', 'boom')\ndef boom(msg):\n    return 1 / 0\n")
    chat.says("boom")
    chat.sees("出了点问题，请稍后再试。")
    assert chat.is_panel_about("ZeroDivisionError: division by zero", "handlers/mine.py", "line 7")
    assert chat.one("#log .ERROR")
    assert "✕ handlers.mine.boom failed handlers/mine.py:5" in chat.text("#handler")
    assert "answered in its place: handlers.fallback." in chat.text("#handler")
    assert chat.text(".more.failed").startswith("✕ mine.boom failed")


def test_what_a_handler_prints_is_in_the_log_of_its_message(page):
    chat = page()
    chat.reloads(MINE + "@on('text', 'show')\ndef show(msg):\n    print('this is', msg)\n    return 'shown'\n")
    chat.says("show")
    chat.sees("shown")
    assert chat.is_panel_about("this is <Message ToUserName='gh_7f083739789a'", "Content='show'")
    assert chat.sandbox.wait_for_lines("this is <Message ToUserName=", 1)


def test_a_customer_message_that_is_refused_is_red_and_says_why(page):
    chat = page()
    six = "    for number in range(6):\n        api.send(msg.FromUserName, f'piece {number}')\n"
    chat.reloads(MINE + f"@on('text', 'six')\ndef six(msg, api):\n{six}")
    chat.says("six")
    chat.sees("errcode 45047 out of response count limit")
    assert chat.is_panel_about("WeChat refused a customer message: errcode 45047", "pushed after")
    assert "piece 4" in chat.text("#chat")
    assert "piece 5" not in chat.text("#chat")


def test_messages_that_follow_one_another_at_once_stay_in_order(page):
    chat = page()
    chat.reloads(
        MINE + "import re\n@on('text', re.compile('[a-h]'))\ndef echo(msg):\n    return 'got ' + msg.Content\n"
    )
    chat.browser.execute_script("for (const text of 'abcdefgh') push('text', { Content: text })")
    chat.sees("got h")
    assert chat.text("#chat .mine .bubble").split() == [*"abcdefgh"]
    assert chat.text("#chat .theirs .bubble").split("\n") == [f"got {letter}" for letter in "abcdefgh"]


def test_a_broken_file_is_shown_and_the_last_good_version_answers(page):
    chat = page()
    chat.reloads(MINE + "@on('text', 'v')\ndef v(msg):\n    return 'version one'\n")
    chat.says("v")
    chat.sees("version one")
    chat.sandbox.write("mine.py", MINE + "@on('text', 'v')\ndef v(msg:\n    return 'version two'\n")
    chat.sees("handlers/mine.py:6: the module does not import: SyntaxError", "#faults")
    chat.says("v")
    chat.until(lambda: chat.text("#chat").count("version one") == 2)
    chat.reloads(MINE + "@on('text', 'v')\ndef v(msg):\n    return 'version two'\n")
    chat.says("v")
    chat.sees("version two")
    chat.until(lambda: not chat.one("#faults").is_displayed())
    chat.chooses("language", "zh")
    chat.sandbox.write("mine.py", MINE + "@on('text', 'v')\ndef v(msg:\n    return 'version two'\n")
    chat.sees("handlers/mine.py:6：模块无法导入：SyntaxError", "#faults")


REPLIES = (
    MINE
    + """
import io
turns = iter(range(0, 10, 3))  # a click allows three customer messages
@on("event", "CLICK", "BOOKS_GUIDE")
def all_kinds(msg, api):
    png = bytes.fromhex("89504e470d0a1a0a0000000d4948445200000001000000010806000000" "1f15c489"
        "0000000d49444154789c6360606060000000050001a5f645400000000049454e44ae426082")
    picture = api.upload("image", "a.png", io.BytesIO(png))
    turn = next(turns)
    for reply in (
        Text("first\\nsecond <b>bold</b> <a href='https://example.com/a'>a link</a> https://example.com/b"),
        Text("<a href='weixin://bizmsgmenu?msgmenucontent=帮助&msgmenuid=1'>ask for help</a>"),
        Text("<img src=x onerror=alert(1)><a href='javascript:alert(2)'>click</a><script>alert(3)</script>"),
        Image(picture),
        Image("unknown-picture"),
        Voice("unknown-voice"),
        Video("unknown-video", "the film", "about it"),
        Music("thumb", "the song", "its singer", "https://example.com/low.mp3", "https://example.com/high.mp3"),
        News([Article("one article", "what it says", "https://example.com/cover.jpg", "https://example.com/article")]),
    )[turn:turn + 3]:
        api.send(msg.FromUserName, reply)
    if turn < 9:
        return None
    api.post("/cgi-bin/message/custom/send", {"touser": msg.FromUserName, "msgtype": "msgmenu", "msgmenu": {
        "head_content": "was it good?", "list": [{"id": "101", "content": "满意"}], "tail_content": "thank you"}})
    cover, url = "https://example.com/cover.jpg", "https://example.com/"
    return News([Article(f"article {number}", "", cover, url) for number in "123"])

@on("text", "agent")
def agent(msg):
    return Transfer("test1@test")

@on("text", "满意")
def satisfied(msg):
    return "menu item " + msg.bizmsgmenuid
"""
)


def test_every_kind_of_reply_is_shown_as_wechat_shows_it(page):
    chat = page()
    (chat.sandbox.handlers / "menu.py").unlink()
    chat.reloads(REPLIES)
    for _ in range(4):
        chat.clicks("☰ 查书")
        chat.clicks("怎么查书")
    chat.sees("first\nsecond <b>bold</b> a link https://example.com/b")
    links = [link.get_attribute("href") for link in chat.all("#chat .bubble a")]
    assert links[:2] == ["https://example.com/a", "https://example.com/b"]
    chat.sees("<img src=x onerror=alert(1)>click<script>alert(3)</script>")
    assert not [link for link in links if link.startswith("javascript")]
    for text in ("unknown-picture", "unknown-voice", "unknown-video", "the film", "♫ the song", "its singer"):
        chat.sees(text)
    assert "https://example.com/high.mp3" in links
    chat.sees("was it good?")
    chat.sees("article 3")
    assert len(chat.all(".news .cover")) == 4
    assert chat.all("#chat .theirs img")
    chat.clicks("ask for help", "#chat button")
    chat.sees("帮助", "#chat .mine")
    chat.clicks("满意", "#chat button")
    chat.sees("menu item 1")
    chat.says("agent")
    chat.sees("Handed over to a human agent test1@test")


def test_two_users_have_a_conversation_each(page):
    chat = page()
    chat.says("绑定 2026010203")
    chat.sees("已绑定学号 2026010203")
    chat.chooses("user", "1")
    chat.until(lambda: "2026010203" not in chat.text("#chat"))
    chat.says("绑定")
    chat.sees("绑定账号，例如")
    chat.chooses("user", "0")
    chat.sees("已绑定学号 2026010203")
    assert "例如" not in chat.text("#chat")


def test_the_keyboard_alone_is_enough(page):
    chat = page()

    def press(*keys):
        ActionChains(chat.browser).send_keys(*keys).perform()

    def focused():
        return chat.browser.switch_to.active_element

    def tab_to(label):
        for _ in range(40):
            if focused().text == label or focused().get_attribute("aria-label") == label:
                return
            press(Keys.TAB)
        raise AssertionError(label)

    press("一行")
    ActionChains(chat.browser).key_down(Keys.SHIFT).send_keys(Keys.ENTER).key_up(Keys.SHIFT).perform()
    press("两行", Keys.ENTER)
    chat.sees("没有找到“一行\n两行”。")
    tab_to("☰ 活动")
    press(Keys.ENTER)
    chat.until(lambda: focused().text == "读书会")
    press(Keys.TAB, Keys.ENTER)
    chat.sees("已为你登记活动 2")
    tab_to("More")
    press(Keys.ENTER)
    tab_to("Voice")
    press(Keys.ENTER)
    chat.until(lambda: focused().get_attribute("name") == "heard")
    press(Keys.ENTER)
    chat.sees("重庆出版社")
    tab_to("Location")
    press(Keys.ENTER, Keys.ESCAPE)
    chat.until(lambda: not chat.one("dialog").is_displayed())
    assert "📍" not in chat.text("#chat")


def test_it_is_usable_on_a_phone(page):
    chat = page()
    chat.browser.set_window_size(390, 844)
    chat.browser.refresh()
    chat.until(lambda: chat.all("#menu button"))
    assert not chat.one("#panel").is_displayed()
    assert not chat.one("#mode").is_displayed()
    chat.says("三体")
    chat.sees("重庆出版社")
    is_wide = "return document.documentElement.scrollWidth > innerWidth"
    assert not chat.browser.execute_script(is_wide)
    chat.one(".more").click()
    chat.until(lambda: chat.one("#panel").is_displayed())
    assert chat.is_panel_about("handlers.books.book_by_words")
    assert not chat.browser.execute_script(is_wide)
    chat.one("#close").click()
    chat.until(lambda: not chat.one("#panel").is_displayed())


@pytest.mark.parametrize(("width", "height"), [(640, 450), (320, 600)], ids=["200 %", "400 %"])
def test_nothing_is_cut_off_where_the_page_is_enlarged(page, width, height):
    chat = page()
    chat.browser.execute_script(
        "seen = { ...seen, modes: ['plain'], lacks: 'needs a package: ' + 'x'.repeat(80) }; fill()"
    )
    chat.does("Voice")
    chat.fills()
    chat.until(lambda: chat.all("#chat audio"))
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
    chat.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    try:
        over = "return ['html', '#chat'].map((at) => $$(at)).map((it) => it.scrollWidth - it.clientWidth)"
        over = over.replace("$$", "document.querySelector")
        chat.until(lambda: chat.browser.execute_script(over) == [0, 0])
        seen = chat.browser.execute_script("return document.getElementById('chat').clientHeight")
        assert seen > height / 2
    finally:
        chat.browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_it_speaks_chinese_and_english_and_remembers_which(page):
    chat = page()
    chat.says("帮助")
    chat.chooses("language", "zh")
    chat.sees("发送", "#compose")
    chat.sees("公众号 · 小明", "#title")
    assert chat.browser.execute_script("return document.documentElement.lang") == "zh-CN"
    chat.browser.refresh()
    chat.sees("公众号 · 小明", "#title")
    chat.sees("发送书名", "#chat")
    chat.chooses("language", "en")
    chat.sees("Official Account · Ming", "#title")


def test_both_languages_have_a_word_for_everything(page):
    chat = page()
    names = chat.browser.execute_script("return Object.values(WORDS).map((words) => Object.keys(words).sort().join())")
    assert names[0] == names[1]


def test_a_page_that_is_opened_late_shows_what_was_said_before(page):
    chat = page()
    chat.says("三体")
    chat.sees("重庆出版社")
    chat.browser.refresh()
    chat.sees("重庆出版社")
    chat.one(".more").click()
    assert chat.is_panel_about("handlers.books.book_by_words", "news, direct")


# What an audit found


def test_a_reply_with_a_broken_address_costs_no_other_message(page):
    chat = page()
    articles = "News([Article('t', 'd', 'https://[oops/c.jpg', 'http://')])"
    chat.reloads(MINE + f"@on('text', 'odd')\ndef odd(msg):\n    return {articles}\n")
    chat.says("odd")
    chat.until(lambda: chat.all("#chat .news"))
    chat.says("帮助")
    chat.sees("发送书名")
    chat.chooses("language", "zh")
    chat.sees("发送书名")
    assert len(chat.all("#chat .mine")) == 2


def test_what_could_not_be_sent_is_still_there(page):
    chat = page()
    chat.hangs_up_after("9")
    chat.says("很长的一句话")
    chat.sees("Not sent: hang_up takes seconds")
    assert chat.one("#text").get_property("value") == "很长的一句话"


def test_the_focus_stays_where_it_is_while_messages_come_and_go(page):
    chat = page()
    chat.reloads(SLOW.replace("sleep(2)", "sleep(1)"))
    chat.says("slow")
    chat.until(lambda: chat.all("#panel pre"))
    chat.browser.execute_script("document.querySelector('#panel pre').focus()")
    chat.sees("slow is done")
    assert chat.browser.switch_to.active_element.tag_name == "pre"


def test_who_reads_what_was_said_before_is_left_there(page):
    chat = page()
    chat.reloads(SLOW.replace("sleep(2)", "sleep(1.5)"))
    for _ in range(4):
        chat.says("三体")
    chat.until(lambda: len(chat.all("#chat .news")) == 4)
    chat.says("slow")
    chat.sees("slow")
    chat.browser.execute_script("document.getElementById('chat').scrollTop = 0")
    chat.sees("slow is done")
    assert chat.browser.execute_script("return document.getElementById('chat').scrollTop") == 0


def test_a_picture_that_loads_late_leaves_the_reader_there_too(page):
    chat = page()
    chat.does("Image")
    chat.fills()
    for _ in range(4):
        chat.says("三体")
    chat.until(lambda: len(chat.all("#chat .news")) == 4 and len(chat.all("#chat img")) == 2)
    chat.browser.execute_script("document.getElementById('chat').scrollTop = 0")
    chat.browser.execute_script("document.querySelector('#chat img').dispatchEvent(new Event('load'))")
    assert chat.browser.execute_script("return document.getElementById('chat').scrollTop") == 0


def test_the_end_stays_in_sight_when_the_place_for_the_conversation_shrinks(page):
    chat = page()
    for _ in range(4):
        chat.says("三体")
    chat.until(lambda: len(chat.all("#chat .news")) == 4)
    hidden = "const it = document.getElementById('chat'); return it.scrollHeight - it.clientHeight - it.scrollTop"
    chat.until(lambda: chat.browser.execute_script(hidden) < 2)
    chat.one("#more").click()
    chat.until(lambda: chat.browser.execute_script(hidden) < 2)


def test_escape_in_a_submenu_leads_back_to_its_button(page):
    chat = page()
    chat.clicks("☰ 查书")
    ActionChains(chat.browser).send_keys(Keys.ESCAPE).perform()
    assert chat.browser.switch_to.active_element.text == "☰ 查书"
    assert not chat.one("#menu .sub").is_displayed()


def test_each_tab_has_a_user_of_its_own(page):
    chat = page()
    first = chat.browser.current_window_handle
    chat.browser.switch_to.new_window("tab")
    second = Page(chat.browser, chat.sandbox)
    second.chooses("user", "1")
    second.browser.switch_to.window(first)
    chat.browser.refresh()
    chat.sees("Ming", "#title")
    chat.browser.switch_to.window(chat.browser.window_handles[1])
    chat.browser.refresh()
    chat.sees("Hong", "#title")
    chat.browser.close()
    chat.browser.switch_to.window(first)


# A bench for one's own handlers


def copied(chat, label):
    """What the button copies."""
    chat.browser.execute_script(
        "window.copied = ''; navigator.clipboard.writeText = async (text) => { window.copied = text; }"
    )
    chat.clicks(label)
    return chat.until(lambda: chat.browser.execute_script("return window.copied"))


def test_documents_are_indented_and_coloured_and_copied_as_they_went_over_the_wire(page):
    chat = page()
    chat.says("帮助")
    chat.sees("发送书名", "#panel")
    assert "<xml>\n  <ToUserName><![CDATA[" in chat.text("#panel pre")
    assert chat.all("#panel pre .tag")
    assert "<xml><ToUserName>" in copied(chat, "copy")
    chat.chooses("format", "json")
    chat.says("帮助")
    chat.sees('{\n  "ToUserName": "gh_7f083739789a",', "#panel pre")
    assert chat.all("#panel pre .string")


@pytest.mark.parametrize("text", ["]]><a>", "a & b", "<b>", '"\\u4e09"'])
def test_what_is_indented_still_says_all_that_was_typed(page, text):
    chat = page()
    chat.says(text)
    chat.sees(f"<Content><![CDATA[{text}]]></Content>", "#panel pre")


def test_a_message_is_sent_again(page):
    chat = page()
    chat.says("帮助")
    chat.sees("发送书名")
    chat.clicks("Send again")
    chat.until(lambda: chat.text("#chat .mine .bubble").split() == ["帮助", "帮助"])


def test_what_was_seen_is_copied_as_a_test_that_passes(page, tmp_path):
    chat = page()
    tests = []
    for act in (lambda: chat.says("三体"), lambda: chat.clicks("我的账号"), lambda: chat.says("怪书名\"'\\")):
        count = len(chat.all(".more"))
        act()
        chat.until(lambda count=count: len(chat.all(".more")) > count and "…" not in chat.all(".more")[-1].text)
        tests.append(copied(chat, "Copy as a test"))
    chat.reloads(MINE + "@on('text', 'later')\ndef later(msg, api):\n    api.send(msg.FromUserName, 'here')\n")
    chat.says("later")
    chat.sees("pushed after", ".more")
    tests.append(copied(chat, "Copy as a test"))
    chat.chooses("account", "miniprogram")
    chat.does("Enter the chat")
    chat.sees("你好，这里是图书查询。")
    chat.sees("pushed after", "#panel")
    folder = chat.sandbox.handlers.parent / "tests"
    folder.mkdir()
    (folder / "conftest.py").write_text('pytest_plugins = ["sandbox.testing"]\n')
    (folder / "test_mine.py").write_text("\n\n".join(tests), "utf-8")
    (folder / "test_mini.py").write_text(copied(chat, "Copy as a test"), "utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests"],
        cwd=folder.parent,
        env={**os.environ, "PYTHONPATH": str(folder.parent)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert "5 passed" in done.stdout, done.stdout


def test_a_voice_and_a_video_of_ones_own_are_sent(page, tmp_path):
    chat = page()
    media = "import tempfile\n@on('video')\n@on('shortvideo')\ndef film(msg):\n    return msg.MsgType\n"
    chat.reloads(MINE + media)
    (tmp_path / "a.mp3").write_bytes(b"sound")
    (tmp_path / "a.mp4").write_bytes(b"film")
    chat.does("Voice")
    chat.one("dialog [name=file]").send_keys(str(tmp_path / "a.mp3"))
    chat.fills(heard="")
    chat.until(lambda: chat.all("#chat .mine audio"))
    chat.sees("<Format><![CDATA[mp3]]></Format>", "#panel")
    chat.does("Short video")
    chat.one("dialog [name=file]").send_keys(str(tmp_path / "a.mp4"))
    chat.fills()
    chat.sees("shortvideo", "#chat .theirs")
    chat.browser.get_log("browser")  # it says so, too


RECORD = """
const [kind, done] = arguments;
const canvas = document.createElement("canvas");
const pen = canvas.getContext("2d");
const paint = setInterval(() => pen.fillRect(Math.random() * 100, 0, 9, 99), 40);
const stream = kind === "video" ? canvas.captureStream(25) : tone();
function tone() {
  const speaker = new MediaStreamAudioDestinationNode(new AudioContext());
  const source = new OscillatorNode(speaker.context);
  source.connect(speaker);
  source.start();
  return speaker.stream;
}
const recorder = new MediaRecorder(stream, { mimeType: `${kind}/mp4;codecs=${kind === "video" ? "vp9" : "opus"}` });
recorder.ondataavailable = async ({ data }) => {
  clearInterval(paint);
  done([...new Uint8Array(await data.arrayBuffer())]);
};
recorder.start();
setTimeout(() => recorder.stop(), 1000);
"""


def send_video(chat, file, content):
    file.write_bytes(content)
    chat.does("Video")
    chat.one("dialog [name=file]").send_keys(str(file))
    chat.fills()


def test_a_video_plays_from_any_second(page, tmp_path):
    chat = page()
    send_video(chat, tmp_path / "film.mp4", bytes(chat.browser.execute_async_script(RECORD, "video")))
    chat.until(lambda: chat.browser.execute_script("return document.querySelector('#chat video')?.readyState") == 4)
    seek = "const film = document.querySelector('#chat video'); film.currentTime = 0.5; return film.currentTime"
    assert chat.browser.execute_script(seek) == 0.5
    chat.until(lambda: not chat.browser.execute_script("return document.querySelector('#chat video').seeking"))
    assert chat.browser.execute_script("return document.querySelector('#chat video').currentTime") == 0.5


def test_a_video_that_does_not_play_is_a_card_with_its_name_and_size(page, tmp_path):
    chat = page()
    send_video(chat, tmp_path / "我的 film.mp4", b"film" * 500)
    chat.sees("我的 film.mp4\nVideo · 2 KB\nthis browser cannot play it; it can be downloaded", "#chat .mine dl")
    assert chat.one("#chat .mine dl a").get_attribute("download") == "我的 film.mp4"
    assert not chat.all("#chat video")
    chat.chooses("language", "zh")
    chat.sees("我的 film.mp4\n视频 · 2 KB\n浏览器无法播放，可以下载", "#chat .mine dl")
    chat.browser.get_log("browser")


def test_a_video_of_which_the_browser_has_the_sound_alone_is_a_card(page, tmp_path):
    chat = page()
    chat.one("#text").click()  # a page that nobody has touched makes no sound
    send_video(chat, tmp_path / "phone.mp4", bytes(chat.browser.execute_async_script(RECORD, "audio")))
    chat.sees("phone.mp4\nVideo · ", "#chat .mine dl")


def test_a_video_that_the_sandbox_has_dropped_is_said_to_be_missing(page):
    chat = page()
    chat.browser.execute_script("add(bubble(player('video', 'dropped')))")
    chat.sees("dropped", "#chat .missing")
    chat.browser.get_log("browser")


def test_any_event_is_sent_with_the_fields_that_one_writes(page):
    chat = page()
    chat.reloads(ECHO)
    chat.does("Any event")
    chat.fills(Event="kf_create_session", EventKey="", more_fields='{"KfAccount": "a@b", "Nested": {"One": "1"}}')
    chat.sees('"Event": "kf_create_session", "EventKey": "", "KfAccount": "a@b", "Nested": {"One": "1"}')
    chat.does("Any event")
    chat.fills(Event="x", more_fields="[1]")
    chat.sees("Not sent: further fields take a JSON object")


def test_a_type_of_message_that_wechat_does_not_have_yet_is_sent(page):
    chat = page()
    new = "@on('hologram')\ndef new(msg):\n    return 'depth ' + msg.Shape.Depth\n"
    chat.sandbox.write("mine.py", MINE + new)
    chat.sees('WeChat has no MsgType "hologram"', "#faults")
    chat.does("Any message")
    chat.fills(MsgType="hologram", more_fields='{"Shape": {"Depth": "3"}}')
    chat.sees("depth 3")
    chat.sees('Shape: {"Depth":"3"}', "#chat .mine")
    chat.does("Any message")
    chat.one("dialog [name=MsgType]").send_keys("file", Keys.TAB)
    chat.until(lambda: "FileKey" in chat.one("dialog textarea").get_property("value"))
    chat.fills()
    chat.sees("FileTotalLen: 2561")
    chat.does("Any message")
    chat.fills(MsgType="no type")
    chat.sees("Not sent: type takes a MsgType")


NOTICE = """
@on('text', 'order')
def order(msg, api):
    data = {"thing1": {"value": "三体"}, "amount2": {"value": 23}}
    notice = {"touser": msg.FromUserName, "template_id": "T1", "url": "https://example.com/order", "data": data}
    api.post("/cgi-bin/message/template/send", notice)
    api.post("/cgi-bin/message/subscribe/bizsend", {**notice, "page": "pages/order"})
    return "ordered"
"""


def test_template_and_subscription_messages_are_shown(page):
    chat = page()
    chat.reloads(MINE + NOTICE)
    chat.says("order")
    chat.sees("ordered")
    chat.until(lambda: chat.text("#chat .theirs").count("thing1: 三体\namount2: 23\nhttps://example.com/order") == 2)
    chat.sees("pages/order")
    assert chat.is_panel_about("Template or subscription message, pushed after", '"template_id": "T1"')


@pytest.mark.parametrize(
    ("language", "said"),
    [("en", "the file has 11.0 MB, WeChat takes 10 MB"), ("zh", "文件有 11.0 MB，微信最多收 10 MB")],
)
def test_a_picture_of_11_mb_is_refused_in_words(page, tmp_path, language, said):
    chat = page()
    chat.chooses("language", language)
    (tmp_path / "large.png").write_bytes(bytes(11 << 20))
    chat.does({"en": "Image", "zh": "图片"}[language])
    chat.one("dialog [name=file]").send_keys(str(tmp_path / "large.png"))
    chat.fills()
    chat.sees(said)
    chat.hangs_up_after("9")
    chat.says("x")
    chat.sees({"en": "hang_up takes seconds", "zh": "断开时间要大于 0 秒"}[language])


def test_a_conversation_outlives_the_sandbox_and_can_be_cleared_and_imported(page, tmp_path):
    chat = page()
    chat.says("帮助")
    chat.sees("发送书名")
    chat.until(lambda: chat.all("#log"))
    exported = tmp_path / "conversation.json"
    exported.write_text(chat.browser.execute_script("return JSON.stringify(conversation())"), "utf-8")
    # As if it had been said to a sandbox that has been started anew since.
    chat.browser.execute_script(
        "localStorage.setItem('cleared', JSON.stringify({ run, seq: 1e9 }));"
        "for (const event of events) { event.run = 'before'; event.id &&= event.id.replace(run, 'before'); }"
    )
    chat.browser.refresh()
    chat.sees("发送书名")
    chat.clicks("Clear")
    chat.until(lambda: "发送书名" not in chat.text("#chat"))
    chat.browser.refresh()
    chat.until(lambda: chat.all("#menu button"))
    assert "发送书名" not in chat.text("#chat")
    chat.clicks("Import")
    chat.one("dialog [name=file]").send_keys(str(exported))
    chat.fills()
    chat.sees("发送书名")
    chat.one(".more").click()
    chat.sees("text, direct", "#panel")


def test_a_file_that_went_with_its_sandbox_is_said_to_be_gone(page):
    """Never a broken picture; the console would have an error for one that is asked for."""
    chat = page()
    chat.does("Image")
    chat.fills()
    chat.does("Voice")
    chat.fills()
    chat.until(lambda: len(chat.all("#chat img")) == 2 and chat.all("#chat audio"))
    chat.browser.execute_script(
        "for (const event of events) { event.run = 'before'; event.id &&= 'before/' + event.id; }"
    )
    chat.browser.execute_script("replay()")
    chat.until(lambda: not chat.all("#chat img, #chat audio"))
    assert chat.text("#chat").count("Image: the sandbox that had this file has been restarted") == 2
    chat.chooses("language", "zh")
    chat.sees("图片: 沙箱重启或清理后，文件已不在")


def test_a_picture_that_the_sandbox_has_dropped_is_no_broken_one(page):
    chat = page()
    chat.browser.execute_script("add(picture('/media/dropped'))")
    chat.sees("Image: the sandbox that had this file")
    assert not chat.all("#chat img")
    chat.browser.get_log("browser")  # in which a file that is not there is an error


def test_the_log_is_searched(page):
    chat = page()
    chat.reloads(
        MINE + "@on('text', 'show')\ndef show(msg):\n    print('needle')\n    print('hay')\n    return 'shown'\n"
    )
    chat.says("show")
    chat.sees("hay", "#log")
    chat.one("#search").send_keys("NEEDLE")
    chat.until(lambda: chat.text("#log").strip() == "needle")
    said = "return getComputedStyle(document.getElementById('log'), '::after').content"
    assert chat.browser.execute_script(said) == "none"
    chat.one("#search").send_keys("x")
    chat.until(lambda: chat.browser.execute_script(said) == '"no line matches"')


def test_dark_mode_is_that_of_the_system(page):
    chat = page()

    def background(scheme):
        features = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        chat.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", features)
        return chat.browser.execute_script("return getComputedStyle(document.getElementById('panel')).backgroundColor")

    assert (background("light"), background("dark")) == ("rgb(255, 255, 255)", "rgb(25, 25, 25)")
    background("light")


def test_the_list_of_modes_says_why_one_is_missing(page):
    chat = page()
    chat.browser.execute_script("seen = { ...seen, modes: ['plain'], lacks: 'needs the package cryptography' }; fill()")
    assert "safe (not available: needs the package cryptography)" in chat.text("#mode")
    assert len(chat.all("#mode option:disabled")) >= 2
