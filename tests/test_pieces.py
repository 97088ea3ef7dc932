"""Where a long text is cut."""

import itertools
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wechat.message import without_forbidden
from wechat.pieces import TEXT_LIMIT, split_text

FAMILY = "👨‍👩‍👧‍👦"
LINK = '<a href="https://example.com/a b?c=1&d=2">two words. 两个词。</a>'
WHOLE = [  # what is one character to a reader
    FAMILY,
    "👍🏽",
    "❤️",
    "1️⃣",
    "🇨🇳",
    "🏴\U000e0067\U000e0062\U000e0073\U000e0063\U000e0074\U000e007f",
    "e\u0301\u0323",
    "か\u3099",
    "\r\n",
]
PLAIN = ["a", "界", "😀", " ", "\n\n", "。", ". ", "，", "<", ">", "</a>x"]


@pytest.mark.parametrize(
    ("kept", "rest"),
    [
        ("x" * 80 + " one. two three\n\n", "four five six seven."),
        ("x" * 80 + " one. ", "two three four five six seven eight."),
        ("x" * 80 + " one\n", "two three four five six seven eight."),
        ("x" * 80 + ' "one!" ', "two three four five six seven eight."),
        ("x" * 80 + " version 3.11 ", "comes-without-any-blank"),
        ("界" * 26 + "。", "二，三四五六七八"),
        ("界" * 26 + "。」", "二，三四五六七八"),
        ("界" * 26 + "，", "二三四五六七八九"),
        ("x" * 99 + " ", "  y"),
        ("x" * 99 + "\n", "\n\ny"),
    ],
)
def test_a_piece_ends_with_a_paragraph_else_a_sentence_else_a_word(kept, rest):
    assert split_text(kept + rest, 100) == [kept, rest]


@pytest.mark.parametrize("early", ["one.\n\n", "一。", "word "])
def test_what_ends_before_the_last_quarter_is_no_place_for_a_cut(early):
    text = early + "x" * 200
    assert len(split_text(text, 100)[0].encode()) == 100


@pytest.mark.parametrize("whole", [*WHOLE, LINK, "<A HREF='x'>y</A>"])
@pytest.mark.parametrize("before", range(1, 8))
def test_a_character_with_its_modifiers_and_a_link_stay_whole(whole, before):
    fill = "x" * (100 - before)
    piece = split_text(fill + whole + "y" * 90, 100)[0]
    assert piece == fill or piece.startswith(fill + whole)


def test_the_words_of_a_link_are_no_place_for_a_cut():
    text = "x" * 50 + LINK + "y" * 60
    assert split_text(text, len(LINK) + 60)[0].endswith(LINK + "y" * 2)


def test_flags_are_counted_in_pairs():
    assert {len(piece) % 2 for piece in split_text("🇨🇳🇩🇪🇫🇷" * 100, 100)} == {0}
    assert split_text("🇨🇳" * 10 + "🇩", 84) == ["🇨🇳" * 10 + "🇩"]


@pytest.mark.parametrize("endless", ["e" + "\u0301" * 2000, '<a href="' + "x y" * 800 + '">', "👨‍" * 500, "🇨" * 999])
def test_what_alone_is_longer_than_a_piece_is_cut_between_characters(endless):
    pieces = split_text(endless, 200)
    assert "".join(pieces) == endless
    assert all(140 < len(piece.encode()) <= 200 for piece in pieces[:-1])


def test_the_tag_of_a_link_that_is_too_long_stays_whole():
    tag = '<a href="https://example.com/?a b">'
    pieces = split_text("x" * 90 + tag + "words and words " * 30 + "</a>", 100)
    assert pieces[:2] == ["x" * 90, tag + ("words and words " * 5)[:64]]


def is_between(pieces, atoms):
    """Whether each cut lies between two of the atoms; blanks do not count, as a cut may part them and drop some."""
    ends = {0, *itertools.accumulate(len("".join(atom.split())) for atom in atoms)}
    return ends.issuperset(itertools.accumulate(len("".join(piece.split())) for piece in pieces))


@pytest.mark.parametrize(("text", "pieces"), [("x" * 100 + "\n\n", 1), ("x" * 99 + " " * 500 + "y", 2), (" " * 500, 0)])
def test_no_piece_is_blank(text, pieces):
    """The last newline of an answer was a message of its own, and WeChat takes no empty text."""
    assert len(split_text(text, 100)) == pieces
    assert "".join(split_text(text, 100)).split() == text.split()


@given(st.lists(st.sampled_from([*WHOLE, *PLAIN[:-1], LINK]), max_size=150), st.integers(90, 300))
def test_every_cut_is_between_characters_and_beside_links(atoms, limit):
    pieces = split_text("".join(atoms), limit)
    assert "".join(pieces).split() == "".join(atoms).split()
    assert all(len(piece.encode()) <= limit and piece.strip() for piece in pieces)
    assert is_between(pieces, atoms)


@given(
    st.lists(st.sampled_from([*WHOLE, *PLAIN, LINK, "\ud800", "\x00"]) | st.text(), max_size=100), st.integers(4, 99)
)
def test_the_pieces_of_any_text_are_within_the_limit_and_make_the_whole(parts, limit):
    text = "".join(parts)
    pieces = split_text(text, limit)
    assert "".join("".join(pieces).split()) == "".join(without_forbidden(text).split())
    assert all(0 < len(piece.encode()) <= limit for piece in pieces)


@given(st.text(st.sampled_from("ab 界。.\n，"), min_size=700, max_size=3000))
def test_a_piece_fills_three_quarters_at_least(text):
    for piece in split_text(text)[:-1]:
        assert len(piece.encode()) > TEXT_LIMIT * 3 // 4 - 4


def seconds_for(text):
    """Processor time of the fastest of three runs."""
    times = []
    for _ in range(3):
        started = time.process_time()
        split_text(text)
        times.append(time.process_time() - started)
    return min(times)


@pytest.mark.parametrize("unit", ["x", "<a ", '<a href="', LINK, " ", ". ", "\n", "🇨", "👨‍", "\u0301", "<", ";"])
def test_the_time_grows_with_the_length_alone(unit):
    short, long = (seconds_for(unit * (size // len(unit))) for size in (20_000, 200_000))
    assert long < 30 * short  # the square would be 100
