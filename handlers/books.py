"""Looks up books: send an ISBN, a title or an author, or scan a code that is an ISBN, and get the book."""

import logging
import re

from handlers import _book_sources as sources
from handlers._isbn import isbn13
from wechat.reply import Article, News
from wechat.routing import on

logger = logging.getLogger(__name__)

ISBN = re.compile(r"(?:ISBN(?:-1[03])?)?[-–—\s:：]*(?:97[89][-–—\s]*)?(?:\d[-–—\s]*){9}[\dXx]", re.IGNORECASE)
SCENE = re.compile(r"97[89][-–—\s]*(?:\d[-–—\s]*){9}\d")  # of a QR code on a sticker in a library
BAD_ISBN = "这个 ISBN 的校验位不对，请核对书背面的 10 位或 13 位数字。"
FAILED = "书目服务暂时连不上，请稍后再试。"
ASK = "发送书名、作者或 ISBN 查书。"
LONGEST_QUERY = 100  # characters

SOURCE = sources.choose()
IS_REMOTE = SOURCE.is_remote


@on("text", ISBN, slow=IS_REMOTE)
def book_by_isbn(msg):
    return answer_isbn(msg.Content)


@on("text", slow=IS_REMOTE)
def book_by_words(msg):
    """Every text that nobody else claims is taken for a title or an author."""
    words = msg.get("Content", "").strip(" 《》\n")[:LONGEST_QUERY]
    return answer(words, SOURCE.search) if words else ASK


@on("event", "SCAN", SCENE, slow=IS_REMOTE)
def book_by_scene(msg):
    return answer_isbn(msg.EventKey)


@on("event", "subscribe", re.compile(f"qrscene_({SCENE.pattern})"), slow=IS_REMOTE)
def book_for_new_follower(msg, match):
    """Who follows by a sticker gets the book, and a welcome where there is none."""
    found = answer_isbn(match[1])
    return found if isinstance(found, News) else f"欢迎关注！发送“帮助”看看我会什么。\n\n{found}"


def answer_isbn(text):
    """The reply to an ISBN, in whatever way it is written."""
    isbn = isbn13(text)
    return answer(isbn, SOURCE.by_isbn) if isbn else BAD_ISBN


def answer(query, look_up):
    """The reply to a query: the best book as an article, or a text that says what to try."""
    try:
        books = look_up(query)
    except sources.SourceFailed as error:
        logger.warning("the look-up of a book failed: %s", error)
        return FAILED
    return to_news(*books) if books else nothing_found(query)


def nothing_found(query):
    """What to try next."""
    return f"没有找到“{query}”。\n试试书名的一部分、作者的名字，或者书背面的 ISBN。"


def to_news(best, *others):
    """WeChat takes one article in answer to a message, so the other books are lines of its text."""
    facts = {
        "作者": "、".join(best.authors),
        "出版": " ".join(filter(None, [best.publisher, best.published])),
        "定价": best.price,
        "评分": best.rating,
        "ISBN": best.isbn,
    }
    lines = [f"{name}：{value}" for name, value in facts.items() if value]
    if others:
        lines += ["", "还找到："]
        lines += [f"《{book.title}》{'、'.join(book.authors)} {book.isbn}" for book in others]
    return News([Article(best.title, "\n".join(lines), best.cover, best.url)])
