"""What a person at a terminal reads under a Chinese locale, and that the table behind it is whole."""

import argparse
import ast
import errno
import inspect
import os
import re
import subprocess
import sys
from collections import Counter
from unicodedata import east_asian_width

import pytest

from sandbox.__main__ import make_parser, with_defaults
from sandbox.facts import FACTS
from sandbox.load import Tally
from tests.conftest import ROOT, TOKEN
from tests.test_mistakes import FAULTS, WARNINGS, titles, write
from tests.test_online import FAULTS as FAULTS_ONLINE
from tests.test_online import environ, failed, lines, run  # noqa: F401, fixtures
from tests.test_terminal import parsers
from wechat.__main__ import _parser
from wechat.chinese import FIELD, read_table, translate
from wechat.errors import RoutingError, SettingsError
from wechat.mistakes import find_mistakes, unknown_settings
from wechat.platform.answers import HINTS, hint_for
from wechat.platform.menu import menu_faults
from wechat.routing import load
from wechat.settings import read
from wechat.startup import read_env_file
from wechat.system import FORKS, NO_THREADS, advise
from wechat.terminal import Parser, complain, is_chinese, say
from wechat.weak import weak_settings

CHINESE = "zh_CN.UTF-8"
HAN = re.compile("[\u4e00-\u9fff]")
# What no language changes: settings, options, commands, decorators, places in a file, addresses, errcodes.
NAME = re.compile(
    r"[A-Z]+_[A-Z_]+(?:=\w+)?|--[a-z][\w-]*|python -m (?:pip install [\w{}-]+|wechat \w+(?: push)?|sandbox \w+)"
    r"|@(?:on|around)\([^)]*\)|\w+/\w+\.py:\d+|https?://[\w.:/]+\w|\b\d{5}\b"
)
PROSE = re.compile(r"\b[a-z]{2,} [a-z]{2,} [a-z]{2,}\b")


def names(text):
    return sorted(NAME.findall(text))


def check_said(english):
    """The sentence in Chinese, which names what the English one names."""
    chinese = translate(english)
    assert HAN.search(chinese), english
    assert set(names(english)) <= set(names(chinese)), chinese
    return chinese


def start(*command, **more):
    """A command with a Chinese locale, as it ends: bytes."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("WECHAT_", "BOOKS_", "PYTHON"))}
    return subprocess.run(
        [sys.executable, *command],
        cwd=ROOT,
        env={**clean, "PYTHONPATH": str(ROOT), "PYTHONUTF8": "1", "LANG": CHINESE, **more},
        capture_output=True,
        timeout=30,
        check=False,
    )


# Who reads Chinese


@pytest.mark.parametrize(
    ("locale", "wanted"),
    [
        *(({"LANG": name}, True) for name in ("zh_CN.UTF-8", "zh_TW", "zh", "zh_CN.GBK", "zh-Hans-CN", "ZH_cn")),
        *(({"LANG": name}, False) for name in ("en_US.UTF-8", "C", "C.UTF-8", "", "zha_CN", "de_DE@zh")),
        ({}, False),
        ({"LC_MESSAGES": CHINESE, "LANG": "en_US.UTF-8"}, True),
        ({"LC_MESSAGES": "en_US.UTF-8", "LANG": CHINESE}, False),
        ({"LC_ALL": CHINESE, "LC_MESSAGES": "C", "LANG": "C"}, True),
        ({"LC_ALL": "C", "LC_MESSAGES": CHINESE, "LANG": CHINESE}, False),
        ({"LC_ALL": "", "LC_MESSAGES": "", "LANG": CHINESE}, True),
        ({"LC_CTYPE": CHINESE}, False),
    ],
)
def test_the_locale_is_read_with_the_usual_precedence(monkeypatch, locale, wanted):
    for name in ("LC_ALL", "LC_MESSAGES", "LANG", "LC_CTYPE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in locale.items():
        monkeypatch.setenv(name, value)
    assert is_chinese() is wanted


@pytest.mark.parametrize(
    ("encoding", "wanted"), [("utf-8", True), ("gbk", True), ("gb18030", True), ("ascii", False), ("big5", False)]
)
def test_a_console_that_cannot_show_chinese_gets_english(encoding, wanted):
    done = start("-m", "wechat", "check", PYTHONIOENCODING=encoding, PYTHONUTF8="0", WECHAT_TOKEN="x", PORT="x")
    assert (done.returncode, done.stdout) == (1, b"")
    said = done.stderr.decode(encoding)
    assert bool(HAN.search(said)) is wanted
    assert "\\u" not in said
    assert said.count("\n") == 2


def test_english_users_read_no_table():
    source = (
        "import sys; from wechat.__main__ import main; status = main(['check']); "
        "assert 'wechat.chinese' not in sys.modules; sys.exit(status)"
    )
    done = start("-c", source, LANG="C.UTF-8", WECHAT_TOKEN=TOKEN)
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"settings: good\n" in done.stdout


# Help, and wrong calls


@pytest.fixture
def chinese(monkeypatch):
    monkeypatch.setenv("LANG", CHINESE)


def all_parsers():
    about = "Serve the account; all settings come from the environment, and from a file .env in this folder."
    return [*parsers(_parser()), *parsers(make_parser(with_defaults({}))), Parser(prog="wxserver", description=about)]


@pytest.mark.parametrize("number", range(len(all_parsers())))
def test_every_help_is_in_chinese_and_names_the_same_options(monkeypatch, number):
    english = all_parsers()[number].format_help()
    monkeypatch.setenv("LANG", CHINESE)
    chinese = all_parsers()[number].format_help()
    options = re.compile(r"--[\w-]+|\b(?!API)[A-Z_]{2,}\b")
    assert set(options.findall(english)) <= set(options.findall(chinese))
    assert chinese.startswith("用法：")
    about = chinese.partition("\n\n")[2]
    assert not PROSE.search(re.sub("python -m [a-z ]+", "", about)), about
    wide = [line for line in about.splitlines() if sum(1 + (east_asian_width(each) in "WF") for each in line) > 80]
    assert wide == []


def test_the_help_of_the_server_is_what_was_tried():
    """`all_parsers` has a copy of its description."""
    said = start("wxserver.py", "--help").stdout.decode()
    assert "启动服务；全部配置来自环境变量" in said


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("wechat", "错误：缺少必需的参数：COMMAND"),
        ("wechat nothing", "错误：参数 COMMAND：无效的取值 'nothing'（可选："),
        ("wechat check extra", "错误：无法识别的参数：extra"),
        ("wechat check --openid", "错误：参数 --openid：需要一个值"),
        ("wechat check --openid o", "错误：--openid 要和 --online 一起使用"),
        ("wechat media get -abc", "；以 - 开头的值要放在 -- 之后"),
        ("wechat call GET x", "错误：参数 PATH：应为 /cgi-bin/get_api_domain_ip 这样的路径"),
        ("wechat call GET /x {", "错误：参数 JSON：不是 JSON："),
        ("wechat why x", "错误：参数 RID：应为 `rid:` 后面的内容"),
        ("wechat explain", "错误：需要一段 TEXT，或 --event EVENT"),
        ("sandbox load x --rate 0", "错误：参数 --rate：'0'：应为大于 0、不超过 5,000 的数字"),
        ("sandbox load x --plot x.png", "错误：参数 --plot：'x.png' 不是 .svg 文件"),
        ("sandbox push text --wait x", "错误：参数 --wait：'x' 不是有效的 float"),
        ("sandbox push text x --url x", "--url 应为"),
        ("sandbox check x --token xxx", "URL 应为"),
        ("sandbox check http://127.0.0.1 --token x", "--token 不是有效的令牌（Token）"),
        ("sandbox check http://127.0.0.1 --token xxx --mode safe", "缺少 --appid：--mode=safe 需要它"),
    ],
)
def test_a_wrong_call_is_said_in_chinese(command, said):
    done = start("-m", *command.split())
    assert done.returncode == 2
    assert said in done.stderr.decode()


# Faults and hints


@titles(FAULTS)
def test_a_mistake_that_stops_the_start_is_said_in_chinese(mistake, tmp_path):
    with pytest.raises(RoutingError) as caught:
        load(write(tmp_path, mistake.files), {})
    check_said(f"wxserver: {caught.value.faults[0]}")


@titles(WARNINGS)
def test_a_mistake_that_stops_nothing_is_said_in_chinese(mistake, tmp_path):
    folder = write(tmp_path, mistake.files)
    for said in find_mistakes(folder, load(folder, {})):
        assert check_said(f"warning: {said}").startswith("警告：")


BAD_SETTINGS = [
    {},
    *({"WECHAT_TOKEN": token} for token in ("x", "a,b,")),
    *({name: "?"} for name in ("WECHAT_APPID", "WECHAT_SECRET", "WECHAT_AES_KEY", "WECHAT_MODE", "WECHAT_ACCOUNT")),
    *({name: "?"} for name in ("WECHAT_STORE", "WECHAT_API_URL", "WECHAT_PROXY", "WECHAT_PATH", "WECHAT_MAX_AGE")),
    *({name: "?"} for name in ("WECHAT_REPLY_WITHIN", "WECHAT_THREADS", "WECHAT_WAITING", "HOST", "PORT")),
    *({name: "?"} for name in ("LOG_LEVEL", "LOG_FORMAT", "WECHAT_SLOW_THREADS", "WECHAT_WAITING_PER_USER")),
    {"WECHAT_DRAIN": "-1"},
    {"WECHAT_MODE": "safe"},
    {"WECHAT_MODE": "cloud", "WECHAT_TOKEN": TOKEN, "WECHAT_STORE": "sqlite:x"},
    {"WECHAT_ACCOUNT": "miniprogram"},
]


@pytest.mark.parametrize("settings", BAD_SETTINGS, ids=lambda settings: " ".join(settings))
def test_a_wrong_setting_is_said_in_chinese(settings):
    with pytest.raises(SettingsError) as caught:
        read(settings)
    for fault in caught.value.faults:
        check_said(f"wxserver: {fault}")


def test_a_package_that_is_missing_or_broken_is_said_in_chinese(monkeypatch):
    monkeypatch.setitem(sys.modules, "cryptography", None)
    monkeypatch.setitem(sys.modules, "redis", None)
    with pytest.raises(SettingsError) as caught:
        read(
            {"WECHAT_TOKEN": TOKEN, "WECHAT_AES_KEY": "k" * 43, "WECHAT_APPID": "wx123456", "WECHAT_STORE": "redis://x"}
        )
    assert len([check_said(fault) for fault in caught.value.faults]) == 2
    check_said(
        "WECHAT_STORE needs redis, which does not import (ValueError: x): python -m pip install --force-reinstall redis"
    )


def test_a_weak_or_unknown_setting_is_said_in_chinese(tmp_path):
    (tmp_path / "open.db").touch(0o644)
    weak = {"WECHAT_API_URL": "http://8.8.8.8", "WECHAT_MAX_AGE": "0", "WECHAT_STORE": f"sqlite:{tmp_path}/open.db"}
    said = [*weak_settings(read({"WECHAT_TOKEN": "abc", **weak})), *weak_settings(read({"WECHAT_MODE": "cloud"}))]
    said += unknown_settings({"WECHAT_TOKN": "", "WECHAT_ZZZZZZZZZZZZZZZZ": ""})
    assert len([check_said(f"warning: {each}") for each in said]) == 8


@pytest.mark.parametrize("content", [b"A", b"A='", b"\xff", b"A B=1"])
def test_a_bad_line_of_the_env_file_is_said_in_chinese(tmp_path, content):
    (tmp_path / ".env").write_bytes(content)
    with pytest.raises(SettingsError) as caught:
        read_env_file({}, tmp_path / ".env")
    assert ".env 第 1 行：" in check_said(caught.value.faults[0])


@pytest.mark.parametrize("number", [errno.EADDRINUSE, errno.EACCES, errno.EADDRNOTAVAIL, errno.EIO])
@pytest.mark.parametrize("begin", ["HOST, PORT: cannot", "PORT: the sandbox cannot"])
def test_why_it_is_not_possible_to_listen_is_said_in_chinese(number, begin):
    said = check_said(f"wxserver: {begin} listen on 127.0.0.1:80: {advise(OSError(number, 'no'))}")
    assert said.startswith(f"wxserver: {begin.split(':')[0].replace(', ', '、')}：")


def test_each_hint_is_in_chinese():
    for errcode, hint in HINTS.items():
        check_said(f"{errcode}: some errmsg ({hint})")
        check_said(hint)
    check_said(hint_for(40164, "invalid ip 1.2.3.4"))
    check_said(hint_for(61004, "requestIP: 1.2.3.4"))
    check_said(hint_for(45009, "", "POST /cgi-bin/stable_token"))
    check_said(f"wxserver: {FORKS}")


MENUS = [
    5,
    {"button": [1]},
    {"button": [{"name": "x", "sub_button": [{"sub_button": [1]}, {"name": ""}], "type": "view"}]},
]
MENUS += [{"button": [{"name": "x", "sub_button": 5}, {"name": "x", "type": "view"}, {"name": "x", "type": "?"}]}]
MENUS += [{"button": [{"name": "x", "type": "click", "key": "k" * 129}]}]


def test_each_fault_of_a_menu_is_said_in_chinese():
    said = [fault for menu in MENUS for fault in menu_faults(menu)]
    assert len(said) > 8
    for each in said:
        check_said(f"warning: handlers/menu.json: {each}")
    assert "；" in translate(f"handlers/menu.json: {'; '.join(said)}")


# The commands themselves


def test_check_is_in_chinese(tmp_path):
    done = start("-m", "wechat", "check", WECHAT_TOKEN="a-token-of-some-length", HOST="127.0.0.1")
    assert (done.returncode, done.stderr) == (0, b"")
    assert re.fullmatch(r"配置：正确\n处理函数：\d+ 个函数，\d+ 条路径\n", done.stdout.decode())
    (tmp_path / "mine.py").write_text("import nowhere_to_be_found\n")
    done = start("-m", "wechat", "--handlers", str(tmp_path), "check", PORT="x")
    assert done.returncode == 1
    assert [line.partition("：")[0] for line in done.stderr.decode().splitlines()] == [
        *("PORT 的值是 'x'", "缺少 WECHAT_TOKEN", f"{tmp_path.name}/mine.py:1"),
    ]


def test_the_start_says_its_faults_in_chinese_and_logs_in_english(tmp_path):
    done = start("wxserver.py", WECHAT_TOKEN="x")
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr.decode().startswith("wxserver: WECHAT_TOKEN 不是有效的令牌（Token）：")
    done = start("wxserver.py", WECHAT_TOKEN=TOKEN, HOST="192.0.2.1", WECHAT_TOKN="x")
    logged, fault = done.stderr.decode().splitlines()
    assert logged.endswith(" WARNING wxserver: WECHAT_TOKN is not a setting of the server: did you mean WECHAT_TOKEN?")
    assert fault.startswith("wxserver: HOST、PORT：无法监听 192.0.2.1:8080：")
    done = start("-m", "sandbox", PORT="99999")
    assert (done.returncode, done.stderr.decode()) == (
        2,
        "wxserver: PORT 的值是 '99999'：应为端口号，0 到 65535 的整数\n",
    )


def test_a_store_that_does_not_open_is_said_in_chinese():
    done = start("-m", "wechat", "check", WECHAT_TOKEN=TOKEN, WECHAT_STORE="sqlite:/nowhere/x.db")
    assert done.returncode == 1
    assert re.fullmatch("WECHAT_STORE: SQLite 操作失败（write）：.*；目录必须存在，.*\n", done.stderr.decode())


@pytest.mark.parametrize("name", FAULTS_ONLINE)
def test_check_online_is_in_chinese(run, cloud, name):  # noqa: F811
    spoil, more, said, _ = FAULTS_ONLINE[name]
    spoil(cloud)
    done = run("check", "--online", LANG=CHINESE, **more)
    assert (done.returncode, done.stderr) == (1, "")
    for line in lines(done):
        came, _, cure = line.partition(" -> ")
        assert HAN.search(cure if line.startswith("FAIL") else came), line
    assert "共 " in done.stdout.splitlines()[-1]
    assert said.split(":")[0] in lines(done, "FAIL")[0]


def test_the_check_of_the_sandbox_is_in_chinese(serve):
    done = start("-m", "sandbox", "check", serve().url, "--token", TOKEN)
    *said, last = done.stdout.decode().splitlines()
    assert (done.returncode, last) == (0, "plain 模式共 26 项检查：26 ok，0 warn，0 FAIL")
    assert [line for line in said if not HAN.search(line.partition(": ")[0]) or PROSE.search(line)] == []


def test_the_words_of_the_sandbox_are_in_chinese():
    from sandbox.__main__ import DEFAULTS, welcome

    account = {**DEFAULTS, "WECHAT_MODE": "plain"}
    said = welcome(read(account), ROOT / "handlers", account)
    for line in filter(None, said.splitlines()):
        check_said(line)


def test_what_explain_push_and_load_print_is_in_chinese_and_its_columns_stand_below_one_another():
    tally = Tally(5.0, 1000, sent=1234, seconds=5.0, over=7, kinds=Counter(direct=1000, banner=3))
    tally.faults["status 500: WeChat takes 200 alone"] = 3
    tally.latencies.append(0.002)
    said = [translate(line) for line in tally.rows()]
    assert all(re.search("[一-鿿]", line) for line in said), said
    cells = ["".join(letter + "\0" * (east_asian_width(letter) in "WF") for letter in line) for line in said]
    assert [line[24:33].strip() for line in cells[:8]] == ["1,234", "1,000", "0", "0", "3", "3", "228", "7"]
    for line in ("handlers.echo.echo (handlers/echo.py:9) answers", "by @on('text'), slow", "(nothing)", "later: {}"):
        check_said(line)
    assert "中位数 2.0，90 % 2.0, 99 % 2.0, 99.9 % 2.0，最长 2.0" in said[8]
    assert translate("attempt 1: no answer, 5.00 s") == "第 1 次推送：没有应答，5.00 s"
    assert translate("(Connection refused)") == "（Connection refused）"
    assert translate("1,234 sent, 5 in flight, 0 with the banner") == "已发送 1,234 条，在途 5 条，故障提示 0 条"


def test_why_is_in_chinese(run, cloud):  # noqa: F811
    done = run("why", failed(run, cloud), LANG=CHINESE)
    came, sent, answered, cure = done.stdout.splitlines()
    assert re.fullmatch(r"时间      [\d-]+ [\d:]+，来自 127\.0\.0\.1，用时 30 毫秒", came)
    assert sent == "参数      access_token, touser, msgtype, text"
    assert answered.startswith("返回      40003：invalid openid")
    assert cure == "办法      该账号没有这个 openid：其他账号的 openid 不能用"


@pytest.mark.parametrize(
    ("english", "chinese"),
    [
        ("came      at an unknown time from 1.2.3.4, took 0 ms", "时间      未知，来自 1.2.3.4，用时 0 毫秒"),
        ("came      2026 from an unknown address, took 0 ms", "时间      2026，来自未知地址，用时 0 毫秒"),
        (
            "came      at an unknown time from an unknown address, took 0 ms",
            "时间      未知，来自未知地址，用时 0 毫秒",
        ),
        ("sent      nothing", "参数      无"),
    ],
)
def test_what_why_does_not_know_is_said_in_chinese(english, chinese):
    assert translate(english) == chinese


def test_what_no_row_fits_is_said_as_it_is(chinese, capsys):
    for line in ("no row has this", "OSError: disk: full", "50% {of} it", "a\n\nb", ""):
        say(line)
        complain(line)
        assert capsys.readouterr() == (f"{line}\n", f"{line}\n")


def test_a_line_of_many_parts_takes_no_more_than_its_time():
    """Where each part is looked up within each other one, thirty are never done."""
    source = (
        "from wechat.chinese import translate; print([translate(': '.join(['a; b'] * n)) for n in (30, 160, 9999)])"
    )
    assert start("-c", source).returncode == 0


# The table

SAID = [  # the modules whose sentences are read at a terminal
    *(ROOT / f"wechat/{name}.py" for name in ("startup", "settings", "weak", "system", "importing", "marks", "texts")),
    *(ROOT / f"wechat/{name}.py" for name in ("mistakes", "online", "terminal", "store/opening", "store/sqlite")),
    *(ROOT / f"wechat/platform/{name}.py" for name in ("answers", "menu", "connecting", "transport")),
    *(ROOT / f"sandbox/{name}.py" for name in ("check", "options", "verdict")),
]
UNSAID = {
    # In a row whose fields stand elsewhere.
    " is set, but with WECHAT_MODE=cloud nothing is signed or sealed: leave out one of the two",
    ": it takes seconds above 0 and below the 5 after which WeChat hangs up, like 4.5",
    "WECHAT_TOKEN is missing: set it to the token typed on the platform's page, 3 to 32 letters and digits",
    '" means just that text: where it is a pattern, write re.compile(r"',
    "no answer within 5 s",
    # What is only logged.
    "the name has no address",
    NO_THREADS,
}


def sources():
    found = [*ROOT.glob("wechat/**/*.py"), *ROOT.glob("sandbox/*.py"), ROOT / "wxserver.py"]
    return [file for file in found if ROOT / "wechat/data" not in file.parents]


def strings(source):
    """Each string, or its parts between fields, and whether it is a docstring or logged."""
    tree = ast.parse(source)
    quiet = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func).startswith(
            ("logger", "log_error", "troubles", "re.", "regex")
        ):
            quiet |= {id(inner) for inner in ast.walk(node)}
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            quiet.add(id(node.value))
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value, id(node) in quiet


def words(text):
    return " ".join(re.findall(r"[A-Za-z]+", text))


ROWS = read_table()
ARGPARSE = inspect.getsource(argparse)


def test_each_row_has_the_fields_and_names_of_its_english_sentence():
    for english, chinese in ROWS.items():
        assert sorted(FIELD.findall(english)) == sorted(FIELD.findall(chinese)), english
        assert set(names(english)) <= set(names(chinese)), (english, chinese)
        assert not FIELD.sub("", chinese).count("{"), english
        assert chinese.encode("gbk"), english


def test_no_row_is_twice():
    text = (ROOT / "wechat/data/zh.txt").read_text("utf-8")
    left = [line for line in text.splitlines() if line and line[0] not in "# "]
    assert len(left) == len(set(left)) == len(ROWS)


def test_no_row_stands_behind_one_that_takes_its_place():
    """A sentence with fields is found by its own row when its values are nothing special."""
    for english, chinese in ROWS.items():
        if "said" not in english:
            values = {field: f"<{field}>" for field in FIELD.findall(english)}
            assert translate(english.format(**values)) == chinese.format(**values), english


def parts(english):
    """What stands between fields and breaks, as words."""
    return [words(part) for text in FIELD.split(english)[::2] for part in re.split(r"[;:,(?]", text)]


def test_no_row_is_left_over():
    """Each part of an English sentence is still said somewhere."""
    said = "|".join(words(text) for file in sources() for text, _ in strings(file.read_text("utf-8")))
    said += "|".join(
        map(words, (*FACTS["checked"], *FACTS["advice"].values(), *(text for text, _ in strings(ARGPARSE))))
    )
    assert {english: part for english in ROWS for part in parts(english) if part not in said} == {}


def test_no_sentence_is_without_a_row():
    rows = "|".join(part for english in ROWS for part in map(words, FIELD.split(english)[::2]))
    said = [text for file in SAID for text, is_quiet in strings(file.read_text("utf-8")) if not is_quiet]
    said += [*FACTS["checked"], *FACTS["advice"].values()]
    left = {text for text in said if PROSE.search(text) and not all(part in rows for part in parts(text))}
    assert left == UNSAID
