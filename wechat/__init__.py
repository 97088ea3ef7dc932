"""What WeChat defines. Each module imports only those before it in this list:

errors, settings, signature, envelope, message, log, reply, routing, store, transport, files,
hints, access_token, api, menu, delivery, console.
"""
