"""Settings that are good and invite harm."""

from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

from wechat.settings import UNSIGNED, Settings
from wechat.system import others_can_read

SAFE_LENGTH = 12  # of a token: a card tries 10^10 SHA-1 a second, 8 characters are found in hours, 12 never


def weak_settings(settings: Settings) -> Iterator[str]:
    """A warning for each, with what would be right."""
    yield from [UNSIGNED] if settings.mode == "cloud" else _weak_signatures(settings)
    kind, _, file = settings.store.partition(":")
    if kind == "sqlite" and others_can_read(Path(file)):
        yield f"WECHAT_STORE: every user of this machine can read {file}: chmod 600 {file}"


def _weak_signatures(settings: Settings) -> Iterator[str]:
    if any(url.startswith("http:") and _is_public(urlsplit(url).hostname or "") for url in settings.api_urls):
        yield "WECHAT_API_URL is http: anyone in between can read the secret and the token; set an https address"
    if settings.max_age == 0:
        yield "WECHAT_MAX_AGE is 0: a signed URL that somebody has seen is good for ever; set it to 300"
    if settings.mode != "safe" and _is_public(settings.host):
        yield (
            f"WECHAT_MODE is {settings.mode} on the public address {settings.host}: whoever sees a signed URL can post "
            "messages of their own to it; choose 安全模式 on the platform's page, and set WECHAT_AES_KEY"
        )
    if (shortest := min(map(len, settings.tokens))) < SAFE_LENGTH:
        yield (
            f"WECHAT_TOKEN has {shortest} characters: whoever sees a signed URL can find it by trying; "
            f"take {SAFE_LENGTH} to 32 random ones, and type them on the platform's page too"
        )


def _is_public(host: str) -> bool:
    """Whether somebody outside could be behind it, or come to it; a name counts as public."""
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return host != "localhost"
    return address.is_unspecified or address.is_global
