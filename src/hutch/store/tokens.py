"""API tokens, and the failed sign-ins that slow a guesser down."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import bindparam, delete, func, select, update

from hutch.domain.people import Role, Scope, Token
from hutch.store.db import Session, columns
from hutch.store.tables import login_failures, memberships, tokens, users


def _token(row: Any) -> Token:
    values = columns(row, scope=Scope(row.scope))
    values.pop("digest")
    return Token(**values)


async def add_token(session: Session, token: Token, digest: bytes) -> None:
    await session.execute(
        tokens.insert().values(
            id=token.id,
            user_id=token.user_id,
            title=token.title,
            scope=token.scope.value,
            digest=digest,
            created_at=token.created_at,
            expires_at=token.expires_at,
            last_used_at=token.last_used_at,
        )
    )


# Asked at every request, so made once.
_HOLDER = (
    select(
        users.c.id,
        users.c.name,
        users.c.role,
        tokens.c.scope,
        tokens.c.id.label("token_id"),
        tokens.c.last_used_at,
        memberships.c.group_id.label("manages"),
    )
    .join(users, users.c.id == tokens.c.user_id)
    .outerjoin(
        memberships, (memberships.c.user_id == users.c.id) & memberships.c.is_manager.is_(True)
    )
    .where(
        users.c.disabled_at.is_(None),
        (tokens.c.expires_at.is_(None)) | (tokens.c.expires_at > bindparam("at")),
    )
)
_BY_DIGEST = _HOLDER.where(tokens.c.digest == bindparam("wanted"))
_BY_ID = _HOLDER.where(tokens.c.id == bindparam("wanted"))


async def holder(
    session: Session, wanted: bytes | str, now: datetime
) -> tuple[str, str, Role, Scope, str, datetime | None, str | None] | None:
    """Who may act with a token: user id, name, role, scope, token id, last use, the group managed.

    It is known by its digest, or by its id. None when it is unknown or expired, or its owner
    disabled.
    """
    query = _BY_DIGEST if isinstance(wanted, bytes) else _BY_ID
    row = (await session.execute(query, {"wanted": wanted, "at": now})).one_or_none()
    if row is None:
        return None
    user_id, name, role, scope, token_id, used, manages = row
    return user_id, name, Role(role), Scope(scope), token_id, used, manages


@dataclass(frozen=True, slots=True)
class Bearer:
    """What a person may at the moment, who once came with a token."""

    user_id: str
    role: Role


async def alive(session: Session, token_ids: Collection[str], now: datetime) -> dict[str, Bearer]:
    """Those of the tokens that may still be used, and by whom."""
    query = (
        select(tokens.c.id, users.c.id.label("user_id"), users.c.role)
        .join(users, users.c.id == tokens.c.user_id)
        .where(
            tokens.c.id.in_(token_ids),
            users.c.disabled_at.is_(None),
            (tokens.c.expires_at.is_(None)) | (tokens.c.expires_at > now),
        )
    )
    rows = await session.execute(query)
    return {row.id: Bearer(row.user_id, Role(row.role)) for row in rows}


async def touch_token(session: Session, token_id: str, now: datetime) -> None:
    await session.execute(update(tokens).where(tokens.c.id == token_id).values(last_used_at=now))


async def list_tokens(session: Session, user_id: str) -> list[Token]:
    query = select(tokens).where(tokens.c.user_id == user_id).order_by(tokens.c.created_at)
    return [_token(row) for row in await session.execute(query)]


async def get_token(session: Session, token_id: str) -> Token | None:
    row = (await session.execute(select(tokens).where(tokens.c.id == token_id))).one_or_none()
    return None if row is None else _token(row)


async def delete_token(session: Session, token_id: str) -> None:
    await session.execute(delete(tokens).where(tokens.c.id == token_id))


async def set_end(session: Session, token_ids: Collection[str], at: datetime) -> None:
    await session.execute(update(tokens).where(tokens.c.id.in_(token_ids)).values(expires_at=at))


async def delete_these(session: Session, token_ids: Collection[str]) -> None:
    await session.execute(delete(tokens).where(tokens.c.id.in_(token_ids)))


async def delete_tokens_of(session: Session, user_id: str, keep: str | None = None) -> None:
    """Remove a person's tokens, all but the one with the id `keep`."""
    await session.execute(
        delete(tokens).where(tokens.c.user_id == user_id, tokens.c.id != (keep or ""))
    )


async def delete_expired(session: Session, before: datetime) -> int:
    """Remove tokens that expired before a moment; how many there were."""
    return (await session.execute(delete(tokens).where(tokens.c.expires_at < before))).rowcount


async def add_failure(session: Session, subject: str, at: datetime) -> None:
    await session.execute(login_failures.insert().values(subject=subject, at=at))


async def count_failures(
    session: Session, subject: str, since: datetime, until: datetime
) -> tuple[int, datetime | None]:
    """Failed sign-ins of a subject after `since`, and the moment of the oldest of them.

    What lies after `until` is left out: a clock that was set back must not lock anyone out.
    """
    query = select(func.count(), func.min(login_failures.c.at)).where(
        login_failures.c.subject == subject,
        login_failures.c.at > since,
        login_failures.c.at <= until,
    )
    count, oldest = (await session.execute(query)).one()
    return int(count), oldest


async def forget_failures(session: Session, subject: str) -> None:
    await session.execute(delete(login_failures).where(login_failures.c.subject == subject))


async def delete_failures(session: Session, before: datetime) -> None:
    await session.execute(delete(login_failures).where(login_failures.c.at < before))
