"""The HTTP client: what hutch's own command line speaks, and what scripts may import.

Nothing here imports the server, pydantic or httpx: `hutch list` has to answer at once.
"""

from hutch.client.client import Client
from hutch.client.config import Login, config_path, load_login, save_login

__all__ = ["Client", "Login", "config_path", "load_login", "save_login"]
