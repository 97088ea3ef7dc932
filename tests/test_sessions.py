import contextlib
import threading

import pytest

from tests.conftest import FaultyStore, Machine, is_taken
from wechat.delivery.sessions import LIFE, QUEUED, Sessions


@pytest.fixture
def store(world):
    return FaultyStore(world)


@pytest.fixture
def machine(store, world):
    return Machine(store, world)


@pytest.fixture
def sessions(store, machine):
    return Sessions(store, machine.start("me"))


def read(sessions, openid="o"):
    with sessions.open(openid) as session:
        return dict(session)


def test_a_session_is_the_users_own(sessions):
    with sessions.open("o") as session:
        session["name"] = "你好"
    assert read(sessions) == {"name": "你好"}
    assert read(sessions, "other") == {}


def test_a_session_lasts_a_day_after_it_changed(sessions, world):
    with sessions.open("o") as session:
        session["a"] = 1
    world.now += LIFE - 1
    assert read(sessions) == {"a": 1}
    world.now += 2
    assert read(sessions) == {}


def test_a_session_that_is_empty_leaves_nothing_behind(sessions, store):
    for change in ({"a": 1}, {}):
        with sessions.open("o") as session:
            session.clear()
            session.update(change)
    assert set(store._entries) <= {"alive:me"}


def test_a_handler_that_raises_changes_nothing_and_holds_up_nobody(sessions):
    with contextlib.suppress(KeyError), sessions.open("o") as session:
        session["a"] = 1
        raise KeyError
    assert read(sessions) == {}


LOOP = []
LOOP.append(LOOP)


@pytest.mark.parametrize("value", [{1, 2}, [object()], LOOP])
def test_what_is_not_json_is_an_error_of_the_handler_that_names_its_key(sessions, value):
    said = f"session\\['since'\\] is a {type(value).__name__}"
    with pytest.raises((TypeError, ValueError), match=said), sessions.open("o") as session:
        session.update(name="x", since=value)
    assert read(sessions) == {}


def test_messages_at_the_same_time_lose_no_update(sessions):
    def add():
        for _ in range(25):
            with sessions.open("o") as session:
                session["n"] = session.get("n", 0) + 1

    threads = [threading.Thread(target=add) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert read(sessions) == {"n": 200}


def test_the_lock_of_a_process_that_died_is_taken_over(sessions, store, machine):
    """Its time would be an hour."""
    with Sessions(store, machine.start("dead")).open("o"):
        assert is_taken(store)
        machine.ended.add("dead")
        assert read(sessions) == {}


def test_the_lock_that_was_taken_over_is_not_given_back_by_the_one_it_was_taken_from(sessions, store, machine):
    with Sessions(store, machine.start("frozen")).open("o"):
        machine.ended.add("frozen")
        ours = sessions.open("o")
        ours.__enter__()
    assert is_taken(store)
    ours.__exit__(None, None, None)
    assert not is_taken(store)


def test_who_stood_still_until_another_process_took_the_session_saves_nothing(sessions, store, machine, log):
    """Else what the other one saved meanwhile would be gone: seeds 12443 and 48446 of the simulation."""
    with Sessions(store, machine.start("frozen")).open("o") as stale:
        stale["a"] = "of the one that stood still"
        machine.ended.add("frozen")
        with sessions.open("o") as session:
            session["a"] = "of the one that took over"
    assert read(sessions) == {"a": "of the one that took over"}
    assert "a session is lost: another process took it" in log.text


def test_a_store_that_is_away_gives_an_empty_session(sessions, store, log):
    store.fault = "away"
    with sessions.open("o") as session:
        session["a"] = 1
    assert "a session is lost" in log.text
    store.fault = ""
    assert not is_taken(store)


def test_a_lock_that_could_not_be_given_back_is_no_lock(sessions, store, log):
    """The store was away for a moment."""
    with sessions.open("o"):
        store.fault = "away"
    store.fault = ""
    assert "the lock of a session stays for a while" in log.text
    assert is_taken(store)
    assert read(sessions, "another user") == {}
    assert not is_taken(store), "given back with the next one"


def test_the_next_message_of_the_user_does_not_wait_for_a_lock_that_could_not_be_given_back(sessions, store):
    with sessions.open("o"):
        store.fault = "away"
    store.fault = ""
    assert read(sessions) == {}
    assert not is_taken(store)


def test_a_lock_whose_answer_got_lost_is_given_back_all_the_same(sessions, store):
    """Else the user's messages at other processes would wait for it, for an hour."""
    store.fault, store.times, store.only = "lost", 1, "lock:"
    assert read(sessions) == {}
    assert not is_taken(store)


# Who comes first


@pytest.fixture
def others(store, machine):
    """A function that makes the sessions of another process."""
    return lambda name: Sessions(store, machine.start(name))


def test_who_waits_has_the_session_in_the_order_in_which_they_came(sessions, others, store):
    other = others("other")
    with sessions.open("o"):
        for one in (other, sessions, other):
            one.line_up("o")
        assert not other.take_turn("o"), "somebody has it"
    assert not sessions.claim("o"), "others wait"
    for now, later in ((other, sessions), (sessions, other)):
        assert not later.take_turn("o")
        with now.open("o", now.take_turn("o")):
            assert not later.take_turn("o")
    with other.open("o", other.take_turn("o")):
        pass
    assert not is_taken(store)


def test_a_session_that_is_claimed_is_nobody_elses(sessions, others):
    ticket = sessions.claim("o")
    assert ticket
    assert not others("other").claim("o")
    with sessions.open("o", ticket):
        assert not sessions.claim("o")
    assert sessions.claim("o")


def test_who_leaves_the_queue_holds_up_nobody(sessions, others, store):
    other = others("other")
    for one in (sessions, other, sessions):
        one.line_up("o")
    sessions.leave("o")
    with sessions.open("o", sessions.take_turn("o")):
        pass
    with other.open("o", other.take_turn("o")):
        pass
    assert not is_taken(store)


def test_a_process_that_died_in_the_queue_holds_up_nobody(sessions, others, machine, store):
    for one in (others("dead"), sessions):
        one.line_up("o")
    assert not sessions.take_turn("o")
    machine.ended.add("dead")
    with sessions.open("o", sessions.take_turn("o")):
        pass
    assert not is_taken(store)


def test_a_queue_in_which_nobody_moves_is_forgotten(sessions, others, world):
    """Its first may not have been able to leave it, as the store was away."""
    for one in (others("other"), sessions):
        one.line_up("o")
    assert not sessions.take_turn("o")
    world.now += QUEUED + 1
    assert sessions.take_turn("o")


def test_who_could_not_leave_the_queue_leaves_it_as_soon_as_the_store_is_back(sessions, others, store):
    """The next message of the user's came to another process, and waited for ten minutes."""
    other = others("other")
    sessions.line_up("o")
    store.fault, store.only = "away", "queue:"
    sessions.leave("o")
    store.fault = ""
    sessions.look_after()
    assert other.claim("o")


def test_who_went_on_as_the_store_was_away_does_not_stay_in_the_queue(sessions, others, store):
    other = others("other")
    sessions.line_up("o")
    store.fault = "away"
    with sessions.open("o", sessions.take_turn("o")):
        pass
    store.fault = ""
    sessions.look_after()
    assert other.claim("o")


def test_of_two_who_could_not_leave_their_queues_at_once_each_leaves_later(sessions, others, store, monkeypatch):
    other, get = others("other"), store.get
    for openid in "ab":
        sessions.line_up(openid)

    def meanwhile(key):
        monkeypatch.setattr(store, "get", get)
        sessions.leave("b")
        return get(key)

    store.fault = "away"
    monkeypatch.setattr(store, "get", meanwhile)
    sessions.leave("a")
    store.fault = ""
    sessions.look_after()
    assert other.claim("a")
    assert other.claim("b")


def test_a_queue_that_the_store_does_not_show_is_none(sessions, store, log):
    store.fault = "away"
    sessions.line_up("o")
    with sessions.open("o", sessions.take_turn("o")) as session:
        assert session == {}
    assert "a session is not given in turn" in log.text
