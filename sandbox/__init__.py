"""The other side of the wire: a local WeChat."""
