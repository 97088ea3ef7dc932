"""Where books are looked up: the bundled list, Open Library, or an API of the shape of Douban's v2."""

import csv
import io
import json
import logging
import re
import unicodedata
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from socket import SHUT_RDWR
from threading import Timer
from urllib.parse import quote, urlencode, urlsplit

from handlers._isbn import isbn13
from wechat.errors import SettingsError
from wechat.settings import own

logger = logging.getLogger(__name__)

CATALOGUE = Path(__file__).with_name("books.csv")
COLUMNS = ["isbn", "title", "authors", "publisher", "published", "price", "rating", "cover", "url"]
MOST = 6  # books that one answer can show
TIMEOUT = 4.0  # seconds for a look-up once the source can be reached; WeChat hangs up after 5
LARGEST = 1024 * 1024  # bytes of an answer
LONGEST_FIELD = 200  # characters
USER_AGENT = "wxserver"


class SourceFailed(Exception):
    """The source could not be asked, or its answer could not be read; no message holds an address or a key."""


class NotFound(SourceFailed):
    """The source knows of no such thing."""


@dataclass(frozen=True)
class Book:
    """One edition; an unknown field is empty. `rating` is out of 10."""

    isbn: str
    title: str
    authors: tuple[str, ...] = ()
    publisher: str = ""
    published: str = ""
    price: str = ""
    rating: str = ""
    cover: str = ""
    url: str = ""


class Catalogue:
    """A CSV file in UTF-8 with the columns in COLUMNS; authors are separated by `/`, only isbn and title must be there.

    Where cover and url are empty, they point to Open Library's cover and Douban's page for the ISBN.
    """

    is_remote = False

    def __init__(self, file=CATALOGUE):
        self.books = {book.isbn: book for book in _read_catalogue(file)}
        self.index = [
            (_folded(book.title), _folded(book.title + "".join(book.authors)), book) for book in self.books.values()
        ]

    def by_isbn(self, isbn):
        """The book with this ISBN-13 in a list, or an empty list."""
        return [self.books[isbn]] if isbn in self.books else []

    def search(self, words):
        """The books that have every word in their title or authors, the closest title first."""
        parts, whole = [_folded(word) for word in words.split()], _folded(words)
        if not whole:
            return []
        hits = [(title, book) for title, text, book in self.index if all(part in text for part in parts)]
        hits.sort(key=lambda hit: (hit[0] != whole, not hit[0].startswith(whole), whole not in hit[0]))
        return [book for _, book in hits[:MOST]]


def _folded(text):
    return re.sub(r"[\W_]+", "", unicodedata.normalize("NFKC", text).casefold())


def _read_catalogue(file):
    if not file.exists():
        logger.warning("%s is not there: no book will be found; BOOKS_SOURCE=openlibrary needs no list", file.name)
        return
    text = file.read_bytes().decode("utf-8-sig", "replace")
    if "\ufffd" in text:
        raise ValueError(f"{file.name} is not UTF-8 (Excel writes GBK): save it as “CSV UTF-8”")
    rows, name = csv.DictReader(io.StringIO(text, newline="")), file.name
    if rows.fieldnames != COLUMNS:
        raise ValueError(f"{name}: the first line has to be {','.join(COLUMNS)}")
    for row in rows:
        isbn = isbn13(row["isbn"] or "")
        if not isbn or not row["title"] or None in row or None in row.values():
            raise ValueError(f"{name} line {rows.line_num}: not {len(COLUMNS)} columns with a valid ISBN and a title")
        row["cover"] = row["cover"] or f"https://covers.openlibrary.org/b/isbn/{isbn}-M.jpg"
        row["url"] = row["url"] or f"https://book.douban.com/isbn/{isbn}/"
        yield Book(**{**row, "isbn": isbn, "authors": tuple(filter(None, row["authors"].split("/")))})


class OpenLibrary:
    """https://openlibrary.org/dev/docs/api/search"""

    is_remote = True
    url = "https://openlibrary.org"
    fields = "key,title,author_name,publisher,first_publish_year,isbn,cover_i,ratings_average"

    def __init__(self, url=""):
        self.url = url or self.url

    def by_isbn(self, isbn):
        """The book with this ISBN-13 in a list, or an empty list."""
        return _with_title(self._book(item, isbn) for item in self._ask(isbn=isbn)[:1])

    def search(self, words):
        """The first books that Open Library finds."""
        return _with_title(self._book(item, _first(item.get("isbn"))) for item in self._ask(q=words))

    def _ask(self, **query):
        answer = fetch_json(f"{self.url}/search.json?{urlencode({**query, 'fields': self.fields, 'limit': MOST})}")
        return _dicts(answer.get("docs"))

    def _book(self, item, isbn):
        cover, rating = item.get("cover_i"), item.get("ratings_average")
        return Book(
            isbn=isbn,
            title=_text(item.get("title")),
            authors=_texts(item.get("author_name")),
            publisher=_first(item.get("publisher")),
            published=_text(item.get("first_publish_year")),
            rating=f"{rating * 2:.1f}" if isinstance(rating, float) and 0 < rating <= 5 else "",  # theirs is out of 5
            cover=f"https://covers.openlibrary.org/b/id/{cover}-M.jpg" if type(cover) is int and cover > 0 else "",
            url=f"https://openlibrary.org{_text(item.get('key'))}",
        )


class Douban:
    """An API of the shape of http://developers.douban.com/wiki/?title=book_v2"""

    is_remote = True
    url = "https://api.douban.com"

    def __init__(self, url="", apikey=""):
        self.url, self.apikey = url or self.url, apikey

    def by_isbn(self, isbn):
        """The book with this ISBN-13 in a list, or an empty list."""
        try:
            return _with_title([self._book(self._ask(f"/v2/book/isbn/{quote(isbn)}"))])
        except NotFound:
            return []

    def search(self, words):
        """The first books that Douban finds."""
        answer = self._ask("/v2/book/search", q=words, count=MOST)
        return _with_title(map(self._book, _dicts(answer.get("books"))))

    def _ask(self, path, **query):
        return fetch_json(f"{self.url}{path}?{urlencode({**query, 'apikey': self.apikey})}")

    def _book(self, item):
        rating = item.get("rating")
        return Book(
            isbn=_text(item.get("isbn13")) or _text(item.get("isbn10")),
            title=_text(item.get("title")),
            authors=_texts(item.get("author")),
            publisher=_text(item.get("publisher")),
            published=_text(item.get("pubdate")),
            price=_text(item.get("price")),
            rating=_text(rating.get("average")) if isinstance(rating, dict) else "",
            cover=_text(item.get("image")),
            url=_text(item.get("alt")),
        )


def _text(value):
    return str(value)[:LONGEST_FIELD] if isinstance(value, str) or type(value) in (int, float) else ""


def _texts(value):
    return tuple(_text(item) for item in value if isinstance(item, str)) if isinstance(value, list) else ()


def _first(value):
    return (_texts(value) or ("",))[0]


def _dicts(value):
    if not isinstance(value, list):
        raise SourceFailed("its JSON has no list of books")
    return [item for item in value if isinstance(item, dict)][:MOST]


def _with_title(books):
    return [book for book in books if book.title]


def fetch_json(url):
    """The JSON object behind the URL, TIMEOUT seconds after the connection at most.

    Raises SourceFailed, or its NotFound for a 404.
    """
    from http.client import HTTPException  # and ssl, which the bundled list does without

    try:
        status, body = _fetch(urlsplit(url))
        answer = json.loads(body) if status == 200 else {}
    except (OSError, HTTPException, ValueError, RecursionError) as error:
        raise SourceFailed(f"{type(error).__name__} on the way") from None
    if status != 200:
        raise (NotFound if status == 404 else SourceFailed)(f"it answered {status}")
    if not isinstance(answer, dict):
        raise SourceFailed("its JSON is no object")
    return answer


def _fetch(url):
    from http.client import HTTPConnection, HTTPSConnection

    connect = HTTPSConnection if url.scheme == "https" else HTTPConnection
    connection = connect(url.netloc, timeout=TIMEOUT)
    with closing(connection):
        connection.connect()
        # A socket's timeout starts anew with each byte; this ends the whole, however slowly it drips.
        deadline = Timer(TIMEOUT, _end, [connection.sock])
        deadline.start()
        try:
            connection.request("GET", f"{url.path}?{url.query}", headers={"User-Agent": USER_AGENT})
            response = connection.getresponse()
            body = response.read(LARGEST + 1)
        finally:
            deadline.cancel()
    if len(body) > LARGEST:
        raise ValueError("too much")
    return response.status, body


def _end(connection):
    with suppress(OSError):  # it has ended by itself
        connection.shutdown(SHUT_RDWR)


def choose():
    """The source that the settings BOOKS_SOURCE, BOOKS_URL and DOUBAN_APIKEY ask for; raises SettingsError."""
    name, url, apikey = own("BOOKS_SOURCE", "catalogue"), own("BOOKS_URL").rstrip("/"), own("DOUBAN_APIKEY")
    if url and not re.fullmatch(r"https?://[^\s/@?#]+(/[^\s?#]*)?", url):
        raise SettingsError(["BOOKS_URL is not an address: it takes one that begins with https:// or http://"])
    if name == "catalogue":
        return Catalogue()
    if name == "openlibrary":
        return OpenLibrary(url)
    if name != "douban":
        raise SettingsError([f"BOOKS_SOURCE is {name!r}: it takes catalogue, openlibrary or douban"])
    if not apikey:
        raise SettingsError(["DOUBAN_APIKEY is missing: BOOKS_SOURCE=douban needs the key of the API"])
    return Douban(url, apikey)
