import os
import socket
import subprocess
import sys
import threading
import time

import pytest

import wechat.delivery.owners
from tests.conftest import ROOT
from wechat.delivery.owners import LIFE, Heartbeat, Owners
from wechat.store.memory import MemoryStore

pytestmark = pytest.mark.interpreter
HERE = socket.gethostname()


@pytest.fixture
def owners(clock):
    return Owners(MemoryStore(clock))


def test_this_process_is_alive(owners):
    assert not owners.is_dead(owners.me)


def test_on_this_host_one_can_look(owners):
    other = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    owner = f"{HERE}/{other.pid}/abc"
    owners._store.set(f"alive:{owner}", "1", LIFE)
    assert not owners.is_dead(owner)
    other.communicate(b"\n")
    assert owners.is_dead(owner)


def test_a_number_that_went_to_another_program_is_no_sign_of_life(owners):
    assert owners.is_dead(f"{HERE}/{os.getppid()}/abc")


def test_a_former_process_with_our_own_number_is_dead(owners):
    """As in a container, where every process is number 1."""
    assert owners.is_dead(f"{HERE}/{os.getpid()}/former")


def test_of_another_host_30_seconds_without_a_sign_of_life_mean_dead(owners, clock):
    other = Owners(owners._store)
    other.me = "elsewhere/1/abc"
    assert owners.is_dead(other.me)
    other.show_life()
    clock.now = LIFE - 1
    assert not owners.is_dead(other.me)
    clock.now = LIFE + 1
    assert owners.is_dead(other.me)


def test_the_heartbeat_shows_life_and_does_its_task(owners):
    done = []
    heartbeat = Heartbeat(owners, lambda: done.append(1) or heartbeat.stop(), done.clear)
    heartbeat.start()
    assert heartbeat._ended.wait(5)
    assert done == [1]
    assert owners._store.get(f"alive:{owners.me}") == "1"


def test_for_a_forked_process_the_one_it_comes_from_is_another():
    code = "import os, time; from wechat.store.memory import MemoryStore; from wechat.delivery.owners import Owners\n"
    code += "owners = Owners(MemoryStore())\nif os.fork(): os._exit(0)\n"
    code += "time.sleep(0.2); print(owners.is_dead(owners.me))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "True\n"


def test_a_heart_goes_on_after_a_failure_of_any_kind(owners, monkeypatch, log):
    monkeypatch.setattr(wechat.delivery.owners, "RENEW", 0.01)
    beats = []

    def task():
        beats.append(1)
        if len(beats) == 3:
            heartbeat.stop()
        raise KeyError("a debt of another version")

    heartbeat = Heartbeat(owners, task, beats.clear)
    heartbeat.start()
    heartbeat._thread.join(5)
    assert len(beats) == 3
    assert "the heartbeat goes on after a failure" in log.text


def test_who_stops_a_heart_waits_until_it_stands_still(owners):
    at_work, is_over = threading.Event(), []
    heartbeat = Heartbeat(owners, lambda: at_work.set() or time.sleep(0.2) or is_over.append(1), is_over.clear)
    heartbeat.start()
    at_work.wait(5)
    heartbeat.stop()
    assert is_over
