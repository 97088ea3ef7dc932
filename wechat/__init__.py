"""What WeChat defines. Each module imports only those before it in this list:

errors, settings, signature, envelope, message, log, reply, routing, delivery.
"""
