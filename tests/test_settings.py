import dataclasses

import pytest

from wechat.errors import SettingsError
from wechat.settings import RULES, Settings, environment, own, read


def faults(**environ):
    with pytest.raises(SettingsError) as caught:
        read({"WECHAT_TOKEN": "testtoken", **environ})
    return caught.value.faults


def test_the_token_alone_is_enough():
    assert read({"WECHAT_TOKEN": "testtoken"}) == Settings(("testtoken",))


def test_every_setting_reaches_its_field():
    environ = {
        "WECHAT_TOKEN": "newtoken, oldtoken",
        "WECHAT_PATH": "/bot/",
        "WECHAT_MAX_AGE": "0",
        "WECHAT_THREADS": "8",
        "HOST": "::1",
        "PORT": "9000",
        "LOG_LEVEL": "debug",
    }
    assert set(environ) == {rule.name for rule in RULES}
    expected = Settings(("newtoken", "oldtoken"), "/bot", 0, 8, "::1", 9000, "DEBUG")
    assert read(environ) == expected


def test_an_empty_value_counts_as_none():
    assert read({"WECHAT_TOKEN": "testtoken", "PORT": " ", "WECHAT_PATH": ""}) == Settings(("testtoken",))


def test_a_missing_token_is_named_with_what_would_be_right():
    with pytest.raises(
        SettingsError, match="WECHAT_TOKEN is missing: set it to the token typed on the platform's page"
    ):
        read({})


@pytest.mark.parametrize("token", ["ab", "a" * 33, "with space", '"quoted"', "fresh,", "密码密码", "a,b,"])
def test_a_wrong_token_is_refused_without_being_shown(token):
    (fault,) = faults(WECHAT_TOKEN=token)
    assert fault.startswith("WECHAT_TOKEN ")
    assert token not in fault


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("WECHAT_PATH", "weixin"),
        ("WECHAT_PATH", "/weixin?x=1"),
        ("WECHAT_PATH", "//"),
        ("WECHAT_PATH", "/healthz/"),
        ("WECHAT_MAX_AGE", "-1"),
        ("WECHAT_MAX_AGE", "5 minutes"),
        ("WECHAT_THREADS", "0"),
        ("WECHAT_THREADS", "٣"),
        ("PORT", "65536"),
        ("PORT", "http"),
        ("HOST", "http://localhost"),
        ("LOG_LEVEL", "LOUD"),
    ],
)
def test_a_wrong_value_is_named_with_what_would_be_right(name, value):
    (fault,) = faults(**{name: value})
    assert fault.startswith(f"{name} is {value!r}: it takes ")


def test_all_faults_are_said_at_once():
    assert len(faults(WECHAT_TOKEN="", PORT="x", LOG_LEVEL="x")) == 3


def test_no_repr_shows_the_token():
    assert "testtoken" not in repr(read({"WECHAT_TOKEN": "testtoken"}))


def test_settings_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        read({"WECHAT_TOKEN": "testtoken"}).port = 1


def test_a_module_reads_its_own_settings_from_the_environment_of_the_application():
    with environment({"MINE": " yes ", "EMPTY": " "}):
        assert (own("MINE"), own("EMPTY", "no"), own("PATH", "none")) == ("yes", "no", "none")
    assert own("PATH") != "none"
