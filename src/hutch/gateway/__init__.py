"""The SSH gateway: one port that leads every person to their instances, by name and by key.

It is a process of its own. It asks the database whose key it sees and where a name leads, and
carries bytes; it changes nothing but through the services. `docs/explanation/gateway.md`.
"""
