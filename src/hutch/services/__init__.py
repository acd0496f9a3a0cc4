"""Use cases: permission and quota, then rows, an operation and an event in one transaction."""
