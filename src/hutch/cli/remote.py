"""Whether a command runs for somebody at the other end of the SSH gateway.

They have no files and no programs here: what a command would read from one comes on standard input,
and what it would write they are told.
"""

import os

VARIABLE = "HUTCH_GATEWAY"
"""Set by the gateway: how people reach it, as HOST:PORT."""


def gateway() -> str | None:
    """How the person reaches the gateway that this runs behind; None on their own machine."""
    return os.environ.get(VARIABLE)
