"""The other side of the wire: a WeChat simulator, for trying a server without an account."""

import wechat  # noqa: F401, says which Python is needed
