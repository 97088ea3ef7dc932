import contextlib
import os
import threading

import pytest
from tests.test_runs import Silent
from wechat.delivery.owners import Owners

from wechat.delivery.sessions import LIFE, Sessions
from wechat.store.memory import MemoryStore


@pytest.fixture
def store(clock):
    return MemoryStore(clock)


@pytest.fixture
def sessions(store):
    return Sessions(store, Owners(store))


def read(sessions, openid="o"):
    with sessions.open(openid) as session:
        return dict(session)


def test_a_session_is_the_users_own(sessions):
    with sessions.open("o") as session:
        session["name"] = "你好"
    assert read(sessions) == {"name": "你好"}
    assert read(sessions, "other") == {}


def test_a_session_lasts_a_day_after_it_changed(sessions, clock):
    with sessions.open("o") as session:
        session["a"] = 1
    clock.now = LIFE - 1
    assert read(sessions) == {"a": 1}
    clock.now = LIFE + 1
    assert read(sessions) == {}


def test_a_session_that_is_empty_leaves_nothing_behind(sessions, store):
    for change in ({"a": 1}, {}):
        with sessions.open("o") as session:
            session.clear()
            session.update(change)
    assert store.keys("") == []


def test_a_handler_that_raises_changes_nothing_and_holds_up_nobody(sessions):
    with contextlib.suppress(KeyError), sessions.open("o") as session:
        session["a"] = 1
        raise KeyError
    assert read(sessions) == {}


def test_what_is_not_json_is_an_error_of_the_handler(sessions):
    with pytest.raises(TypeError), sessions.open("o") as session:
        session["a"] = object()
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


def test_the_lock_of_a_process_that_died_is_taken_over(sessions, store):
    dead = f"{Owners(store).me.split('/')[0]}/{os.getpid()}/dead"
    store.add("lock:o", f"{dead} 1", 1000)
    assert read(sessions) == {}


def test_a_store_that_is_away_gives_an_empty_session(caplog):
    sessions = Sessions(Silent(), Owners(MemoryStore()))
    with sessions.open("o") as session:
        session["a"] = 1
    assert "a session is lost" in caplog.text


def test_a_lock_that_could_not_be_given_back_is_no_lock(sessions, store):
    """The store was away for a moment."""
    store.add("lock:o", f"{sessions._owners.me} gone", 1000)
    assert read(sessions) == {}
    assert not sessions.is_taken("o")
