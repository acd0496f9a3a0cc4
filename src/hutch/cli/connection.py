"""The server that a command talks to, and the things there that a person names."""

import sys

from hutch.cli import messages, remote
from hutch.client.client import Client
from hutch.client.config import Login, config_path, load_login, readable_by_others
from hutch.errors import ForbiddenError, NotFoundError


def connect() -> Client:
    """A client for the server and the sign-in of the person who runs this."""
    path = config_path()
    login = load_login(path)
    warn_if_readable(login)
    return Client(login.url, login.token, on_behalf_of=remote.address())


def warn_if_readable(login: Login) -> None:
    path = config_path()
    if login.token and readable_by_others(path):
        sys.stderr.write(messages.READABLE_BY_OTHERS.format(path=path) + "\n")


def resolve(client: Client, name: str) -> str:
    """What the API knows an instance by: `name` itself, or the id behind `owner/name`.

    Raises NotFoundError when there is none, or none that the person may see.
    """
    owner, slash, own = name.partition("/")
    if not slash:
        return name
    try:
        found = client.list_instances(owner=owner)
    except ForbiddenError as error:
        raise NotFoundError("instance", name) from error
    for instance in found:
        if own in {instance["name"], instance["id"]}:
            return instance["id"]
    raise NotFoundError("instance", name, hint="`hutch list --all` shows everyone's.")
