"""SSH keys of people."""

from typing import Any

from sqlalchemy import delete, func, select, update
from sqlalchemy.exc import IntegrityError

from hutch.domain.people import SshKey
from hutch.errors import KeyTakenError
from hutch.store.db import Session, columns
from hutch.store.tables import ssh_keys, users


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
    """Let the person's instances know that their keys are other ones now."""
    await session.execute(
        update(users).where(users.c.id == user_id).values(keys_version=users.c.keys_version + 1)
    )


async def list_keys(session: Session, user_id: str) -> list[SshKey]:
    query = select(ssh_keys).where(ssh_keys.c.user_id == user_id).order_by(ssh_keys.c.created_at)
    return [_key(row) for row in await session.execute(query)]


async def get_key(session: Session, key_id: str) -> SshKey | None:
    row = (await session.execute(select(ssh_keys).where(ssh_keys.c.id == key_id))).one_or_none()
    return None if row is None else _key(row)


async def count_keys(session: Session, user_id: str) -> int:
    query = select(func.count()).select_from(ssh_keys).where(ssh_keys.c.user_id == user_id)
    return (await session.execute(query)).scalar_one()
