"""Calls to api.weixin.qq.com, and what they need."""
