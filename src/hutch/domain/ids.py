"""Identifiers: opaque, unguessable, and short enough to read out over the telephone."""

import secrets

ENGINE_PREFIX = "hutch-"


def new_id() -> str:
    """A new primary key: 16 hexadecimal digits from the system's random source (64 bits)."""
    return secrets.token_hex(8)


def new_engine_name() -> str:
    """A new container name, `hutch-` and 8 hexadecimal digits, never shown to a person.

    It carries no owner and no instance name, so nothing that a person types reaches the engine.
    """
    return ENGINE_PREFIX + secrets.token_hex(4)
