"""The engine protocol over the REST API of Incus, or of LXD, which has kept the same one.

driver.py   the protocol's methods
spec.py     what a container is in Incus's words: written and read back
programs.py running a program inside
watch.py    the event stream, and the list of containers which it keeps fresh
banner.py   waiting for the SSH server behind a port
client.py   HTTP, operations and websockets; its errors become hutch's
"""

from hutch.engine.incus.client import Certificates
from hutch.engine.incus.driver import IncusEngine

__all__ = ["Certificates", "IncusEngine"]
