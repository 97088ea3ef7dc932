import os
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.test_reply_properties import ARTICLES, REPLIES
from tests.test_runs import Silent
from wechat.delivery.debts import Debts, pack, unpack
from wechat.delivery.owners import Owners
from wechat.reply import Image, News, Text
from wechat.store.memory import MemoryStore


@pytest.fixture
def store():
    return MemoryStore()


@pytest.fixture
def debts(store):
    return Debts(store, Owners(store))


def test_a_debt_is_found_until_it_is_settled(debts):
    assert debts.find("o", "key") is None
    debts.owe("o", "key", "<xml/>")
    debts.owe("o", "key", "another word changes nothing")
    assert debts.find("o", "key").content == "<xml/>"
    assert debts.is_anything_owed("o")
    assert not debts.is_anything_owed("other")
    debts.settle(debts.claim(debts.find("o", "key")))
    assert not debts.is_anything_owed("o")


def test_of_many_who_would_pay_or_cancel_one_does(debts):
    for number in range(50):
        debts.owe("o", str(number), "")
        debt, won = debts.find("o", str(number)), []
        threads = [
            threading.Thread(target=lambda act=act, debt=debt, won=won: won.append(bool(act(debt))))
            for act in (debts.claim, debts.cancel, debts.claim, debts.cancel)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sum(won) == 1


def test_what_is_being_paid_is_neither_claimed_again_nor_cancelled(debts):
    debts.owe("o", "key", "")
    debts.claim(debts.find("o", "key"))
    assert debts.claim(debts.find("o", "key")) is None
    assert not debts.cancel(debts.find("o", "key"))


def test_what_a_living_process_is_paying_is_not_claimed_by_another(store, debts):
    theirs = Debts(store, Owners(store))
    debts.owe("o", "key", "")
    assert theirs.claim(theirs.find("o", "key"))
    assert debts.claim(debts.find("o", "key")) is None


def test_the_debts_of_a_process_that_died_are_orphans_also_half_paid_ones(store, debts):
    theirs = Debts(store, Owners(store))
    theirs._owners.me = f"{theirs._owners.me.split('/')[0]}/{os.getpid()}/dead"
    for key in ("a", "b"):
        theirs.owe("o", key, key)
    theirs.claim(theirs.find("o", "a"))
    debts.owe("o", "c", "c")
    orphans = debts.orphans()
    assert sorted(debt.content for debt in orphans) == ["a", "b"]
    assert all(debts.claim(debt) for debt in orphans)
    assert debts.orphans() == []


def test_kept_replies_come_back_once_the_oldest_first(debts):
    for reply in (Text("first"), Image("second")):
        debts.keep("o", reply)
    debts.keep("o:other", Text("not for o"))
    assert debts.take_kept("o")[::2] == (Text("first"), True)
    assert debts.take_kept("o")[::2] == (Image("second"), False)
    assert debts.take_kept("o") == (None, "", False)


def test_a_48001_is_remembered(debts):
    assert debts.may_push()
    debts.forbid_push()
    assert not debts.may_push()


@given(REPLIES)
def test_a_reply_comes_out_of_the_store_as_it_went_in(reply):
    assert unpack(pack(reply)) == reply


@given(st.lists(ARTICLES, max_size=8))
def test_news_come_out_of_the_store_with_all_their_articles(articles):
    assert unpack(pack(News(articles))) == News(articles)


def test_a_store_that_is_away_raises_nowhere(caplog):
    debts = Debts(Silent(), Owners(MemoryStore()))
    debts.owe("o", "key", "")
    debts.keep("o", Text("x"))
    debts.forbid_push()
    assert debts.find("o", "key") is None
    assert debts.take_kept("o") == (None, "", False)
    assert not debts.is_anything_owed("o")
    assert debts.may_push()
    assert caplog.text.count("away") == 7
