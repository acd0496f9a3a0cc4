"""The REST API: HTTP in, use cases called, JSON out. Nothing is decided here.

A request passes `edge` (request id, address, limits, the log line), `deps` (who asks, and whether
they may), and a handler of a few lines in the module of its noun.
"""

PREFIX = "/api/v1"
