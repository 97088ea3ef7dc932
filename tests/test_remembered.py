"""What a process still knows of the messages that it has answered."""

import tracemalloc

import pytest

import wechat.store.remembered as module
from wechat.store.remembered import DIGEST, KEPT, MOST, Remembered

SECONDS = 600.0


@pytest.fixture
def remembered(world):
    return Remembered(SECONDS, world.monotonic)


def test_a_message_is_found_with_its_document_and_no_other_one_is(remembered):
    remembered.add("key", b"document")
    remembered.add("silent", b"")
    assert remembered.find("key") == b"document"
    assert remembered.find("silent") == b""
    assert remembered.find("other") is None


def test_a_document_is_kept_for_a_minute_where_there_are_few_and_the_message_is_known_longer(remembered, world):
    remembered.add("key", b"document")
    world.now += KEPT - 1
    remembered.add("one", b"")
    world.now += 1
    assert remembered.find("key") == b"document"
    for number in range(2):
        remembered.add(str(number), b"")
        world.now += KEPT
    remembered.add("another", b"")
    assert remembered.find("key") == b""


@pytest.mark.parametrize("rate", [0.05, 1, 50, 400])
def test_a_message_is_known_for_its_time_whatever_the_load(remembered, world, rate):
    """One that is forgotten sooner would run again: the same bytes, with a signature that is still good."""
    step, number, end = max(1 / rate, 0.5), 0, world.now + SECONDS
    remembered.add("first", b"x")
    while world.now < end:
        for _ in range(max(1, round(rate * step))):
            number += 1
            remembered.add(f"o9AgO5 {number}", b"x")
        assert remembered.find("first") is not None
        world.now += step
    assert all(remembered.find(f"o9AgO5 {older}") is not None for older in range(1, number, 97))
    assert not any(remembered.find(f"o9AgO5 {other}") for other in range(number + 1, number + 10_000))


def test_a_message_is_forgotten_in_the_end(remembered, world):
    remembered.add("key", b"document")
    for number in range(8):
        world.now += SECONDS / 2
        for one in range(3):
            remembered.add(f"{number}.{one}", b"")
    assert remembered.find("key") is None


def test_a_message_takes_8_bytes_once_its_document_is_gone(remembered):
    for number in range(MOST * 4):
        remembered.add(f"warm {number}", b"x")
    messages = MOST * 100
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for number in range(messages):
        remembered.add(f"o9AgO5 {number}", b"x")
    grown = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert grown < messages * DIGEST * 1.5


class Numbered(str):
    """A key with a hash of one's own choosing."""

    number = 0

    def __hash__(self):
        return self.number


def key(text, number):
    made = Numbered(text)
    made.number = number
    return made


@pytest.mark.parametrize("shift", range(1, DIGEST))
def test_parts_of_two_digests_are_no_third_one(remembered, monkeypatch, shift):
    monkeypatch.setattr(module, "SHELVES", 1)
    remembered = Remembered(SECONDS, remembered._monotonic)
    one, two = (int.from_bytes(bytes(range(start, start + DIGEST)), "little") for start in (1, 9))
    between = int.from_bytes(bytes(range(1 + shift, 1 + shift + DIGEST)), "little")
    remembered.add(key("one", one), b"")
    remembered.add(key("two", two), b"")
    for number in range(MOST * 2):
        remembered.add(str(number), b"")
    assert remembered.find(key("one", one)) == b""
    assert remembered.find(key("two", two)) == b""
    assert remembered.find(key("three", between)) is None
    remembered.add(key("three", between), b"")
    for number in range(MOST * 2):
        remembered.add(f"more {number}", b"")
    assert remembered.find(key("three", between)) == b"", "behind the parts that look like it"
