"""People, as administrators keep them, and what everyone may know of themself."""

import re
from typing import Any

from hutch.domain import names
from hutch.domain.ids import new_id
from hutch.domain.leases import EndReason
from hutch.domain.limits import Holding
from hutch.domain.people import Actor, Role, User
from hutch.domain.permissions import Action
from hutch.domain.sizes import LARGEST
from hutch.errors import (
    BadLoginError,
    ConflictError,
    InvalidLimitError,
    NotFoundError,
    WeakPasswordError,
)
from hutch.services import scheduling
from hutch.services import tokens as sign_in
from hutch.services.access import require
from hutch.services.context import Context
from hutch.services.keys import push_keys
from hutch.services.transitions import end_all
from hutch.services.vault import new_password
from hutch.store import events, keys, leases, tokens, users
from hutch.store.db import Session, lock

LEAST_PASSWORD = 10
_MOST = {
    "quota_instances": 1_000_000,
    "quota_cpus": 1_000_000,
    "quota_memory": LARGEST,
    "quota_disk": LARGEST,
    "quota_accelerators": 100_000,
}


async def add(
    context: Context, actor: Actor, name: str, role: Role, password: str | None = None
) -> tuple[User, str]:
    """Add a person; the answer's password is generated when none is given, and shown this once."""
    require(actor, Action.USER_WRITE)
    names.user_name(name)
    password = _checked(password) if password is not None else new_password()
    hashed = await sign_in.hash_password(password)
    user = User(
        id=new_id(),
        name=name,
        role=role,
        disabled_at=None,
        created_at=context.now(),
        keys_version=0,
        quota=context.settings.default_quota,
    )
    async with context.db.write() as session:
        await users.add_user(session, user, hashed)
        await _record(session, context, actor, "user.add", user, role=role.value)
    return user, password


def _checked(password: str) -> str:
    # Length is what protects (NIST SP 800-63B); the rest keeps out the few that are guessed first.
    if not LEAST_PASSWORD <= len(password) <= sign_in.LONGEST_PASSWORD:
        raise WeakPasswordError(
            f"A password has {LEAST_PASSWORD} to {sign_in.LONGEST_PASSWORD} characters.",
            hint="Three or four words in a row are easy to remember.",
        )
    if not password.isprintable():
        raise WeakPasswordError(
            "A password is made of letters, digits, signs and spaces.", hint="Type it, plainly."
        )
    if len(set(password)) < 4 or re.fullmatch(
        r"(?i)(password|hutch|qwerty|12345)[0-9!]*", password
    ):
        raise WeakPasswordError("This password would be guessed at once.", hint="Choose another.")
    return password


async def list_all(context: Context, actor: Actor) -> list[tuple[User, Holding]]:
    """Everyone, with what each holds."""
    require(actor, Action.USER_READ)
    async with context.db.read() as session:
        everyone = await users.list_users(session, context.settings.default_quota)
        held = await users.holdings(session)
    return [(user, held.get(user.id, Holding(0, 0, 0, 0))) for user in everyone]


async def me(context: Context, actor: Actor) -> tuple[User, Holding]:
    """Oneself, with what one holds and may hold."""
    require(actor, Action.PROFILE_READ, actor.user_id)
    async with context.db.read() as session:
        user = await users.get_user(session, actor.user_id, context.settings.default_quota)
        held = await users.held(session, actor.user_id)
    if user is None:
        raise NotFoundError("user", actor.name)
    return user, held


async def show(context: Context, actor: Actor, name: str) -> tuple[User, Holding]:
    require(actor, Action.USER_READ)
    async with context.db.read() as session:
        user = await _find(session, context, name)
        return user, await users.held(session, user.id)


async def disable(context: Context, actor: Actor, name: str) -> User:
    """Shut a person out: their tokens end and their SSH keys leave their instances.

    The instances run on, and everything on them stays. Their leases end at once, also those that
    hold accelerators: nobody can use them any more.
    """
    require(actor, Action.USER_WRITE)
    async with context.db.write() as session:
        await leases.lock_leases(session)
        user = await _find(session, context, name)
        await _keep_an_admin(session, user)
        await users.update_user(session, user.id, disabled_at=context.now())
        await tokens.delete_tokens_of(session, user.id)
        await keys.bump(session, user.id)
        await push_keys(session, context, actor, user.id)
        ended = await end_all(session, context, actor, EndReason.RELEASED, owner_id=user.id)
        await _record(session, context, actor, "user.disable", user)
        user = await _find(session, context, name)
    context.hints.work.set()
    if ended:
        scheduling.poke(context)
    return user


async def enable(context: Context, actor: Actor, name: str) -> User:
    require(actor, Action.USER_WRITE)
    async with context.db.write() as session:
        user = await _find(session, context, name)
        await users.update_user(session, user.id, disabled_at=None)
        await keys.bump(session, user.id)
        await push_keys(session, context, actor, user.id)
        await _record(session, context, actor, "user.enable", user)
        user = await _find(session, context, name)
    context.hints.work.set()
    return user


async def reset_password(context: Context, actor: Actor, name: str) -> str:
    """A new generated password, shown this once; every token of the person ends."""
    require(actor, Action.USER_WRITE)
    password = new_password()
    hashed = await sign_in.hash_password(password)
    async with context.db.write() as session:
        user = await _find(session, context, name)
        await users.update_user(session, user.id, password_hash=hashed)
        await tokens.delete_tokens_of(session, user.id)
        await tokens.forget_failures(session, sign_in.name_subject(user.name))
        await _record(session, context, actor, "user.reset_password", user)
    return password


async def change_password(context: Context, actor: Actor, old: str, new: str) -> None:
    """Change one's own password, and end every other sign-in.

    Raises BadLoginError when `old` is not it.
    """
    require(actor, Action.PROFILE_WRITE, actor.user_id)
    _checked(new)
    await sign_in.check_password(context, actor, old)
    hashed = await sign_in.hash_password(new)
    async with context.db.write() as session:
        user = await users.get_user(session, actor.user_id, context.settings.default_quota)
        if user is None:
            raise BadLoginError
        await users.update_user(session, user.id, password_hash=hashed)
        await tokens.delete_tokens_of(session, user.id, keep=actor.token_id)
        await _record(session, context, actor, "user.change_password", user)


async def configure(
    context: Context,
    actor: Actor,
    name: str,
    *,
    role: Role | None = None,
    instances: int | None = None,
    cpus: int | None = None,
    memory: int | None = None,
    disk: int | None = None,
    accelerators: int | None = None,
) -> User:
    """Change a person's role or quota; what is None stays.

    A quota below what the person holds takes nothing away: nothing more is granted.
    """
    require(actor, Action.USER_WRITE)
    quota = {
        "quota_instances": instances,
        "quota_cpus": cpus,
        "quota_memory": memory,
        "quota_disk": disk,
        "quota_accelerators": accelerators,
    }
    changes: dict[str, object] = {key: value for key, value in quota.items() if value is not None}
    for key, value in changes.items():
        if isinstance(value, int) and not 0 <= value <= _MOST[key]:
            raise InvalidLimitError(key.removeprefix("quota_"), str(value), f"0 to {_MOST[key]}")
    async with context.db.write() as session:
        user = await _find(session, context, name)
        if role is not None and role is not user.role:
            if role is not Role.ADMIN:
                await _keep_an_admin(session, user)
            changes["role"] = role.value
        if changes:
            await users.update_user(session, user.id, **changes)
            await _record(session, context, actor, "user.configure", user, changes=changes)
        user = await _find(session, context, name)
    if accelerators is not None:
        scheduling.poke(context)
    return user


async def _find(session: Session, context: Context, name: str) -> User:
    user = await users.find_user(session, name, context.settings.default_quota)
    if user is None:
        raise NotFoundError("user", name)
    return user


async def _keep_an_admin(session: Session, user: User) -> None:
    await lock(session, "admins")
    is_last = user.role is Role.ADMIN and user.disabled_at is None
    if is_last and await users.count_admins(session) == 1:
        raise ConflictError(
            f"{user.name} is the last administrator.",
            hint="Make somebody else an administrator first.",
        )


async def _record(
    session: Session, context: Context, actor: Actor, action: str, user: User, **detail: Any
) -> None:
    await events.record(
        session,
        actor,
        context.now(),
        action,
        ("user", user.id, user.name),
        owner_id=user.id,
        **detail,
    )
