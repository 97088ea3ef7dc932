"""Draws the pictures in `docs/`: `python -m tests.screenshots`; needs Chromium and a Chinese font (fonts-noto-cjk)."""

import tempfile
import time
from pathlib import Path

from tests.conftest import ROOT, Sandbox
from tests.test_page import SLOW, Page, open_browser


def main():
    with tempfile.TemporaryDirectory() as folder:
        sandbox = Sandbox(Path(folder), WECHAT_TOKEN="sandbox")
        browser = open_browser(Path(folder) / "profile")
        try:
            draw(browser, sandbox)
        finally:
            browser.quit()
            sandbox.stop()


def draw(browser, sandbox):
    chat = Page(browser, sandbox)
    for language, readme in (("zh", "page.zh-CN"), ("en", "page")):
        chat.chooses("language", language)
        if language == "zh":
            talk(chat)
        browser.set_window_size(1280, 1000)
        browser.find_elements("css selector", ".more")[1].click()
        save(browser, readme)
    chat.reloads(SLOW.replace("sleep(2)", "sleep(7)"))
    chat.chooses("account", "unverified")
    chat.says("slow")
    chat.sees("hung up", "#panel")
    time.sleep(1)
    save(browser, "page-slow")
    chat.chooses("account", "official")
    browser.execute_script("leave()")
    browser.set_window_size(390, 844)
    browser.execute_script("document.getElementById('switches').open = false")
    chat.clicks("☰ 查书")
    save(browser, "page-phone")


def talk(chat):
    """A short conversation."""
    chat.clicks("我的账号")
    chat.sees("绑定账号")
    chat.says("三体")
    chat.sees("重庆出版社")
    chat.does("图片")
    chat.fills()
    chat.until(lambda: len(chat.all("#chat img")) == 2)
    chat.one("#more").click()


def save(browser, name):
    time.sleep(0.3)
    browser.save_screenshot(str(ROOT / f"docs/{name}.png"))


if __name__ == "__main__":
    main()
