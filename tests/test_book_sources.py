"""Where books are looked up: remote sources against a real HTTP server, the bundled list, and the settings."""

import json
import logging
import shutil
import sys
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler
from urllib.parse import parse_qs, urlsplit

import pytest
from conftest import TOKEN, Account

from wechat.errors import StartError
from wechat.startup import ROOT
from wxserver import make_application

KEY = "0df993c66c0c636e29ecbb5344252a4a"
FAILED = "书目服务暂时连不上，请稍后再试。"
NOTHING = "没有找到“{}”。\n试试书名的一部分、作者的名字，或者书背面的 ISBN。"
THREE_BODY = "9787536692930"
LARGEST = 1024 * 1024
HEADER = "isbn,title,authors,publisher,published,price,rating,cover,url"

OPEN_LIBRARY_DOCS = [
    {
        "key": "/works/OL17267881W",
        "title": "三体",
        "author_name": ["刘慈欣"],
        "publisher": ["重庆出版社", "Tor Books"],
        "first_publish_year": 2008,
        "isbn": ["9787536692930", "7536692935"],
        "cover_i": 8739161,
        "ratings_average": 4.2142,
    },
    {
        "key": "/works/OL20817912W",
        "title": "黑暗森林",
        "author_name": ["刘慈欣"],
        "isbn": ["9787536693968"],
    },
    {
        "key": "/works/OL1168083W",
        "title": "Nineteen Eighty-Four",
        "author_name": ["George Orwell"],
        "isbn": ["9780451524935"],
    },
]

DOUBAN_BOOKS = [
    {
        "id": "2567698",
        "isbn10": "7536692935",
        "isbn13": "9787536692930",
        "title": "三体",
        "author": ["刘慈欣"],
        "publisher": "重庆出版社",
        "pubdate": "2008-1",
        "price": "23.00",
        "rating": {"max": 10, "numRaters": 213456, "average": "8.8", "min": 0},
        "image": "https://img3.doubanio.com/view/subject/m/public/s2768378.jpg",
        "alt": "https://book.douban.com/subject/2567698/",
        "tags": [{"count": 50000, "name": "科幻", "title": "科幻"}],
    },
    {
        "id": "3066477",
        "isbn10": "7536693966",
        "isbn13": "9787536693968",
        "title": "三体Ⅱ",
        "author": ["刘慈欣"],
        "publisher": "重庆出版社",
        "pubdate": "2008-5",
        "price": "32.00",
        "rating": {"max": 10, "numRaters": 180000, "average": "9.3", "min": 0},
        "image": "https://img3.doubanio.com/view/subject/m/public/s3078482.jpg",
        "alt": "https://book.douban.com/subject/3066477/",
        "tags": [],
    },
]


class Quiet(BaseHTTPRequestHandler):
    """A server that keeps its log to itself; a subclass answers in `do_GET`."""

    def log_message(self, *args):
        pass

    def query(self):
        return {name: values[0] for name, values in parse_qs(urlsplit(self.path).query).items()}

    def send(self, body, status=200, content_type="application/json; charset=utf-8", length=None):
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        with suppress(OSError):  # the other side may have read enough
            self.wfile.write(body)

    def send_json(self, value, status=200):
        self.send(json.dumps(value, ensure_ascii=False).encode(), status)

    def redirect(self, location):
        self.send_response(302)
        self.send_header("Location", location)
        self.send_header("Content-Length", "0")
        self.end_headers()


class OpenLibraryServer(Quiet):
    """GET /search.json as https://openlibrary.org/dev/docs/api/search describes it."""

    def do_GET(self):
        query = self.query()
        if urlsplit(self.path).path != "/search.json" or not {"q", "isbn"} & query.keys():
            return self.send(b'{"error": "not found"}', 404)
        hits = [doc for doc in OPEN_LIBRARY_DOCS if self.fits(doc, query)]
        asked = query["fields"].split(",")
        docs = [{name: doc[name] for name in asked if name in doc} for doc in hits[: int(query["limit"])]]
        return self.send_json({"numFound": len(hits), "start": 0, "numFoundExact": True, "docs": docs})

    def fits(self, doc, query):
        if "isbn" in query:
            return query["isbn"] in doc["isbn"]
        return all(word in doc["title"] + doc["author_name"][0] for word in query["q"].split())


class DoubanServer(Quiet):
    """GET /v2/book/isbn/<isbn> and /v2/book/search, with their errors, as Douban's v2 answered them."""

    def do_GET(self):
        path, query = urlsplit(self.path).path, self.query()
        if query.get("apikey") != KEY:
            return self.refuse(403, 104, "invalid_apikey")
        if path.startswith("/v2/book/isbn/"):
            return self.by_isbn(path.removeprefix("/v2/book/isbn/"))
        if path == "/v2/book/search" and query.get("q"):
            return self.search(query["q"], int(query["count"]))
        return self.refuse(404, 1001, "uri_not_found")

    def by_isbn(self, isbn):
        hits = [book for book in DOUBAN_BOOKS if isbn in (book["isbn10"], book["isbn13"])]
        return self.send_json(hits[0]) if hits else self.refuse(404, 6000, "book_not_found")

    def search(self, words, count):
        hits = [
            book for book in DOUBAN_BOOKS if all(word in book["title"] + book["author"][0] for word in words.split())
        ]
        self.send_json({"count": min(count, len(hits)), "start": 0, "total": len(hits), "books": hits[:count]})

    def refuse(self, status, code, text):
        self.send_json({"msg": text, "code": code, "request": f"GET {urlsplit(self.path).path}"}, status)


SERVERS = {"openlibrary": OpenLibraryServer, "douban": DoubanServer}


def account_on(source, url, **more):
    """An account that looks its books up in this source at this address."""
    environ = {"WECHAT_TOKEN": TOKEN, "BOOKS_SOURCE": source, "BOOKS_URL": url, "DOUBAN_APIKEY": KEY, **more}
    return Account(make_application(environ))


def faults_of(**environ):
    """What stops the start with these settings."""
    with pytest.raises(StartError) as caught:
        make_application({"WECHAT_TOKEN": TOKEN, **environ})
    return caught.value.faults


def sending(body, status=200, **more):
    """A server that sends this body whatever it is asked."""

    class Server(Quiet):
        def do_GET(self):
            self.send(body, status, **more)

    return Server


def sending_json(value):
    return sending(json.dumps(value).encode())


def writing(*pieces):
    """A server that writes these bytes to the connection, and no status line of its own."""

    class Server(Quiet):
        def do_GET(self):
            for piece in pieces:
                self.wfile.write(piece)

    return Server


class Silent(Quiet):
    """A server that never answers, and goes when the other side has gone."""

    def do_GET(self):
        self.rfile.read(1)


class Dripping(Quiet):
    """A server whose status line never ends: a byte every twentieth of a second, for as long as somebody listens."""

    def do_GET(self):
        with suppress(OSError):
            while True:
                self.wfile.write(b"H")
                time.sleep(0.05)


@pytest.fixture(params=["openlibrary", "douban"])
def source(request):
    return request.param


@pytest.fixture
def check_failure(http_server, caplog, source):
    """A function that has both questions fail at a server, and looks for secrets in what was said and logged."""
    caplog.set_level(logging.DEBUG)

    def check(server, texts=(THREE_BODY, "三体")):
        url = http_server(server)
        account = account_on(source, url)
        for text in texts:
            assert account.say(text)["Content"] == FAILED
        assert caplog.text.count("the look-up of a book failed: ") == len(texts)
        for secret in (KEY, url, url.removeprefix("http://"), *texts):
            assert secret not in caplog.text

    return check


# What the sources find


def test_open_library_finds_a_book_by_its_isbn(http_server):
    reply = account_on("openlibrary", http_server(OpenLibraryServer)).say("978-7-5366-9293-0")
    assert reply["articles"] == [
        {
            "Title": "三体",
            "Description": "作者：刘慈欣\n出版：重庆出版社 2008\n评分：8.4\nISBN：9787536692930",
            "PicUrl": "https://covers.openlibrary.org/b/id/8739161-M.jpg",
            "Url": "https://openlibrary.org/works/OL17267881W",
        }
    ]


def test_douban_finds_a_book_by_its_isbn(http_server):
    reply = account_on("douban", http_server(DoubanServer)).say("7-5366-9293-5")
    assert reply["articles"] == [
        {
            "Title": "三体",
            "Description": "作者：刘慈欣\n出版：重庆出版社 2008-1\n定价：23.00\n评分：8.8\nISBN：9787536692930",
            "PicUrl": "https://img3.doubanio.com/view/subject/m/public/s2768378.jpg",
            "Url": "https://book.douban.com/subject/2567698/",
        }
    ]


def test_chinese_words_find_several_books(http_server, source):
    reply = account_on(source, http_server(SERVERS[source])).say("刘慈欣")
    assert reply["Title"] == "三体"
    assert len(reply["articles"]) == 1
    assert "还找到：\n《" in reply["Description"]
    assert reply["Description"].endswith("》刘慈欣 9787536693968")


@pytest.mark.parametrize("words", ["三体 刘慈欣", "C++ & C#", "100% 100%25", "a=b;c?d/e", "《三体》", "😀"])
def test_words_arrive_as_the_user_wrote_them(http_server, source, words):
    asked = []

    class Server(SERVERS[source]):
        def query(self):
            asked.append(super().query())
            return asked[-1]

    account_on(source, http_server(Server)).say(words)
    assert asked[0]["q"] == words.strip("《》")


def test_no_more_than_six_books_are_shown_of_a_source_that_gives_more(http_server):
    docs = [{"title": f"第{number}卷"} for number in range(20)]
    reply = account_on("openlibrary", http_server(sending_json({"docs": docs}))).say("卷")
    assert "《第5卷》" in reply["Description"]
    assert "《第6卷》" not in reply["Description"]


@pytest.mark.parametrize(("text", "shown"), [("没有这本书", "没有这本书"), ("0-8044-2957-X", "9780804429573")])
def test_what_a_source_does_not_have_says_what_to_try(http_server, source, text, shown):
    assert account_on(source, http_server(SERVERS[source])).say(text)["Content"] == NOTHING.format(shown)


def test_a_wrong_check_digit_is_named_without_asking(http_server, source):
    account = account_on(source, http_server(sending(b"", 500)))
    assert "校验位不对" in account.say("9787536692931")["Content"]


def test_a_slash_at_the_end_of_books_url_changes_nothing(http_server, source):
    account = account_on(source, http_server(SERVERS[source]) + "/")
    assert account.say(THREE_BODY)["Title"] == "三体"


def test_a_scanned_scene_is_looked_up_too(http_server, source):
    account = account_on(source, http_server(SERVERS[source]))
    assert account.event("SCAN", THREE_BODY)["Title"] == "三体"
    assert account.event("subscribe", "qrscene_" + THREE_BODY)["Title"] == "三体"


def test_neither_key_nor_address_is_logged_where_a_book_is_found(http_server, caplog, source):
    caplog.set_level(logging.DEBUG)
    url = http_server(SERVERS[source])
    assert account_on(source, url).say("三体")["Title"] == "三体"
    assert KEY not in caplog.text
    assert url.removeprefix("http://") not in caplog.text


# What goes wrong on the way


def test_a_wrong_key_is_a_failure_and_not_a_book_that_is_not_there(http_server, caplog):
    account = account_on("douban", http_server(DoubanServer), DOUBAN_APIKEY="wrongkey")
    assert account.say(THREE_BODY)["Content"] == FAILED
    assert "it answered 403" in caplog.text
    assert "wrongkey" not in caplog.text


@pytest.mark.parametrize("status", [400, 401, 403, 429, 500, 503])
def test_an_error_of_the_source_is_said(check_failure, status):
    check_failure(sending(b'{"msg": "no", "code": 999}', status))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<!DOCTYPE html><html><body>Too many requests</body></html>",
        b'{"docs": [], "books": [], "title": "x"',
        b'{"title": "\xff\xfe"}',
        b"[" * 100_000,
        b'{"title": ' + b"9" * 5000 + b"}",
    ],
    ids=["empty", "HTML", "cut JSON", "not UTF-8", "too deep", "too long a number"],
)
def test_what_is_no_json_is_said(check_failure, body):
    check_failure(sending(body))


@pytest.mark.parametrize("value", [None, True, 3, 1.5, "三体", [], [{"title": "三体"}]])
def test_json_that_is_no_object_is_said(check_failure, value):
    check_failure(sending_json(value))


def test_a_body_that_ends_before_its_length_is_said(check_failure):
    check_failure(sending(b'{"title": "x", "docs": [', length=5000))


def test_a_body_that_ends_inside_a_chunk_is_said(check_failure):
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    check_failure(writing(head, b'ff\r\n{"title": "x", "docs": []}'))


def test_a_connection_cut_before_the_status_line_is_said(check_failure):
    check_failure(writing())


@pytest.mark.parametrize("line", [b"garbage\r\n\r\n", b"HTTP/1.1 abc OK\r\n\r\n", b"\x00\xff" * 50_000])
def test_a_garbage_status_line_is_said(check_failure, line):
    check_failure(writing(line))


@pytest.mark.parametrize("location", ["http://127.0.0.1:1/", "http://[x/", "file:///etc/passwd", "/again"])
def test_a_redirect_is_said_and_not_followed(check_failure, location):
    class Server(Quiet):
        def do_GET(self):
            self.redirect(location)

    check_failure(Server)


def test_a_source_that_is_not_there_is_said(source):
    assert account_on(source, "http://127.0.0.1:1").say(THREE_BODY)["Content"] == FAILED


@pytest.mark.parametrize("source", ["douban"])
def test_a_source_that_never_answers_is_given_up_before_wechat_hangs_up(check_failure):
    started = time.monotonic()
    check_failure(Silent, texts=[THREE_BODY])
    assert 3.5 < time.monotonic() - started < 5


@pytest.mark.parametrize("source", ["openlibrary"])
def test_a_source_that_drips_is_given_up_before_wechat_hangs_up(check_failure):
    started = time.monotonic()
    check_failure(Dripping, texts=["三体"])
    assert 3.5 < time.monotonic() - started < 5


def test_an_answer_over_one_mebibyte_is_not_read(check_failure):
    check_failure(sending(b'{"title": "x", "docs": []}'.ljust(LARGEST + 1)))


def test_an_answer_of_one_mebibyte_is_read(http_server):
    body = b'{"docs": [{"title": "x"}]}'.ljust(LARGEST)
    assert account_on("openlibrary", http_server(sending(body))).say("x")["Title"] == "x"


def test_a_subscriber_is_welcomed_though_the_source_fails(http_server, source):
    account = account_on(source, http_server(sending(b"", 500)))
    content = account.event("subscribe", "qrscene_" + THREE_BODY)["Content"]
    assert content.startswith("欢迎关注！")
    assert content.endswith(FAILED)


# JSON of the wrong shape, further in

WRONG = [None, True, 3, -1, 2.5, "x", [], {}, [None], [3, [], {}], {"average": []}, {"a": None}]


@pytest.mark.parametrize("value", [*WRONG[:8], [None, 3, "x", []]], ids=repr)
def test_a_list_of_books_that_is_none_is_said(http_server, source, value):
    account = account_on(source, http_server(sending_json({"docs": value, "books": value})))
    expected = NOTHING.format("三体") if isinstance(value, list) else FAILED
    assert account.say("三体")["Content"] == expected


@pytest.mark.parametrize("value", [{"docs": [], "title": []}, {"docs": [{}], "title": None}], ids=repr)
def test_an_object_without_a_book_finds_nothing(http_server, source, value):
    account = account_on(source, http_server(sending_json(value)))
    assert account.say(THREE_BODY)["Content"] == NOTHING.format(THREE_BODY)


def test_a_book_among_what_is_none_is_found(http_server, source):
    books = [None, 3, [], {"title": "三体"}, "x"]
    account = account_on(source, http_server(sending_json({"docs": books, "books": books})))
    assert account.say("三体")["Title"] == "三体"


@pytest.mark.parametrize("name", [name for name in OPEN_LIBRARY_DOCS[0] if name != "title"])
def test_a_field_of_open_library_of_the_wrong_shape_hides_no_book(http_server, name):
    for value in WRONG:
        docs = [{**OPEN_LIBRARY_DOCS[0], name: value}]
        account = account_on("openlibrary", http_server(sending_json({"docs": docs})))
        assert account.say("三体")["Title"] == account.say(THREE_BODY)["Title"] == "三体"


@pytest.mark.parametrize("name", [name for name in DOUBAN_BOOKS[0] if name != "title"])
def test_a_field_of_douban_of_the_wrong_shape_hides_no_book(http_server, name):
    for value in WRONG:
        book = {**DOUBAN_BOOKS[0], name: value}
        account = account_on("douban", http_server(sending_json({**book, "books": [book]})))
        assert account.say("三体")["Title"] == account.say(THREE_BODY)["Title"] == "三体"


@pytest.mark.parametrize("cover", [None, "x", 2.5, [8739161], {"id": 8739161}], ids=repr)
def test_a_cover_of_open_library_that_is_no_number_gives_no_picture(http_server, cover):
    docs = [{"title": "三体", "cover_i": cover}]
    account = account_on("openlibrary", http_server(sending_json({"docs": docs})))
    assert account.say("三体")["PicUrl"] == ""


def test_what_xml_forbids_in_an_answer_is_left_out(http_server, source):
    book = {"title": "三\u0000体\ud800 ]]> <b>&amp;"}
    account = account_on(source, http_server(sending_json({**book, "docs": [book]})))
    assert account.say(THREE_BODY)["Title"] == "三体 ]]> <b>&amp;"


# Settings


@pytest.mark.parametrize("name", ["amazon", "OpenLibrary", "open library"])
def test_a_wrong_books_source_stops_the_start(name):
    assert faults_of(BOOKS_SOURCE=name) == (f"BOOKS_SOURCE is {name!r}: it takes catalogue, openlibrary or douban",)


@pytest.mark.parametrize(
    "url", ["127.0.0.1:8000", "books.example.org", "//books.example.org", "ftp://x", "file:///etc"]
)
@pytest.mark.parametrize("name", ["catalogue", "openlibrary", "douban"])
def test_a_books_url_without_a_scheme_of_the_web_stops_the_start(name, url):
    faults = faults_of(BOOKS_SOURCE=name, BOOKS_URL=url)
    assert faults == ("BOOKS_URL is not an address: it takes one that begins with https:// or http://",)


@pytest.mark.parametrize("key", ["", "  "])
def test_douban_without_a_key_stops_the_start(key):
    faults = faults_of(BOOKS_SOURCE="douban", DOUBAN_APIKEY=key)
    assert faults == ("DOUBAN_APIKEY is missing: BOOKS_SOURCE=douban needs the key of the API",)


def test_a_fault_of_the_source_stands_beside_the_others():
    with pytest.raises(StartError) as caught:
        make_application({"WECHAT_TOKEN": "", "BOOKS_SOURCE": "amazon"})
    assert [fault.split()[0] for fault in caught.value.faults] == ["WECHAT_TOKEN", "BOOKS_SOURCE"]


def slow_handlers(app):
    """The names of the handlers that may take seconds."""
    patterns = [handler for entries in app.delivery._answering.router.patterns.values() for _, handler in entries]
    return {
        handler.name
        for handler in [*(found.handler for found in app.delivery._answering.router.exact.values()), *patterns]
        if handler.slow
    }


def test_remote_sources_mark_their_routes_as_slow(source):
    assert slow_handlers(account_on(source, "http://127.0.0.1:1").app) == {
        "handlers.books.book_by_isbn",
        "handlers.books.book_by_words",
        "handlers.books.book_by_scene",
        "handlers.books.book_for_new_follower",
    }


@pytest.mark.parametrize("name", ["", "catalogue"])
def test_the_catalogue_marks_no_route_as_slow(name):
    assert slow_handlers(account_on(name, "").app) == set()


# The list of books in a file


@pytest.fixture
def catalogue(tmp_path):
    """A function that writes lines to a books.csv and reads it as a Catalogue."""
    make_application({"WECHAT_TOKEN": TOKEN})
    file = tmp_path / "books.csv"

    def read(*lines, encoding="utf-8"):
        file.write_text("\n".join(lines) + "\n", encoding=encoding)
        return sys.modules["handlers._book_sources"].Catalogue(file)

    return read


def test_a_list_of_books_in_another_encoding_is_named_with_what_to_do(catalogue):
    with pytest.raises(ValueError, match=r"books\.csv is not UTF-8 \(Excel writes GBK\): save it as “CSV UTF-8”"):
        catalogue(HEADER, row(), encoding="gbk")


def row(isbn=THREE_BODY, title="三体", rest=",,,,,,"):
    return f"{isbn},{title},{rest}"


@pytest.mark.parametrize(
    "bad",
    [
        row(isbn="9787536692931"),
        row(isbn=""),
        row(isbn="三体"),
        row(title=""),
        row(rest=",,,,,"),
        row(rest=",,,,,,,"),
        THREE_BODY,
    ],
    ids=["check digit", "no ISBN", "not an ISBN", "no title", "missing column", "column too many", "one column"],
)
def test_a_bad_row_is_refused_with_its_file_and_line(catalogue, bad):
    with pytest.raises(ValueError, match=r"^books\.csv line 3: not 9 columns with a valid ISBN and a title$"):
        catalogue(HEADER, row(), bad, row())


@pytest.mark.parametrize(
    "header",
    ["", "isbn,title", HEADER + ",more", HEADER.upper(), HEADER.replace("isbn,title", "title,isbn"), row()],
)
def test_a_bad_header_is_refused_with_the_file_and_the_right_one(catalogue, header):
    with pytest.raises(ValueError, match=rf"^books\.csv: the first line has to be {HEADER}$"):
        catalogue(header)


def test_a_bad_row_stops_the_start_with_its_file_and_line(tmp_path):
    folder = shutil.copytree(ROOT / "handlers", tmp_path / "handlers", ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "books.csv").write_text(f"{HEADER}\n{row(isbn='9787536692931')}\n", encoding="utf-8")
    with pytest.raises(StartError) as caught:
        make_application({"WECHAT_TOKEN": TOKEN}, folder)
    assert len(caught.value.faults) == 1
    assert "books.csv line 2: not 9 columns" in caught.value.faults[0]


def test_a_list_may_begin_with_a_byte_order_mark(catalogue):
    assert catalogue(HEADER, row(), encoding="utf-8-sig").by_isbn(THREE_BODY)[0].title == "三体"


def test_a_list_may_write_isbns_in_any_way(catalogue):
    assert catalogue(HEADER, row(isbn="7-5366-9293-5")).by_isbn(THREE_BODY)[0].isbn == THREE_BODY


def test_a_row_keeps_the_cover_and_the_page_it_names(catalogue):
    rest = "刘慈欣/Ken Liu,重庆出版社,2008,23元,8.8,https://example.org/c.jpg,https://example.org/b"
    book = catalogue(HEADER, row(rest=rest)).by_isbn(THREE_BODY)[0]
    assert book.authors == ("刘慈欣", "Ken Liu")
    assert (book.cover, book.url) == ("https://example.org/c.jpg", "https://example.org/b")


def test_an_empty_list_finds_nothing(catalogue):
    books = catalogue(HEADER)
    assert books.by_isbn(THREE_BODY) == books.search("三体") == []
