import dataclasses
import os
import subprocess
import sys
from base64 import b64decode

import pytest

from sandbox.messages import APPID
from tests.conftest import ROOT
from wechat.errors import SettingsError
from wechat.settings import NAMES, Settings, environment, own, read
from wechat.startup import HANDLERS


def faults(**environ):
    with pytest.raises(SettingsError) as caught:
        read({"WECHAT_TOKEN": "testtoken", **environ})
    return caught.value.faults


def test_the_token_alone_is_enough():
    assert read({"WECHAT_TOKEN": "testtoken"}) == Settings(("testtoken",))


def test_every_setting_reaches_its_field():
    environ = {
        "WECHAT_TOKEN": "newtoken, oldtoken",
        "WECHAT_APPID": "wx1234567890abcdef",
        "WECHAT_SECRET": "5" * 32,
        "WECHAT_AES_KEY": "A" * 43 + ", " + "B" * 43,
        "WECHAT_MODE": "Compat",
        "WECHAT_ACCOUNT": "miniprogram",
        "WECHAT_STORE": "redis://127.0.0.1:6379/0",
        "WECHAT_API_URL": "http://127.0.0.1:9090/, https://api2.weixin.qq.com",
        "WECHAT_PROXY": "http://user:p%40ss@proxy.example:3128",
        "WECHAT_PATH": "/bot/",
        "WECHAT_MAX_AGE": "0",
        "WECHAT_REPLY_WITHIN": "0.5",
        "WECHAT_THREADS": "8",
        "WECHAT_SLOW_THREADS": "9",
        "WECHAT_WAITING_PER_USER": "0",
        "WECHAT_WAITING": "500",
        "WECHAT_DRAIN": "3",
        "HOST": "::1",
        "PORT": "9000",
        "LOG_LEVEL": "debug",
        "LOG_FORMAT": "JSON",
    }
    assert {*environ, HANDLERS} == set(NAMES)
    keys = (bytes(32), b64decode("B" * 43 + "="))
    credentials = (("newtoken", "oldtoken"), "wx1234567890abcdef", "5" * 32, keys, "compat", "miniprogram")
    urls, proxy = ("http://127.0.0.1:9090", "https://api2.weixin.qq.com"), environ["WECHAT_PROXY"]
    where = ("redis://127.0.0.1:6379/0", urls, proxy, "/bot")
    assert read(environ) == Settings(*credentials, *where, 0, 0.5, 8, 9, 0, 500, 3, "::1", 9000, "debug", "json")


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
        ("WECHAT_REPLY_WITHIN", "0"),
        ("WECHAT_REPLY_WITHIN", "5"),
        ("WECHAT_REPLY_WITHIN", "soon"),
        ("WECHAT_DRAIN", "3601"),
        ("WECHAT_THREADS", "0"),
        ("WECHAT_SLOW_THREADS", "0"),
        ("WECHAT_WAITING_PER_USER", "-1"),
        ("WECHAT_WAITING", "0"),
        ("WECHAT_THREADS", "٣"),
        ("PORT", "65536"),
        ("PORT", "http"),
        ("HOST", "http://localhost"),
        ("LOG_LEVEL", "LOUD"),
        ("LOG_FORMAT", "xml"),
        ("WECHAT_MODE", "secure"),
        ("WECHAT_ACCOUNT", "service"),
    ],
)
def test_a_wrong_value_is_named_with_what_would_be_right(name, value):
    (fault,) = faults(**{name: value})
    assert fault.startswith(f"{name} is {value!r}: it takes ")


def test_all_faults_are_said_at_once():
    assert len(faults(WECHAT_TOKEN="", PORT="x", LOG_LEVEL="x")) == 3


SAFE = {"WECHAT_TOKEN": "testtoken", "WECHAT_APPID": "wx1234567890abcdef", "WECHAT_AES_KEY": "k" * 43}


def test_a_key_means_safe_mode_unless_another_is_set():
    assert read(SAFE).mode == "safe"
    assert read({**SAFE, "WECHAT_MODE": "plain"}).mode == "plain"


def test_a_key_is_taken_with_blanks_and_with_bits_to_spare():
    assert read({**SAFE, "WECHAT_AES_KEY": " kkk kkk" + "k" * 36 + "G\n"}).aes_keys[0] == b64decode("k" * 42 + "G=")


@pytest.mark.parametrize("key", ["short", "k" * 42, "k" * 44, "k" * 42 + "!", "k" * 43 + ","])
def test_a_wrong_key_is_refused_without_being_shown(key):
    (fault,) = faults(WECHAT_AES_KEY=key)
    assert fault.startswith("WECHAT_AES_KEY is not an EncodingAESKey")
    assert key not in fault


@pytest.mark.parametrize("mode", ["safe", "compat"])
def test_a_mode_that_seals_needs_key_and_appid(mode):
    assert [fault.split()[0] for fault in faults(WECHAT_MODE=mode)] == ["WECHAT_AES_KEY", "WECHAT_APPID"]


def test_a_mode_that_seals_names_the_package_it_needs(monkeypatch):
    monkeypatch.setitem(sys.modules, "cryptography", None)  # as where it is not installed
    with pytest.raises(SettingsError, match="python -m pip install cryptography"):
        read(SAFE)


def test_a_mini_program_needs_what_its_answers_go_through():
    names = [fault.split()[0] for fault in faults(WECHAT_ACCOUNT="miniprogram")]
    assert names == ["WECHAT_APPID", "WECHAT_SECRET"]


def test_a_wrong_secret_is_refused_without_being_shown():
    (fault,) = faults(WECHAT_SECRET="a b c d e f")
    assert fault.startswith("WECHAT_SECRET is not an AppSecret")
    assert "a b c" not in fault


@pytest.mark.parametrize("store", ["redis:", "sqlite:", "memory", "mysql://u:pass@h/d", "file.db"])
def test_a_wrong_store_is_refused_without_being_shown(store):
    (fault,) = faults(WECHAT_STORE=store)
    assert fault == "WECHAT_STORE is not a store: it takes memory:, sqlite:FILE or redis://host:port/db"


@pytest.mark.parametrize(
    "url",
    [
        *("api.weixin.qq.com", "ftp://x", "https://u:p@x", "https://x?y=1", "https://", "http://[", "http://x:abc"),
        *("https://x,", ",https://x", "https://x,y", "https://x https://y", "https://x,https://u:p@y"),
    ],
)
def test_a_wrong_address_of_the_api_is_refused(url):
    (fault,) = faults(WECHAT_API_URL=url)
    assert fault.startswith("WECHAT_API_URL is not an address")


@pytest.mark.parametrize(
    "url",
    [
        *(
            "proxy.example:3128",
            "http://proxy.example",
            "https://u:secret@proxy:443",
            "socks5://proxy:1080",
            "http://:80",
        ),
        *("http://u:secret@proxy:0", "http://u:secret@proxy:99999", "http://u:secret@proxy:80/path", "http://p:80?x"),
        *("http://u:se@cret@proxy:80", "http://proxy:80:secret", "http://u:secret@[:80", "http://a b:80", "secret"),
    ],
)
def test_a_wrong_proxy_is_refused_without_being_shown(url):
    (fault,) = faults(WECHAT_PROXY=url)
    assert fault.startswith("WECHAT_PROXY is not a proxy: it takes http://host:port or http://user:password@host:port")
    assert "secret" not in fault


def test_no_repr_shows_a_secret():
    settings = read({**SAFE, "WECHAT_SECRET": "thesecret", "WECHAT_PROXY": "http://user:itspassword@proxy:3128"})
    for secret in ("testtoken", "thesecret", "itspassword", repr(settings.aes_keys[0])):
        assert secret not in repr(settings)


def test_settings_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        read({"WECHAT_TOKEN": "testtoken"}).port = 1


def test_a_module_reads_its_own_settings_from_the_environment_of_the_application():
    with environment({"MINE": " yes ", "EMPTY": " "}):
        assert (own("MINE"), own("EMPTY", "no"), own("PATH", "none")) == ("yes", "no", "none")
    assert own("PATH") != "none"


# Packages that are there and do not import

BROKEN = {
    "a library that it needs is missing": 'raise ImportError("libssl.so.3: no such file\\nsecond line")',
    "a module of its own is missing": "import cryptography.nowhere, redis.nowhere",
    "made for another system": "raise OSError(8, 'Exec format error')",
    "a panic, which is no Exception": "class PanicException(BaseException): pass\nraise PanicException('call failed')",
    "it ends the process": "raise SystemExit(1)",
    "not even Python": "def",
}
ASKED = {
    "cryptography": {"WECHAT_AES_KEY": "a" * 43, "WECHAT_APPID": APPID},
    "redis": {"WECHAT_STORE": "redis://127.0.0.1/0"},
}


@pytest.mark.parametrize("source", BROKEN.values(), ids=BROKEN)
@pytest.mark.parametrize("package", ASKED)
@pytest.mark.parametrize("as_package", [True, False], ids=["whole", "a submodule"])
def test_a_package_that_does_not_import_stops_the_start_with_one_line(tmp_path, package, source, as_package):
    """What is broken may also lie deeper than the package's first file."""
    (tmp_path / package).mkdir()
    place = tmp_path / package / "__init__.py"
    if not as_package:
        place.touch()
        if package == "redis":
            place.write_text("from redis import client\n")
        place = tmp_path / package / ("client.py" if package == "redis" else "hazmat.py")
    place.write_text(source + "\n")
    done = run_server(PYTHONPATH=str(tmp_path), **ASKED[package])
    (line,) = done.stderr.splitlines()
    assert done.returncode == 2
    setting = "WECHAT_MODE=safe" if package == "cryptography" else "WECHAT_STORE"
    assert line.startswith(f"wxserver: {setting} needs {package}, which does not import (")
    assert line.endswith(f"): python -m pip install --force-reinstall {package}")


@pytest.mark.parametrize("package", ASKED)
def test_a_package_that_is_not_installed_is_named_with_what_to_type(tmp_path, package):
    (tmp_path / f"{package}.py").write_text(f"raise ModuleNotFoundError(name={package!r})\n")
    done = run_server(PYTHONPATH=str(tmp_path), **ASKED[package])
    assert done.returncode == 2
    assert done.stderr.splitlines()[0].endswith(f"needs a package: python -m pip install {package}")


def test_a_broken_package_that_no_setting_asks_for_is_never_imported(tmp_path):
    for package in ASKED:
        (tmp_path / f"{package}.py").write_text("raise SystemExit('imported')\n")
    code = "import os, wxserver; wxserver.start(os.environ).close()"
    done = run_server("-c", code, PYTHONPATH=str(tmp_path))
    assert (done.returncode, done.stderr) == (0, "")


def run_server(*command, **environ):
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("WECHAT_", "BOOKS_"))}
    return subprocess.run(
        [sys.executable, *(command or ["wxserver.py"])],
        cwd=ROOT,
        env={**clean, "WECHAT_TOKEN": "testtoken", "HOST": "127.0.0.1", "PORT": "0", **environ},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
