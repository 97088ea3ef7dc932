"""What a process still knows of the messages that it has answered."""

import tracemalloc
from types import SimpleNamespace

import pytest

import wechat.message as module
from wechat.message import DIGEST, KEPT, MOST, Remembered

SECONDS = 600.0
OVER, UNDER_WAY = SimpleNamespace(is_over=True), SimpleNamespace(is_over=False)


@pytest.fixture
def remembered(world):
    return Remembered(SECONDS, world.monotonic, lambda message: message.is_over)


def is_known(remembered, key):
    return bool(remembered.get(key)) or remembered.is_over(key)


def test_a_message_is_found_and_no_other_one_is(remembered):
    remembered.add("key", OVER)
    assert remembered.get("key") is OVER
    assert not is_known(remembered, "other")


def test_what_ended_is_kept_for_a_minute_where_there_is_little_and_known_for_longer(remembered, world):
    remembered.add("key", OVER)
    world.now += KEPT - 1
    remembered.add("one", OVER)
    world.now += 1
    assert remembered.get("key") is OVER
    for number in range(2):
        remembered.add(str(number), OVER)
        world.now += KEPT
    remembered.add("another", OVER)
    assert remembered.get("key") is None
    assert remembered.is_over("key")


def test_what_is_under_way_is_kept_whatever_the_load(remembered):
    remembered.add("key", UNDER_WAY)
    for number in range(MOST * 4):
        remembered.add(str(number), OVER)
    assert remembered.get("key") is UNDER_WAY


def test_more_under_way_than_a_generation_holds_turn_it_seldom(remembered):
    turns = []
    turn, remembered._turn = remembered._turn, lambda now: turns.append(now) or turn(now)
    for number in range(MOST * 4):
        remembered.add(str(number), UNDER_WAY)
    assert len(turns) == 3
    assert all(remembered.get(str(number)) for number in range(MOST * 4))


def test_what_is_dropped_is_not_known(remembered):
    remembered.add("key", UNDER_WAY)
    remembered.drop("key")
    remembered.drop("key")
    assert not is_known(remembered, "key")


@pytest.mark.parametrize("rate", [0.05, 1, 50, 400])
def test_a_message_is_known_for_its_time_whatever_the_load(remembered, world, rate):
    """One that is forgotten sooner would run again: the same bytes, with a signature that is still good."""
    step, number, end = max(1 / rate, 0.5), 0, world.now + SECONDS
    remembered.add("first", OVER)
    while world.now < end:
        for _ in range(max(1, round(rate * step))):
            number += 1
            remembered.add(f"o9AgO5 {number}", OVER)
        assert is_known(remembered, "first")
        world.now += step
    assert all(is_known(remembered, f"o9AgO5 {older}") for older in range(1, number, 97))
    assert not any(is_known(remembered, f"o9AgO5 {other}") for other in range(number + 1, number + 10_000))


def test_a_message_is_forgotten_in_the_end(remembered, world):
    remembered.add("key", OVER)
    for number in range(8):
        world.now += SECONDS / 2
        for one in range(3):
            remembered.add(f"{number}.{one}", OVER)
    assert not is_known(remembered, "key")


def test_a_message_takes_8_bytes_once_it_is_a_digest(remembered):
    for number in range(MOST * 4):
        remembered.add(f"warm {number}", OVER)
    messages = 200_000
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for number in range(messages):
        remembered.add(f"o9AgO5 {number}", OVER)
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


def add_generations(remembered, prefix):
    for number in range(MOST * 2):
        remembered.add(f"{prefix} {number}", OVER)


@pytest.mark.parametrize("shift", range(1, DIGEST))
def test_parts_of_two_digests_are_no_third_one(monkeypatch, world, shift):
    monkeypatch.setattr(module, "SHELVES", 1)
    remembered = Remembered(SECONDS, world.monotonic, lambda message: message.is_over)
    one, two = (int.from_bytes(bytes(range(start, start + DIGEST)), "little") for start in (1, 9))
    between = int.from_bytes(bytes(range(1 + shift, 1 + shift + DIGEST)), "little")
    remembered.add(key("one", one), OVER)
    remembered.add(key("two", two), OVER)
    add_generations(remembered, "other")
    assert remembered.is_over(key("one", one))
    assert remembered.is_over(key("two", two))
    assert not remembered.is_over(key("three", between))
    remembered.add(key("three", between), OVER)
    add_generations(remembered, "more")
    assert remembered.is_over(key("three", between)), "behind the parts that look like it"
