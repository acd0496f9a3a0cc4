"""SSH keys of people."""

from collections.abc import Collection
from dataclasses import replace
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, delete, func, literal, select, update
from sqlalchemy.exc import IntegrityError

from hutch.domain.people import Role, SshKey
from hutch.errors import KeyTakenError
from hutch.store.db import Session, columns
from hutch.store.shares import lasting
from hutch.store.tables import instances, shares, ssh_keys, users


def _key(row: Any) -> SshKey:
    return SshKey(**columns(row))


async def add_key(session: Session, key: SshKey) -> None:
    """Insert a key. Raises KeyTakenError when anyone, the same person too, already has it."""
    try:
        await session.execute(
            ssh_keys.insert().values(
                id=key.id,
                user_id=key.user_id,
                title=key.title,
                type=key.type,
                public=key.public,
                fingerprint=key.fingerprint,
                created_at=key.created_at,
            )
        )
    except IntegrityError as error:
        raise KeyTakenError(
            "This key is already registered.",
            hint="A key belongs to one person. Make another one with `ssh-keygen -t ed25519`.",
            fingerprint=key.fingerprint,
        ) from error
    await bump(session, key.user_id)


async def delete_key(session: Session, key: SshKey) -> None:
    await session.execute(delete(ssh_keys).where(ssh_keys.c.id == key.id))
    await bump(session, key.user_id)


async def bump(session: Session, user_id: str) -> None:
    """Let every instance that the person's keys open know that they are other ones now."""
    await session.execute(
        update(users).where(users.c.id == user_id).values(keys_version=users.c.keys_version + 1)
    )
    # Those of others are counted apart: two people who share with each other, and change their
    # keys at once, would each wait for the other's row.
    shared = select(shares.c.instance_id).where(shares.c.user_id == user_id)
    await _bump_guests(session, instances.c.id.in_(shared))


async def bump_guests(session: Session, instance_id: str) -> None:
    """Let an instance know that the keys of its owner's guests are other ones now."""
    await _bump_guests(session, instances.c.id == instance_id)


async def _bump_guests(session: Session, which: ColumnElement[bool]) -> None:
    await session.execute(
        update(instances).where(which).values(guests_version=instances.c.guests_version + 1)
    )


async def keys_into(session: Session, instance_id: str, now: datetime) -> list[SshKey]:
    """The keys that open an instance: its owner's and those of whom they let log in.

    Whoever is shut out has none.
    """
    allowed = (
        select(users.c.id, users.c.name, literal(1).label("is_guest"))
        .join(shares, shares.c.user_id == users.c.id)
        .where(
            shares.c.instance_id == instance_id,
            shares.c.read_only_view.is_(False),
            lasting(now),
            users.c.disabled_at.is_(None),
        )
        .union_all(
            select(users.c.id, users.c.name, literal(0))
            .join(instances, instances.c.owner_id == users.c.id)
            .where(instances.c.id == instance_id, users.c.disabled_at.is_(None))
        )
        .subquery()
    )
    query = (
        select(ssh_keys, allowed.c.name.label("person"), allowed.c.is_guest)
        .join(allowed, allowed.c.id == ssh_keys.c.user_id)
        .order_by(allowed.c.is_guest, allowed.c.name, ssh_keys.c.created_at, ssh_keys.c.id)
    )
    return [_known_by(row) for row in await session.execute(query)]


def _known_by(row: Any) -> SshKey:
    """A key, under its person's name too where that is not the owner's."""
    values = columns(row)
    person, is_guest = values.pop("person"), values.pop("is_guest")
    key = SshKey(**values)
    return replace(key, title=f"{person}: {key.title}") if is_guest else key


async def list_keys(session: Session, user_id: str) -> list[SshKey]:
    query = select(ssh_keys).where(ssh_keys.c.user_id == user_id).order_by(ssh_keys.c.created_at)
    return [_key(row) for row in await session.execute(query)]


async def get_key(session: Session, key_id: str) -> SshKey | None:
    row = (await session.execute(select(ssh_keys).where(ssh_keys.c.id == key_id))).one_or_none()
    return None if row is None else _key(row)


async def count_keys(session: Session, user_id: str) -> int:
    query = select(func.count()).select_from(ssh_keys).where(ssh_keys.c.user_id == user_id)
    return (await session.execute(query)).scalar_one()


async def holder(session: Session, fingerprint: str) -> tuple[str, str, Role] | None:
    """Whose key this is, unless they are disabled: user id, name, role."""
    query = (
        select(users.c.id, users.c.name, users.c.role)
        .join(ssh_keys, ssh_keys.c.user_id == users.c.id)
        .where(ssh_keys.c.fingerprint == fingerprint, users.c.disabled_at.is_(None))
    )
    row = (await session.execute(query)).one_or_none()
    return None if row is None else (row.id, row.name, Role(row.role))


async def holders(session: Session, fingerprints: Collection[str]) -> dict[str, str]:
    """The user id behind each of these keys that is still registered by somebody not disabled."""
    query = (
        select(ssh_keys.c.fingerprint, ssh_keys.c.user_id)
        .join(users, users.c.id == ssh_keys.c.user_id)
        .where(ssh_keys.c.fingerprint.in_(fingerprints), users.c.disabled_at.is_(None))
    )
    return {row.fingerprint: row.user_id for row in await session.execute(query)}
