"""The options that name an account, for the commands that play WeChat for it."""

import argparse
from collections.abc import Mapping

from wechat.errors import SettingsError
from wechat.settings import Settings, read

OPTIONS = {"WECHAT_TOKEN": "--token", "WECHAT_AES_KEY": "--aes-key", "WECHAT_APPID": "--appid", "WECHAT_MODE": "--mode"}


def add_account(parser: argparse.ArgumentParser, environ: Mapping[str, str] | None = None) -> None:
    """Adds the options; with an `environ`, what is not given comes from the settings in it."""
    group = parser.add_argument_group(
        "the account",
        None if environ is None else "What is not given is as in the environment, else as the sandbox has it.",
    )
    group.add_argument("--token", metavar="T", help="the server's WECHAT_TOKEN; none in cloud mode")
    group.add_argument("--aes-key", metavar="K", help="its WECHAT_AES_KEY; pushes are sealed then")
    group.add_argument("--appid", metavar="A", help="its WECHAT_APPID, which goes with the key")
    modes = ("plain", "compat", "safe", "cloud")
    group.add_argument("--mode", choices=modes, help="its WECHAT_MODE; default: safe where a key is given")
    parser.set_defaults(environ=environ)


def read_account(options: argparse.Namespace) -> Settings:
    """The settings that `add_account` took; raises SettingsError."""
    values = (options.token, options.aes_key, options.appid, options.mode or ("safe" if options.aes_key else None))
    given = {name: value for name, value in zip(OPTIONS, values, strict=True) if value is not None}
    environ = options.environ or {}
    if given.get("WECHAT_MODE") == "cloud":  # which takes neither from the environment
        environ = {name: value for name, value in environ.items() if name not in ("WECHAT_TOKEN", "WECHAT_AES_KEY")}
    try:
        return read({**environ, **given})
    except SettingsError as error:
        if options.environ is not None:
            raise
        said = "\n".join(error.faults)
        for name, option in OPTIONS.items():
            said = said.replace(name, option)
        raise SettingsError(said.split("\n")) from None
