"""The other side of the wire: a WeChat simulator, for trying a server without an account."""

import wechat.lean  # noqa: F401, says which Python is needed, and that WebOb is
