"""Questions of public threads: the words people search for are in the section that answers, in both languages."""

import re
from typing import NamedTuple

import pytest

from tests.conftest import ROOT


class Question(NamedTuple):
    """A question as it was asked, where, and what a search for its words has to find."""

    asked: str
    thread: str  # at github.com
    document: str
    section: str
    words: str


QUESTIONS = [
    Question(*line)
    for line in [
        # Connecting
        (
            "Token验证失败 when 提交 is pressed",
            "zhayujie/CowAgent#1052",
            "troubleshooting",
            "Token验证失败",
            "Token验证失败 提交",
        ),
        (
            "配置失败 on a test account's page",
            "leancloud/LeanEngine-WechatBot#10",
            "troubleshooting",
            "Token验证失败",
            "配置失败 80 443",
        ),
        (
            "quotes around the echostr",
            "FastBootWeixin/FastBootWeixin#7",
            "troubleshooting",
            "Token验证失败",
            "echostr bytes",
        ),
        ("no port can be given", "node-webot/weixin-robot#61", "troubleshooting", "Token验证失败", "80 443 PORT"),
        ("how to try it at home", "Wizzercn/NutzWk#73", "deploy", "From the sandbox", "内网穿透 ngrok frp 测试号"),
        ("nginx, 404 and 502", "offu/WeRoBot#456", "troubleshooting", "Behind a proxy", "502 504 Cloudflare"),
        ("IP checks behind nginx", "ToryPan/ChatGPT_WeChat#14", "troubleshooting", "Behind a proxy", "getcallbackip"),
        # The banner, and silence
        (
            "该公众号提供的服务出现故障",
            "w7corp/easywechat#2188",
            "troubleshooting",
            "The banner",
            "该公众号提供的服务出现故障 200",
        ),
        ("five seconds, three requests", "offu/WeRoBot#480", "troubleshooting", "The banner", "5 slow=True"),
        (
            "an invisible character",
            "zhayujie/bot-on-anything#323",
            "troubleshooting",
            "The banner",
            "不可见字符 U+001D",
        ),
        (
            "two banners, though it was answered",
            "binarywang/WxJava#837",
            "troubleshooting",
            "Answered twice",
            "第三方平台",
        ),
        ("the same message again (排重)", "chanxuehong/wechat#98", "troubleshooting", "Answered twice", "排重 MsgId"),
        (
            "several workers, no shared memory",
            "doraemonext/wechat-python-sdk#70",
            "troubleshooting",
            "Answered twice",
            "gunicorn redis:",
        ),
        ("no passive reply after 5 s", "offu/WeRoBot#486", "handlers", "Slow work", "slow=True 超时 success"),
        (
            "ask with 继续 after 15 s",
            "zhayujie/bot-on-anything#23",
            "handlers",
            "Slow work without customer messages",
            "继续 个人订阅号",
        ),
        ("a long text is cut or not sent", "dodgepudding/wechat-php-sdk#363", "handlers", "Replies", "2,047 字节"),
        ("several 图文消息, one is shown", "wechatpy/wechatpy#485", "handlers", "Articles", "图文消息 Article"),
        # Errors of the API
        ("40164 invalid ip, not in whitelist", "binarywang/WxJava#439", "troubleshooting", "40164", "40164 IP白名单"),
        ("the address changes each day", "JimLiu/baoyu-skills#127", "troubleshooting", "40164", "动态 1.2.3.0/24"),
        ("40001 on several servers", "w7corp/easywechat#1453", "troubleshooting", "40001", "40001 多台服务器"),
        (
            "access_token 过期 is not renewed",
            "w7corp/easywechat#2386",
            "troubleshooting",
            "40001",
            "过期 42001 access_token",
        ),
        ("45015 response out of time limit", "w7corp/easywechat#1426", "troubleshooting", "45015", "45015 48 客服消息"),
        (
            "45047 out of response count limit",
            "wechatpy/wechatpy#643",
            "troubleshooting",
            "45015",
            "45047 out of response count limit",
        ),
        ("48001 api unauthorized", "zhayujie/CowAgent#1757", "troubleshooting", "48001", "48001 微信认证 个人订阅号"),
        (
            "can a personal account do that",
            "songquanpeng/wechat-server#12",
            "handlers",
            "What a personal account",
            "个人主体 自定义菜单 客服消息",
        ),
        (
            "昵称 and 头像 are empty",
            "silenceper/wechat#537",
            "handlers",
            "What a personal account",
            "昵称 头像 user/info",
        ),
        # Messages, menus, modes
        (
            "the menu vanished with 服务器配置",
            "labring/FastGPT#4224",
            "troubleshooting",
            "The console's answers",
            "服务器配置 自定义菜单 import",
        ),
        ("a new menu is not shown", "offu/WeRoBot#265", "troubleshooting", "The menu does not appear", "menu push"),
        ("Recognition is empty", "node-webot/wechat#167", "handlers", "A voice message", "Recognition 语音识别"),
        ("the signature is wrong in 安全模式", "wechatpy/wechatpy#739", "troubleshooting", "Refused", "msg_signature"),
        (
            "EncodingAESKey does not decrypt",
            "wechatpivot/wechatpivot#2",
            "troubleshooting",
            "Safe mode",
            "EncodingAESKey WECHAT_AES_KEY",
        ),
        ("how to send 模板消息", "wechatpy/wechatpy#118", "handlers", "A template message", "模板消息 48"),
        (
            "login to a website by a code",
            "songquanpeng/wechat-server#12",
            "handlers",
            "Log in to a website",
            "验证码 网页授权",
        ),
        (
            "msgSecCheck for what users write",
            "binarywang/WxJava#2231",
            "handlers",
            "Moderation by WeChat",
            "msg_sec_check 内容安全",
        ),
        ("云托管 and 开放接口服务", "wechatpy/wechatpy#758", "deploy", "From the sandbox", "云托管 Dockerfile"),
    ]
]
each_question = pytest.mark.parametrize("question", QUESTIONS, ids=lambda question: question.asked)


def sections(file):
    """Title and text of each section, in order, each without those below it; a comment in code is no title."""
    text = re.sub(
        r"^ *```.*?^ *```",
        lambda block: block[0].replace("\n#", "\n "),
        file.read_text("utf-8"),
        flags=re.MULTILINE | re.DOTALL,
    )
    parts = re.split(r"^#+ (.+)\n", text, flags=re.MULTILINE)[1:]
    return list(zip(parts[::2], parts[1::2], strict=True))


@each_question
@pytest.mark.parametrize("language", ["", ".zh-CN"], ids=["en", "zh"])
def test_the_words_of_a_question_are_in_the_section_that_answers(question, language):
    titles = [title for title, _ in sections(ROOT / f"docs/{question.document}.md")]
    [place, *_] = [number for number, title in enumerate(titles) if title.startswith(question.section)]
    title, text = sections(ROOT / f"docs/{question.document}{language}.md")[place]
    missing = [word for word in question.words.split() if word.casefold() not in f"{title}\n{text}".casefold()]
    assert not missing, title


def test_there_are_thirty_questions_from_threads():
    assert len({question.asked for question in QUESTIONS}) >= 30
    assert all(re.fullmatch(r"[\w.-]+/[\w.-]+#\d+", question.thread) for question in QUESTIONS)
