"""A small lab for tests: a node, an image and three people, in any database."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from argon2 import PasswordHasher
from cryptography.fernet import Fernet

from hutch.domain.ids import new_id
from hutch.domain.images import Image
from hutch.domain.limits import Holding
from hutch.domain.nodes import Capacity, EngineKind, Node, NodeState
from hutch.domain.people import Actor, Role, User
from hutch.engine.simulated import SimulatedEngine
from hutch.services import tokens
from hutch.services.context import Context, Engines, utc_now
from hutch.services.vault import Vault, new_password
from hutch.settings import Settings
from hutch.store import images, nodes, users
from hutch.store.db import Database

PEOPLE = {"alice": Role.MEMBER, "bob": Role.MEMBER, "ada": Role.ADMIN}
CAPACITY = Capacity(cpus=64, memory=256 * 1024**3, disk=4 * 1024**4)

REAL_HASHER, REAL_NOBODY = tokens._hasher, tokens._NOBODY
# Every sign-in of a test would take 64 MiB and a processor for as long as it may.
tokens._hasher = PasswordHasher(time_cost=1, memory_cost=64, parallelism=1)
tokens._NOBODY = tokens._hasher.hash(new_password())


class Clock:
    """The time, which a test can stop, put forward and put back. It runs until it is stopped."""

    def __init__(self) -> None:
        self._offset = timedelta(0)
        self._stopped: datetime | None = None

    def reset(self) -> None:
        """Be right again."""
        self._offset, self._stopped = timedelta(0), None

    def __call__(self) -> datetime:
        return (self._stopped or utc_now()) + self._offset

    def stop(self, at: datetime = datetime(2026, 3, 1, 12, tzinfo=UTC)) -> datetime:
        """Stand still at a moment; `forward` and `back` still move it."""
        self._stopped, self._offset = at, timedelta(0)
        return at

    def forward(self, **how_far: float) -> datetime:
        """Put the clock forward: `clock.forward(minutes=5)`."""
        self._offset += timedelta(**how_far)
        return self()

    def back(self, **how_far: float) -> datetime:
        self._offset -= timedelta(**how_far)
        return self()


@dataclass
class Lab:
    """What `fill` put into a database."""

    node: Node
    image: Image
    actors: dict[str, Actor]


_made: dict[str, tuple[str, str]] = {}


async def passwords() -> dict[str, str]:
    """Everyone's password, made anew in each run of the tests; hashed once, for that is slow."""
    for name in PEOPLE.keys() - _made.keys():
        password = new_password()
        _made[name] = password, await tokens.hash_password(password)
    return {name: password for name, (password, _) in _made.items()}


async def fill(db: Database, engine_state: Path, default: Holding) -> Lab:
    """Add a node, the image `base` and the people. `default` is the lab's quota."""
    at = utc_now()
    await passwords()
    node = Node(
        id=new_id(),
        name="node1",
        engine=EngineKind.SIMULATED,
        url=f"file://{engine_state}",
        project="hutch",
        pool="hutch",
        network="hutchbr0",
        subnet="10.180.0.0/20",
        address="192.0.2.1",
        state=NodeState.ACTIVE,
        capacity=CAPACITY,
        disk_used=0,
        version="simulated",
        boot_id="first",
        seen_at=at,
        unreachable_since=None,
        created_at=at,
    )
    image = Image(new_id(), "base", "A plain Debian", 0, at)
    actors: dict[str, Actor] = {}
    async with db.write() as session:
        await nodes.add_node(session, node)
        await images.add_image(session, image)
        for name, role in PEOPLE.items():
            user = User(new_id(), name, role, None, at, 0, default)
            await users.add_user(session, user, _made[name][1])
            actors[name] = Actor(
                user.id, name, role, address="192.0.2.99", request_id=f"request-of-{name}"
            )
    return Lab(node, image, actors)


def open_context(
    url: str,
    data: Path,
    *,
    now: Callable[[], datetime] = utc_now,
    key: bytes | None = None,
    **settings: Any,
) -> Context:
    """A context on a database, as another server would have it. Close it with `close_context`."""
    return Context(
        db=Database(url),
        settings=Settings(data=data, database_url=url, **settings),
        vault=Vault(key or Fernet.generate_key()),
        engines=Engines(_open_engine),
        now=now,
    )


def with_settings(context: Context, **changes: Any) -> Context:
    """The same context under other settings."""
    return replace(context, settings=context.settings.model_copy(update=changes))


def _open_engine(node: Node) -> SimulatedEngine:
    return SimulatedEngine(Path(urlsplit(node.url).path), capacity=CAPACITY)


async def close_context(context: Context) -> None:
    await context.engines.close()
    await context.db.close()
