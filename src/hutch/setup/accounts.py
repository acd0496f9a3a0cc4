"""The first administrator, and a way in for who owns the machine but lost their sign-in.

Works on the database itself, with the rights of the user the server runs as, so that the files it
makes are that user's: `python -m hutch.setup.accounts administrator NAME` and
`… token NAME TITLE` answer with one line of JSON, and so does `… known NAME`, which only looks.
Everything else in the setup goes through the API, as that administrator.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
from pathlib import Path

from hutch.api.app import open_context
from hutch.domain.people import SYSTEM, Actor, Role, Scope, User
from hutch.errors import HutchError, NotFoundError
from hutch.services import tokens, users
from hutch.services.context import Context
from hutch.settings import load_settings
from hutch.store import migrate


async def ensure_administrator(context: Context, name: str) -> tuple[str, str | None]:
    """The name of an active administrator, `name` if that one is, and the password if the
    account was made just now."""
    known = await known_administrator(context, name)
    if known is not None:
        return known, None
    everyone = [user for user, _ in await users.list_all(context, SYSTEM)]
    taken = {user.name for user in everyone}
    free = next(wish for wish in (name, "admin", "admin2") if wish not in taken)
    user, password = await users.add(context, SYSTEM, free, Role.ADMIN)
    return user.name, password


async def known_administrator(context: Context, name: str) -> str | None:
    """The name of an active administrator, `name` if that one is; None when there is none."""
    everyone = [user for user, _ in await users.list_all(context, SYSTEM)]
    active = [user.name for user in everyone if _is_active_administrator(user)]
    if not active:
        return None
    return name if name in active else active[0]


def _is_active_administrator(user: User) -> bool:
    return user.role is Role.ADMIN and user.disabled_at is None


async def make_token(context: Context, name: str, title: str) -> str:
    """A new API token of an administrator, for the command line of who set up the machine."""
    for user, _ in await users.list_all(context, SYSTEM):
        if user.name == name:
            actor = Actor(user.id, user.name, user.role)
            secret, _ = await tokens.create(context, actor, title, Scope.FULL, days=None)
            return secret
    raise NotFoundError("user", name)


async def _main(parsed: argparse.Namespace) -> dict[str, str | None]:
    settings = load_settings(data=parsed.data)
    if parsed.what != "known":
        await asyncio.to_thread(migrate.upgrade, settings.database)
    elif not await asyncio.to_thread(_is_current, settings.database):
        return {"name": None}
    context = open_context(settings)
    try:
        if parsed.what == "known":
            return {"name": await known_administrator(context, parsed.name)}
        if parsed.what == "administrator":
            name, password = await ensure_administrator(context, parsed.name)
            return {"name": name, "password": password}
        return {"token": await make_token(context, parsed.name, parsed.title)}
    finally:
        await context.engines.close()
        await context.db.close()


def _is_current(url: str) -> bool:
    """Whether the database is there and has this version's tables. Makes nothing: a look at a
    SQLite file that is not there would."""
    scheme, _, path = url.partition(":///")
    if scheme == "sqlite" and not Path(path).is_file():
        return False
    return migrate.revision_of(url) == migrate.revisions()[-1]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m hutch.setup.accounts")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("what", choices=["administrator", "known", "token"])
    parser.add_argument("name")
    parser.add_argument("title", nargs="?", default="")
    os.umask(0o077)
    try:
        print(json.dumps(asyncio.run(_main(parser.parse_args()))))
    except HutchError as error:
        print(f"{error}\n{error.hint}".strip(), file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
