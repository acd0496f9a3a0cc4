"""Whether a command runs for somebody at the other end of the SSH gateway (`ssh lab list`).

They have no files and no programs here: what a command would read from one comes on standard input,
and what it would write they are told.
"""

import os

GATEWAY = "HUTCH_GATEWAY"
"""Set by the gateway: how people reach it, as HOST:PORT."""
ADDRESS = "HUTCH_CLIENT_ADDRESS"
"""Set by the gateway: where they came from."""


def gateway() -> str | None:
    """How the person reaches the gateway that this runs behind; None on their own machine."""
    return os.environ.get(GATEWAY)


def address() -> str | None:
    """Where the person is, for the server's audit: it would see the gateway's own address."""
    return os.environ.get(ADDRESS)
