"""What WeChat defines. Each module imports only those before it in this list:

errors, settings, signature, envelope, message, log, web, templates, reply, routing, memory_store, sqlite_store,
redis_store, store, owners, sessions, transport, files, hints, access_token, api, menu, answering, pool, debts, outbox,
runs, orphans, delivery, serving, console.
"""
