import pytest

from tests.vectors import VECTORS
from wechat.errors import Forbidden
from wechat.protocol.envelope import check_age, check_signature, sign

QUERY = {"timestamp": "1714036504", "nonce": "1514711492", "signature": "f464b24fc39322e44b38aa78f5edd27bd1441696"}


@pytest.mark.parametrize("name", ["G_get", "G_plainpost", "F_in"])
def test_the_official_signatures_are_ours(name):
    vector = VECTORS[name]
    assert sign(vector["token"], vector["timestamp"], vector["nonce"]) == vector["signature"]


@pytest.mark.parametrize("name", ["F_in", "F_out"])
def test_the_official_message_signatures_are_ours(name):
    vector = VECTORS[name]
    assert sign(vector["token"], vector["timestamp"], vector["nonce"], vector["cipher"]) == vector["msg_signature"]


def test_parts_are_sorted_as_bytes_and_joined_with_nothing_between():
    assert sign("b", "a", "C") == sign("Cab") == sign("C", "b", "a")


@pytest.mark.parametrize("signature", ["", "x", "é" * 40, "\x00", "F464B24FC39322E44B38AA78F5EDD27BD1441696", "😀"])
def test_any_text_can_be_held_against_a_signature(signature):
    with pytest.raises(Forbidden, match="signature"):
        check_signature({**QUERY, "signature": signature}, ("AAAAA",))


def test_either_token_is_good_while_it_is_changed():
    check_signature(QUERY, ("newtoken", "AAAAA"))
    check_signature(QUERY, ("AAAAA", "oldtoken"))


@pytest.mark.parametrize("name", ["signature", "timestamp", "nonce"])
@pytest.mark.parametrize("value", [None, ""])
def test_a_missing_part_is_named(name, value):
    query = {**QUERY, name: value}
    with pytest.raises(Forbidden, match=name):
        check_signature(query, ("AAAAA",))


@pytest.mark.parametrize("name", ["signature", "timestamp", "nonce"])
def test_a_changed_part_is_refused_and_the_setting_named(name):
    query = {**QUERY, name: QUERY[name][:-1] + "0"}
    with pytest.raises(Forbidden, match="WECHAT_TOKEN"):
        check_signature(query, ("AAAAA",))


@pytest.mark.parametrize("age", [-300, 0, 300])
def test_a_timestamp_is_good_for_max_age_both_ways(age):
    check_age("1714036504", 1714036504 + age, 300)


@pytest.mark.parametrize("age", [-301, 301, 10**9])
def test_a_timestamp_beyond_max_age_is_refused_and_says_what_to_look_at(age):
    with pytest.raises(Forbidden, match=r"WECHAT_MAX_AGE is 300.*clock"):
        check_age("1714036504", 1714036504 + age, 300)


def test_max_age_0_lets_every_timestamp_pass():
    check_age("0", 1714036504, 0)
    check_age("soon", 1714036504, 0)


@pytest.mark.parametrize("timestamp", ["", "soon", "-5", "1e9", "²", "9" * 5000])
def test_a_timestamp_that_is_no_number_is_refused(timestamp):
    with pytest.raises(Forbidden, match="timestamp"):
        check_age(timestamp, 1714036504, 300)
