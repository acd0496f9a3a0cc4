"""People."""

from typing import Any

from sqlalchemy import Select, case, func, select, update
from sqlalchemy.exc import IntegrityError

from hutch.domain.instances import InstanceState
from hutch.domain.leases import LeaseState
from hutch.domain.limits import NOTHING, Holding
from hutch.domain.people import Role, User
from hutch.errors import NameTakenError
from hutch.store.db import Session
from hutch.store.tables import instances, leases, users

# What could not be made holds its name and its port until it is deleted: it counts as one.
_made = instances.c.state != InstanceState.FAILED.value
_held = (
    func.count(),
    func.coalesce(func.sum(case((_made, instances.c.cpus), else_=0)), 0),
    func.coalesce(func.sum(case((_made, instances.c.memory), else_=0)), 0),
    func.coalesce(func.sum(case((_made, instances.c.disk), else_=0)), 0),
)
# What is waited for counts as well: nobody queues for more than they may hold.
_live = leases.c.state != LeaseState.ENDED.value
_accelerators = func.coalesce(func.sum(leases.c.count), 0)


def _select() -> Select[Any]:
    return select(users)


def _user(row: Any, default: Holding) -> User:
    return User(
        id=row.id,
        name=row.name,
        role=Role(row.role),
        disabled_at=row.disabled_at,
        created_at=row.created_at,
        keys_version=row.keys_version,
        quota=Holding(
            default.instances if row.quota_instances is None else row.quota_instances,
            default.cpus if row.quota_cpus is None else row.quota_cpus,
            default.memory if row.quota_memory is None else row.quota_memory,
            default.disk if row.quota_disk is None else row.quota_disk,
            default.accelerators if row.quota_accelerators is None else row.quota_accelerators,
        ),
        accelerators=row.quota_accelerators,
    )


async def add_user(session: Session, user: User, password_hash: str | None) -> None:
    """Insert a person with the lab's default quota. Raises NameTakenError."""
    try:
        await session.execute(
            users.insert().values(
                id=user.id,
                name=user.name,
                role=user.role.value,
                password_hash=password_hash,
                created_at=user.created_at,
                keys_version=0,
            )
        )
    except IntegrityError as error:
        raise NameTakenError("a person called", user.name) from error


async def get_user(session: Session, user_id: str, default: Holding) -> User | None:
    row = (await session.execute(_select().where(users.c.id == user_id))).one_or_none()
    return None if row is None else _user(row, default)


async def find_user(session: Session, name: str, default: Holding) -> User | None:
    row = (await session.execute(_select().where(users.c.name == name))).one_or_none()
    return None if row is None else _user(row, default)


async def exists(session: Session, name: str) -> bool:
    query = select(users.c.id).where(users.c.name == name)
    return (await session.execute(query)).one_or_none() is not None


async def list_users(session: Session, default: Holding) -> list[User]:
    rows = await session.execute(_select().order_by(users.c.name))
    return [_user(row, default) for row in rows]


async def password_hash(session: Session, user_id: str) -> str | None:
    query = select(users.c.password_hash).where(users.c.id == user_id)
    return (await session.execute(query)).scalar_one_or_none()


async def update_user(session: Session, user_id: str, **values: Any) -> None:
    """Change columns of one person."""
    await session.execute(update(users).where(users.c.id == user_id).values(**values))


async def count_admins(session: Session) -> int:
    """Administrators who can sign in."""
    query = (
        select(func.count())
        .select_from(users)
        .where(users.c.role == Role.ADMIN.value, users.c.disabled_at.is_(None))
    )
    return (await session.execute(query)).scalar_one()


async def lock_user(session: Session, user_id: str) -> None:
    """Make concurrent grants to one person take turns until this transaction ends."""
    await session.execute(select(users.c.id).where(users.c.id == user_id).with_for_update())


async def held(session: Session, user_id: str) -> Holding:
    """What a person's instances count for, running or stopped, and their live leases."""
    accelerators = select(_accelerators).where(leases.c.owner_id == user_id, _live)
    query = select(*_held, accelerators.scalar_subquery()).where(instances.c.owner_id == user_id)
    return Holding(*map(int, (await session.execute(query)).one()))


async def holdings(session: Session) -> dict[str, Holding]:
    """What everyone holds, by the person's id; who holds nothing is not named."""
    query = select(instances.c.owner_id, *_held).group_by(instances.c.owner_id)
    found = {owner: Holding(*map(int, of)) for owner, *of in await session.execute(query)}
    query = select(leases.c.owner_id, _accelerators).where(_live).group_by(leases.c.owner_id)
    for owner, count in await session.execute(query):
        found[owner] = found.get(owner, NOTHING).plus(Holding(0, 0, 0, 0, int(count)))
    return found
